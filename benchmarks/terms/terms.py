"""What each term of an objective is worth: one table, its own start and controls, several seeds.

    python benchmarks/terms/terms.py                        # trains what is not recorded; hours
    python benchmarks/terms/terms.py --arms mim cropmae     # some of it
    python benchmarks/terms/terms.py --draw                 # table and figure from the records

All imagery is SYNTHETIC (`eofm/world`). Every run is one of `eofm pretrain` from random weights,
one after the other in this process and without its folder, all of as many steps (but for one line
of twice as many). Then, on held-out places:

- the frozen student: a linear probe and the nearest neighbours of its vector, as in every run, the
  effective rank of its vectors within a class, and a linear layer from its patches to the classes
  of the land-cover map (mean IoU); of runs on two sensors also the vector of the radar image;
- the term itself: error of hidden pixels before and after training, as a share of the error of the
  patch mean (1 is the floor of knowing nothing), and with another place's view in the partner's
  place: a term that looks at its partner is worse with a wrong one.

A term is one line of `ARMS`. A run that is recorded is not made again. The page and the figure are
made by `terms_page.py`.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor

from eofm.bench.controls import image_statistics
from eofm.bench.segmentation import (
    Contrast,
    PatchHead,
    class_shares,
    classes_of_patches,
    evaluate,
    mean_iou,
    prompts_of,
)
from eofm.cli import parse
from eofm.contract.prepare import preprocess_for
from eofm.contract.recipe import Recipe
from eofm.datasets.images.dense import VOID
from eofm.landcover.schemes import SCHEMES
from eofm.probes.features import within_class_rank
from eofm.store.reader import Store
from eofm.train.config import PretrainConfig
from eofm.train.datamodule import StoreDataModule, iterate_rows
from eofm.train.distributed import ProcessPlace
from eofm.train.evaluate import INIT, export_trunk, probe
from eofm.train.module import PretrainModule
from eofm.train.run import prepare
from eofm.weights.encoder import Encoder, make_card

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "study"))

from fitting import fit  # noqa: E402 (what all studies share)
from records import (  # noqa: E402
    Record,
    append_record,
    interval,
    intervals_in,
    read_records,
    recorded,
    signed,
    study_parser,
    table,
)

__all__ = [  # for terms_page.py, which does not know that folder
    "ARMS",
    "BASE",
    "NAME",
    "STATISTICS",
    "Arm",
    "Record",
    "interval",
    "intervals_in",
    "signed",
    "table",
]

NAME: Final = "terms"
BASE: Final = "softcon"
STATISTICS: Final = "52 image statistics"
STRENGTHS: Final = tuple(10.0**n for n in range(-1, 6))  # of the ridge from patches to classes
CODES: Final = len(SCHEMES["dynamic-world"].classes)


@dataclass(frozen=True)
class Arm:
    """One line of the table.

    Args:
        name: Of the line.
        terms: Of the objective, with weights or settings.
        options: What else differs: option of `eofm pretrain` -> value.
        partner: Which view is exchanged between places as the control; None where the term looks
            at one view alone.
        pixels: Name of the term whose error of pixels is measured; "" for none.
        against: The line that it is compared with: that of the same views.
        longer: How many times as many steps it takes as the others.
    """

    name: str
    terms: Mapping[str, object]
    options: Mapping[str, str] = field(default_factory=dict)
    partner: int | None = None
    pixels: str = ""
    against: str = BASE
    longer: int = 1


# In the terms of a line: the folder of the run of `BASE` with the same seed.
_FIRST_RUN: Final = "the run of softcon"
_HARD: Final = {"method.objective": "moco"}
_NESTED: Final = {"data.views": "nested"}
_SEASONS: Final = {"data.views": "seasons", "augment.season_pair": "same"}
# both directions: one would train the input layer of one sensor alone
_SENSORS: Final = {"data.views": "sensors", "method.symmetric": "true"}
# in proportion to a vit-tiny: the decoders of the papers have more weights than it
_SMALL: Final = {
    "decoder_width": 128, "decoder_depth": 2, "decoder_heads": 4, "decoder_hidden": 512,
}  # fmt: skip
_MIM: Final = {"cls_weight": 0.0, **_SMALL}
_PLAIN: Final = {**_NESTED, "augment.colour_probability": "0", "augment.blur_probability": "0"}
_LOOK: Final = {"neighbours": 16, "queue": 512}
_DISTILL: Final = {"teacher": _FIRST_RUN, "queue": 512}
_KEPT: Final = {"teacher": _FIRST_RUN}
_OF_SEASONS, _OF_SENSORS, _OF_NESTED = "softcon, seasons", "moco, both sensors", "softcon, nested"
ARMS: Final = (
    Arm("moco-v3, dense", {"softcon": 1}, {**_HARD, "method.mask_ratio": "0"}),
    Arm("softcon, hard term alone", {"softcon": 1}, _HARD),
    Arm(BASE, {"softcon": 1}),
    Arm("softcon, twice the steps", {"softcon": 1}, longer=2),
    Arm("mim", {"mim": _MIM}, pixels="mim"),
    Arm("softcon + mim", {"softcon": 1, "mim": _MIM}, pixels="mim"),
    Arm("look", {"look": _LOOK}),
    Arm("softcon + look", {"softcon": 1, "look": _LOOK}),
    Arm("multilabel", {"multilabel": 1}),
    Arm("softcon + multilabel", {"softcon": 1, "multilabel": 1}),
    Arm("hallucinate", {"hallucinate": 1}),
    Arm("softcon + hallucinate", {"softcon": 1, "hallucinate": 0.5}),
    Arm("distill", {"distill": _DISTILL}),
    Arm("softcon + distill", {"softcon": 1, "distill": _DISTILL}),
    Arm("self_distill", {"self_distill": _KEPT}),
    Arm("softcon + self_distill", {"softcon": 1, "self_distill": _KEPT}),
    Arm(_OF_NESTED, {"softcon": 1}, _NESTED),
    Arm("cropmae", {"cropmae": _SMALL}, _PLAIN, 0, "cropmae", _OF_NESTED),
    Arm(
        "softcon + cropmae",
        {"softcon": 1, "cropmae": _SMALL},
        _NESTED,
        partner=0,
        pixels="cropmae",
        against=_OF_NESTED,
    ),
    Arm(_OF_SEASONS, {"softcon": 1}, _SEASONS),
    Arm("croco, seasons", {"croco": _SMALL}, _SEASONS, 1, "croco", _OF_SEASONS),
    Arm(
        "softcon + croco, seasons",
        {"softcon": 1, "croco": _SMALL},
        _SEASONS,
        partner=1,
        pixels="croco",
        against=_OF_SEASONS,
    ),
    Arm(_OF_SENSORS, {"softcon": 1}, {**_HARD, **_SENSORS}),
    Arm("distill, both sensors", {"distill": _DISTILL}, _SENSORS, against=_OF_SENSORS),
)


@dataclass(frozen=True)
class Size:
    """How large the runs are.

    Args:
        world: Folder of the synthetic world.
        scenes: Places in it.
        window: Side of its scenes in pixels.
        architecture: Of the network.
        image: Side of a view in pixels.
        epochs: Passes over the places.
        batch: Scenes of a step.
        lr: Peak learning rate per 256 scenes, the same in all lines.
        work: Folder of the networks that are frozen teachers.
    """

    world: Path
    scenes: int
    window: int
    architecture: str
    image: int
    epochs: int
    batch: int
    lr: float
    work: Path

    def folder(self, arm: Arm, seed: int) -> Path:
        """Return the folder of a run."""
        return self.work / f"{arm.name}-{seed}".replace(" ", "_").replace(",", "")


def command(arm: Arm, seed: int, size: Size) -> list[str]:
    """Return the words of a run."""
    seasons = arm.options.get("data.views", "").startswith("seasons")
    # a place with two seasons counts once in an epoch: of four seasons a quarter of the steps
    epochs = size.epochs * (4 if seasons else 1) * arm.longer
    terms = json.dumps(dict(arm.terms))
    options = {
        "data.world": str(size.world),
        "data.scenes": str(size.scenes),
        "data.size": str(size.window),
        "model.architecture": size.architecture,
        "model.size": str(size.image),
        "optim.batch": str(size.batch),
        "optim.epochs": str(epochs),
        "optim.lr": str(size.lr),
        "optim.seed": str(seed),
        "method.symmetric": "false",  # one direction, as in the paper's figure: half the time
        "method.soft_weight": "10",
        "method.soft_unit": "plain",
        "monitor.every_epochs": "0",
        "run.threads": "1",
        **arm.options,
        "method.terms": terms.replace(_FIRST_RUN, str(size.folder(_arm(BASE), seed))),
    }
    return ["eofm", "pretrain", *(w for each in options.items() for w in (f"--{each[0]}", each[1]))]


def _arm(name: str) -> Arm:
    """Return the line of a name."""
    return next(arm for arm in ARMS if arm.name == name)


# --------------------------------------------------------------------------- what a run is worth


def held_out(data: StoreDataModule, batch: int) -> Iterator[list[int]]:
    """Yield rows of held-out scenes in batches; of seasons, two of each place in two halves."""
    rows = [*data.val_rows.tolist(), *data.test_rows.tolist()]
    if data.second_store is not None:
        rows = [row for row in rows if data.second_store.row_of[row] >= 0]
    if data.config.views == "seasons":
        places: dict[str, list[int]] = {}
        for row in rows:
            places.setdefault(str(data.store.locations[row]), []).append(row)
        pairs = [found[:2] for found in places.values() if len(found) > 1]
        for at in range(0, len(pairs), batch):
            part = pairs[at : at + batch]
            yield [one for one, _ in part] + [other for _, other in part]
        return
    for at in range(0, len(rows), batch):
        yield rows[at : at + batch]


@torch.no_grad()
def pixel_error(
    module: PretrainModule, data: StoreDataModule, term: str, exchanged: int | None
) -> float:
    """Return the error of hidden pixels as a share of that of the patch mean.

    The same views and masks at every call.

    Args:
        module: Of a run.
        data: Of the run.
        term: Whose error.
        exchanged: Which view is another place's; None for neither.
    """
    torch.manual_seed(0)
    masks = torch.Generator().manual_seed(0)
    error = floor = 0.0
    for rows in held_out(data, 64):
        native = data.images(rows)
        _, *views = module.two_views(native)
        count = len(views[0].pixels)
        if count < 2:
            continue
        pixels = [view.pixels for view in views]
        if exchanged is not None:
            pixels[exchanged] = pixels[exchanged].roll(1, 0)
        labels = data.labels[torch.tensor(rows)]
        scalars = module.method(
            (pixels[0], pixels[1]),
            module.of_views(labels),
            masks,
            lambda view, views=views: views[view].measured(),
        ).scalars
        error += count * float(scalars[f"{term}/error"])
        floor += count * float(scalars[f"{term}/floor"])
    return error / floor


@cache
def cover(path: Path) -> Tensor:
    """Return the land-cover map of a scene, int64 (H, W), `VOID` where nothing is known."""
    with rasterio.open(path) as file:
        codes = torch.from_numpy(file.read(1).astype(np.int64))
    return torch.where(codes < CODES, codes, VOID)


def covers(world: Path, data: StoreDataModule, rows: NDArray[np.int64]) -> Tensor:
    """Return the land-cover maps of scenes, int64 (N, H, W)."""
    folder = world / "scenes" / "dw"
    return torch.stack([cover(folder / f"{data.store.ids[row]}.tif") for row in rows])


@cache
def prepared(path: Path, rows: tuple[int, ...], recipe: Recipe) -> Tensor:
    """Return scenes of a store as a network expects them, (N, C, S, S): once for all lines."""
    parts = [
        preprocess_for(imagery.spec, recipe)(imagery).pixels
        for imagery in iterate_rows(Store(path), rows)
    ]
    return torch.cat(parts)


@torch.no_grad()
def tokens_of(encoder: Encoder, data: StoreDataModule, rows: NDArray[np.int64]) -> Tensor:
    """Return CLS and patch tokens of scenes, (N, 1 + P, D)."""
    store, its = data.seen_by(encoder.recipe.sensor, rows)
    pixels = prepared(store.path, tuple(its), encoder.recipe)
    return torch.cat([encoder.forward_features(part) for part in pixels.split(64)])


def patch_iou(
    tokens: Mapping[str, Tensor],
    grid: tuple[int, int],
    maps: Mapping[str, Tensor],
) -> float:
    """Return the mean IoU of a linear layer on the frozen patches of held-out scenes.

    Ridge regression of the share that each class has of a patch, on standardised tokens; its
    strength is the best of `STRENGTHS` on the other half of the held-out places.

    Args:
        tokens: Of the patches of training, validation and test scenes, (N, P, D) each.
        grid: Rows and columns of patches.
        maps: Classes of their pixels, (N, H, W) each.
    """
    shares, known = class_shares(maps["train"], grid, CODES)
    use = known >= 0.5
    x, y = tokens["train"][use].double(), shares[use].double()
    mean, std = x.mean(dim=0), x.std(dim=0).clamp_min(1e-9)
    x = (x - mean) / std
    gram, to_y = x.T @ x, x.T @ (y - y.mean(dim=0))
    heads = []
    for strength in STRENGTHS:
        weight = torch.linalg.solve(gram + strength * torch.eye(len(gram)), to_y) / std[:, None]
        bias = y.mean(dim=0) - mean @ weight
        heads.append(PatchHead(weight.float(), bias.float(), torch.arange(CODES)))

    def iou(some: Sequence[PatchHead], split: str) -> list[float]:
        found = evaluate(some, lambda: iter([(tokens[split], maps[split])]), grid, CODES)
        return [float(mean_iou(matrices.sum(dim=0))) for matrices in found]

    chosen = iou(heads, "val")
    return iou([heads[chosen.index(max(chosen))]], "test")[0]


def prompt_auroc(
    tokens: Tensor, grid: tuple[int, int], maps: Tensor, names: Sequence[str]
) -> float:
    """Return how well patches of a class find the others of their image, mean over classes.

    Args:
        tokens: Of the patches, (N, P, D).
        grid: Rows and columns of patches.
        maps: Classes of their pixels, (N, H, W).
        names: Of the scenes.
    """
    found: dict[int, list[float]] = {}
    unit = torch.nn.functional.normalize(tokens.double(), dim=2)
    for name, own, owner in zip(names, unit, classes_of_patches(maps, grid, CODES), strict=True):
        for label in range(CODES):
            one = Contrast.within(own, owner, prompts_of(owner, name, label), label)
            if one is not None:
                found.setdefault(label, []).append(one.auroc())
    return float(np.mean([np.mean(values) for values in found.values()])) if found else math.nan


def encoders_of(module: PretrainModule) -> dict[str, Encoder]:
    """Return the student as an encoder, of two sensors one of each, by the end of its name."""
    recipes = {"": module.recipe}
    if module.second_sensor is not None:
        recipes[f" {module.second_sensor.name}"] = module.second_sensor.recipe
    return {
        mark: Encoder(
            deepcopy(module.trunk("student", recipe.sensor)).eval(),
            make_card(module.card, recipe, "student"),
        )
        for mark, recipe in recipes.items()
    }


def scored(name: str, train_x: Tensor, test_x: Tensor, data: StoreDataModule) -> Record:
    """Return the scores of features of the training scenes and the held-out ones."""
    votes = probe(name, train_x, test_x, data.store, data, data.config.seed)
    target = data.store.labels(data.test_rows.tolist()).multi_hot.long()
    return asdict(votes.score(target))


def frozen_scores(name: str, module: PretrainModule, data: StoreDataModule, world: Path) -> Record:
    """Return what the student is worth: vectors of each sensor, patches of the optical one.

    Args:
        name: What it is called in the record.
        module: Of a run.
        data: Of the run.
        world: Has the land-cover maps.
    """
    rows = {"train": data.probe_rows, "val": data.val_rows, "test": data.test_rows}
    scores, of_patches, prompts, rank = [], math.nan, math.nan, math.nan
    for mark, encoder in encoders_of(module).items():
        tokens = {split: tokens_of(encoder, data, some) for split, some in rows.items()}
        scores.append(scored(f"{name}{mark}", tokens["train"][:, 0], tokens["test"][:, 0], data))
        if not mark:
            patches = {split: some[:, 1:] for split, some in tokens.items()}
            maps = {split: covers(world, data, some) for split, some in rows.items()}
            of_patches = patch_iou(patches, encoder.trunk.grid, maps)
            held = [*rows["val"].tolist(), *rows["test"].tolist()]
            both = [torch.cat([each["val"], each["test"]]) for each in (tokens, maps)]
            names = [data.store.ids[row] for row in held]
            prompts = prompt_auroc(both[0][:, 1:], encoder.trunk.grid, both[1], names)
            rank = within_class_rank(both[0][:, 0], data.store.labels(held).multi_hot)
    return {
        "scores": scores,
        "patch_iou": {name: of_patches},
        "prompts": {name: prompts},
        "within_rank": {name: rank},
    }


# ------------------------------------------------------------------------------------ the runs


def run(
    arm: Arm, seed: int, size: Size, records: Path, starts: dict[tuple[int, bool], Record]
) -> None:
    """Train, measure, and append the record.

    Args:
        arm: The line.
        seed: Of the run.
        size: Of the runs.
        records: File of one line per run.
        starts: What the networks of a seed, of one sensor or two, are worth before training: the
            same in all lines, measured once.
    """
    wall, cpu = time.monotonic(), time.process_time()
    words = command(arm, seed, size)
    config: PretrainConfig = parse("pretrain", words[2:])
    data, module, _ = prepare(config, ProcessPlace())
    start = (seed, module.second_sensor is not None)
    if start not in starts:
        starts[start] = frozen_scores(INIT, module, data, size.world)
    before = starts[start]
    pixels = {}
    if arm.pixels:
        pixels["before"] = pixel_error(module.eval(), data, arm.pixels, None)
    began, module = time.process_time(), module.train()
    steps = fit(config, data, module)
    spent = time.process_time() - began
    after = frozen_scores("student", module, data, size.world)
    if arm.pixels:
        pixels["after"] = pixel_error(module.eval(), data, arm.pixels, None)
        if arm.partner is not None:
            pixels["other place"] = pixel_error(module, data, arm.pixels, arm.partner)
    record = {
        "arm": arm.name,
        "seed": seed,
        "scores": [*before["scores"], *after["scores"]],
        **{
            name: {**before[name], **after[name]}
            for name in ("patch_iou", "prompts", "within_rank")
        },
        "pixels": pixels,
        "steps": steps,
        "scenes": {"train": len(data.train_rows), "held_out": len(data.test_rows)},
        "train_cpu_seconds": round(spent, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "synthetic": data.store.synthetic,
        "versions": {"eofm": version("eofm"), "torch": torch.__version__},
        "command": shlex.join(words),
    }
    if arm.name == BASE:  # the frozen teacher of other lines
        card = make_card(module.card, module.recipe, "student")
        export_trunk(module.trunk(), card, size.folder(arm, seed))
    append_record(records, record)
    sys.stderr.write(f"{arm.name}, seed {seed}: {time.monotonic() - wall:.0f} s\n")


def statistics(size: Size, records: Path) -> None:
    """Append the record of the control that sees no network, on the scenes of the runs."""
    data, _, _ = prepare(parse("pretrain", command(_arm(BASE), 0, size)[2:]), ProcessPlace())
    train_x, test_x = (
        torch.cat([image_statistics(imagery) for imagery in iterate_rows(data.store, rows)])
        for rows in (data.probe_rows.tolist(), data.test_rows.tolist())
    )
    scores = [{**scored(STATISTICS, train_x, test_x, data), "name": "student"}]
    append_record(records, {"arm": STATISTICS, "seed": 0, "scores": scores, "synthetic": True})


def main(words: Sequence[str] | None = None) -> None:
    """Train what is not recorded, and write table and figure."""
    parser = study_parser(__doc__)
    parser.add_argument("--arms", nargs="*", help="names of lines; all without it")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--world", type=Path, default=Path("worlds/terms"))
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--window", type=int, default=120)
    parser.add_argument("--architecture", default="vit-tiny-14")
    parser.add_argument("--image", type=int, default=112)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-3, help="peak rate per 256 scenes")
    parser.add_argument("--work", type=Path, default=Path("runs/terms"))
    asked = parser.parse_args(words)
    records = asked.out / f"{NAME}.jsonl"
    if not asked.draw:
        torch.set_num_threads(1)
        asked.out.mkdir(parents=True, exist_ok=True)
        size = Size(**{each.name: getattr(asked, each.name) for each in fields(Size)})
        starts: dict[tuple[int, bool], Record] = {}
        known = recorded(records, "arm", "seed")
        arms = [arm for arm in ARMS if not asked.arms or arm.name in asked.arms]
        for seed in asked.seeds:
            for arm in arms:
                if (arm.name, seed) not in known:
                    run(arm, seed, size, records, starts)
            if (STATISTICS, 0) not in known and BASE in [arm.name for arm in arms]:
                statistics(size, records)
                known.add((STATISTICS, 0))
    if found := read_records(records):
        from terms_page import draw

        draw(found, asked.out)


if __name__ == "__main__":
    main()
