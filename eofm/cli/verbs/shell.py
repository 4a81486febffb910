"""Verbs about the command line itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eofm.cli.verb import Verb

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    "completion": Verb(
        "print a script with which a shell completes verbs, options and choices",
        "eofm.cli.completion:CompletionConfig",
        "eofm.cli.completion:write_completion",
        (
            "eofm completion bash > ~/.local/share/bash-completion/completions/eofm",
            'eofm completion zsh > "${fpath[1]}/_eofm"',
            "eofm completion fish > ~/.config/fish/completions/eofm.fish",
            'eval "$(eofm completion bash)"  # for this shell only',
        ),
    ),
}
