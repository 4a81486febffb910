"""The one place where an objective meets training: what a term asks for, sees, and returns.

A run minimises a weighted sum of terms, `method.terms: {softcon: 1, mim: 0.5}`. A term is one file,
`eofm/method/terms/<name>.py`: pure functions, the dataclass of its settings, and a class derived
from `Term`, which the file names as `TERM`. It does not know the trunk, the views or the other
terms. What it needs of an image it asks of `Seen`, which computes every forward pass once, so that
two terms with the same mask share it.

    class Mean(Term[MeanSettings]):
        about = "what the card of an export says it was trained for"
        settings = MeanSettings
        needs = Needs(tokens=Tokens.PATCHES)

        def loss(self, seen, labels, generator):
            tokens = seen.forward(Side.STUDENT, 0)
            return TermOutput(tokens.square().mean(), {"size": tokens.detach().abs().mean()})

    TERM = Mean

The terms are the files of this folder that have a `TERM`, and classes of your own; only those that
a run names are loaded.

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
    """Which two views of a scene a term needs: `data.views` makes them.

    ANY: whatever there is. CROPS: two crops of one image. NESTED: the second is a crop of the
    first. SEASONS: crops of two dates of a place. SENSORS: the optical and the radar image.
    """

    ANY = "any"
    CROPS = "crops"
    NESTED = "nested"
    SEASONS = "seasons"
    SENSORS = "sensors"


class TeacherKind(StrEnum):
    """Which second network a term needs: none, the student's moving average, or a frozen one."""

    NONE = "none"
    EMA = "ema"
    FROZEN = "frozen"


class Tokens(StrEnum):
    """What a term needs of a forward pass: the image's vector alone, or its patches as well."""

    CLS = "cls"
    PATCHES = "patches"


class Side(StrEnum):
    """Which of the run's own networks sees an image: the one that learns, or its average."""

    STUDENT = "student"
    TEACHER = "teacher"


@dataclass(frozen=True)
class Needs:
    """What has to be there for a term. What no term of a run needs is not built.

    Args:
        views: Of a scene.
        labels: Whether it reads labels: a store without any is refused.
        places: Whether it must know which images are of one place: `Labels.places`.
        teacher: Besides the student.
        tokens: Of a forward pass.
    """

    views: ViewKind = ViewKind.ANY
    labels: bool = False
    places: bool = False
    teacher: TeacherKind = TeacherKind.NONE
    tokens: Tokens = Tokens.CLS


@dataclass(frozen=True)
class TermOutput:
    """One step of a term.

    Args:
        loss: What is minimised, before its weight: a scalar with a gradient.
        scalars: What there is to log, detached, by name. The run puts the term's name before it:
            `mim/error`. A spread called `embedding_std` is watched by the collapse guard.
    """

    loss: Float[Tensor, ""]
    scalars: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """What a term must know of the trunk and of the run when it is made.

    Args:
        width: Of the trunk's tokens, D.
        grid: Rows and columns of patches of a view; P is their product.
        patch: Side of a patch in pixels.
        channels: Bands of each of the two views.
        drops_tokens: Whether the trunk computes on kept patches alone.
        method: All settings of the method: those that terms share, such as the mask.
        labels: What the objective takes from the labels of the training images.
        band_mean: Value of a band's mean in normalised units.
        frozen_width: Of the tokens of the term's frozen teacher, D'; 0 without one.
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
        """Views that the student learns from: both where the method is symmetric."""
        return (0, 1) if self.method.symmetric else (0,)

    @property
    def tokens(self) -> int:
        """Number of patches, P."""
        return self.grid[0] * self.grid[1]


@runtime_checkable
class PatchMask(Protocol):
    """How patches are hidden: a frozen dataclass, so that two terms with equal masks share one."""

    def draw(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator
    ) -> Int64[Tensor, "b k"] | None:
        """Return which patches are seen, int64 (B, K), row by row of the grid; None for all.

        Args:
            batch: Number of images, B.
            grid: Rows and columns of patches.
            generator: Source of randomness.
        """

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class RandomMask:
    """Patches hidden uniformly, for each image on its own: `keep_tokens`.

    Args:
        ratio: Share of hidden patches, 0 to below 1.
    """

    ratio: float

    def draw(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator
    ) -> Int64[Tensor, "b k"] | None:
        """Return the kept patches (B, K), or None where nothing is hidden."""
        return keep_tokens(batch, grid[0] * grid[1], self.ratio, generator)


class Seen(ABC):
    """One batch, and what the networks make of it: every forward pass is computed once.

    A pass is known by (side, view, mask): asked again, the same tensor comes back. Views are 0 and
    1. Everything is normalised; nothing is in physical units.
    """

    @abstractmethod
    def images(self, view: int) -> Float[Tensor, "b c h w"]:
        """Return a view, (B, C, H, W), normalised."""

    @abstractmethod
    def valid(self, view: int) -> Bool[Tensor, "b 1 h w"]:
        """Return which pixels of a view were measured, bool (B, 1, H, W).

        A pixel of a view is resampled from several: it is valid where all of them are. Losses on
        pixels leave the others out.
        """

    @abstractmethod
    def keep(self, view: int, mask: PatchMask | None) -> Int64[Tensor, "b k"] | None:
        """Return the patches of a view that a mask leaves, (B, K), on the device; None for all.

        Drawn when it is first asked for, from the run's generator of masks.
        """

    @abstractmethod
    def forward(
        self, side: Side, view: int, mask: PatchMask | None = None
    ) -> Float[Tensor, "b tokens d"]:
        """Return the tokens of a view, (B, 1 + K, D): its vector, then the patches row by row.

        The vector is what the trunk is exported with: CLS, or the mean of the patches. The patches
        are those of `keep(view, mask)`, in its order; all P where the mask is None, and where the
        method's mask fills pixels (`method.mask pixels`). Without a term that needs
        `Tokens.PATCHES` there are none: (B, 1, D). A teacher's have no gradient.
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
        """Return the vector of a view behind a head of `Term.heads`, (B, d); or its patches'.

        Args:
            side: Whose head.
            view: 0 or 1.
            head: Its name.
            mask: As for `forward`.
            tokens: The vector, (B, d), or the patches, (B, K, d).
        """

    @abstractmethod
    def frozen(self, view: int) -> Float[Tensor, "b 1 d"]:
        """Return what the term's frozen teacher makes of the crop that a view shows, (B, 1, D').

        Its vector, without a gradient. It sees the same place, whole and without colour and blur,
        by the sensor, in the bands and at the size of its own recipe.
        """


class Term(nn.Module, ABC, Generic[S]):
    """A part of the objective: its trained parts, and its loss.

    A parameter that no loss reaches stops distributed training: make only what is used. Random
    numbers come from `generator`, never from torch's global state: two processes must draw alike,
    and a resumed run must go on.

    Args:
        settings: Of the term: an instance of the class's `settings`.
        facts: What there is to know of the trunk and the run.
        generator: Source of initial weights, on the CPU.

    Attributes:
        about: What the card of an export says it was trained for, with the paper.
        settings: Frozen dataclass of its settings, all with defaults.
        needs: What has to be there.
        prefix: What stands before the names of its scalars; the term's name and a slash if None.
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
        """Return what has to be there with some settings: `needs`, where they change nothing."""
        return cls.needs

    @classmethod
    def heads(
        cls, settings: S, facts: RunFacts, generator: torch.Generator
    ) -> Mapping[str, nn.Module]:
        """Return layers on the image's vector that the teacher averages as well, by name.

        They lie beside the trunk in both networks: `Seen.project` runs them. Layers of the student
        alone are made in `__init__`, and are parts of the term.

        Args:
            settings: Of the term.
            facts: What there is to know of the trunk and the run.
            generator: Source of initial weights, on the CPU.
        """
        return {}

    @classmethod
    def frozen_source(cls, settings: S) -> str:
        """Return which weights the frozen teacher has, as `model.weights` names them."""
        return ""

    @abstractmethod
    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        """Return the loss of a batch.

        Args:
            seen: The batch, and what the networks make of it.
            labels: Of the images, or of each view where the two are of different seasons.
            generator: Source of what is drawn in a step, on the CPU.
        """


# ---------------------------------------------------------------------------- which terms there are


def find_term(name: str) -> type[Term[Any]]:
    """Return the class of a term.

    Args:
        name: Of a file of this folder; or `module:Class`, `file.py:Class`.

    Raises:
        ConfigError: If there is none, or it is no term.
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
    """Return the settings of a term: its defaults, but for what the run says.

    Args:
        kind: The term.
        choice: What the run says of it.
        method: Of the run: the settings themselves of a term that has no others.

    Raises:
        ConfigError: If there is no such setting, or a value does not fit.
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
    """Return a value of YAML as a setting has it: whole numbers may be meant as floats.

    Members of enumerations are made from their values, which name them in settings files. Unions,
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
