"""`--place`: the place an image shows, stated by a pattern of its name. Standard library only.

`T32_{place}_*` says that of `T32_berlin_20200101` the place is `berlin`. `*` stands for any text,
`?` for one character, `{place}` for the name of the place, as short as the pattern allows. A
pattern with `/` is compared with the path of an image in its folder, any other with its last part;
both without the ending of the file.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from eofm.errors import ConfigError

_MARK: Final = "{place}"
EVERY_IMAGE: Final = f"--place '{_MARK}'"  # each image is a place of its own


def check_place(pattern: str | None) -> None:
    """Refuse a pattern that does not say which part of a name is the place.

    Raises:
        ConfigError: If `{place}` is not in it exactly once.
    """
    if pattern is not None and pattern.count(_MARK) != 1:
        raise ConfigError(
            "a pattern of places says once which part of a name is the place",
            found=pattern,
            expected=f"{_MARK} once, as in T32_{_MARK}_*",
            where="--place",
            remedy=f"{EVERY_IMAGE} makes every image a place of its own",
        )


def place_in(name: str, pattern: str) -> str | None:
    """Return the place that a name states, or None if the pattern does not fit.

    Args:
        name: Path of an image in its folder, without the ending.
        pattern: With `{place}` in it once.

    >>> place_in("2020/T32_berlin_20200101", "T32_{place}_*")
    'berlin'
    """
    words = {"*": ".*?", "?": "."}
    before, after = (
        "".join(words.get(sign, re.escape(sign)) for sign in part) for part in pattern.split(_MARK)
    )
    whole = name if "/" in pattern else PurePosixPath(name).name
    found = re.fullmatch(f"{before}(.+?){after}", whole, re.DOTALL)
    return None if found is None else found.group(1)
