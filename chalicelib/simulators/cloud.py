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


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """What the API itself asks of a program that knows nothing yet: for all ten fields of 1,000 servers (the
    simulators' have 1,736 disks and 407 public addresses), and for a window of ten in their middle.

    `calls`: fewest; `trips`: how many of them must follow one another. `rate`: documented, (calls, seconds); None: none
    is published. `why`: how calls and trips come about.
    """

    calls: int
    trips: int
    window_calls: int
    window_trips: int
    rate: tuple[int, float] | None = None
    why: str

    def wall(self, latency: float) -> float:
        """Seconds within which nobody can be done, where each call takes `latency` seconds."""
        return self._within(self.calls, self.trips, latency)

    def window_wall(self, latency: float) -> float:
        return self._within(self.window_calls, self.window_trips, latency)

    def _within(self, calls: int, trips: int, latency: float) -> float:
        at_once, period = self.rate or (calls, 0.0)
        return max(trips * latency, (calls - 1) // at_once * period + latency)


@dataclass(frozen=True, slots=True)
class Cloud:
    """`region`: the one to fill with a fleet if only one is wanted. `least`: what the benchmarks hold our calls to."""

    region: str
    start: Start
    least: Least | None = None
