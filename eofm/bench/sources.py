"""Sources of features: frozen models with their identity, one part per sensor.

A plain network with a recipe is a source too: a user's own encoder, or a control. The harness
prepares the pixels by the recipe; the network never sees physical units.

The identity determines the flags of a row in tables: a forced plan, a changed input, training data
that may contain the test images. Contamination is judged by the stated contents of a corpus. Its
places are not intersected with those of the test split, so the absence of a flag means "not known
to overlap", never "does not overlap".

Shapes: B images, C bands, H by W pixels, P patches, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from eofm import io
from eofm.contract.imagery import Imagery
from eofm.contract.prepare import preprocess_for
from eofm.contract.preprocess import Plan
from eofm.contract.recipe import CHECKED, FORCED_WHY, Recipe, Waiver
from eofm.contract.spec import ImageSpec
from eofm.datasets.base import Task
from eofm.errors import ConfigError, PixelError, WeightsError
from eofm.networks.state import state_sha256
from eofm.networks.trunk import Trunk
from eofm.probes.features import Scaling
from eofm.weights.encoder import Card, Encoder

__all__ = [
    "CHANGED_WHY",
    "CONTAINS",
    "CONTAMINATED",
    "FORCED_FLAG",
    "NONSTANDARD",
    "UNDECLARED",
    "Candidate",
    "EncoderSource",
    "FeatureSource",
    "Identity",
    "NetworkSource",
    "TokenSource",
    "Trainee",
    "check_evaluating",
    "check_vectors",
    "contamination_flags",
    "forced_flags",
    "input_size",
    "joined",
    "load_own",
    "nonstandard_flags",
    "taken_by",
]


@dataclass(frozen=True)
class Identity:
    """Properties of a model that its features depend on. Part of every record.

    Args:
        name: Name in tables.
        control: Whether it is a control rather than a candidate.
        about: Description of the origin of the weights.
        weights_sha256: Hash of the weights file; empty for a control without weights.
        recipe_sha256: Hash of the recipe; empty for a control.
        plan_sha256: Hash of the plan from the task's images to the network; empty for a control.
        plan: The plan as text.
        waivers: Waivers, with reasons.
        size: Side of the network's input in pixels; 0 for a control without a plan.
        trained_on: Description of the training data of its weights; empty if not declared.
        recipe: The recipe as the JSON that `recipe_sha256` hashes; a line per sensor.
    """

    name: str
    control: bool
    about: str
    weights_sha256: str
    recipe_sha256: str
    plan_sha256: str
    plan: tuple[str, ...]
    waivers: tuple[str, ...]
    size: int = 0
    trained_on: str = ""
    recipe: str = ""


def joined(name: str, parts: Sequence[Identity]) -> Identity:
    """Return the identity of a model with a part for each sensor; of a single part, its own.

    Args:
        name: Name of the model in tables.
        parts: Identities in the order of the task's sensors.
    """
    if len(parts) == 1:
        return parts[0]
    return Identity(
        name=name,
        control=all(part.control for part in parts),
        about=" + ".join(part.about for part in parts),
        weights_sha256=_joined([part.weights_sha256 for part in parts]),
        recipe_sha256=_joined([part.recipe_sha256 for part in parts]),
        plan_sha256=_joined([part.plan_sha256 for part in parts]),
        plan=tuple(line for part in parts for line in part.plan),
        waivers=tuple(dict.fromkeys(w for part in parts for w in part.waivers)),
        size=parts[0].size,
        trained_on=" + ".join(dict.fromkeys(p.trained_on for p in parts if p.trained_on)),
        recipe="\n".join(p.recipe for p in parts) if any(p.recipe for p in parts) else "",
    )


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("+".join(hashes).encode()).hexdigest() if any(hashes) else ""


def _identity(
    plan: Plan,
    recipe: Recipe,
    marks: Sequence[str],
    *,
    name: str,
    control: bool,
    about: str,
    weights_sha256: str,
    trained_on: str,
) -> Identity:
    """Return the identity of a network with a recipe; `marks` list deliberate changes."""
    written = json.dumps(recipe.to_dict(), sort_keys=True)
    return Identity(
        name=name,
        control=control,
        about=about,
        weights_sha256=weights_sha256,
        recipe_sha256=hashlib.sha256(written.encode()).hexdigest(),
        plan_sha256=plan.hash,
        plan=tuple(plan.describe().splitlines()),
        waivers=(*(str(waiver) for waiver in plan.waivers), *marks),
        size=input_size(plan),
        trained_on=trained_on,
        recipe=written,
    )


class FeatureSource(Protocol):
    """Anything that turns imagery in physical units into feature vectors."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def scaling(self) -> Scaling:
        """Scaling that a probe applies to its features first."""
        ...

    def identity(self, spec: ImageSpec) -> Identity:
        """Return its identity for images of this kind.

        Raises:
            SpecMismatch: If it cannot take such images.
        """
        ...

    @property
    def network(self) -> nn.Module | None:
        """The network that computes the features, if there is one."""
        ...

    def embed(self, imagery: Imagery) -> Tensor:
        """Return features: float32 (B, D), on the CPU."""
        ...

    def check_frozen(self) -> None:
        """Raise an error if embedding has changed its state."""
        ...


@runtime_checkable
class TokenSource(FeatureSource, Protocol):
    """A source that also has a vector per patch."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return the vectors of the patches: float32 (B, P, D), on the CPU."""
        ...


@final
class EncoderSource:
    """An encoder, frozen.

    Args:
        name: Name in tables.
        encoder: The network with its recipe.
        control: Whether it is a control.
        waivers: Waivers granted.
        changed: Deliberate changes of its recipe, as texts.
    """

    scaling = Scaling.NONE

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        *,
        control: bool = False,
        waivers: Sequence[Waiver] = (),
        changed: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._control = control
        self._encoder = encoder.eval()
        self._waivers = tuple(waivers)
        self._marks = tuple(f"{text}: {CHANGED_WHY}" for text in changed)
        self._state = state_sha256(encoder)
        self._identities: dict[ImageSpec, Identity] = {}  # needed for each record of a run

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self._encoder

    def identity(self, spec: ImageSpec) -> Identity:
        """Return its weights, recipe and plan.

        Raises:
            SpecMismatch: If the encoder cannot take such images.
        """
        if spec not in self._identities:
            card = self._encoder.card
            self._identities[spec] = _identity(
                self._encoder.plan_for(spec, self._waivers),
                self._encoder.recipe,
                self._marks,
                name=self.name,
                control=self._control,
                about=_about(card),
                weights_sha256=card.sha256 or self._state,
                trained_on=card.training_data,
            )
        return self._identities[spec]

    def embed(self, imagery: Imagery) -> Tensor:
        """Return the embeddings, through the encoder's own plan."""
        return self._encoder.embed(imagery, (*self._waivers, CHECKED)).cpu()

    @property
    def trainee(self) -> Trainee:
        """The network, for training with a head or reading by layer."""
        encoder = self._encoder
        return Trainee(self.name, encoder.trunk, encoder.trunk, encoder.recipe, self._waivers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of the recipe's size."""
        return self._encoder.trunk.grid

    def tokens(self, imagery: Imagery) -> Tensor:
        """Return the patch tokens, float32 (B, P, D) on the CPU, through the encoder's own plan.

        Raises:
            WeightsError: If there is not one token per patch.
            PixelError: If a token is not finite.
        """
        found = self._encoder.features(imagery, (*self._waivers, CHECKED)).cpu()
        rows, columns = self.grid
        if found.shape[1] != rows * columns:
            raise WeightsError(
                "a network returned another number of patches than it has",
                found=found.shape[1],
                expected=f"{rows} x {columns}",
                where=self.name,
            )
        if not torch.isfinite(found).all():
            raise PixelError("an encoder returned tokens that are not finite", where=self.name)
        return found

    def check_frozen(self) -> None:
        """Raise an error if a parameter or buffer has changed since construction.

        A network left in train mode updates its batch-norm statistics although it is "frozen".

        Raises:
            WeightsError: If one has.
        """
        if state_sha256(self._encoder) != self._state:
            raise WeightsError(
                "the network changed while its features were computed",
                where=self.name,
                remedy="features of a moving network are not comparable: keep it in eval mode",
            )


def input_size(plan: Plan) -> int:
    """Return the input height of a plan's network in pixels."""
    return plan.target.size[0] if plan.target.size else 0


def _about(card: Card) -> str:
    text = f"{card.architecture}, {card.source}"
    if card.objective != "none":
        text += f", trained on {card.training_data}"
    if card.synthetic and "synthetic" not in text.lower():
        text += " (synthetic)"
    return text


@dataclass(frozen=True)
class Trainee:
    """A network with its recipe.

    Args:
        name: Name of the candidate.
        network: From normalised pixels (B, C, H, W) to vectors (B, D).
        trunk: The same if it exposes its layers, or None.
        recipe: Its recipe.
        waivers: Waivers granted.
    """

    name: str
    network: nn.Module
    trunk: Trunk | None
    recipe: Recipe
    waivers: tuple[Waiver, ...]

    def pixels(self, imagery: Imagery) -> Tensor:
        """Return normalised pixels (B, C, H, W) of imagery in physical units, on its device.

        Raises:
            SpecMismatch: If the imagery does not match the recipe.
            PixelError: If a valid pixel is not finite, or an image has no valid pixel.
        """
        prepared: Imagery = preprocess_for(imagery.spec, self.recipe, self.waivers)(imagery)
        return prepared.pixels

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(iter(self.network.state_dict().values()), torch.empty(0)).device


def check_vectors(found: object, count: int, name: str) -> Tensor:
    """Check that a network returned one finite vector for each of `count` images, and return them.

    Raises:
        WeightsError: If the output is anything else.
        PixelError: If a feature is not finite.
    """
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != count:
        raise WeightsError(
            "an encoder must return one vector per image",
            found=tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__,
            expected=f"a tensor of shape ({count}, D)",
            where=name,
            remedy="pool tokens or maps in its forward",
        )
    if not torch.isfinite(found).all():
        raise PixelError(
            "an encoder returned features that are not finite",
            found=f"{int((~torch.isfinite(found)).any(dim=1).sum())} of {len(found)} images",
            where=name,
            remedy="half precision overflows, and a division by a deviation of 0 is infinite",
        )
    return found


def check_evaluating(network: nn.Module, name: str, remedy: str) -> None:
    """Raise an error if a part of a network is in training mode.

    Raises:
        WeightsError: If one is.
    """
    training = [part or "itself" for part, m in network.named_modules() if m.training]
    if training:
        raise WeightsError(
            "the network is in training mode: dropout and batch statistics would be features",
            found=", ".join(training[:5]),
            where=name,
            remedy=remedy,
        )


@dataclass(frozen=True)
class Candidate:
    """One row of a table: a source of features for every sensor of the task.

    Args:
        name: Name in tables.
        parts: One per sensor; their features are concatenated.
        of: Name of the original model, if this is one with a changed input; else empty.
        normalization: Its normalisation, as on the command line; empty for the recipe's.
    """

    name: str
    parts: tuple[FeatureSource, ...]
    of: str = ""
    normalization: str = ""

    @property
    def scaling(self) -> Scaling:
        """Scaling that a probe applies to the features first."""
        return self.parts[0].scaling

    def identity(self, task: Task) -> Identity:
        """Return its identity for the images of a task.

        Raises:
            SpecMismatch: If it cannot take them.
        """
        found = [p.identity(spec) for p, spec in zip(self.parts, task.specs, strict=True)]
        return joined(self.name, found)


def taken_by(
    option: str,
    candidates: Sequence[Candidate],
    fits: Callable[[Candidate], bool],
    problem: str,
    remedy: str,
) -> list[Candidate]:
    """Return the candidates that a probe can score.

    Args:
        option: Option that requested the probe.
        candidates: All candidates of the run.
        fits: Whether it can score a candidate.
        problem: Error message if it can score none.
        remedy: Remedy of that error.

    Raises:
        ConfigError: If it can score none.
    """
    found = [one for one in candidates if fits(one)]
    if not found:
        raise ConfigError(
            problem,
            found=", ".join(one.name for one in candidates),
            where=option,
            remedy=remedy,
        )
    return found


# ----------------------------------------------------------------------------------- plain networks


@final
class NetworkSource:
    """A network from normalised pixels (B, C, H, W) to features (B, D), frozen.

    Args:
        name: Name in tables.
        network: In evaluation mode.
        recipe: Its recipe.
        about: Description of its origin.
        control: Whether it is a control.
        waivers: Waivers granted.
        scaling: Scaling that a probe applies to its features first.
        changed: Deliberate changes of its recipe, as texts.
        trained_on: Description of the training data of its weights; empty if not declared.

    Raises:
        WeightsError: If a part of the network is in training mode.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        recipe: Recipe,
        about: str,
        *,
        control: bool = False,
        waivers: Sequence[Waiver] = (),
        scaling: Scaling = Scaling.NONE,
        changed: Sequence[str] = (),
        trained_on: str = "",
    ) -> None:
        self.name, self.scaling = name, scaling
        self._trained_on = trained_on
        self._marks = tuple(f"{text}: {CHANGED_WHY}" for text in changed)
        self._network, self._recipe = network, recipe
        self._about, self._control, self._waivers = about, control, tuple(waivers)
        self._check_mode()
        self._state = state_sha256(network)
        self._identities: dict[ImageSpec, Identity] = {}  # needed for each record of a run

    def identity(self, spec: ImageSpec) -> Identity:
        """Return its weights, recipe and plan.

        Raises:
            SpecMismatch: If the network cannot take such images.
        """
        if spec not in self._identities:
            self._identities[spec] = _identity(
                preprocess_for(spec, self._recipe, self._waivers).plan,
                self._recipe,
                self._marks,
                name=self.name,
                control=self._control,
                about=self._about,
                weights_sha256=self._state,
                trained_on=self._trained_on,
            )
        return self._identities[spec]

    @property
    def network(self) -> nn.Module:
        """The network."""
        return self._network

    @torch.no_grad()
    def embed(self, imagery: Imagery) -> Tensor:
        """Return features: float32 (B, D), on the CPU.

        Raises:
            WeightsError: If the network returns something else.
            PixelError: If a feature is not finite.
        """
        device = next(iter(self._network.state_dict().values()), torch.empty(0)).device
        step = preprocess_for(imagery.spec, self._recipe, self._waivers)
        found: object = self._network(step(imagery.to(device)).pixels)
        return check_vectors(found, len(imagery), self.name).float().cpu()

    @property
    def trainee(self) -> Trainee | None:
        """The network, for training with a head; None if it has no parameters to train."""
        if not any(True for _ in self._network.parameters()):
            return None
        return Trainee(self.name, self._network, None, self._recipe, self._waivers)

    def check_frozen(self) -> None:
        """Raise an error if a parameter or buffer has changed, or a part is in training mode.

        Raises:
            WeightsError: If so.
        """
        self._check_mode()
        if state_sha256(self._network) != self._state:
            raise WeightsError(
                "the network changed while its features were computed",
                where=self.name,
                remedy="features of a moving network are not comparable: parameters and buffers "
                "must stay as they are",
            )

    def _check_mode(self) -> None:
        check_evaluating(self._network, self.name, "call .eval() before you hand it over")


# ------------------------------------------------------------------------- module:function


def load_own(reference: str) -> Encoder | tuple[nn.Module, Recipe]:
    """Call a user's function, which returns an encoder.

    Args:
        reference: `package.module:function`, or `path/to/file.py:function`. The working directory
            is searched first.

    Returns:
        An `eofm.Encoder`, or a network with its recipe.

    Raises:
        ConfigError: If there is no such function, it fails, or returns something else.
    """
    try:
        function = io.load_own(reference)
        made: object = function() if callable(function) else None
    except Exception as error:
        raise ConfigError(
            "an encoder of your own cannot be made",
            found=f"{type(error).__name__}: {error}",
            where=reference,
            remedy="the part before : is a module that can be imported, or a .py file; the part "
            "after it a function without arguments",
        ) from error
    if isinstance(made, Encoder):
        return made
    if (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], nn.Module)
        and isinstance(made[1], Recipe)
    ):
        return made[0], made[1]
    raise ConfigError(
        "a function of your own must return a network and its recipe",
        found=type(made).__name__,
        expected="(torch.nn.Module, eofm.Recipe), or an eofm.Encoder",
        where=reference,
    )


# ------------------------------------------------------------------------------------ flags of rows

FORCED_FLAG: Final = "forced"
# Deliberately changed inputs: `--size` and `--normalization`.
CHANGED_WHY: Final = "changed to see what it costs"
NONSTANDARD: Final = "nonstandard"


def nonstandard_flags(waivers: Sequence[str]) -> tuple[str, ...]:
    """Return the flag of a row whose input, as printed in a record, was deliberately changed.

    Args:
        waivers: As in `Identity.waivers`: the text of a waiver, or words, a colon and the reason.
    """
    changed = []
    for text in waivers:
        head, reason, _ = text.partition(", why=")
        if CHANGED_WHY in text:
            changed.append(f"{head})" if reason else text.partition(":")[0])
    return (f"{NONSTANDARD}: {', '.join(changed)}",) if changed else ()


def forced_flags(waivers: Sequence[str]) -> tuple[str, ...]:
    """Return the flag of a row whose waivers, as printed in a record, were forced."""
    forced = [text.partition("(")[0] for text in waivers if FORCED_WHY in text]
    return (f"{FORCED_FLAG}: {', '.join(dict.fromkeys(forced))}",) if forced else ()


# ----------------------------------------------------------------------------------- contamination


# Corpus, as named in cards -> prefixes of the names of the tasks whose images it contains.
CONTAINS: Final[Mapping[str, tuple[str, ...]]] = {
    "BigEarthNet": ("bigearthnet",),
    "RS5M": ("bigearthnet",),  # arXiv 2306.11300
    "GeoPile": ("resisc45",),  # arXiv 2302.04476
    "EuroSAT": ("eurosat",),
    "So2Sat": ("so2sat",),
    "TreeSatAI": ("treesatai",),
    "UC Merced": ("ucmerced",),
    "RESISC45": ("resisc45",),
    "SAT-6": ("sat6",),
}
CONTAMINATED: Final = "contaminated?"
UNDECLARED: Final = "training data not declared"


def contamination_flags(model: Identity, task: str) -> tuple[str, ...]:
    """Return the flags on a model's training data for a task.

    Args:
        model: The model. A control has no training data.
        task: Name of the task.

    Returns:
        A flag for each corpus that contains images of the task's data set, whatever its split or
        version; or a flag that the training data are not declared.
    """
    if model.control:
        return ()
    if not model.trained_on:
        return (UNDECLARED,)
    stated = model.trained_on.lower()
    return tuple(
        f"{CONTAMINATED} trained on {corpus}"
        for corpus, tasks in CONTAINS.items()
        if corpus.lower() in stated and task.startswith(tasks)
    )
