"""A process that the first process of a run has started: `python -m eofm.train.follow cpu`."""

from __future__ import annotations

import signal
import sys

from eofm.errors import EofmError
from eofm.train.config import TrainerConfig
from eofm.train.processes import find_place
from eofm.train.run import follow


def main() -> int:
    """Train along; return the exit status. Only the first process of all to fail says why."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    try:
        follow(find_place(TrainerConfig()), sys.argv[1])
    except EofmError as error:
        print(f"eofm pretrain: error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
