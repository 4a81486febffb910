"""The eofm program as QGIS Processing algorithms."""

from __future__ import annotations


def classFactory(iface: object) -> object:  # noqa: N802 (the name QGIS asks for)
    """Return the plugin."""
    from .provider import EofmPlugin

    return EofmPlugin(iface)
