"""`python -m chalicelib` is the command `twocloud`; so is `python -m twocloud` where the wheel is installed."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]                         # the current folder: what lies there is not ours

from .cli import main

sys.exit(main())
