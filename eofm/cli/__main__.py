"""`python -m eofm.cli` is the program `eofm`: `torchrun -m` of 0.1 names it so."""

import sys

from eofm.cli import main

sys.exit(main())
