"""`python -m scratchbook`: the same as the command `scratchbook`."""

import sys

from scratchbook.cli import main

if __name__ == "__main__":
    sys.exit(main())
