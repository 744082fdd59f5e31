"""`python -m chalicelib` is the command `twocloud`."""

import sys

from .cli import main

sys.exit(main())
