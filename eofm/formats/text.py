"""JSON, JSON lines and YAML: read in full, with limits on size and depth.

Settings files are YAML that runs write and command lines name. They are checked before the parser
of the command line reads them, because that parser expands aliases without limit, reads devices,
and reports errors in its own terms.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from eofm.errors import ConfigError, DataError, EofmError
from eofm.formats.foreign import foreign, read_bounded

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "JSON_BYTES",
    "YAML_BYTES",
    "check_settings_files",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_yaml",
    "settings_files",
    "settings_text",
    "split_lines",
]


# A card has kilobytes; the cache for a million images has a hundred megabytes.
JSON_BYTES: Final = 64 * 2**20
# The parser takes seconds for a megabyte; settings and schemes have a few kilobytes.
YAML_BYTES: Final = 256 * 2**10
_YAML_NODES: Final = 100_000
_NESTED: Final = 100


def parse_json(text: str | bytes, *, nan: bool = False) -> Any:  # noqa: ANN401 (whatever it holds)
    """Parse JSON; `NaN` and `Infinity` are not JSON.

    Args:
        text: The document.
        nan: Whether to accept them all the same, for example for a loss that was not finite.

    Raises:
        ValueError: If it is not JSON; this includes `UnicodeDecodeError`.
        RecursionError: If it is nested too deeply.
    """
    plain = text.decode("utf-8") if isinstance(text, bytes) else text
    return json.loads(plain, parse_constant=None if nan else _no_number)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def read_json(
    path: Path,
    kind: type[EofmError] = DataError,
    problem: str = "the file is no JSON that can be read",
    *,
    remedy: str | None = None,
    limit: int = JSON_BYTES,
) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """Return the content of a JSON file.

    Args:
        path: The file.
        kind: Class of the error.
        problem: Its message.
        remedy: What the user can do.
        limit: Maximum size in bytes.

    Raises:
        EofmError: Of that kind, if there is no such file, or it is not JSON.
    """
    with foreign(kind, problem, where=path, expected="JSON", remedy=remedy):
        return parse_json(read_bounded(path, limit))


def split_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield every non-empty line with its number, from 1.

    Only a line feed ends a line of JSON: a name may contain U+2028 or U+0085, which do not.
    """
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, line


def parse_yaml(text: str | bytes, *, unique: bool = False) -> object:
    """Parse YAML with plain values only.

    Aliases may repeat a part, but not multiply it without limit, or contain themselves.

    Args:
        text: The document.
        unique: Whether to reject duplicate keys, of which plain YAML keeps the last.

    Raises:
        yaml.YAMLError: If it is not YAML; values raise further kinds. See `foreign`.
        ValueError: If it is too large, or has unlimited aliases, or a duplicate key.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that can check keys."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        own = Counter(
            loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge
        )
        twice = [key for key, count in own.items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} twice; every key once")
        loader.flatten_mapping(node)  # a key may override one from `<<`
        return {
            loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
            for key, value in node.value
        }

    if len(text) > YAML_BYTES:
        raise ValueError(f"it has {len(text)} bytes, more than the {YAML_BYTES} that are read")
    plain = text.decode("utf-8") if isinstance(text, bytes) else text
    if any(sign * _NESTED in plain for sign in "[{"):  # the parser takes seconds to find out
        raise ValueError("it is nested too deeply")
    if unique:
        Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    loader = Loader(plain)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {}, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _weigh(node: Any, known: dict[int, int], inside: set[int]) -> int:  # noqa: ANN401 (a yaml.Node)
    """Return the number of values of a node with all aliases expanded."""
    key = id(node)
    if key in inside:
        raise ValueError("an alias holds itself")
    if key not in known:
        inside.add(key)
        parts = node.value if isinstance(node.value, list) else []
        flat = [part for one in parts for part in (one if isinstance(one, tuple) else (one,))]
        known[key] = 1 + sum(_weigh(part, known, inside) for part in flat)
        inside.remove(key)
        if known[key] > _YAML_NODES:
            raise ValueError(f"aliases multiply to more than {_YAML_NODES} values")
    return known[key]


def read_yaml(
    path: Path,
    kind: type[EofmError] = DataError,
    problem: str = "the file is no YAML that can be read",
    *,
    remedy: str | None = None,
    unique: bool = False,
) -> object:
    """Return the content of a YAML file: plain values only.

    Args:
        path: The file.
        kind: Class of the error.
        problem: Its message.
        remedy: What the user can do.
        unique: Whether to reject duplicate keys.

    Raises:
        EofmError: Of that kind, if there is no such file, or it is not YAML.
    """
    with foreign(kind, problem, where=path, expected="YAML", remedy=remedy):
        return parse_yaml(read_bounded(path, YAML_BYTES), unique=unique)


# ---------------------------------------------------------------------------------------- settings


_OPTION: Final = "--config"


def settings_text(config: DataclassInstance) -> str:
    """Return settings as YAML that `--config` reads.

    Args:
        config: Settings of a verb: plain values, enumerations, lists and groups of these.
    """
    import yaml

    plain = json.loads(json.dumps(asdict(config)))  # enumerations become their values
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text


def settings_files(words: Sequence[str]) -> list[str]:
    """Return the settings files that a command names.

    >>> settings_files(["--config", "a.yaml", "--out", "b", "--config=c.yaml"])
    ['c.yaml', 'a.yaml']
    """
    start = f"{_OPTION}="
    joined = [word.removeprefix(start) for word in words if word.startswith(start)]
    return joined + [words[i + 1] for i, word in enumerate(words[:-1]) if word == _OPTION]


def check_settings_files(words: Sequence[str]) -> None:
    """Raise an error for settings files that no parser should read.

    A pipe from the shell, `--config <(...)`, can be read only once, and passes unchecked.

    Raises:
        ConfigError: If one is a device, is not UTF-8 or not YAML, is too large, has unlimited
            aliases, a duplicate key, of which only the last would count, or a key that YAML does
            not read as text, such as `null`.
    """
    for name in settings_files(words):
        file = Path(name)
        with foreign(ConfigError, "the settings cannot be read", where=name):
            if not file.exists() or stat.S_ISFIFO(file.stat().st_mode):
                continue  # the parser reports this, with the available options
        content = read_yaml(file, ConfigError, "the settings cannot be read", unique=True)
        for key in _foreign_keys(content):
            text = "null" if key is None else str(key).lower()
            raise ConfigError(
                "a key of the settings is not text to YAML",
                found=text,
                expected="the name of an option",
                where=name,
                remedy=f"put it in quotes: '{text}':",
            )


def _foreign_keys(content: object) -> Iterator[object]:
    """Yield keys that are not texts, of a mapping and of those in it."""
    if isinstance(content, dict):
        for key, value in content.items():
            if not isinstance(key, str):
                yield key
            yield from _foreign_keys(value)
