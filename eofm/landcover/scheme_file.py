"""A user's own scheme of land-cover codes, as YAML.

name: my-map
version: "2024"
source: who made it
classes: {1: water, 2: forest, 3: forest, 7: fields}   # codes with one name are one class
nodata: [0]
cloud: [10]
unknown: error                                         # or ignore: they count as nodata
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eofm.errors import LabelError
from eofm.landcover.schemes import SCHEMES, Scheme


def find_scheme(text: str) -> Scheme:
    """Return a built-in scheme by its name, or a user's own by the path of its YAML file.

    Raises:
        LabelError: If there is neither, or the file is no scheme.
    """
    if text in SCHEMES:
        return SCHEMES[text]
    file = Path(text)
    if file.suffix.lower() in {".yaml", ".yml"}:
        return read_scheme(file)
    near = difflib.get_close_matches(text, SCHEMES, n=1)
    raise LabelError(
        "there is no such scheme",
        found=text,
        expected=f"{' | '.join(SCHEMES)}, or the path of a .yaml file",
        remedy=f"--scheme {near[0]}" if near else "`eofm labels --help` shows a scheme file",
    )


def read_scheme(file: Path) -> Scheme:
    """Read a user's own scheme; see the top of this module.

    Raises:
        LabelError: If it is missing, no YAML, or not a scheme: an unknown key, a code twice, a
            code that is no whole number.
    """
    plain = _read_yaml(file)
    _check_keys(plain, file)
    unknown = plain.get("unknown", "error")
    if unknown not in {"error", "ignore"}:
        raise _not_a_scheme(file, f"unknown: {unknown}", "unknown: error | ignore")
    classes = plain["classes"]
    if not isinstance(classes, dict) or not all(isinstance(n, str) for n in classes.values()):
        raise _not_a_scheme(file, f"classes: {classes}", "classes: {1: water, 2: trees}")
    return Scheme(
        name=str(plain["name"]),
        classes={_code(code, file): name for code, name in classes.items()},
        nodata=_codes(plain, "nodata", file),
        cloud=_codes(plain, "cloud", file),
        source=str(plain.get("source", file.name)),
        version=str(plain.get("version", "")),
        ignore_unknown=unknown == "ignore",
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain YAML keeps the last of two equal keys; here that is an error."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        values = [loader.construct_object(value, deep=True) for _, value in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise _not_a_scheme(file, f"{twice[0]} twice", "every key and code once")
        return dict(zip(keys, values, strict=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        plain = yaml.load(file.read_text("utf-8"), Loader)
    except FileNotFoundError as error:
        raise LabelError("there is no such scheme file", where=file) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise _not_a_scheme(file, " ".join(str(error).split()), "YAML") from error
    if not isinstance(plain, dict):
        raise _not_a_scheme(file, type(plain).__name__, "keys: name, classes, nodata")
    return plain


_NEEDED: Final = {"name", "classes", "nodata"}
_KEYS: Final = _NEEDED | {"version", "source", "cloud", "unknown"}


def _check_keys(plain: Mapping[str, Any], file: Path) -> None:
    strange, missing = set(map(str, plain)) - _KEYS, _NEEDED - set(plain)
    if strange or missing:
        found = [*(f"{key} (unknown)" for key in sorted(strange))]
        found += [f"no {key}" for key in sorted(missing)]
        raise _not_a_scheme(file, ", ".join(found), f"keys {', '.join(sorted(_KEYS))}")


def _codes(plain: Mapping[str, Any], key: str, file: Path) -> tuple[int, ...]:
    value = plain.get(key, [])
    listed = value if isinstance(value, list) else [value]
    return tuple(_code(code, file) for code in listed)


def _code(code: object, file: Path) -> int:
    if not isinstance(code, int) or isinstance(code, bool):
        raise _not_a_scheme(file, f"code {code!r}", "whole numbers as codes")
    return code


def _not_a_scheme(file: Path, found: object, expected: str) -> LabelError:
    return LabelError(
        "the file is not a scheme of land-cover codes",
        found=found,
        expected=expected,
        where=file,
        remedy="compare it with the example in `eofm labels --help`",
    )
