"""Objective of a run: a weighted sum of terms, SoftCon alone, or a class of your own.

There is one student, and one teacher if a term needs the moving average. `Seen` computes every
forward pass of a step once for all terms. A term of your own is one file, and needs no change here
(`eofm.method.terms.seam`):

    eofm pretrain --method.terms "{softcon: 1, mine.py:Spread: 0.1}"

A whole objective with its networks is a class with the constructor of `SoftCon`, most easily a
subclass. It has a `student` and a `teacher` with a `trunk` each, and its call returns an object
with a `loss` and `logged()`:

    eofm pretrain --method.objective mine.py:Whole

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, D trunk width, d embedding
width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.io import load_own, names_own
from eofm.method.branches import Branch, make_teacher
from eofm.method.config import Exclude, Objective, SoftConConfig, TermChoice
from eofm.method.distributed import KeyQueue
from eofm.method.masking import MaskedTrunk, fill_of
from eofm.method.similarity import LabelFacts
from eofm.method.terms.seam import (
    Needs,
    PatchMask,
    RandomMask,
    RunFacts,
    Seen,
    Side,
    TeacherKind,
    Term,
    Tokens,
    ViewKind,
    find_term,
    settings_of,
)
from eofm.method.terms.softcon import SoftConOutput, SoftContrast

__all__ = [
    "OBJECTIVES",
    "CombinedTerms",
    "Frozen",
    "FrozenInput",
    "FrozenNetwork",
    "SeenOnce",
    "SoftCon",
    "StepOutcome",
    "StepOutput",
    "Valid",
    "asks_for_places",
    "check_views",
    "describe_objective",
    "is_whole",
    "make_objective",
    "needs_of",
]

# ---------------------------------------------------------------------------- weighted sum of terms

Valid = Callable[[int], Tensor]


@runtime_checkable
class FrozenNetwork(Protocol):
    """Interface of a frozen teacher, in addition to `nn.Module`."""

    @property
    def dim(self) -> int:
        """Width of its vector, D'."""

    def __call__(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the vectors of images prepared by its recipe."""


# Name of weights -> frozen network with these weights.
Frozen = Callable[[str], FrozenNetwork]
# Input of a frozen network for a view: the same crop, prepared by the network's recipe.
FrozenInput = Callable[[FrozenNetwork, int], Tensor]


@runtime_checkable
class StepOutcome(Protocol):
    """Outcome of a step as used by a run, also from user-defined objectives."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The loss, with a gradient."""

    def logged(self) -> dict[str, Float[Tensor, ""]]:
        """Return the values to log, by name."""


@dataclass(frozen=True)
class StepOutput:
    """Outcome of a step of all terms. Only `loss` has a gradient.

    Args:
        loss: The weighted sum.
        scalars: Values of all terms, by name.
    """

    loss: Float[Tensor, ""]
    scalars: Mapping[str, Float[Tensor, ""]]

    def logged(self) -> dict[str, Float[Tensor, ""]]:
        """Return the values to log, by name."""
        return {"loss": self.loss.detach(), **self.scalars}


class SeenOnce(Seen):
    """One batch, with cached forward passes for the duration of the step.

    Args:
        branches: Networks by side.
        frozen: The frozen teacher of the current term; None without one.
        views: Two views of the same images, (B, C, H, W) each, normalised.
        valid: Function that computes the validity mask of a view, bool (B, 1, H, W), on demand.
        tokens: Output of every forward pass, including patches if any term reads them.
        grid: Rows and columns of patches.
        generator: Random generator of masks.
        frozen_input: Computes a frozen teacher's input for a view; if None, the view itself.
    """

    def __init__(
        self,
        branches: Mapping[Side, Branch],
        frozen: FrozenNetwork | None,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
        valid: Valid,
        tokens: Tokens,
        grid: tuple[int, int],
        generator: torch.Generator,
        frozen_input: FrozenInput | None = None,
    ) -> None:
        self._branches, self._frozen, self._views = branches, frozen, views
        self._valid, self._tokens, self._grid, self._generator = valid, tokens, grid, generator
        self._frozen_input = frozen_input
        self._kept: dict[object, Any] = {}

    def asked_by(self, frozen: FrozenNetwork | None) -> SeenOnce:
        """Return the same batch for a term with its own frozen teacher."""
        other = copy(self)  # including the cache, which both share
        other._frozen = frozen
        return other

    def _once(self, key: object, make: Callable[[], Any]) -> Any:  # noqa: ANN401
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def images(self, view: int) -> Float[Tensor, "b c h w"]:
        """Return a view: see `Seen.images`."""
        return self._views[view]

    def valid(self, view: int) -> Bool[Tensor, "b 1 h w"]:
        """Return the valid pixels of a view: see `Seen.valid`."""
        made: Tensor = self._once(("valid", view), partial(self._valid, view))
        return made

    def keep(self, view: int, mask: PatchMask | None) -> Int64[Tensor, "b k"] | None:
        """Return the patches that a mask keeps: see `Seen.keep`."""
        if mask is None:
            return None
        images = self._views[view]

        def draw() -> Int64[Tensor, "b k"] | None:
            keep = mask.draw(len(images), self._grid, self._generator)
            return None if keep is None else keep.to(images.device)

        drawn: Tensor | None = self._once(("keep", view, mask), draw)
        return drawn

    def forward(
        self, side: Side, view: int, mask: PatchMask | None = None
    ) -> Float[Tensor, "b tokens d"]:
        """Return the tokens of a view: see `Seen.forward`."""
        keep = self.keep(view, mask)
        branch = self._branch(side)

        def run() -> Float[Tensor, "b tokens d"]:
            with torch.set_grad_enabled(side is Side.STUDENT and torch.is_grad_enabled()):
                tokens: Tensor = branch(self._views[view], keep, self._tokens)
            return tokens

        # a mask that hides nothing counts as no mask
        seen: Tensor = self._once((side, view, None if keep is None else mask), run)
        return seen

    def project(
        self,
        side: Side,
        view: int,
        head: str,
        mask: PatchMask | None = None,
        tokens: Tokens = Tokens.CLS,
    ) -> Float[Tensor, "b ..."]:
        """Return the output of a head for a view: see `Seen.project`."""
        seen = self.forward(side, view, mask)
        inputs = seen[:, 0] if tokens is Tokens.CLS else seen[:, 1:]
        hidden = None if self.keep(view, mask) is None else mask

        def run() -> Float[Tensor, "b ..."]:
            with torch.set_grad_enabled(side is Side.STUDENT and torch.is_grad_enabled()):
                return self._branch(side).project(inputs, head)

        projected: Tensor = self._once((side, view, hidden, head, tokens), run)
        return projected

    def frozen(self, view: int) -> Float[Tensor, "b 1 d"]:
        """Return the output of the term's frozen teacher for a view: see `Seen.frozen`."""
        teacher = self._frozen
        if teacher is None:
            raise ConfigError(
                "the term has no frozen teacher",
                found="no weights",
                expected="a source of weights: Term.frozen_source",
            )

        def run() -> Float[Tensor, "b 1 d"]:
            make = self._frozen_input
            with torch.no_grad():
                pixels = self._views[view] if make is None else make(teacher, view)
                return teacher(pixels)[:, None]

        seen: Tensor = self._once(("frozen", id(teacher), view), run)
        return seen

    def _branch(self, side: Side) -> Branch:
        if side not in self._branches:
            raise ConfigError(
                "the run has no teacher",
                found="no term that needs one",
                expected=f"a term whose needs say {TeacherKind.EMA}",
            )
        return self._branches[side]


# SoftCon's tensors were at the top level when it was the only term (0.1), and are in checkpoints.
_FIRST: Final = f"terms.{Objective.SOFTCON}."
_FROZEN: Final = "frozen."


class CombinedTerms(nn.Module):
    """Student, teacher and the terms of a run; computes their weighted sum for a step.

    Tensors keep the names and the order from when SoftCon was the only term, so that checkpoints
    and optimizers of such runs fit.

    The teacher is not updated here: call `update_teacher(self.teacher, self.student, m)` after
    each optimiser step, with m from `momentum_at`.

    Args:
        trunk: The encoder to pretrain: an `nn.Module` that is a `MaskedTrunk`.
        config: The objective.
        generator: Random generator of the initial weights of heads and terms, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units, with which hidden pixels are filled
            if `config.mask_fill` says so.
        frozen: Function from the name of weights to a frozen teacher.

    Attributes:
        student: Network to train, with the heads that are averaged.
        teacher: Its moving average; None if no term needs it.
        terms: Terms by name.

    Raises:
        ConfigError: If the trunk is not an `nn.Module`, or a term cannot be made.
    """

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        generator: torch.Generator,
        facts: LabelFacts = LabelFacts(),  # noqa: B008 (frozen)
        *,
        band_mean: float = 0.0,
        frozen: Frozen | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(trunk, nn.Module):
            raise ConfigError(
                "an objective needs a module to train",
                found=type(trunk).__name__,
                expected="an nn.Module",
            )
        self.config, self.facts = config, _facts_of(trunk, config, facts, band_mean)
        kinds = {choice.label: find_term(choice.name) for choice in config.chosen}
        settings = {c.label: settings_of(kinds[c.label], c, config) for c in config.chosen}
        self.weights = {choice.label: choice.weight for choice in config.chosen}
        if len(self.weights) < len(config.chosen):
            raise _twice("terms", [choice.label for choice in config.chosen])
        needs = needs_of(config)
        self.tokens = Tokens.PATCHES if _patches(needs.values()) else Tokens.CLS
        heads: dict[str, nn.Module] = {}
        for name, kind in kinds.items():
            made = kind.heads(settings[name], self.facts, generator)
            if heads.keys() & made.keys():
                raise _twice("heads", [*heads, *made])
            heads |= made
        self.student = Branch(trunk, config, heads, fill=fill_of(config, band_mean))
        teachers = _frozen_of(kinds, settings, frozen)
        widths = {name: teacher.dim for name, teacher in teachers.items()}
        self.terms = nn.ModuleDict(
            {
                n: kind(settings[n], replace(self.facts, frozen_width=widths.get(n, 0)), generator)
                for n, kind in kinds.items()
            }
        )
        average = any(each.teacher is TeacherKind.EMA for each in needs.values())
        self.teacher: Branch | None = make_teacher(self.student) if average else None
        self.frozen = nn.ModuleDict(cast("dict[str, nn.Module]", teachers))
        self.old_names = True  # shards are saved and found by the current names
        self.register_state_dict_post_hook(_to_old_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_old_names)  # type: ignore[no-untyped-call]

    def forward(
        self,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
        labels: Labels | tuple[Labels, Labels],
        generator: torch.Generator,
        valid: Valid | None = None,
        frozen_input: FrozenInput | None = None,
    ) -> StepOutcome:
        """Return the loss of a batch and the values to log.

        Args:
            views: Two views of the same B images, each (B, C, H, W), normalised.
            labels: Labels of the images, or of each view if the views are of different seasons.
            generator: Random generator of the masks.
            valid: Computes the validity mask of a view, bool (B, 1, H, W); if None, all pixels are
                valid.
            frozen_input: Computes a frozen teacher's input for a view; if None, the view itself.
        """
        seen = self.see(views, generator, valid, frozen_input)
        losses, scalars = [], {}
        for name, term in self.terms.items():
            one = cast("Term[Any]", term)
            output = one.loss(seen.asked_by(self.frozen_of(name)), labels, generator)
            losses.append(self.weights[name] * output.loss)
            prefix = f"{name}/" if one.prefix is None else one.prefix
            if len(self.weights) > 1:
                scalars[f"{name}/loss"] = output.loss.detach()
            scalars |= {f"{prefix}{key}": value.detach() for key, value in output.scalars.items()}
        return StepOutput(losses[0] if len(losses) == 1 else torch.stack(losses).sum(), scalars)

    def see(
        self,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
        generator: torch.Generator,
        valid: Valid | None = None,
        frozen_input: FrozenInput | None = None,
    ) -> SeenOnce:
        """Return the interface of a batch for the terms.

        Args:
            views: Two views of the same B images, each (B, C, H, W), normalised.
            generator: Random generator of the masks.
            valid: Computes the validity mask of a view; if None, all pixels are valid.
            frozen_input: Computes a frozen teacher's input for a view; if None, the view itself.
        """

        def all_measured(view: int) -> Bool[Tensor, "b 1 h w"]:
            return torch.ones_like(views[view][:, :1], dtype=torch.bool)

        branches = {Side.STUDENT: self.student}
        if self.teacher is not None:
            branches[Side.TEACHER] = self.teacher
        return SeenOnce(
            branches,
            None,
            views,
            all_measured if valid is None else valid,
            self.tokens,
            self.facts.grid,
            generator,
            frozen_input,
        )

    def frozen_of(self, name: str) -> FrozenNetwork | None:
        """Return the frozen teacher of a term; None without one."""
        return cast("dict[str, FrozenNetwork]", dict(self.frozen.items())).get(name)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield names and parameters as in checkpoints, in the order of version 0.1.

        Scalars of terms come first, then the student, the layers of terms, and the teacher.
        """
        named = [
            (_old_name(name), parameter)
            for name, parameter in super().named_parameters("", recurse, remove_duplicate)
        ]
        for name, parameter in sorted(named, key=lambda each: _rank(each[0])):
            yield (f"{prefix}.{name}" if prefix else name), parameter


def _facts_of(
    trunk: MaskedTrunk, config: SoftConConfig, facts: LabelFacts, band_mean: float
) -> RunFacts:
    channels = getattr(trunk, "channels", 0)
    return RunFacts(
        width=trunk.dim,
        grid=getattr(trunk, "grid", (1, trunk.tokens)),  # a user's trunk may not have it
        patch=trunk.block,
        channels=channels if isinstance(channels, tuple) else (channels, channels),
        drops_tokens=trunk.drops_tokens,
        method=config,
        labels=facts,
        band_mean=band_mean,
    )


def needs_of(config: SoftConConfig) -> dict[str, Needs]:
    """Return what each term of a run needs, by its name.

    Raises:
        ConfigError: If a term is unknown, or its settings are invalid.
    """
    made: dict[str, Needs] = {}
    for choice in config.chosen:
        kind = find_term(choice.name)
        made[choice.label] = kind.needs_of(settings_of(kind, choice, config))
    return made


def check_views(config: SoftConConfig, views: ViewKind) -> None:
    """Refuse views that a term cannot use.

    Args:
        config: The objective.
        views: Kind of views that the data provide.

    Raises:
        ConfigError: If a term needs another kind.
    """
    for name, needs in needs_of(config).items():
        if needs.views not in (ViewKind.ANY, views):
            raise ConfigError(
                f"the term {name} needs other views",
                found=f"data.views={views}",
                expected=needs.views,
                where="data.views",
                remedy=f"add --data.views {needs.views}",
            )


def _patches(needs: Any) -> bool:  # noqa: ANN401 (an iterable of `Needs`)
    return any(each.tokens is Tokens.PATCHES for each in needs)


def _twice(what: str, names: list[str]) -> ConfigError:
    return ConfigError(
        f"two {what} of a run have one name",
        found=", ".join(names),
        expected="different names",
        where="method.terms",
    )


def _frozen_of(
    kinds: Mapping[str, type[Term[Any]]], settings: Mapping[str, Any], make: Frozen | None
) -> dict[str, FrozenNetwork]:
    """Return the frozen teachers by term; terms with the same weights share a network.

    Raises:
        ConfigError: If a term with a frozen teacher names no weights, or `frozen` is missing.
    """
    sources = {
        name: kind.frozen_source(settings[name])
        for name, kind in kinds.items()
        if kind.needs_of(settings[name]).teacher is TeacherKind.FROZEN
    }
    for name, source in sources.items():
        if not source:
            raise ConfigError(
                f"the term {name} learns from a frozen teacher, and none is named",
                found="no teacher",
                expected="weights as model.weights names them",
                where=f"method.terms.{name}.teacher",
                remedy=f'--method.terms "{{{name}: {{teacher: runs/first}}}}", or a name of '
                "`eofm models list`",
            )
    if sources and make is None:
        raise ConfigError(
            "nothing says how the weights of a frozen teacher are read",
            found=", ".join(sources.values()),
            where="method.terms",
        )
    made = {source: make(source) for source in dict.fromkeys(sources.values())} if make else {}
    return {name: made[source] for name, source in sources.items()}


# ------------------------------------------------------------------------- names in checkpoints


def _old_name(name: str) -> str:
    return name.removeprefix(_FIRST)


def _rank(name: str) -> int:
    """Return the position of a parameter in the order of version 0.1."""
    part, _, rest = name.partition(".")
    own = rest.partition(".")[2] if part == "terms" else name
    if "." not in own:
        return 0
    return {"student": 1, "teacher": 3}.get(part, 2)


def _to_old_names(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.startswith(_FROZEN):  # these have a separate file
            del state[key]
        elif name.startswith(_FIRST) and cast("CombinedTerms", module).old_names:
            state[prefix + _old_name(name)] = state.pop(key)


def _from_old_names(
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    metadata: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    here = {*module._parameters, *module._buffers, *module._modules}
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.partition(".")[0] not in here:
            state[f"{prefix}{_FIRST}{name}"] = state.pop(key)
    for name, tensor in cast("CombinedTerms", module).frozen.state_dict().items():
        state[f"{prefix}{_FROZEN}{name}"] = tensor


# ------------------------------------------------------------------------------- SoftCon on its own


class SoftCon(CombinedTerms):
    """Student, predictor and teacher; computes the objective for a step.

    A subclass is a user-defined objective (`eofm.method.objectives`).

    Args:
        trunk: The encoder to pretrain: an `nn.Module` that is a `MaskedTrunk`.
        config: The objective.
        generator: Random generator of the heads' initial weights, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units, with which hidden pixels are filled
            if `config.mask_fill` says so.

    Raises:
        ConfigError: If the trunk is not an `nn.Module`, or the objective is `multilabel`.
    """

    teacher: Branch

    def __init__(
        self,
        trunk: MaskedTrunk,
        config: SoftConConfig,
        generator: torch.Generator,
        facts: LabelFacts = LabelFacts(),  # noqa: B008 (frozen)
        *,
        band_mean: float = 0.0,
    ) -> None:
        if config.objective is Objective.MULTILABEL or config.terms is not None:
            raise ConfigError(
                "SoftCon is one term, and does not predict labels",
                found=f"objective {config.objective}, terms {config.terms}",
                remedy="use eofm.method.objectives.CombinedTerms for other terms",
            )
        plain = config
        if not isinstance(config.objective, Objective):  # a user-defined objective, which this is
            plain = replace(config, objective=Objective.SOFTCON)
        super().__init__(trunk, plain, generator, facts, band_mean=band_mean)

    @property
    def term(self) -> SoftContrast:
        """The term."""
        return cast("SoftContrast", self.terms[Objective.SOFTCON])

    @property
    def predictor(self) -> nn.Sequential:
        """The predictor, which only the student has."""
        return self.term.predictor

    @property
    def bias(self) -> Float[Tensor, ""] | None:
        """Bias of the bce form."""
        return self.term.bias

    @property
    def log_scale(self) -> nn.Parameter | None:
        """Log scale of the bce form, if it is learned."""
        return self.term.log_scale

    @property
    def queue(self) -> KeyQueue | None:
        """Keys of earlier steps."""
        return self.term.queue

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """Pairs of student view and teacher view, one or two."""
        return self.term.directions

    def forward(
        self,
        views: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b other h w"]],
        labels: Labels | tuple[Labels, Labels],
        generator: torch.Generator,
        valid: Valid | None = None,
        frozen_input: FrozenInput | None = None,
    ) -> SoftConOutput:
        """Return the loss of a batch and the values to log.

        Args:
            views: Two views of the same B images, each (B, C, H, W), normalised.
            labels: Labels of the images, or of each view if the views are of different seasons.
            generator: Random generator of the masks.
            valid: Ignored: only vectors are compared.
            frozen_input: Ignored: there is no frozen teacher.

        Raises:
            TrainingError: If the batch has fewer than two images, which leaves no negatives.
        """
        seen = self.see(views, generator)
        output = self.loss(*self.term.embed(seen), labels)
        mask = RandomMask(self.config.mask_ratio)
        keep = tuple(seen.keep(student, mask) for student, _ in self.directions)
        return replace(output, keep=keep)

    def loss(
        self,
        queries: Sequence[Float[Tensor, "b d"]],
        keys: Sequence[Float[Tensor, "b d"]],
        labels: Labels | tuple[Labels, Labels],
    ) -> SoftConOutput:
        """Return the loss of embeddings: see `SoftContrast.contrast`."""
        return self.term.contrast(queries, keys, labels)


# ------------------------------------------------------------------------------- objective of a run

# Description of the training objective on the card of an export.
OBJECTIVES: Final[Mapping[Objective, str]] = {
    Objective.SOFTCON: "SoftCon: soft contrastive learning guided by multi-labels "
    "(arXiv 2405.20462)",
    Objective.MOCO: "control: the hard term of SoftCon alone, as in MoCo-v3 (arXiv 2104.02057)",
    Objective.SOFT: "control: the soft term of SoftCon alone (arXiv 2405.20462)",
    Objective.SHUFFLED: "control: SoftCon (arXiv 2405.20462) with the label sets of the scenes "
    "exchanged at random",
    Objective.MULTILABEL: "control: multi-label classification by binary cross entropy, no "
    "contrast",
}


def describe_objective(config: SoftConConfig) -> str:
    """Return the description of the training objective for the card of an export."""
    return "; ".join(_describe(choice, config) for choice in config.chosen)


def _describe(choice: TermChoice, config: SoftConConfig) -> str:
    if names_own(choice.name):
        about = f"own: {choice.name}"
    elif isinstance(config.objective, Objective) and choice.name == Objective.SOFTCON:
        about = OBJECTIVES[config.objective]
    else:
        about = find_term(choice.name).about
    return about if choice.weight == 1 else f"{choice.weight:g} x {about}"


def make_objective(
    trunk: MaskedTrunk,
    config: SoftConConfig,
    generator: torch.Generator,
    facts: LabelFacts,
    *,
    band_mean: float,
    frozen: Frozen | None = None,
) -> CombinedTerms:
    """Return the module that computes the loss of a configuration.

    Args:
        trunk: The encoder to pretrain.
        config: The objective.
        generator: Random generator of the heads' initial weights, on the CPU.
        facts: Properties of the training labels: `label_facts`.
        band_mean: Value of a band's mean in normalised units.
        frozen: Function from the name of weights to a frozen teacher.

    Raises:
        ConfigError: If a term cannot be created, or a class of your own lacks required attributes.
    """
    if is_whole(config):
        return _own(trunk, config, generator, facts, band_mean)
    return CombinedTerms(trunk, config, generator, facts, band_mean=band_mean, frozen=frozen)


def is_whole(config: SoftConConfig) -> bool:
    """Whether the objective is a class of your own with its networks, not only a term.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    if config.terms is not None or isinstance(config.objective, Objective):
        return False
    kind = _load(config.objective)
    return not (isinstance(kind, type) and issubclass(kind, Term))


def asks_for_places(config: SoftConConfig) -> bool:
    """Whether the objective must know which images are of one place.

    Raises:
        ConfigError: If a term or an objective of your own cannot be loaded.
    """
    if config.hard_exclude is Exclude.SAME_LOCATION:
        return True
    return not is_whole(config) and any(each.places for each in needs_of(config).values())


def _load(reference: str) -> object:
    try:
        return load_own(reference)
    except Exception as error:
        raise _cannot_be_made(reference, error) from error


def _cannot_be_made(reference: str, error: Exception) -> ConfigError:
    return ConfigError(
        "an objective of your own cannot be made",
        found=f"{type(error).__name__}: {error}",
        expected="a class derived from eofm.method.terms.seam.Term, or one that is made as "
        "eofm.method.SoftCon is",
        where=f"method.objective={reference}",
        remedy="the part before : is a module that can be imported, or a .py file; the part "
        "after it a class, such as a subclass of eofm.method.SoftCon",
    )


def _own(
    trunk: MaskedTrunk,
    config: SoftConConfig,
    generator: torch.Generator,
    facts: LabelFacts,
    band_mean: float,
) -> CombinedTerms:
    """Return a user-defined objective with its networks."""
    kind = _load(config.objective)
    try:
        made: object = kind(trunk, config, generator, facts, band_mean=band_mean)  # type: ignore[operator]
    except Exception as error:
        raise _cannot_be_made(config.objective, error) from error
    if not isinstance(made, nn.Module) or not {"student", "teacher"} <= set(dir(made)):
        raise ConfigError(
            "an objective of your own is no method of training",
            found=type(made).__name__,
            expected="a torch.nn.Module with a student and a teacher",
            where=f"method.objective={config.objective}",
        )
    return made  # type: ignore[return-value] # the attributes a run uses were checked
