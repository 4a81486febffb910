"""The command line: parsing only. A verb's code is imported when the verb is called.

`eofm --help` must answer at once, so this file knows the verbs as text. Each verb has a
settings dataclass in a module that needs the standard library alone; jsonargparse makes the
options, the YAML reader and the help from it. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

from eofm import __version__
from eofm.errors import EofmError


class Outcome(Protocol):
    """What a verb returns to its caller, from the command line or from Python."""

    def describe(self) -> str:
        """Return what the command prints on stdout."""


@dataclass(frozen=True)
class Verb:
    """One command.

    Args:
        summary: One line for `eofm --help`.
        settings: `module:Dataclass` of its options.
        action: `module:function` that takes the dataclass and returns an `Outcome`.
        examples: Lines for the verb's own help.
    """

    summary: str
    settings: str
    action: str
    examples: tuple[str, ...]


VERBS: Final[Mapping[str, Verb]] = {
    "pretrain": Verb(
        "pretrain an encoder by soft contrastive learning; with no option, a demo in minutes",
        "eofm.train.config:PretrainConfig",
        "eofm.train.run:pretrain",
        (
            "eofm pretrain",
            "eofm pretrain --data.store stores/mine --optim.epochs 20 --run.out runs/mine",
            "eofm pretrain --config configs/pretrain/default.yaml --method.soft_weight 0",
            "eofm pretrain --run.out runs/mine --run.resume true",
        ),
    ),
    "pack tiles": Verb(
        "cut your own GeoTIFFs into a packed store, with labels from a land-cover map",
        "eofm.data.config:PackTilesConfig",
        "eofm.data.tiles:pack_tiles",
        (
            "eofm pack tiles --images DIR --sensor s2-l1c --unit dn \\",
            "    --landcover DIR_OR_TIF --scheme terramesh --window 112 --stride 56 --out STORE",
            "eofm pack tiles --images DIR --sensor s1-rtc --unit db --out STORE",
            'eofm pack tiles ... --unit dn --unit_of \'{"609U*": "dn-offset1000"}\'',
        ),
    ),
    "pack ssl4eo": Verb(
        "pack a folder in the layout of SSL4EO-S12",
        "eofm.data.config:PackSsl4eoConfig",
        "eofm.data.ssl4eo:pack_ssl4eo",
        (
            "eofm pack ssl4eo --root DIR --sensor s2-l1c --landcover DIR/dw \\",
            "    --scheme dynamic-world --out STORE",
        ),
    ),
    "world": Verb(
        "write the embedded synthetic world as GeoTIFFs in the layout of SSL4EO-S12",
        "eofm.data.world_config:WorldConfig",
        "eofm.data.world:write_world",
        ("eofm world --out worlds/mine --scenes 50 --seed 1",),
    ),
    "bench eurosat": Verb(
        "score encoders and controls on EuroSAT MS by kNN and linear probe",
        "eofm.bench.config:BenchEurosatConfig",
        "eofm.bench.run:bench_eurosat",
        (
            "eofm bench eurosat --root EuroSAT_MS --model runs/mine/export/student \\",
            "    --probe knn,linear",
            "eofm bench eurosat --root DIR --model imagestats,random,runs/mine/export/init",
        ),
    ),
    "models export": Verb(
        "turn a checkpoint into weights.safetensors + card.json",
        "eofm.train.config:ExportConfig",
        "eofm.train.export:export_checkpoint",
        ("eofm models export runs/mine/checkpoints/last.ckpt --to encoders/mine",),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_overview())
        return 0
    if words[0] in {"-V", "--version"}:
        print(f"eofm {__version__}")
        return 0
    name, rest = _find_verb(words)
    if name is None:
        return 2
    try:
        return _run(name, VERBS[name], rest)
    except UsageError as error:
        print(f"eofm {name}: error: {error}\n  remedy:   eofm {name} --help", file=sys.stderr)
        return 2
    except EofmError as error:
        print(f"eofm {name}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader of our output has gone (`| head`): nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"\neofm {name}: interrupted", file=sys.stderr)
        return 130


class UsageError(Exception):
    """A wrong option, key or type on the command line or in a YAML file.

    Args:
        problem: The parser's words.
        known: All keys the verb knows, for a suggestion.
    """

    def __init__(self, problem: str, known: Sequence[str]) -> None:
        unknown = re.search(
            r"(?:Group '(\S+)' does not accept option|does not accept option|"
            r"unrecognized arguments:) '?(?:--)?([\w.]+)",
            problem,
        )
        if unknown:
            key = ".".join(part for part in unknown.groups() if part)
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            problem += f"\n  did you mean: --{near[0]}" if near else ""
        super().__init__(problem)


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [
        f"eofm {__version__}: pretrain, benchmark and use satellite encoders",
        "",
        "usage: eofm VERB [options]",
        "",
        *(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()),
        "",
        "`eofm VERB --help` lists a verb's options with examples. Every option can also stand in a",
        "YAML file: `--config FILE`. Options and files take effect in the order they are given.",
        "`eofm VERB ... --print_config` prints the settings without running.",
    ]
    return "\n".join(lines)


def _find_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in VERBS:
            return name, list(words[length:])
    siblings = [name for name in VERBS if name.split()[0] == words[0]]
    if siblings and (len(words) == 1 or words[1] in {"-h", "--help"}):
        print("\n".join(f"eofm {name:16} {VERBS[name].summary}" for name in siblings))
        return None, []
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    near = difflib.get_close_matches(typed, list(VERBS), n=1, cutoff=0.4)
    print(
        f"eofm: error: there is no verb {typed!r}"
        + (f"; did you mean 'eofm {near[0]}'?" if near else "")
        + f"\n  verbs: {', '.join(VERBS)}",
        file=sys.stderr,
    )
    return None, []


def _load(reference: str) -> Any:  # noqa: ANN401 (a class or a function, by name)
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def parse(name: str, words: Sequence[str]) -> object:
    """Return the settings of verb `name` from its command-line words.

    Raises:
        UsageError: On a wrong option, key or type.
        SystemExit: On --help and --print_config, with status 0.
        ConfigError: If settings are well formed but out of range.
    """
    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

    verb = VERBS[name]
    settings = _load(verb.settings)

    class Formatter(DefaultHelpFormatter):
        """Keep the line breaks of the examples."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "\n".join(indent + line for line in text.splitlines())

    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser = ArgumentParser(
        prog=f"eofm {name}",
        usage=f"eofm {name} [options]",
        description=f"{verb.summary}\n\nexamples:\n{examples}",
        formatter_class=Formatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of settings; later options override it."
    )
    positional = [f.name for f in fields(settings) if f.metadata.get("positional")]
    parser.add_class_arguments(settings, skip=set(positional))
    for field_name in positional:
        parser.add_argument(field_name, type=str)
    try:
        parsed = parser.instantiate(parser.parse_args(list(words)))
    except ArgumentError as error:
        known = [key for key, _ in parser.get_defaults().items()]
        raise UsageError(str(error.message), known) from error
    return settings(**{f.name: parsed[f.name] for f in fields(settings)})


def _run(name: str, verb: Verb, words: Sequence[str]) -> int:
    settings = parse(name, words)
    action: Callable[[Any], Outcome] = _load(verb.action)
    print(action(settings).describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
