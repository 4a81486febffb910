"""A disk without file locks, as some network disks."""

from __future__ import annotations

import errno


def refuse(*_: object) -> None:
    """Stand for `fcntl.flock` there."""
    raise OSError(errno.ENOLCK, "No locks available")
