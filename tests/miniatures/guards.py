"""The guards of the benchmark, and the code without each of them.

A guard is one line or expression of the package. To remove it, the source of its function is
changed, compiled again, and put in the function's place, so that whoever has imported the function
meets the changed one. What stands in place of the guard is what a harness without it would do, so
that a test fails on its promise and not on a crash.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FunctionType

from eofm.contract import prepare


@dataclass(frozen=True)
class Edit:
    """A change of one function.

    Args:
        target: `module:function` or `module:Class.method`.
        changes: What stands in it once, and what is put there.
    """

    target: str
    changes: tuple[tuple[str, str], ...]

    def function(self) -> FunctionType:
        """The function as it stands, without what decorates it."""
        module, _, names = self.target.partition(":")
        found: object = importlib.import_module(module)
        for name in names.split("."):
            found = vars(found)[name]
        if isinstance(found, property):
            found = found.fget
        if isinstance(found, cached_property):
            found = found.func
        if isinstance(found, classmethod | staticmethod):
            found = found.__func__
        found = inspect.unwrap(found)  # type: ignore[arg-type]
        assert isinstance(found, FunctionType)
        return found

    @contextmanager
    def done(self) -> Iterator[None]:
        """Change the function as long as the context is open."""
        function = self.function()
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in self.changes:
            if source.count(old) != 1:
                raise LookupError(
                    f"{self.target} holds {old!r} {source.count(old)} times, not once: "
                    "the guard has changed, change its removal too"
                )
            source = source.replace(old, new)
        before = function.__code__
        function.__code__ = self._compiled(source, function)
        try:
            yield
        finally:
            function.__code__ = before

    def _compiled(self, source: str, function: FunctionType) -> CodeType:
        """The code of a function, without decorators, with the free variables it has."""
        free = [f"    {name} = None" for name in function.__code__.co_freevars]  # super() has one
        lines = ["def outer():", *free, textwrap.indent(source, "    ")]
        tree = ast.parse("\n".join(lines) + f"\n    return {function.__name__}")
        (outer,) = tree.body
        assert isinstance(outer, ast.FunctionDef)
        for node in outer.body:
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
        flags = __future__.annotations.compiler_flag
        names = dict(function.__globals__)
        exec(compile(tree, f"<{self.target}>", "exec", flags, dont_inherit=True), names)
        made: FunctionType = names["outer"]()
        return made.__code__


@dataclass(frozen=True)
class Guard:
    """What keeps a pitfall away.

    Args:
        test: Name of the pitfall's test.
        edits: Together they remove the guard.
        case: Which of the test's parameters.
    """

    test: str
    edits: tuple[Edit, ...]
    case: int = 0

    def __str__(self) -> str:
        return f"{self.test[5:]}-{self.case}-{self.edits[0].target.partition(':')[2]}"

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Take the guard out of the code; plans that were made with it are forgotten."""
        with ExitStack() as stack:
            stack.callback(prepare._preprocess.cache_clear)
            for edit in self.edits:
                stack.enter_context(edit.done())
            prepare._preprocess.cache_clear()
            yield


def _guard(test: str, *edits: tuple[str, str, str], case: int = 0) -> Guard:
    changes: dict[str, list[tuple[str, str]]] = {}
    for target, old, new in edits:
        changes.setdefault(target, []).append((old, new))
    return Guard(test, tuple(Edit(name, tuple(pairs)) for name, pairs in changes.items()), case)


_PIXELS = "test_04_05_06_07_pixels_that_contradict_the_declaration"
_SAMPLED = "eofm.contract.validity:contradiction"
_MEANS = ("eofm.contract.validity:check_plausible", "_check_means(imagery)", "pass")
_TESTS = "tests = (_radar, _stretched, _range, _too_bright, _mixed, _sky, _order, _offset)"

GUARDS = (
    _guard(
        "test_01_size",
        (
            "eofm.contract.preprocess:_match_size",
            "return size, list(accepted)",
            "return spec.size, []",
        ),
        ("eofm.contract.preprocess:plan", "if unused:", "if False:"),
    ),
    _guard("test_01_size", ("eofm.contract.preprocess:plan", "tuple(used))", "())")),
    _guard(
        "test_02_normalization_is_part_of_the_weights",
        (
            "eofm.contract.spec:Normalization.__post_init__",
            "if not (isinstance(self.source, str) and self.source.strip()):",
            "if False:",
        ),
    ),
    _guard(
        "test_02_normalization_is_part_of_the_weights",
        ("eofm.contract.preprocess:Plan.hash", '"target": asdict(self.target),', ""),
        (
            "eofm.contract.preprocess:Plan.hash",
            "[[type(s).__name__, asdict(s)] for s in self.steps]",
            "[type(s).__name__ for s in self.steps]",
        ),
    ),
    _guard(
        "test_03_double_normalization",
        (
            "eofm.contract.preprocess:Preprocess.forward",
            "if imagery.spec.unit is Unit.MODEL:",
            "if False:",
        ),
        (
            "eofm.contract.preprocess:Preprocess.forward",
            "if imagery.spec != self.plan.source:",
            "if False:",
        ),
    ),
    *(
        _guard(
            _PIXELS, (_SAMPLED, _TESTS, "tests = (_radar, _stretched, _order, _offset)"), case=case
        )
        for case in range(2)
    ),
    _guard(
        _PIXELS,
        (_SAMPLED, _TESTS, "tests = (_radar, _stretched, _range, _sky, _order)"),
        _MEANS,
        case=2,
    ),
    _guard(
        _PIXELS,
        (_SAMPLED, _TESTS, "tests = (_radar, _stretched, _range, _sky, _offset)"),
        _MEANS,
        case=3,
    ),
    _guard(
        _PIXELS,
        ("eofm.contract.validity:_of_all_pixels", "(_sentinel, _dead, ", "(_sentinel, "),
        _MEANS,
        case=4,
    ),
    _guard(
        "test_06_bands_go_by_name",
        (
            "eofm.contract.preprocess:plan",
            "tuple(spec.bands.index(b) for b in names)",
            "tuple(range(len(names)))",
        ),
    ),
    _guard(
        "test_07_missing_bands_are_an_error_or_a_recorded_policy",
        (
            "eofm.contract.preprocess:_match_bands",
            "[w for w in waivers if isinstance(w, FillBand) and w.band in missing]",
            '[FillBand(band, 0.0, "silence") for band in missing]',
        ),
    ),
    _guard(
        "test_08_rgb_weights_are_not_tiled",
        ("eofm.contract.preprocess:_match_sensor", "if not accepted:", "if False:"),
    ),
    _guard(
        "test_08_rgb_weights_are_not_tiled",
        ("eofm.contract.recipe:waivers_for", "if len(missing) == len(recipe.bands):", "if False:"),
    ),
    _guard(
        "test_09_an_unknown_wavelength_is_an_error",
        ("eofm.networks.foundation:_of_bands", "if unknown:", "if False:"),
        (
            "eofm.networks.foundation:_of_bands",
            "[table[band] for band in recipe.bands]",
            '[table.get(band, table["B03"]) for band in recipe.bands]',
        ),
    ),
    _guard(
        "test_10_invalid_pixels_and_features",
        ("eofm.contract.preprocess:Preprocess.forward", "check_finite(imagery)", "pass"),
        ("eofm.contract.validity:find_doubts", "check_finite(imagery)", "pass"),
    ),
    _guard(
        "test_10_invalid_pixels_and_features",
        (
            "eofm.contract.validity:check_plausible",
            "if not bool(imagery.valid.any()):",
            "if False:",
        ),
        ("eofm.contract.preprocess:_fill_invalid", "if (count == 0).any():", "if False:"),
        (
            "eofm.contract.preprocess:_fill_invalid",
            "mean.to(pixels.dtype)",
            "mean.nan_to_num().to(pixels.dtype)",
        ),
    ),
    *(
        _guard(
            "test_11_radar_in_another_unit_or_order",
            (_SAMPLED, _TESTS, "tests = (_stretched, _range, _sky, _order, _offset)"),
            case=case,
        )
        for case in range(3)
    ),
    _guard(
        "test_12_interpolation_is_part_of_the_plan",
        (
            "eofm.contract.preprocess:plan",
            "Resize(size, rule.kernel, rule.antialias)",
            "Resize(size, Kernel.BILINEAR, True)",
        ),
    ),
    _guard(
        "test_13_nothing_is_cropped",
        (
            "eofm.contract.preprocess:resize",
            "if tuple(pixels.shape[2:]) == size:\n        return pixels",
            "if True:\n        return pixels[:, :, 18 : 18 + size[0], 18 : 18 + size[1]]",
        ),
    ),
    _guard(
        "test_14_the_plan_says_how_many_metres_a_pixel_is",
        ("eofm.contract.preprocess:plan", "spec.gsd * spec.size[0] / size[0]", "spec.gsd"),
    ),
    _guard(
        "test_14_the_plan_says_how_many_metres_a_pixel_is",
        ("eofm.contract.preprocess:Plan.hash", '"source": asdict(self.source),', ""),
        ("eofm.contract.preprocess:Plan.hash", '"target": asdict(self.target),', ""),
    ),
    _guard(
        "test_15_bytes_are_clipped_before_they_are_cast",
        (
            "eofm.contract.preprocess:normalize",
            "out.clamp_(*normalization.clip)",
            "out.remainder_(1)",
        ),
    ),
    _guard(
        "test_16_the_test_split_has_no_say",
        (
            "eofm.probes.linear:linear_probe",
            "fit_linear(train, val,",
            "fit_linear(Labelled(train.x - test_x.mean(dim=0), train.y, train.classes), val,",
        ),
    ),
    _guard(
        "test_17_neighbours_are_kept_apart",
        (
            "eofm.datasets.eurosat:divide_eurosat",
            "else rule or FolderSplit.SPATIAL",
            "else FolderSplit.STRATIFIED",
        ),
    ),
    _guard(
        "test_17_neighbours_are_kept_apart",
        (
            "eofm.store.splits:by_value",
            "sorted(values, key=lambda name: (values[name], name))",
            "sorted(values)",
        ),
    ),
    _guard(
        "test_18_metrics_say_which_average",
        (
            "eofm.probes.metrics:average_precision",
            "float((values * positives)[present].sum() / positives.sum())",
            "macro",
        ),
    ),
    _guard(
        "test_19_every_test_sample_counts_once",
        (
            "eofm.bench.predictions:write_predictions",
            "len(set(ids)) != len(outcome.scores) or len(ids) != len(outcome.scores)",
            "False",
        ),
    ),
    _guard(
        "test_20_absent_classes_are_counted",
        (
            "eofm.probes.metrics:average_precision",
            "present = positives > 0",
            "present = positives >= 0",
        ),
    ),
    _guard(
        "test_21_ties_do_not_depend_on_the_order_of_files",
        ("eofm.probes.knn:_Neighbourhood.scores", "if order is not None:", "if False:"),
    ),
    _guard(
        "test_21_ties_do_not_depend_on_the_order_of_files",
        ("eofm.probes.knn:knn_probe", "knn[k={k},{metric},{weights},{scaling}]", "knn[k={k}]"),
    ),
    _guard(
        "test_22_subsets_are_without_replacement_and_without_order",
        ("eofm.store.splits:hash_order", "sorted(ids, key=key)", "list(ids)"),
    ),
    _guard(
        "test_23_a_frozen_network_stays_frozen",
        ("eofm.bench.sources:EncoderSource.__init__", "encoder.eval()", "encoder"),
    ),
    _guard(
        "test_23_a_frozen_network_stays_frozen",
        (
            "eofm.bench.sources:EncoderSource.check_frozen",
            "if state_sha256(self._encoder) != self._state:",
            "if False:",
        ),
    ),
    _guard(
        "test_24_distances_far_from_the_origin_are_exact",
        (
            "eofm.probes.knn:Neighbours._nearest",
            "self._rank(points[unsure], candidates)",
            "candidates, bounds.double() - 1e30",
        ),
    ),
    _guard(
        "test_24_distances_far_from_the_origin_are_exact",
        ("eofm.bench.features:key_of", '"dtype": "float32",', ""),
    ),
    _guard(
        "test_25_fits_that_cannot_be_trusted_are_flagged",
        ("eofm.bench.probes:Scored.faults", "self.probe.on_edge", "False"),
    ),
    _guard(
        "test_25_fits_that_cannot_be_trusted_are_flagged",
        ("eofm.bench.probes:Scored.faults", "norm > _CONVERGED", "False"),
    ),
    _guard(
        "test_26_a_refit_stands_in_the_id",
        ("eofm.probes.linear:fit_linear", "'refit' if refit else 'norefit'", "'norefit'"),
    ),
    _guard(
        "test_27_pooling_is_part_of_the_recipe",
        ("eofm.weights.encoder:Encoder.__init__", "if has != wants:", "if False:"),
    ),
    _guard(
        "test_28_a_patch_of_known_labels_has_them",
        (
            "eofm.datasets.bigearthnet.chips:_check_golden",
            "golden.label != GOLDEN_CLASSES",
            "False",
        ),
    ),
    _guard(
        "test_29_versions_of_a_data_set_are_tasks_of_their_own",
        ("eofm.bench.records:Result.key", "(self.task, self.version, ", "("),
    ),
    _guard(
        "test_29_versions_of_a_data_set_are_tasks_of_their_own",
        ("eofm.bench.reports.compare:_alike", "(one.task, one.version, ", "("),
        ("eofm.bench.reports.compare:_alike", "(other.task, other.version, ", "("),
    ),
    _guard(
        "test_30_training_data_that_hold_the_test_images_are_flagged",
        (
            "eofm.bench.sources:contamination_flags",
            "if corpus.lower() in stated and task.startswith(tasks)",
            "if False",
        ),
    ),
    _guard(
        "test_30_training_data_that_hold_the_test_images_are_flagged",
        (
            "eofm.bench.sources:contamination_flags",
            "return (UNDECLARED,)",
            "return ()",
        ),
    ),
    _guard(
        "test_31_degenerate_features_and_models_below_a_control_are_flagged",
        ("eofm.bench.probes:Scored.faults", "rank < _LEAST_RANK", "False"),
    ),
    _guard(
        "test_31_degenerate_features_and_models_below_a_control_are_flagged",
        ("eofm.bench.probes:compare", "interval.high < 0", "False"),
    ),
    _guard(
        "test_32_only_parameters_that_take_part_are_counted",
        (
            "eofm.bench.records:executed_parameters",
            "sum(watch.seen.values())",
            "sum(p.numel() for p in source._network.parameters())",
        ),
    ),
)
