"""What colour images among the scenes keep of what a network of natural images knew.

    python benchmarks/study/real_pixels_replay.py            # trains what is not recorded yet
    python benchmarks/study/real_pixels_replay.py --draw     # page and figure from the records

Tiles, folds, start, settings and rate are those of `real_pixels.py`. SoftCon is trained with shares
of scenes seen in red, green and blue alone (`augment.rgb_probability`), and held-out tiles are
looked at on the way twice: with all bands, the new domain, and in colours alone, the old one, which
is to the start what the colour image was to the network before its input layer was adapted. The
records are `study_real_pixels_replay.jsonl`, the page is `study_real_pixels_replay.md`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from fitting import fit
from real_pixels import (
    CURVE,
    STEPS,
    STUDY,
    Arm,
    Study,
    chosen_rate,
    embed,
    facts,
    fold_parser,
    objective_of,
    open_study,
    prepared,
    retrieval,
)
from real_pixels_tiles import BATCH
from records import (
    RESULTS,
    Record,
    append_record,
    intervals_in,
    read_records,
    recorded,
    signed,
    table,
)
from torch import Tensor

from eofm.contract.imagery import Imagery
from eofm.loading.views import colours_alone
from eofm.report import output
from eofm.train.module import PretrainModule

NAME: Final = "study_real_pixels_replay"
SHARES: Final = (0.0, 0.05, 0.25)
DOMAINS: Final = ("all bands", "colours alone")


def in_both_domains(
    module: PretrainModule, images: Sequence[Imagery], y: Tensor
) -> tuple[float, ...]:
    """Return retrieval with all bands and in colours alone."""

    def without_other_bands(pixels: Tensor) -> Tensor:
        every = torch.ones(len(pixels), dtype=torch.bool)
        return colours_alone(pixels, module.recipe.bands, every)

    views = None, without_other_bands
    return tuple(retrieval(embed(module, images, view), y) for view in views)


def run(study: Study, share: float, fold: int, rate: float) -> dict[str, object]:
    """Train with a share of colour images in one fold, and return the record."""
    cpu = time.process_time()
    arm = Arm("softcon", {"augment.rgb_probability": share})
    config = study.config(arm, 0, fold, rate)
    curve = study.curve(fold, in_both_domains, steps=(*CURVE, STEPS))
    data, module = prepared(config)
    curve.evaluate(0, module)
    fit(config, data, module, precision=config.trainer.precision, callbacks=[curve])
    print(f"{share}, fold {fold}: {curve.points}", flush=True)
    return {"share": share, "fold": fold, "curve": curve.points, **facts(config, cpu)}


# ------------------------------------------------------------------------------------ the page

_HEAD: Final = f"""# Colour images among the scenes

    python benchmarks/study/real_pixels_replay.py

Data, folds, start, settings and rate are those of [study_real_pixels.md](study_real_pixels.md): the
270 real EuroSAT tiles in five folds, a ViT-S/14 of natural images cut after seven blocks, its input
layer copied by `rgb-nearest`, trained further by SoftCon for {STEPS} steps of batch {BATCH} at 56
px. Nothing here is synthetic. `augment.rgb_probability` is the share of scenes that are seen in
red, green and blue alone.

Retrieval (mAP x 100) of each held-out tile's class among the held-out tiles of its fold, with all
bands (the new domain) and in colours alone (the old one: to the start, such a tile is what its
colour image was to the network of natural images). Differences from the same fold's start, and
from the run without colour images, with the 95 % t interval over folds, each with a seed of its
own; **bold** where it excludes 0, of {{count}} differences. The shares were fixed before a run.
"""
_LIMITS: Final = """Not concluded: one start, 216 tiles, 120 steps at a small rate. A longer run or
a higher rate forgets more, and colour images may be worth more there. The old domain is seen by
tiles of the same kind, not by photographs.
"""


def curves(records: Sequence[Record]) -> dict[float, dict[int, dict[int, tuple[float, float]]]]:
    """Return share -> fold -> step -> retrieval x 100 in both domains."""
    found: dict[float, dict[int, dict[int, tuple[float, float]]]] = {}
    for row in records:
        curve = {step: (100 * new, 100 * old) for step, new, old in row["curve"]}
        found.setdefault(row["share"], {})[row["fold"]] = curve
    return found


def page(records: Sequence[Record]) -> str:
    """Return the page."""
    found = curves(records)
    plain = found.get(0.0, {})
    head = ["share", "folds"]
    for domain in DOMAINS:
        head += [domain, "over its start", "lowest on the way, over its start", "over share 0"]
    rows = []
    for share, folds in sorted(found.items()):
        cells = [f"{share:g}", str(len(folds))]
        for i in range(len(DOMAINS)):
            mean = np.mean([curve[STEPS][i] for curve in folds.values()])
            lowest = [min(at[i] for at in c.values()) - c[0][i] for c in folds.values()]
            cells += [
                f"{mean:.1f}",
                signed([curve[STEPS][i] - curve[0][i] for curve in folds.values()]),
                f"{np.mean(lowest):+.1f}",
                ""
                if share == 0
                else signed([c[STEPS][i] - plain[f][STEPS][i] for f, c in folds.items()]),
            ]
        rows.append(cells)
    figure = f"![retrieval on the way in both domains]({NAME}.png)"
    text = _HEAD.format(count=intervals_in(rows))
    return "\n".join([text, *table(head, rows, names=0), "", figure, "", _LIMITS])


@output.styled
def figure(records: Sequence[Record]) -> output.Figure:
    """Draw retrieval over the steps, a panel for each domain: means over folds."""
    found = curves(records)
    made = output.new_figure(8.4, 3.0)
    panels = made.subplots(1, 2)
    for i, (axes, domain) in enumerate(zip(panels, DOMAINS, strict=True)):
        for number, (share, folds) in enumerate(sorted(found.items())):
            steps = sorted(next(iter(folds.values())))
            means = [float(np.mean([curve[step][i] for curve in folds.values()])) for step in steps]
            style = {"color": output.colour(number), "marker": output.marker(number)}
            axes.plot(steps, means, ms=3.5, lw=1.3, label=f"share {share:g}", **style)
        axes.set_title(domain)
        axes.set_xlabel("optimiser steps")
        axes.grid(axis="y")
    panels[0].set_ylabel("retrieval, mAP x 100")
    panels[1].legend(fontsize=8)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or draw."""
    options = fold_parser(__doc__).parse_args(argv)
    own = options.out / f"{NAME}.jsonl"
    if not options.draw:
        study = open_study(options, NAME)
        rate = chosen_rate(read_records(RESULTS / f"{STUDY}.jsonl"), objective_of(Arm("softcon")))
        for fold in options.folds:  # so that a study that is stopped has whole folds
            for share in SHARES:
                if (share, fold) not in recorded(own, "share", "fold"):
                    append_record(own, run(study, share, fold, rate))
    if records := read_records(own):
        (options.out / f"{NAME}.md").write_text(page(records), encoding="utf-8")
        output.save(figure(records), options.out / f"{NAME}.png")


if __name__ == "__main__":
    main()
