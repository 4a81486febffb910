"""The command line, from its parser: a page for each group of verbs."""

from __future__ import annotations

import re
from typing import Any

from eofm.cli import GROUPS
from eofm.cli.program import parser_of
from eofm.cli.verbs import Verb

# types as a reader of options says them
_WORDS = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "`true`, `false`",
    "list[str]": "words",
    "list[int]": "whole numbers",
    "list[float]": "numbers",
    "tuple[float, float]": "two numbers",
}
_OWN = {"help", "help_all", "config", "print_config"}


def pages() -> dict[str, str]:
    """Return path -> Markdown."""
    made = {"reference/cli/index.md": _index()}
    for title, verbs in GROUPS.items():
        made[f"reference/cli/{_slug(title)}.md"] = _group(title, verbs)
    return made


def _index() -> str:
    lines = [
        "# Command line",
        "",
        "`eofm VERB --help` prints the same text. Every option can also be set in a YAML file,",
        "`--config FILE`; options and files take effect in the order they are given.",
        "`--print_config` prints the settings without running. Exit status: 0 done, 1 failed,",
        "2 wrong usage.",
        "",
        "| verb | what it does |",
        "|---|---|",
    ]
    for title, verbs in GROUPS.items():
        for name, verb in verbs.items():
            target = f"{_slug(title)}.md#eofm-{_slug(name)}"
            lines.append(f"| [`eofm {name}`]({target}) | {_cell(verb.summary)} |")
    return "\n".join([*lines, ""])


def _group(title: str, verbs: Any) -> str:  # noqa: ANN401 (a mapping of verbs)
    parts = [f"# {title.rstrip(':').capitalize()}", ""]
    for name, verb in verbs.items():
        parts += _verb(name, verb)
    return "\n".join(parts)


def _verb(name: str, verb: Verb) -> list[str]:
    parser = parser_of(name, verb, None, every=True)
    lines = [
        f"## `eofm {name}` {{#eofm-{_slug(name)}}}",
        "",
        f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        "",
    ]
    lines += ["```text", f"{parser.usage}", "```", "", "```text", *verb.examples, "```", ""]
    actions = [a for a in parser._actions if a.dest not in _OWN and not _is_section(a)]
    sections: dict[str, list[Any]] = {}
    for action in sorted(actions, key=lambda each: bool(each.option_strings)):  # words first
        section = action.dest.partition(".")[0] if "." in action.dest else ""
        sections.setdefault(section, []).append(action)
    for section, options in sections.items():
        lines += [f"**`--{section}.*`**", ""] if section else []
        lines += ["| option | values | default | meaning |", "|---|---|---|---|"]
        lines += [_row(action, verb) for action in options]
        lines.append("")
    if verb.common:
        lines += ["Options with • stand in `--help`; all of them in `--help-all`.", ""]
    return lines


def _is_section(action: Any) -> bool:  # noqa: ANN401 (an action of the parser)
    """Whether an option only takes a file of settings for a whole section."""
    return action.metavar == "CONFIG"


def _row(action: Any, verb: Verb) -> str:  # noqa: ANN401
    # `--bands+` adds one word to a list: the same option
    name = action.option_strings[-1].rstrip("+") if action.option_strings else action.dest.upper()
    mark = " •" if action.dest in verb.common else ""
    default = action.default
    missing = default is None or "==SUPPRESS==" in str(default)
    text = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    shown = "" if missing or text == "" else f"`{_cell(text)}`"
    return f"| `{name}`{mark} | {_values(action)} | {shown} | {_cell(action.help or '')} |"


def _values(action: Any) -> str:  # noqa: ANN401
    if action.nargs == 0:
        return "flag"
    if isinstance(action.metavar, str) and action.metavar.startswith("{"):
        return ", ".join(f"`{word}`" for word in action.metavar.strip("{}").split(","))
    kind = getattr(action, "_typehint", None) or action.type
    text = str(getattr(kind, "__name__", kind)) if isinstance(kind, type) else str(kind)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    plain = re.sub(r"^Optional\[(.*)\]$", r"\1", text.replace(" | None", ""))
    literal = re.fullmatch(r"(Union\[bool, )?Literal\[([^]]*)\]\]?", plain)
    if literal:
        words = [word.strip().strip("'\"") for word in literal[2].split(",")]
        return ", ".join(f"`{word}`" for word in [*["true", "false"] * bool(literal[1]), *words])
    if plain.startswith("dict["):
        return "mapping, as in YAML"
    return _WORDS.get(plain, _cell(plain))


def _cell(text: str) -> str:
    # an underscore or a star within a word is no emphasis, a bar would end the cell
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("*", "\\*")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
