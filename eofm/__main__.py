"""`python -m eofm` is the program `eofm`."""

import sys

from eofm.cli import main

sys.exit(main())
