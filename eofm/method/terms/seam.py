"""Interface between terms of the loss and training: requirements, inputs and outputs of a term.

A run minimises a weighted sum of terms, `method.terms: {softcon: 1, mim: 0.5}`. A term is one file,
`eofm/method/terms/<name>.py`: pure functions, the dataclass of its settings, and a class derived
from `Term`, which the file names as `TERM`. It is independent of the trunk, the views and the
other terms. It gets images and tokens from `Seen`, which computes every forward pass once, so that
two terms with the same mask share it.

    class Mean(Term[MeanSettings]):
        about = "description of the objective for the card of an export"
        settings = MeanSettings
        needs = Needs(tokens=Tokens.PATCHES)

        def loss(self, seen, labels, generator):
            tokens = seen.forward(Side.STUDENT, 0)
            return TermOutput(tokens.square().mean(), {"size": tokens.detach().abs().mean()})

    TERM = Mean

Terms are the files of this folder with a `TERM`, and classes of your own; only the terms of a run
are loaded.

Shapes: B images, C bands, H by W pixels, P patches of which K are kept, D trunk width.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from importlib import import_module
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_type_hints, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from eofm.contract.imagery import Labels
from eofm.errors import ConfigError
from eofm.io import load_own, names_own
from eofm.method.config import SoftConConfig, TermChoice
from eofm.method.masking import keep_tokens
from eofm.method.similarity import LabelFacts
from eofm.method.terms import term_names

__all__ = [
    "Needs",
    "PatchMask",
    "RandomMask",
    "RunFacts",
    "S",
    "Seen",
    "Side",
    "TeacherKind",
    "Term",
    "TermOutput",
    "Tokens",
    "ViewKind",
    "find_term",
    "settings_of",
]

S = TypeVar("S")


class ViewKind(StrEnum):
    """Kind of views of a scene that a term needs, as set by `data.views`.

    ANY: any kind. CROPS: two crops of one image. NESTED: the second is a crop of the
    first. SEASONS: crops of two dates of a place. SENSORS: the optical and the radar image.
    """

    ANY = "any"
    CROPS = "crops"
    NESTED = "nested"
    SEASONS = "seasons"
    SENSORS = "sensors"


class TeacherKind(StrEnum):
    """Teacher that a term needs: none, the student's moving average, or a frozen network."""

    NONE = "none"
    EMA = "ema"
    FROZEN = "frozen"


class Tokens(StrEnum):
    """Output of a forward pass that a term needs: the image's vector, or also its patches."""

    CLS = "cls"
    PATCHES = "patches"


class Side(StrEnum):
    """Network of the run that processes an image: the student, or its moving average."""

    STUDENT = "student"
    TEACHER = "teacher"


@dataclass(frozen=True)
class Needs:
    """Requirements of a term. Parts that no term of a run needs are not built.

    Args:
        views: Kind of views of a scene.
        labels: Whether it reads labels; a store without labels is then refused.
        places: Whether it needs the places of images (`Labels.places`).
        teacher: Kind of teacher.
        tokens: Output of a forward pass.
    """

    views: ViewKind = ViewKind.ANY
    labels: bool = False
    places: bool = False
    teacher: TeacherKind = TeacherKind.NONE
    tokens: Tokens = Tokens.CLS


@dataclass(frozen=True)
class TermOutput:
    """Outcome of a step of a term.

    Args:
        loss: The unweighted loss, a scalar with a gradient.
        scalars: Detached values to log, by name. The run prefixes them with the term's name, as in
            `mim/error`. The collapse guard monitors a spread named `embedding_std`.
    """

    loss: Float[Tensor, ""]
    scalars: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """Facts about the trunk and the run for creating a term.

    Args:
        width: Width of the trunk's tokens, D.
        grid: Rows and columns of patches of a view; P is their product.
        patch: Side of a patch in pixels.
        channels: Bands of each of the two views.
        drops_tokens: Whether the trunk processes only the kept patches.
        method: All settings of the method, which terms share, such as the mask.
        labels: Facts about the labels of the training images.
        band_mean: Value of a band's mean in normalised units.
        frozen_width: Width of the tokens of the term's frozen teacher, D'; 0 without one.
    """

    width: int
    grid: tuple[int, int]
    patch: int
    channels: tuple[int, int]
    drops_tokens: bool = True
    method: SoftConConfig = field(default_factory=SoftConConfig)
    labels: LabelFacts = field(default_factory=LabelFacts)
    band_mean: float = 0.0
    frozen_width: int = 0

    @property
    def views(self) -> tuple[int, ...]:
        """Views that the student learns from: both if the method is symmetric."""
        return (0, 1) if self.method.symmetric else (0,)

    @property
    def tokens(self) -> int:
        """Number of patches, P."""
        return self.grid[0] * self.grid[1]


@runtime_checkable
class PatchMask(Protocol):
    """A mask of patches: a frozen dataclass, so that terms with equal masks share one."""

    def draw(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator
    ) -> Int64[Tensor, "b k"] | None:
        """Return the visible patches, int64 (B, K), row by row of the grid; None for all.

        Args:
            batch: Number of images, B.
            grid: Rows and columns of patches.
            generator: Random generator.
        """

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class RandomMask:
    """Patches hidden uniformly and independently for each image (`keep_tokens`).

    Args:
        ratio: Share of hidden patches, 0 to below 1.
    """

    ratio: float

    def draw(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator
    ) -> Int64[Tensor, "b k"] | None:
        """Return the kept patches (B, K), or None if nothing is hidden."""
        return keep_tokens(batch, grid[0] * grid[1], self.ratio, generator)


class Seen(ABC):
    """One batch and the networks' outputs for it; every forward pass is computed once.

    Passes are cached by (side, view, mask); a repeated call returns the same tensor. Views are 0
    and 1. All values are normalised, none are in physical units.
    """

    @abstractmethod
    def images(self, view: int) -> Float[Tensor, "b c h w"]:
        """Return a view, (B, C, H, W), normalised."""

    @abstractmethod
    def valid(self, view: int) -> Bool[Tensor, "b 1 h w"]:
        """Return the valid pixels of a view, bool (B, 1, H, W).

        A pixel of a view is resampled from several pixels and is valid if all of them are. Losses
        on pixels exclude invalid ones.
        """

    @abstractmethod
    def keep(self, view: int, mask: PatchMask | None) -> Int64[Tensor, "b k"] | None:
        """Return the patches of a view that a mask keeps, (B, K), on the device; None for all.

        The mask is drawn at the first call, from the run's generator of masks.
        """

    @abstractmethod
    def forward(
        self, side: Side, view: int, mask: PatchMask | None = None
    ) -> Float[Tensor, "b tokens d"]:
        """Return the tokens of a view, (B, 1 + K, D): its vector, then the patches row by row.

        The vector is the trunk's exported embedding: CLS, or the mean of the patches. The patches
        are those of `keep(view, mask)`, in its order, or all P if the mask is None or the method's
        mask fills pixels (`method.mask pixels`). If no term needs `Tokens.PATCHES`, there are no
        patches: (B, 1, D). A teacher's tokens have no gradient.
        """

    @abstractmethod
    def project(
        self,
        side: Side,
        view: int,
        head: str,
        mask: PatchMask | None = None,
        tokens: Tokens = Tokens.CLS,
    ) -> Float[Tensor, "b ..."]:
        """Return the output of a head of `Term.heads` for the vector, (B, d), or the patches.

        Args:
            side: Network of the head.
            view: 0 or 1.
            head: Name of the head.
            mask: As for `forward`.
            tokens: Input of the head: the vector, giving (B, d), or the patches, giving (B, K, d).
        """

    @abstractmethod
    def frozen(self, view: int) -> Float[Tensor, "b 1 d"]:
        """Return the vector of the term's frozen teacher for the crop of a view, (B, 1, D').

        It has no gradient. The teacher gets the same crop, unmasked and without colour jitter and
        blur, with the sensor, bands and size of its own recipe.
        """


class Term(nn.Module, ABC, Generic[S]):
    """A part of the objective: trained layers and a loss.

    A parameter without a gradient stops distributed training, so create only layers that are used.
    Draw random numbers from `generator`, never from torch's global state: all processes must draw
    the same numbers, and a resumed run must continue the sequence.

    Args:
        settings: Settings of the term, an instance of the class's `settings`.
        facts: Facts about the trunk and the run.
        generator: Random generator of initial weights, on the CPU.

    Attributes:
        about: Description of the objective for the card of an export, with the paper.
        settings: Frozen dataclass of its settings, all with defaults.
        needs: Requirements of the term.
        prefix: Prefix of the names of its scalars; the term's name and a slash if None.
    """

    about: ClassVar[str]
    settings: ClassVar[type]
    needs: ClassVar[Needs] = Needs()
    prefix: ClassVar[str | None] = None

    def __init__(self, settings: S, facts: RunFacts, generator: torch.Generator) -> None:
        super().__init__()
        self.chosen, self.facts = settings, facts

    @classmethod
    def needs_of(cls, settings: S) -> Needs:
        """Return the requirements for the settings; by default `needs`."""
        return cls.needs

    @classmethod
    def heads(
        cls, settings: S, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return layers on the image's vector that the teacher averages as well, by name.

        Both networks have them in addition to the trunk, and `Seen.project` runs them. Layers of
        the student only are created in `__init__` and belong to the term.

        Args:
            settings: Settings of the term.
            facts: Facts about the trunk and the run.
            generator: Random generator of initial weights, on the CPU.
        """
        return {}

    @classmethod
    def frozen_source(cls, settings: S) -> str:
        """Return the name of the frozen teacher's weights, as for `model.weights`."""
        return ""

    @abstractmethod
    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the loss of a batch.

        Args:
            seen: The batch and the networks' outputs for it.
            labels: Labels of the images, or of each view if the views are of different seasons.
            generator: Random generator for the step, on the CPU.
        """


# ---------------------------------------------------------------------------------- lookup of terms


def find_term(name: str) -> type[Term[Any]]:
    """Return the class of a term.

    Args:
        name: Name of a file of this folder; or `module:Class`, `file.py:Class`.

    Raises:
        ConfigError: If the name is unknown, or the class is not a term.
    """
    if names_own(name):
        try:
            found = load_own(name)
        except Exception as error:
            raise _no_term(name, f"{type(error).__name__}: {error}") from error
    elif name in term_names():
        found = getattr(import_module(f"eofm.method.terms.{name}"), "TERM", None)
    else:
        raise _no_term(name, "no such file")
    if not (isinstance(found, type) and issubclass(found, Term)):
        raise _no_term(name, repr(found))
    return found


def _no_term(name: str, found: str) -> ConfigError:
    return ConfigError(
        f"{name!r} is no term of an objective",
        found=found,
        expected=", ".join(term_names()) + "; or a class derived from eofm.method.terms.seam.Term",
        where="method.terms",
        remedy="the part before : is a module that can be imported, or a .py file; the part after "
        "it the class",
    )


def settings_of(kind: type[Term[Any]], choice: TermChoice, method: SoftConConfig) -> Any:  # noqa: ANN401
    """Return the settings of a term: its defaults with the run's changes.

    Args:
        kind: The term.
        choice: Choice of the term in the run.
        method: Settings of the method, used for a term without settings of its own.

    Raises:
        ConfigError: If a setting is unknown, or its value has the wrong type.
    """
    where = f"method.terms.{choice.name}"
    if kind.settings is SoftConConfig:
        if choice.settings:
            raise ConfigError(
                "the settings of this term are those of the group `method`",
                found=", ".join(choice.settings),
                expected="a weight alone",
                where=where,
                remedy="set them as method.NAME",
            )
        return method
    known = get_type_hints(kind.settings)
    names = [field.name for field in fields(kind.settings)]
    for name in choice.settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(
                f"the term {choice.name} has no such setting",
                found=name,
                expected=", ".join(["weight", *names]),
                where=where,
                remedy=f"did you mean {near[0]}?" if near else None,
            )
    values = {name: _fit(known[name], v, f"{where}.{name}") for name, v in choice.settings.items()}
    return kind.settings(**values)


def _fit(kind: object, value: object, where: str) -> object:
    """Convert a value of YAML to the type of a setting; whole numbers may stand for floats.

    Members of enumerations are created from their values, as written in settings files. Unions,
    tuples and literals are left to the term's own checks.
    """
    if not isinstance(kind, type):
        return tuple(value) if isinstance(value, list) else value
    if issubclass(kind, StrEnum):
        if value in list(kind):
            return kind(str(value))
        expected = ", ".join(kind)
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    else:
        expected = kind.__name__
    raise ConfigError(
        "a setting of a term has another kind of value",
        found=value,
        expected=expected,
        where=where,
    )
