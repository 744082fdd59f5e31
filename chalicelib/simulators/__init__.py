"""Simulated clouds for the demo, the tests and the benchmarks; no part of the deployed package.

They speak the parties' own protocols: signatures are checked, parameters and limits enforced, and they fail when
instructed to. They are trusted only because others use them: the vendors' own SDKs list the same fleets through them.

Each party's simulator lies in its folder and names itself in CLOUDS; the demo, the fault table and the benchmarks find
it there.
"""

import importlib
import importlib.util

from .. import parties
from .cloud import Cloud


def clouds() -> dict[str, Cloud]:
    """party -> its simulator, in the order of their names."""
    clouds_by_name: dict[str, Cloud] = {}
    for name in parties.names():
        module = f"{parties.__name__}.{name}.simulator"
        if importlib.util.find_spec(module):
            clouds_by_name |= importlib.import_module(module).CLOUDS
    return dict(sorted(clouds_by_name.items()))
