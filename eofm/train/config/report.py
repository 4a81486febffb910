"""Settings of `eofm report`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from eofm.errors import require


@dataclass(frozen=True)
class ReportConfig:
    """One page about a run, or about several beside one another.

    Args:
        runs: Folders of runs: finished, going on, or dead.
        out: HTML file to write; without it, report.html in the folder of the first run, or
            comparison.html where there are several.
        store: Where the packed store is now, if not where the run found it.
        scenes: Held-out scenes to look at, and as many training scenes as neighbours.
    """

    runs: list[str] = field(metadata={"positional": "+"})
    out: str | None = None
    store: str | None = None
    scenes: int = 256

    def __post_init__(self) -> None:
        require(self.scenes >= 16, "scenes", self.scenes, "16 or more")
