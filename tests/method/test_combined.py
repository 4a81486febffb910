"""A run is a weighted sum of terms: shared passes, names of 0.1, what is built and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from contributing import write_example
from softcon_small import Patches, batch, model, small
from torch import Tensor

import eofm.method.terms
from eofm.contract.imagery import Labels
from eofm.contract.recipe import Pooling
from eofm.errors import ConfigError
from eofm.method import CombinedTerms, LabelFacts, SoftConConfig
from eofm.method.objectives import check_views, needs_of
from eofm.method.terms import term_names
from eofm.method.terms.seam import (
    Needs,
    RandomMask,
    Seen,
    Side,
    TeacherKind,
    Term,
    TermOutput,
    Tokens,
    ViewKind,
    find_term,
)


class Tokenised(Patches):
    """The trunk of one layer, with its patches as tokens and the passes counted."""

    prefix, pooling, grid, channels = 0, Pooling.MEAN, (4, 4), 3

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, pixels, keep=None):
        return self.forward_features(pixels, keep).mean(1)

    def forward_features(self, pixels, keep=None):
        self.passes += 1
        tokens = self.proj(pixels).flatten(2).transpose(1, 2).tanh()
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, self.dim))
        return tokens


@dataclass(frozen=True)
class SizeSettings:
    """Settings: `least`, the size that is not punished."""

    least: float = 0.0


class Size(Term[SizeSettings]):
    """The mean square of the student's patches under SoftCon's mask."""

    about = "small patches"
    settings = SizeSettings
    needs = Needs(tokens=Tokens.PATCHES)

    def loss(
        self, seen: Seen, labels: Labels | tuple[Labels, Labels], generator: torch.Generator
    ) -> TermOutput:
        mask = RandomMask(self.facts.method.mask_ratio)
        size = seen.forward(Side.STUDENT, 0, mask)[:, 1:].square().mean()
        return TermOutput((size - self.chosen.least).relu(), {"size": size})


TERM = Size


@pytest.fixture
def size_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The term of this file, in a folder that is looked through as that of the package is."""
    name = "size_of_patches"
    (tmp_path / f"{name}.py").write_text(f"from {__name__} import TERM\n")
    monkeypatch.setattr(eofm.method.terms, "__path__", [*eofm.method.terms.__path__, str(tmp_path)])
    yield name
    monkeypatch.delitem(__import__("sys").modules, f"eofm.method.terms.{name}", raising=False)


def combined(terms: dict[str, object] | None, **changes: object) -> CombinedTerms:
    """The terms of a run on a trunk with tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = Tokenised()
    return CombinedTerms(
        trunk, small(terms=terms, **changes), torch.Generator().manual_seed(0), LabelFacts()
    )


def step(method: CombinedTerms) -> tuple[Tensor, dict[str, float]]:
    """One step on the same batch with the same masks."""
    views, labels = batch(torch.Generator().manual_seed(5))
    output = method(views, labels, torch.Generator().manual_seed(6))
    return output.loss, {name: float(value) for name, value in output.logged().items()}


def test_softcon_as_a_term_is_softcon(generator: torch.Generator) -> None:
    """By preset or by name, alone: the loss, its numbers and every gradient, bit for bit."""
    plain, preset, named = model(), combined(None), combined({"softcon": 1})
    for method in (preset, named):
        method.load_state_dict(plain.state_dict())
        (one, theirs), (two, mine) = step(plain), step(method)
        plain.zero_grad()
        one.backward()
        two.backward()

        assert torch.equal(one, two)
        assert theirs == mine
        for (a, p), (b, q) in zip(plain.named_parameters(), method.named_parameters(), strict=True):
            assert a == b
            assert p.grad is q.grad is None or torch.equal(p.grad, q.grad)  # type: ignore[arg-type]


def test_tensors_have_the_names_and_the_order_of_0_1() -> None:
    """Scalars, student, predictor, teacher, queue: checkpoints and optimizers of old runs fit."""
    softcon = model(queue=12, soft_scale="learned")
    names = list(softcon.state_dict())

    assert {"bias", "log_scale", "predictor.0.weight", "queue.keys"} <= set(names)
    assert {"student.projector.0.weight", "teacher.projector.0.weight"} <= set(names)
    assert not any("terms" in name for name in names)
    parts = [name.partition(".")[0] for name, p in softcon.named_parameters() if p.requires_grad]
    assert ["bias", "log_scale", "student", "predictor"] == list(dict.fromkeys(parts))


def test_a_state_goes_round(size_term: str) -> None:
    """What is saved loads again, strictly, and brings the same step; of other terms as well."""
    for terms in ({"softcon": 1}, {"softcon": 1, size_term: 0.5}):
        one, other = combined(terms), combined(terms)
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(0.01)
        assert not torch.equal(step(one)[0], step(other)[0])

        other.load_state_dict(one.state_dict())

        assert torch.equal(step(one)[0], step(other)[0])


def test_terms_are_weighted_and_share_their_passes(size_term: str) -> None:
    """The sum of the terms alone; two views through student and teacher, and no pass more."""
    alone, other = combined({"softcon": 1}), combined({size_term: 1})
    both = combined({"softcon": 1, size_term: 0.5})
    other.student.trunk.load_state_dict(alone.student.trunk.state_dict())  # type: ignore[attr-defined]
    both.load_state_dict(alone.state_dict())

    loss, numbers = step(both)

    assert 4 == both.student.trunk.passes + both.teacher.trunk.passes  # type: ignore[attr-defined,union-attr]
    assert numbers["softcon/loss"] == pytest.approx(float(step(alone)[0].detach()))
    assert numbers[f"{size_term}/loss"] == pytest.approx(numbers[f"{size_term}/size"])
    assert float(loss.detach()) == pytest.approx(
        numbers["softcon/loss"] + 0.5 * numbers[f"{size_term}/loss"]
    )
    assert {"hard", "soft", "embedding_std"} <= set(numbers)


def test_what_no_term_needs_is_not_built(size_term: str) -> None:
    """Without a term that needs an average there is none, nor heads; every parameter is reached."""
    method = combined({size_term: 1})

    assert method.teacher is None
    assert () == method.student.heads
    step(method)[0].backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    with pytest.raises(ConfigError, match="no teacher"):
        method.see(*_views()).forward(Side.TEACHER, 0)


def _views() -> tuple[tuple[Tensor, Tensor], torch.Generator]:
    return batch(torch.Generator().manual_seed(5))[0], torch.Generator().manual_seed(6)


def test_a_weight_of_nothing_is_the_run_without(size_term: str) -> None:
    """A term of weight 0 is not made at all: the same initial weights, the same step."""
    without, zero = combined({"softcon": 1}), combined({"softcon": 1, size_term: 0})

    assert list(without.state_dict()) == list(zero.state_dict())
    assert torch.equal(step(without)[0], step(zero)[0])


def test_a_pass_is_computed_once_and_known_by_its_mask() -> None:
    """Equal masks are one mask; another ratio is another; one that hides nothing is none."""
    method = combined({"softcon": 1})
    seen = method.see(*_views())

    assert seen.forward(Side.STUDENT, 0, RandomMask(0.5)) is seen.forward(
        Side.STUDENT, 0, RandomMask(0.5)
    )
    assert seen.keep(0, RandomMask(0.5)) is seen.keep(0, RandomMask(0.5))
    assert seen.keep(0, RandomMask(0.25)).shape[1] == 12  # type: ignore[union-attr]
    assert seen.forward(Side.STUDENT, 0, RandomMask(0.0)) is seen.forward(Side.STUDENT, 0)
    assert seen.forward(Side.STUDENT, 0).requires_grad
    assert not seen.forward(Side.TEACHER, 0).requires_grad
    assert seen.valid(0).all()
    assert (6, 1, 8, 8) == tuple(seen.valid(0).shape)


def test_tokens_are_a_vector_and_its_patches(size_term: str) -> None:
    """Patches come in the order of the mask, after the vector that the trunk itself returns."""
    method = combined({size_term: 1})
    seen = method.see(*_views())
    keep = seen.keep(1, RandomMask(0.5))
    tokens = seen.forward(Side.STUDENT, 1, RandomMask(0.5))
    trunk = method.student.trunk

    assert keep is not None
    assert torch.equal(tokens[:, 1:], trunk.forward_features(seen.images(1), keep))  # type: ignore[attr-defined]
    assert torch.allclose(tokens[:, 0], trunk(seen.images(1), keep))


def test_every_file_is_a_term(size_term: str) -> None:
    """All names lead to a class that says what it is for; one that is added is found."""
    assert {"softcon", "multilabel", size_term} <= set(term_names())
    for name in term_names():
        kind = find_term(name)
        assert kind.about
        assert kind.settings()  # all have defaults


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"softcom": 1}, "there is no such term"),
        ({"softcon": -1}, "method.terms.softcon"),
        ({"softcon": "much"}, "method.terms.softcon"),
        ({"softcon": True}, "method.terms.softcon"),
        ({"softcon": 0}, "names no term with a weight"),
        ({}, "names no term with a weight"),
        ([1], "names no term with a weight"),
        ({"softcon": {"tau": 0.1}}, "those of the group `method`"),
        ({"absent.py:A": 1}, "is no term of an objective"),
        ({"size_of_patches": {"last": 1}}, "has no such setting"),
        ({"size_of_patches": {"least": "much"}}, "another kind of value"),
    ],
)
def test_what_is_no_term_is_refused(size_term: str, terms: object, words: str) -> None:
    """One error of eofm, which names the place, before anything is trained."""
    with pytest.raises(ConfigError, match=words):
        combined(terms)  # type: ignore[arg-type]


def test_settings_of_a_term_are_read(size_term: str) -> None:
    """Beside its weight, whole numbers as well; and the objective says what `softcon` is."""
    method = combined({size_term: {"weight": 0.5, "least": 1}})
    assert 1.0 == method.terms[size_term].chosen.least  # type: ignore[union-attr]
    assert {size_term: 0.5} == method.weights

    moco = SoftConConfig(objective="moco", terms={"softcon": 1, size_term: 1})
    assert (1.0, 0.0) == moco.weights
    with pytest.raises(ConfigError, match="objective"):
        SoftConConfig(objective="multilabel", terms={"softcon": 1})
    for objective in ("moco", "soft"):  # halves of a term that is not there
        with pytest.raises(ConfigError, match="there is none to change"):
            SoftConConfig(objective=objective, terms={"multilabel": 1})
    SoftConConfig(objective="shuffled", terms={"multilabel": 1})  # whose labels are exchanged


def test_views_have_to_be_those_of_the_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever suits any views suits all; a term for other views names the option to set."""
    config = SoftConConfig()
    for kind in ViewKind:
        check_views(config, kind)
    needs = Needs(views=ViewKind.NESTED, teacher=TeacherKind.EMA)
    monkeypatch.setattr("eofm.method.objectives.needs_of", lambda _: {"softcon": needs})

    check_views(config, ViewKind.NESTED)
    with pytest.raises(ConfigError) as caught:
        check_views(config, ViewKind.CROPS)
    assert "add --data.views nested" == caught.value.remedy


def test_the_example_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is what its text says, beside SoftCon's on the same pass."""
    monkeypatch.chdir(tmp_path)
    write_example("spread.py", tmp_path)
    method = combined({"softcon": 1, "spread.py:Spread": {"weight": 0.1, "least": 2}})

    loss, numbers = step(method)

    assert Needs() == needs_of(method.config)["Spread"]
    views, generator = _views()
    seen = method.see(views, generator)
    mask = RandomMask(method.config.mask_ratio)
    rows = [seen.forward(Side.STUDENT, view, mask)[:, 0] for view in (0, 1)]
    expected = sum(torch.relu(2 - each.std(dim=0)).mean() for each in rows)
    assert float(expected.detach()) == pytest.approx(numbers["Spread/loss"], rel=1e-5)
    whole = numbers["softcon/loss"] + 0.1 * numbers["Spread/loss"]
    assert whole == pytest.approx(float(loss.detach()), rel=1e-5)
