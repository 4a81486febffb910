"""`eofm report`: the page about one run, and the page that compares several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from eofm.method import LabelSimilarity
from eofm.report import pages, plots
from eofm.report.pages import Block, Drawings, Page, Paragraph, Section, TableBlock, Tiles, Tone
from eofm.report.plots import Estimate, LinePanel
from eofm.report.tables import Table, TableRow, printable
from eofm.train import figures
from eofm.train.config import PretrainConfig, ReportConfig
from eofm.train.evaluate import own_starts
from eofm.train.figures import RunRecord, read_record
from eofm.train.monitor.guard import WARNINGS
from eofm.train.monitor.online import stability_gap
from eofm.train.monitor.throughput import clock

__all__ = ["WrittenPage", "comparison_of", "page_of", "report", "settings_table"]


@dataclass(frozen=True)
class WrittenPage:
    """The written page.

    Args:
        path: The HTML file.
        states: Name and state of each run.
    """

    path: Path
    states: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Return the path, and a line for each run."""
        lines = [*(f"{name}: {state}" for name, state in self.states), str(self.path)]
        return "\n".join(map(printable, lines))


def report(config: ReportConfig) -> WrittenPage:
    """Write a page about one run, or a page that compares several.

    Args:
        config: The settings, as on the command line.

    Raises:
        DataError: If a folder is not that of a run, or the page cannot be written.
    """
    records = [read_record(Path(run)) for run in config.runs]
    if len(records) == 1:
        page, name = page_of(records[0], config), "report.html"
    else:
        page, name = comparison_of(records), "comparison.html"
    path = Path(config.out) if config.out else records[0].folder.path / name
    states = tuple((record.name, record.state) for record in records)
    return WrittenPage(pages.save(page, path), states)


def _charts(made: Sequence[LinePanel]) -> tuple[Block, ...]:
    """Return panels as one block of figures; nothing if no panel has a curve."""
    drawn = tuple((panel.title, plots.lines([panel])) for panel in made if panel.curves)
    return (Drawings(drawn),) if drawn else ()


# ------------------------------------------------------------------------------------ one run


def page_of(record: RunRecord, config: ReportConfig) -> Page:
    """Return the page about one run.

    Args:
        record: Record of the run.
        config: Settings, such as which scenes to show.
    """
    tone = Tone.GOOD if record.finished else Tone.WARN if record.failure else Tone.PLAIN
    return Page(
        record.name,
        (
            Section("Result", _result(record)),
            Section("Training", _training(record)),
            Section("Held-out scenes, while it trained", _evaluations(record)),
            Section("Stability gap", _stability(record)),
            *_seen(record, config),
            Section("Throughput", _charts(figures.throughput_panels(record.throughput))),
            Section("Settings", (settings_table([record]), *_texts(record))),
        ),
        lead=_lead(record),
        verdict=record.state,
        tone=tone,
    )


def _objective(record: RunRecord) -> str:
    """Return the objective of a run, or its terms with their weights."""
    terms = record.setting("method", "terms", None)
    if not isinstance(terms, dict):
        return str(record.setting("method", "objective", "softcon"))
    weights = {n: v.get("weight", 1) if isinstance(v, dict) else v for n, v in terms.items()}
    return " + ".join(f"{weight} {name}" for name, weight in weights.items())


def _lead(record: RunRecord) -> tuple[Block, ...]:
    made: list[Block] = []
    if record.failure and not record.finished:
        made.append(pages.Verbatim(str(record.failure.get("text", ""))))
    if record.results.get("synthetic"):
        words = "**Synthetic scenes**: invented ground, nothing was observed."
        made.append(Paragraph(words, quiet=False))
    made.append(
        Paragraph(
            f"{record.setting('model', 'architecture')}, objective {_objective(record)}, started "
            f"{record.environment.get('started', '')}, on "
            f"{record.environment.get('device', 'an unknown device')}"
        )
    )
    return (*made, Tiles(_tiles(record)))


def _tiles(record: RunRecord) -> tuple[tuple[str, str], ...]:
    made = [("steps", f"{record.last_step:,}")]
    throughput = record.throughput
    if "pace/seconds" in throughput:
        seconds = float(throughput["pace/seconds"][1].sum())
        made.append(("of training", clock(seconds)))
        made.append(("scenes per second", f"{throughput['pace/scenes'][1].sum() / seconds:.0f}"))
        made.append(("waiting for data", f"{throughput['pace/waited'][1].sum() / seconds:.1%}"))
        evaluating = throughput["pace/watching"][1].sum() / seconds
        made.append(("evaluating held-out scenes", f"{evaluating:.1%}"))
    if "pace/gpu_gib" in throughput:
        made.append(("most GPU memory", f"{throughput['pace/gpu_gib'][1].max():.1f} GiB"))
    for name, words in (("knn", "kNN now"), ("linear", "linear now")):
        curve = record.evaluations.get(f"monitor/{name}")
        if curve is not None:
            made.append((f"{words} (from {100 * curve[1][0]:.1f})", f"{100 * curve[1][-1]:.1f}"))
    return tuple(made)


# Intervals of earlier versions, which do not state the metric, are of the mean over classes.
_EARLIER: Final = "ap_macro"
# Scores with an interval for every encoder.
_SURE: Final = ("linear", "knn")


def _heads(sure: str, other: str, level: str) -> tuple[str, ...]:
    return (
        *("encoder", f"linear probe, {sure} AP{level}", f"gain{level}", f"kNN, {sure} AP{level}"),
        *(f"gain{level}", f"linear probe, {other} AP", f"kNN, {other} AP"),
    )


def _result(record: RunRecord) -> tuple[Block, ...]:
    results = record.results
    if results.get(figures.DAMAGED):
        words = (
            "results.json was edited or damaged: its checksum is not that of its content. "
            "Resume the run (--run.resume true): a finished one trains no further, and writes it "
            "again."
        )
        return (Paragraph(words, quiet=False),)
    if results.get("probe_failed"):
        return (Paragraph(f"No linear probe: {results['probe_failed']}.", quiet=False),)
    if not results.get("scores"):
        return ()
    try:
        return _scores(results)
    except (KeyError, TypeError, ValueError, IndexError):  # of another version, or edited
        words = "The scores in results.json cannot be read by this version of eofm."
        return (Paragraph(words, quiet=False),)


def _scores(results: Mapping[str, Any]) -> tuple[Block, ...]:
    scores, sure = results["scores"], _told(results.get("intervals") or [])
    macro = results.get("intervals_of", _EARLIER) == _EARLIER
    main, other = ("macro", "micro") if macro else ("micro", "macro")
    linear, knn = f"ap_{main}", f"knn_{main}"
    rows = []
    starts = own_starts([str(score["name"]) for score in scores])
    for i, score in enumerate(scores):
        extra, start = sure[i] if i < len(sure) else {}, scores[starts[i]]
        first = i == starts[i]
        rows.append(
            TableRow(
                (
                    str(score["name"]),
                    _points(score[linear], extra.get("linear")),
                    "" if first else _gain(score[linear], start[linear], extra.get("linear_gain")),
                    _points(score[knn], extra.get("knn")),
                    "" if first else _gain(score[knn], start[knn], extra.get("knn_gain")),
                    f"{100 * score[f'ap_{other}']:.1f}",
                    f"{100 * score[f'knn_{other}']:.1f}",
                )
            )
        )
    words = (
        f"Average precision (AP) x 100 of frozen embeddings on {results['held_out_scenes']} "
        "held-out scenes."
    )
    if sure:
        words += (
            " In brackets 95 % intervals over held-out locations (the seasons of a place are "
            "resampled together), of gains paired; they know nothing of other training seeds."
        )
    title = "Linear probe by class, average precision"
    per_class = {str(score["name"]): _exact(score["per_class"]) for score in scores}
    figure = plots.dots(title, results["classes"], per_class, "average precision")
    verdict = results.get("verdict")
    if results.get("intervals") and not sure:  # an earlier version's, not valid
        verdict = "No verdict: the scored scenes are of one held-out location."
    return (
        *((Paragraph(str(verdict), quiet=False),) if verdict else ()),
        Paragraph(words),
        TableBlock(Table(_heads(main, other, " [95 %]" if sure else ""), tuple(rows))),
        Drawings(((title, figure),), wide=True),
    )


def _told(sure: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return intervals; none if they have no width, as with a single location."""
    wide = any(each[name]["low"] < each[name]["high"] for each in sure for name in _SURE)
    return sure if wide else ()


def _exact(values: Sequence[float | None]) -> list[Estimate | None]:
    """Return values as estimates without an interval."""
    return [None if value is None else Estimate(value, value, value) for value in values]


def _points(value: float, interval: Mapping[str, float] | None) -> str:
    if not interval:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _gain(value: float, start: float, interval: Mapping[str, float] | None) -> str:
    gain = f"{100 * (value - start):+.1f}"
    if not interval:
        return gain
    return f"{gain} [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"


def _training(record: RunRecord) -> tuple[Block, ...]:
    if not record.steps:
        return ()
    batch, queue = record.setting("optim", "batch"), record.setting("method", "queue", 0)
    made = figures.training_panels(
        record.steps,
        columns=None if batch is None else int(batch) + int(queue),
        collapse=float(record.setting("monitor", "collapse_std", 0.0)),
    )
    constant = figures.constants(record.steps)
    remark = (Paragraph(f"Constant: {constant}."),) if constant else ()
    warned = record.text(WARNINGS)
    warning = (pages.Verbatim(warned),) if warned.strip() else ()
    return (*warning, *_charts(made), *remark)


def _evaluations(record: RunRecord) -> tuple[Block, ...]:
    made = figures.evaluation_panels(record.evaluations)
    if not made:
        return ()
    branch = record.setting("monitor", "branch", "student")
    count = 2 * int(record.setting("monitor", "scenes", 0))
    words = (
        f"The {branch}'s embeddings of a few scenes of held-out places: of {count} at most, so the "
        "scores are rougher than those of the result. A collapse shows in the spread and in the "
        "effective rank of these embeddings."
    )
    return (Paragraph(words), *_charts(made))


def _stability(record: RunRecord) -> tuple[Block, ...]:
    """Describe the initial drop of a score; nothing without evaluations in the first steps."""
    if not record.setting("monitor", "dense", 0):
        return ()
    made, words = {}, []
    for name, label in (("knn", "held-out scenes"), ("before/knn", "scenes of the store before")):
        curve = record.evaluations.get(f"monitor/{name}")
        if curve is None:
            continue
        gap = stability_gap([int(step) for step in curve[0]], curve[1].tolist())
        if gap is not None:
            made[label] = (curve[0], 100 * curve[1])
            words.append(f"{label}: {gap.describe()}")
    if not made:
        return ()
    start = {"at the start": float(next(iter(made.values()))[1][0])}
    panel = LinePanel("kNN, average precision x 100", made, marks=start, symlog=True)
    return (Paragraph(f"{'; '.join(words)}.", quiet=False), *_charts([panel]))


def _seen(record: RunRecord, config: ReportConfig) -> tuple[Section, ...]:
    """Return the sections with pictures, or the reason why there are none."""
    encoders = figures.find_encoders(record)
    found = figures.find_scenes(record, config.store, config.scenes)
    if isinstance(found, str) or not encoders:
        why = found if isinstance(found, str) else "there is no encoder yet"
        return (Section("What it sees", (Paragraph(f"No pictures: {why}."),)),)
    said = record.setting("method", "similarity", "cosine")
    kind = LabelSimilarity(said) if said in set(LabelSimilarity) else LabelSimilarity.COSINE
    name = next((n for n in encoders if n.startswith("student")), next(iter(encoders)))
    return (
        Section("What it sees: patches", figures.patches(encoders, found)),
        Section("Nearest neighbours", figures.neighbours(name, encoders[name], found)),
        Section("Similarity of labels and of embeddings", figures.matrices(encoders, found, kind)),
    )


def _texts(record: RunRecord) -> list[Block]:
    files = {
        "preprocessing, step by step": "plan.txt",
        "where the weights come from": "weights.txt",
        "environment": "environment.json",
        "all settings (config.yaml)": "config.yaml",
    }
    texts = ((title, record.text(name)) for title, name in files.items())
    return [pages.Verbatim(text, title) for title, text in texts if text.strip()]


def settings_table(records: Sequence[RunRecord]) -> Block:
    """Return a table of non-default settings, or of settings in which runs differ.

    Args:
        records: Records of one or several runs.
    """
    default: dict[str, dict[str, Any]] = {
        group: dict(values) for group, values in asdict(PretrainConfig()).items()
    }
    keys = {(g, k): None for r in records for g, values in r.config.items() for k in values}
    rows = []
    for group, key in keys:
        if (group, key) == ("run", "out"):
            continue
        values = [r.setting(group, key) for r in records]
        usual = _plain(default.get(group, {}).get(key))
        differ = any(value != values[0] for value in values)
        if differ or (len(records) == 1 and _plain(values[0]) != usual):
            last = "" if usual is None else str(usual)
            rows.append(TableRow((f"{group}.{key}", *map(str, values), last)))
    if not rows:
        same = "All settings are the defaults." if len(records) == 1 else "No setting differs."
        return Paragraph(same, quiet=False)
    heads = ["setting", *(r.name if len(records) > 1 else "this run" for r in records), "default"]
    return TableBlock(Table(tuple(heads), tuple(rows)))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# ------------------------------------------------------------------------------- several runs


def comparison_of(records: Sequence[RunRecord]) -> Page:
    """Return the page that compares runs: final results, differing settings, and curves.

    Args:
        records: Records of the runs.
    """
    names = _unique([record.name for record in records])
    heads = (
        *("run", "state", "linear probe, micro AP", "kNN, micro AP"),
        *("kNN, last evaluation", "linear probe, last evaluation"),
    )
    rows = tuple(_ending(name, record) for name, record in zip(names, records, strict=True))
    words = "Average precision (AP) x 100 of the student on held-out scenes."
    table = TableBlock(Table(heads, rows, words=frozenset({1})))
    evaluations = figures.overlaid(names, [record.evaluations for record in records])
    steps = figures.overlaid(names, [record.steps for record in records])
    return Page(
        "Comparison",
        (
            Section("Runs", (table, Paragraph(words))),
            Section("Settings in which they differ", (settings_table(records),)),
            Section("Held-out scenes, while they trained", _charts(evaluations)),
            Section("Training", _charts(steps)),
        ),
    )


def _ending(name: str, record: RunRecord) -> TableRow:
    scores = {score["name"]: score for score in record.results.get("scores", [])}
    student = scores.get("student", {})
    evaluations = [record.evaluations.get(f"monitor/{measure}") for measure in ("knn", "linear")]
    return TableRow(
        (
            name,
            record.state,
            *(f"{100 * student[k]:.1f}" if k in student else "" for k in ("ap_micro", "knn_micro")),
            *("" if curve is None else f"{100 * curve[1][-1]:.1f}" for curve in evaluations),
        )
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Return unique names of the runs, even if their folders have the same name."""
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]
