"""Pictures take a second each, so they are drawn only where a test is about them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the picture out, unless the test asks for `picture`."""
    if "picture" not in request.fixturenames:
        monkeypatch.setattr("eofm.landcover.run.save_figure", lambda _: None)


@pytest.fixture
def picture() -> None:
    """Let the picture be drawn."""
