"""One rule for a setting that is out of range."""

from __future__ import annotations

from eofm.errors import ConfigError


def require(holds: bool, name: str, found: object, expected: str) -> None:
    """Raise a ConfigError that names the setting, unless it holds."""
    if not holds:
        raise ConfigError(f"{name} is out of range", found=found, expected=expected, where=name)
