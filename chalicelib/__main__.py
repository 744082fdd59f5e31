"""`python -m chalicelib` is the command `twocloud`."""

import sys

from chalicelib.cli import main

sys.exit(main())
