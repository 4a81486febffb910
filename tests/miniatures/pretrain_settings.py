"""Settings of a run, changed for a test."""

from __future__ import annotations

from dataclasses import replace

from eofm.train.config import PretrainConfig


def with_groups(config: PretrainConfig, **groups: dict[str, object]) -> PretrainConfig:
    """Return the settings with some keys of some groups changed."""
    return replace(
        config,
        **{name: replace(getattr(config, name), **keys) for name, keys in groups.items()},  # type: ignore[arg-type]
    )
