"""What the demo, the fault table and the benchmarks need to know of a simulator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .fleet import Fleet
from .server import Simulator


class Start(Protocol):
    def __call__(self, fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
                 latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
        """A running simulator, and the credentials that it takes, made of `secret`. `limited`: rates are enforced."""
        ...


@dataclass(frozen=True, slots=True)
class Cloud:
    """`region`: the one to fill with a fleet if only one is wanted."""

    region: str
    start: Start
