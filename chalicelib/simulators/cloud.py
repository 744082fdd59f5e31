"""What the demo, the fault table and the benchmarks need to know of a simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .fleet import Fleet
from .server import Simulator


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """An account, subscription or project of a simulated organisation. `fleets`: region -> fleet.

    `unit`: the name of the unit (folder, group) that it is in; "" is the top. `closed`: it is suspended, or about to be
    deleted. `locked`: the credentials cannot open it.
    """

    name: str
    fleets: Mapping[str, Fleet]
    unit: str = ""
    closed: bool = False
    locked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo shows of a cloud.

    `fleets`: region -> fleet of the first tenant's account. `accounts`: those of the second tenant, each with a cloud
    of its own; name -> its fleets. `branches`: the organisation behind one more account of that tenant.
    """

    fleets: Mapping[str, Fleet]
    accounts: Mapping[str, Mapping[str, Fleet]] = field(default_factory=dict[str, Mapping[str, Fleet]])
    branches: Sequence[Branch] = ()


class Organise(Protocol):
    def __call__(self, branches: Sequence[Branch], secret: str, *, units: Mapping[str, str] = {}, limited: bool = True,
                 latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
        """A running simulator of an organisation, and the credentials that open it, made of `secret`.

        The first branch is the credentials' own account. `units`: each unit's name -> the unit above it; "" is the top.
        """
        ...


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
    """`region`: the one to fill with a fleet if only one is wanted. `least`: what the benchmarks hold our calls to.
    `organise`: starts one with members; None: it has no organisations. `shown`: in the demo; None: thirty machines."""

    region: str
    start: Start
    least: Least | None = None
    organise: Organise | None = None
    shown: Demo | None = None

    def demo(self, name: str) -> Demo:
        """What the demo shows of this cloud, which is called so."""
        return self.shown or Demo(fleets={self.region: Fleet(30, name)})
