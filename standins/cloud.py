"""What the demo, the fault table and the benchmarks need to know of a stand-in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from standins.fleet import Fleet
from standins.server import Standin


class Start(Protocol):
    def __call__(self, fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
                 latency: float = 0.0) -> tuple[Standin, dict[str, object]]:
        """A running stand-in, and the credentials that it takes, made of `secret`. `limited`: rates are enforced."""
        ...


@dataclass(frozen=True, slots=True)
class Cloud:
    """`region`: the one to fill with a fleet if only one is wanted."""

    region: str
    start: Start
