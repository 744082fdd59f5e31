"""Every cloud that twocloud asks: one module each, found by its name and imported when it is first asked for."""

import importlib
import pkgutil
from functools import cache

from chalicelib.errors import InvalidParameter
from chalicelib.model import Party


@cache
def names() -> tuple[str, ...]:
    """The parties, in the order of their names."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def load(name: str) -> Party:
    """Raises InvalidParameter if there is no such party."""
    if name not in names():
        raise InvalidParameter("party", f"Unknown party; known are: {', '.join(names())}.")
    party: Party = importlib.import_module(f"{__name__}.{name}").PARTY
    return party
