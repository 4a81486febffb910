"""JSON, JSON lines and YAML: read whole, within bounds of size and depth.

Files of settings are YAML that runs write and command lines name. They are looked at before the
parser of the command line reads them: that one follows aliases without end, reads devices, and
speaks of what is wrong in words of its own.
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


# A card has kilobytes. What the cache remembers of a million images has a hundred megabytes.
JSON_BYTES: Final = 64 * 2**20
# The parser takes seconds for a megabyte; settings and schemes have a few kilobytes.
YAML_BYTES: Final = 256 * 2**10
_YAML_NODES: Final = 100_000
_NESTED: Final = 100


def parse_json(text: str | bytes, *, nan: bool = False) -> Any:  # noqa: ANN401 (whatever it holds)
    """Return what JSON says; `NaN` and `Infinity` are no JSON.

    Args:
        text: The document.
        nan: Take them all the same: a loss that was no number is one of the things to remember.

    Raises:
        ValueError: If it is none; a `UnicodeDecodeError` is one too.
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
    """Return what a JSON file says.

    Args:
        path: The file.
        kind: What is raised.
        problem: In what words.
        remedy: What the user can do.
        limit: How many bytes it may have.

    Raises:
        EofmError: Of that kind, if there is no such file, or it is not JSON.
    """
    with foreign(kind, problem, where=path, expected="JSON", remedy=remedy):
        return parse_json(read_bounded(path, limit))


def split_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield every line that is not empty with its number, from 1 on.

    A name may hold U+2028 or U+0085, which end no line of JSON: only a line feed does.
    """
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, line


def parse_yaml(text: str | bytes, *, unique: bool = False) -> object:
    """Return what YAML says: plain values alone.

    Aliases may repeat a part, not multiply it without end, nor hold themselves.

    Args:
        text: The document.
        unique: Refuse two equal keys, of which plain YAML keeps the last.

    Raises:
        yaml.YAMLError: If it is none; further kinds come from the values. See `foreign`.
        ValueError: If it is too large, or has aliases without end, or a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that can look at keys."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        own = Counter(
            loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge
        )
        twice = [key for key, count in own.items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} twice; every key once")
        loader.flatten_mapping(node)  # a key may replace one that `<<` brings in
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
    """Return how many values a node becomes where every alias is written out."""
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
    """Return what a YAML file says: plain values alone.

    Args:
        path: The file.
        kind: What is raised.
        problem: In what words.
        remedy: What the user can do.
        unique: Refuse two equal keys.

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
    """Return the files of settings that a command names.

    >>> settings_files(["--config", "a.yaml", "--out", "b", "--config=c.yaml"])
    ['c.yaml', 'a.yaml']
    """
    start = f"{_OPTION}="
    joined = [word.removeprefix(start) for word in words if word.startswith(start)]
    return joined + [words[i + 1] for i, word in enumerate(words[:-1]) if word == _OPTION]


def check_settings_files(words: Sequence[str]) -> None:
    """Refuse files of settings that no parser should be given.

    What a shell hands on as a pipe, `--config <(...)`, can be read once only, and passes.

    Raises:
        ConfigError: If one is a device, is not UTF-8 or no YAML, is too large, has aliases without
            end, or a key twice, of which only the last would count.
    """
    for name in settings_files(words):
        file = Path(name)
        with foreign(ConfigError, "the settings cannot be read", where=name):
            if not file.exists() or stat.S_ISFIFO(file.stat().st_mode):
                continue  # the parser says so, with the options that there are
        read_yaml(file, ConfigError, "the settings cannot be read", unique=True)
