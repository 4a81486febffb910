"""Mutation testing of `eofm/contract`: is every operator, constant and condition noticed?

    python tests/mutation.py                      # a sample of 60 mutants a module, seed 0
    python tests/mutation.py --sample 0           # all of them
    python tests/mutation.py --only validity --table benchmarks/results/mutation_contract.md

Each mutant is one change of one module, written into a temporary copy of the package. The tests of
`tests/contract` that call the changed function (found by one run that notes it) run against the
copy, with `-x`, in the order of the files, and with hypothesis derandomised. A mutant is noticed if
a test fails or its time is up. Real imagery is left out: the miniatures have to notice. Mutants
that change nothing anybody can see are listed in `EQUIVALENT`, each with its reason; an entry that
matches no mutant is an error.

The process imports the libraries once and forks for every mutant, one at a time.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import compileall
import copy
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
CONTRACT: Final = Path("eofm/contract")
TESTS: Final = (
    "spec",
    "imagery",
    "prepare",
    "preprocess",
    "preprocess_limits",
    "contract_limits",
    "band_names",
    "validity_thresholds",
    "validity_measured",
    "validity_scale",
    "validity_mixed",
)
SLOWER: Final = ("validity_batches", "validity")
MODULES: Final = {
    "imagery": ("imagery", "contract_limits", "spec", "preprocess"),
    "prepare": ("prepare", "contract_limits"),
    "preprocess": ("preprocess_limits", "contract_limits", "preprocess"),
    "recipe": ("contract_limits", "spec", "preprocess"),
    "spec": ("contract_limits", "band_names", "spec"),
    "validity": (
        "validity_thresholds",
        "validity_scale",
        "validity_mixed",
        "validity_measured",
        "validity_batches",
        "validity",
    ),
}
"""Module -> the files that test what it does on import; functions are traced to their tests."""

EQUIVALENT: Final[dict[str, str]] = {
    "validity: measured: 1 -> 2": "a shortcut: a mask brought to its own size is itself",
    "validity: : 0.0001 -> 0.000125": "what is told apart by it is 3e-8 and 7e-3",
    "validity: fine_mask: weight[:, 0] < _ROUNDING -> weight[:, 0] <= _ROUNDING": "the same",
    "validity: _same_in_all: len(values) + 1 -> len(values) - 1": "what it lets pass, bytes of a "
    "picture, are whole numbers, which are passed over next",
    **{
        f"validity: _is_possible: {before} -> {after}": "a shortcut: an image that is not passed "
        "over by it is looked at further, with the same answer"
        for before, after in (
            (
                "(values[:, 0] == values[:, 1]) & (values[:, 0] != 0)",
                "(values[:, 0] == values[:, 1]) | (values[:, 0] != 0)",
            ),
            (
                "float(same.float().flatten(1).mean(dim=1).max()) > _SAME_SHARES[0]",
                "float(same.float().flatten(1).mean(dim=1).max()) >= _SAME_SHARES[0]",
            ),
            ("same.float().flatten(1).mean", "same.float().flatten(1).sum"),
            ("values == -1", "values != -1"),
            ("values == 32767", "values != 32767"),
            (
                "plane.shape[1] == 1 or not bool(fills.all(dim=1).any())",
                "plane.shape[1] == 1 and (not bool(fills.all(dim=1).any()))",
            ),
            ("fills.all", "fills.any"),
        )
    },
    "validity: check_scale: _SCALED_BELOW <= _largest(first) < math.inf -> "
    "_SCALED_BELOW < _largest(first) < math.inf": "a shortcut, of which the rest says the same",
    "validity: _offset: spec.sensor not in {Sensor.S2_L1C, Sensor.S2_L2A} or spec.unit not in "
    "PER_DN -> spec.sensor not in {Sensor.S2_L1C, Sensor.S2_L2A} and spec.unit not in PER_DN": "no "
    "other sensor has so many bands",
    "validity: _radar: negative > 0.01 -> negative >= 0.01": "no share in float32 is 0.01",
    **{
        f"validity: _is_in_steps: {before} -> {after}": "a shortcut: where it does not end "
        "the test, all values are compared"
        for before, after in (
            ("any", "all"),
            (
                "abs(round(value / step) * step - value) >= 1",
                "abs(round(value / step) * step - value) > 1",
            ),
        )
    },
    "validity: _copied: 1 -> 2": "of one value, the first is every second",
    "validity: check_scale: 1 -> 2": "a shortcut: the whole part of the root of 2 is 1",
    "validity: sum_is_finite: values.sum -> values.mean": "a mean is finite where a sum is",
    "validity: _is_full: not values.is_floating_point() or sum_is_finite(values) -> "
    "not values.is_floating_point() and sum_is_finite(values)": "a shortcut: without it the whole "
    "rule is asked, and answers the same",
    **{
        f"validity: _is_possible: {before} -> {after}": "a shortcut: an image that has "
        "the largest or least value itself is looked at further, with the same answer"
        for before, after in (("most <= high", "most < high"), ("low <= least", "low < least"))
    },
    "preprocess: Preprocess._take: 0.5 -> 0.625": "a mask by the nearest neighbour is 0 or 1",
    "preprocess: Preprocess._take: mask[:, 0] > 0.5 -> mask[:, 0] >= 0.5": "the same mask",
    "preprocess: plan: 0 -> 1": "of an empty tensor only the units are looked at",
    "spec: canonical_band: 1 -> 2": "the best of the close matches is offered, however many",
    "spec: _fitting: 3 -> 4": "micrometres times a thousand are exact to far more digits",
    "preprocess: Preprocess._take: False -> True": "`antialias` of the nearest neighbour, which "
    "has no such form",
    **{
        f"imagery: {name}.to: False -> True": "`non_blocking` changes when a copy ends, "
        "not what it is"
        for name in ("Imagery", "NativeImagery", "Labels")
    },
}
"""`module: function: before -> after` -> why no test can tell the two apart."""

# ------------------------------------------------------------------------------- mutants

_COMPARE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In},
}
_BINARY: Final[dict[type[ast.operator], type[ast.operator]]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift},
}
_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any", "amin": "amax"}
_NAMES.update({"amax": "amin", "clamp_min": "clamp_max", "sum": "mean", "mean": "sum"})
_MASKS: Final = frozenset({"measured", "fine_mask", "coarse_mask"})


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Args:
        module: Its name.
        function: The outermost function, or `Class.method`; empty for what runs on import.
        line: Where.
        before: What stands there.
        after: What is put there.
        source: The whole module, changed.
    """

    module: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """What `EQUIVALENT` calls it."""
        return f"{self.module}: {self.function}: {self.before} -> {self.after}"


def changes(node: ast.AST, function: str) -> Iterator[ast.AST]:
    """Yield what a node is replaced by."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[place] = _COMPARE[type(operator)]()
            yield other
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        yield ast.BinOp(node.left, _BINARY[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(node.value * 1.25 if node.value else 1.0)
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        yield ast.Name(_NAMES[node.id], ast.Load())
    elif isinstance(node, ast.Attribute) and node.attr in _NAMES:
        yield ast.Attribute(node.value, _NAMES[node.attr], ast.Load())
    elif isinstance(node, ast.If | ast.IfExp) and ast.unparse(node.test) != "TYPE_CHECKING":
        negated = copy.deepcopy(node)
        negated.test = ast.UnaryOp(ast.Not(), node.test)
        yield negated
    elif isinstance(node, ast.Return) and node.value is not None and function in _MASKS:
        yield ast.Return(ast.UnaryOp(ast.Invert(), node.value))


def mutants(module: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    tree = ast.parse(source)
    found: list[Mutant] = []

    def visit(node: ast.AST, function: str) -> None:
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "type_comment"}:
                continue
            if isinstance(node, ast.keyword) and node.arg == "strict":
                continue  # of `zip`: an assertion, which no input reaches
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue  # imports for the type checker
            for place, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST):
                    continue
                inner = function
                if isinstance(child, ast.FunctionDef | ast.ClassDef):
                    inner = f"{function}.{child.name}".lstrip(".")
                before = copy.deepcopy(child)
                line = getattr(child, "lineno", 0)
                for other in changes(child, inner):
                    new = ast.copy_location(other, child)
                    _put(node, name, value, place, new)
                    text = ast.unparse(ast.fix_missing_locations(tree))
                    _put(node, name, value, place, child)
                    found.append(
                        Mutant(
                            module,
                            function,
                            line,
                            *_words(before, other),
                            text,
                        )
                    )
                visit(child, inner)

    visit(tree, "")
    return found


def _put(node: ast.AST, name: str, value: Any, place: int, new: ast.AST) -> None:
    if isinstance(value, list):
        value[place] = new
    else:
        setattr(node, name, new)


def _words(before: ast.AST, after: ast.AST) -> tuple[str, str]:
    """Return both as source; of a statement only what decides."""
    pair = []
    for node in (before, after):
        shown = node.test if isinstance(node, ast.If | ast.IfExp) else node
        pair.append(" ".join(ast.unparse(ast.fix_missing_locations(shown)).split()))
    return pair[0], pair[1]


# ------------------------------------------------------------------------------- running


def watched(module: str, source: str) -> str:
    """Return a module whose functions say that they are called."""
    tree = ast.parse(source)

    def visit(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = function
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{function}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef):
                call = ast.parse(f"_called({f'{module}: {inner}'!r})").body
                first = int(ast.get_docstring(child) is not None)
                child.body[first:first] = call
            visit(child, inner)

    visit(tree, "")
    return ast.unparse(ast.fix_missing_locations(tree))


class _Chosen:
    """Lets pytest run some tests only, and notes which functions each of them calls."""

    def __init__(self, names: frozenset[str] | None) -> None:
        self.names = names
        self.seen: dict[str, set[str]] = {}
        self.test = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.names is not None:
            items[:] = [item for item in items if item.nodeid in self.names]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.test = nodeid

    def called(self, function: str) -> None:
        """Note the function that is called."""
        self.seen.setdefault(function, set()).add(self.test)


def forked(run: Callable[[], int], seconds: float) -> int:
    """Return the status of a function in a process of its own, 124 when its time is up."""
    child = os.fork()
    if not child:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = 99
        try:
            status = run()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def suite(
    copied: Path, files: Sequence[str], names: frozenset[str] | None, notes: Path | None
) -> Callable[[], int]:
    """Return what runs tests against the copy of package and tests."""

    def run() -> int:
        import hypothesis
        import pytest

        os.chdir(copied)
        os.environ["EOFM_REAL_DATA"] = str(copied / "none")
        sys.path.insert(0, str(copied))
        hypothesis.settings.register_profile("mutation", derandomize=True, database=None)
        hypothesis.settings.load_profile("mutation")
        chosen = _Chosen(names)
        if notes is not None:
            vars(builtins)["_called"] = chosen.called
        options = ["-x", "-q", "-n0", "-p", "no:randomly", "-p", "no:cacheprovider"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported before the fork
        status = int(pytest.main([*options, *files], [chosen]))
        if notes is not None:
            notes.write_text(json.dumps({k: sorted(v) for k, v in chosen.seen.items()}))
        return status

    return run


def paths(names: Sequence[str]) -> list[str]:
    """Return the files of tests of those names."""
    return [f"tests/contract/test_{name}.py" for name in names]


def preload() -> None:
    """Import what the package and its tests import, and forget the package itself."""
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "miniatures")]
    import pytest  # noqa: F401
    import torch

    importlib.import_module("miniature_files")
    torch.set_num_threads(1)
    own = {file.stem for file in (ROOT / "tests" / "miniatures").glob("*.py")}
    for name in list(sys.modules):
        if name.partition(".")[0] == "eofm" or name in own:
            del sys.modules[name]
    sys.path.remove(str(ROOT))


# -------------------------------------------------------------------------------- report


@dataclass
class Count:
    """What became of the mutants of a module."""

    made: int
    run: int = 0
    noticed: int = 0
    late: int = 0
    equivalent: int = 0


def table(counts: dict[str, Count], survivors: list[Mutant], arguments: argparse.Namespace) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Mutation testing of `eofm/contract`",
        "",
        f"`python tests/mutation.py --sample {arguments.sample} --seed {arguments.seed}`: "
        + (
            "all mutants."
            if not arguments.sample
            else f"at most {arguments.sample} mutants of each module, drawn with that seed."
        ),
        "",
        "Operators: comparisons, arithmetic, `and`/`or`, `~`/`not`/`-`, numbers, truth values, "
        "negated conditions, `min`/`max`, `any`/`all`, `sum`/`mean`, inverted masks. Noticed: a "
        "test of `tests/contract` (without real imagery) fails, or exceeds "
        f"{arguments.seconds:g} s.",
        "",
        "| module | mutants | run | equivalent | noticed | of which too late | share |",
        "|---|---|---|---|---|---|---|",
    ]
    total = Count(0)
    for module, count in counts.items():
        lines.append(_row(module, count))
        for field in vars(total):
            setattr(total, field, getattr(total, field) + getattr(count, field))
    lines += [_row("all", total), "", "## Survivors", ""]
    lines += [
        f"- `{m.module}.py:{m.line}` {m.function or 'module'}: `{m.before}` -> `{m.after}`"
        for m in survivors
    ] or ["None."]
    if EQUIVALENT:
        lines += ["", "## Equivalent", ""]
        lines += [f"- `{key}`: {why}" for key, why in EQUIVALENT.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, count: Count) -> str:
    judged = count.run - count.equivalent
    share = f"{count.noticed / judged:.1%}" if judged else "-"
    return (
        f"| {name} | {count.made} | {count.run} | {count.equivalent} | {count.noticed} "
        f"| {count.late} | {share} |"
    )


# ---------------------------------------------------------------------------------- main


def arguments_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--sample", type=int, default=60, help="mutants of each module; 0 is all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="time of one mutant")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    return parser.parse_args()


def traced(copied: Path) -> dict[str, frozenset[str]]:
    """Run all tests once; return function -> the tests that call it."""
    notes, sources = copied / "notes.json", {}
    for module in MODULES:
        file = copied / CONTRACT / f"{module}.py"
        sources[file] = file.read_text()
        file.write_text(watched(module, sources[file]))
    status = forked(suite(copied, paths((*TESTS, *SLOWER)), None, notes), 900)
    for file, source in sources.items():
        file.write_text(source)
    if status != 0:
        raise SystemExit("the tests fail without a mutant")
    return {name: frozenset(tests) for name, tests in json.loads(notes.read_text()).items()}


def main() -> None:
    """Make the mutants, run the tests, print what survives."""
    arguments = arguments_of()
    preload()
    every = {m: mutants(m, (ROOT / CONTRACT / f"{m}.py").read_text()) for m in MODULES}
    unknown = set(EQUIVALENT) - {mutant.key for made in every.values() for mutant in made}
    if unknown:
        raise SystemExit(f"no such mutants: {sorted(unknown)}")
    counts: dict[str, Count] = {}
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder)
        for part in ("eofm", "tests/contract", "tests/miniatures"):
            shutil.copytree(ROOT / part, copied / part, ignore=shutil.ignore_patterns("*.pyc"))
        for part in ("pyproject.toml", "tests/conftest.py"):
            shutil.copy(ROOT / part, copied / part)
        covering = traced(copied)
        compileall.compile_dir(copied / "eofm", quiet=2)
        for module in arguments.only:
            made = every[module]
            chosen = made
            if arguments.sample and arguments.sample < len(made):
                chosen = random.Random(arguments.seed).sample(made, arguments.sample)
                chosen.sort(key=lambda mutant: mutant.line)
            count = counts[module] = Count(len(made))
            file = copied / CONTRACT / f"{module}.py"
            original = file.read_text()
            for compiled in file.parent.glob(f"__pycache__/{module}.*"):
                compiled.unlink()  # it is as old as the mutant, to the second
            for mutant in chosen:
                count.run += 1
                if mutant.key in EQUIVALENT:
                    count.equivalent += 1
                    continue
                file.write_text(mutant.source)
                status = run_one(copied, mutant, covering, arguments.seconds)
                count.noticed += status != 0
                count.late += status == 124
                if status == 0:
                    survivors.append(mutant)
                    sys.stdout.write(f"survives: {mutant.key}  (line {mutant.line})\n")
            file.write_text(original)
            sys.stdout.write(f"{module}: {vars(count)}\n")
            sys.stdout.flush()
    text = table(counts, survivors, arguments)
    sys.stdout.write(text)
    if arguments.table:
        arguments.table.write_text(text)


def run_one(
    copied: Path, mutant: Mutant, covering: dict[str, frozenset[str]], seconds: float
) -> int:
    """Return the status of the tests that can notice a mutant."""
    names = covering.get(f"{mutant.module}: {mutant.function}")
    if names is None or "" in names:  # runs on import, or is not called by any test
        return forked(suite(copied, paths(MODULES[mutant.module]), None, None), seconds)
    order = paths((*TESTS, *SLOWER))
    files = sorted({name.partition("::")[0] for name in names}, key=order.index)
    return forked(suite(copied, files, names, None), seconds)


if __name__ == "__main__":
    main()
