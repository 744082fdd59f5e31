"""Stand-in clouds for the demo, the tests and the benchmarks; no part of the deployed package.

They speak the parties' own protocols: signatures are checked, parameters and limits enforced, and they fail when
told to. They are trusted only because others use them: the vendors' own SDKs list the same fleets through them.

Each module names what it stands in for in CLOUDS; the demo, the fault table and the benchmarks find it there.
"""

import importlib
import pkgutil
from collections.abc import Iterator

from standins.cloud import Cloud


def clouds() -> dict[str, Cloud]:
    """party -> its stand-in, in the order of their names."""
    def found() -> Iterator[tuple[str, Cloud]]:
        for module in pkgutil.iter_modules(__path__):
            if module.name != "demo":
                yield from getattr(importlib.import_module(f"{__name__}.{module.name}"), "CLOUDS", {}).items()

    return dict(sorted(found()))
