"""Fleets of any size from a seed: the same seed and number always give the same machine."""

import base64
import hmac
import random
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zlib import crc32

_ROLES = ("web", "api", "db", "cache", "queue", "batch", "ci", "edge")
_SIZES = ((1, 1), (1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32), (16, 64))
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine in neutral words; each simulator writes it in its own. Disks in GiB, the system disk first."""

    number: int
    key: str                                # eight base36 characters, from which ids are made
    name: str
    cpu: int
    memory_gib: int
    disks: tuple[int, ...]
    lan: tuple[str, ...]
    wan: tuple[str, ...]
    state: str                              # running, stopped, starting, stopping, pending, terminated
    created: datetime
    zone: int
    project: int
    tags: dict[str, str]

    @property
    def ends(self) -> datetime | None:
        """When it ends; None: it is paid for by the hour. Every fourth machine was bought for three years."""
        return self.created + timedelta(days=1096) if self.number % 4 == 1 else None


class Fleet:
    """`size` machines; [i] is the i-th, counted from 0. `first`: takes the place of the first one. `since`: when the
    first was created; another follows `every` minutes, at least 30."""

    def __init__(self, size: int, seed: str = "fleet", first: Machine | None = None, gone: bool = False,
                 since: datetime = datetime(2024, 1, 1, tzinfo=UTC), every: int = 37) -> None:
        self.size = size
        self.seed = seed
        self._first = first
        self._gone = gone                   # some machines are terminated but still listed
        self._since = since
        self._every = every
        self._made: dict[int, Machine] = {}

    def as_if(self, place: str, since: datetime, days: int) -> "Fleet":
        """As many machines, of another place (with other ids), created in these days from `since` on. A machine that
        was given as the first stays."""
        every = max(30, days * 1440 // max(1, self.size))
        return Fleet(self.size, f"{self.seed}/{place}", self._first, self._gone, since, every)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Machine:
        if not 0 <= number < self.size:
            raise IndexError(number)
        if number == 0 and self._first:
            return self._first
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> Machine:
        dice = random.Random(f"{self.seed}/{number}")
        role = dice.choice(_ROLES)
        cpu, memory = dice.choice(_SIZES)
        low, high = number % 250 + 2, number // 250
        lan = [f"10.{high // 250}.{high % 250}.{low}"]
        if dice.random() < 0.1:
            lan.append(f"172.16.{high % 250}.{low}")
        states = ["running"] * 16 + ["stopped"] * 2 + ["starting", "stopping"] + (["terminated"] if self._gone else [])
        return Machine(
            number=number, key="".join(dice.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(8)),
            name=f"{role}-{number + 1}", cpu=cpu, memory_gib=memory,
            disks=(dice.choice((20, 40, 50)),
                   *(dice.choice((100, 200, 500)) for _ in range(dice.choice((0, 0, 1, 2))))),
            lan=tuple(lan), wan=(f"122.{high // 250}.{high % 250}.{low}",) if dice.random() < 0.4 else (),
            state=dice.choice(states),
            created=self._since + timedelta(minutes=self._every * number + dice.randrange(30)),
            zone=dice.randrange(1, 4), project=dice.choice((0, 0, 1002189)),
            tags={"role": role, "team": dice.choice(("blue", "green", "red"))} if dice.random() < 0.8 else {})


class Machines(Fleet):
    """Just these, in this order; a list that may change between two calls."""

    def __init__(self, machines: Iterable[Machine] = ()) -> None:
        self.machines = list(machines)

    def __len__(self) -> int:
        return len(self.machines)

    def __getitem__(self, number: int) -> Machine:
        return self.machines[number]


class Moving(Fleet):
    """A fleet that changes: `change` takes one machine away or adds one, or both. `order`: "oldest" first, "newest"
    first, or by "key", where new machines stand anywhere. `lived`: the numbers of those that were there all the time
    since `begin`."""

    def __init__(self, size: int, seed: str, order: str, dice: random.Random) -> None:
        super().__init__(size, seed)
        self.order = order
        self.dice = dice
        self.next = size
        self.alive = set(range(size))
        self.lived: set[int] = set()
        self._sorted: list[int] = []
        self._sort()

    def __getitem__(self, number: int) -> Machine:
        return self.machine(self._sorted[number])

    def machine(self, number: int) -> Machine:
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def place(self, number: int) -> tuple[int, str]:
        if self.order == "key":
            return 0, self.machine(number).key
        return (number if self.order == "oldest" else -number), ""

    def begin(self) -> None:
        self.lived = set(self.alive)

    def change_now_and_then(self) -> None:
        if self.dice.random() < 0.25:
            self.change()

    def change(self) -> None:
        what = self.dice.choice(("add", "remove", "both"))
        if what != "remove":
            self.alive.add(self.next)
            self.next += 1
        if what != "add" and len(self.alive) > 1:
            gone = self.dice.choice(sorted(self.alive - {self.next - 1}))
            self.alive.discard(gone)
            self.lived.discard(gone)
        self._sort()

    def _sort(self) -> None:
        self._sorted = sorted(self.alive, key=self.place)
        self.size = len(self._sorted)


class Reattaching(Fleet):
    """Every machine has a disk of 20 and one of 100 GiB; when `moved` is set, the third has the second's too."""

    moved = False

    def __getitem__(self, number: int) -> Machine:
        counts = {1: 0, 2: 2} if self.moved else {}
        return replace(super().__getitem__(number), disks=(20, *[100] * counts.get(number, 1)), state="running")


class Cursors:
    """Page tokens that name a row: a walk goes on with the row that followed, whatever came or went meanwhile."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[Sequence[str], int]] = {}

    def give(self, ids: Sequence[str], at: int) -> str:
        """The token of the page that begins with ids[at]."""
        token = f"{at}x{crc32(ids[at].encode()):08x}"
        self._tokens[token] = ids, at
        return token

    def take(self, token: str, ids: Sequence[str]) -> int:
        """Where in `ids` the page begins. Raises ValueError."""
        if token not in self._tokens:
            raise ValueError(token)
        then, at = self._tokens[token]
        if at < len(ids) and ids[at] == then[at]:
            return at
        places = {key: n for n, key in enumerate(ids)}
        return next((places[key] for key in then[at:] if key in places), len(ids))


class Positions:
    """Page tokens that are a position in a list, signed, so that no caller can make one or use another list's."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def give(self, at: int, of: str) -> str:
        """The token of the page that begins at this row of the list `of`."""
        return base64.b64encode(f"{at}.{self._mark(at, of)}".encode()).decode()

    def take(self, token: str, of: str) -> int:
        """Where the page begins. Raises ValueError."""
        at, _, mark = base64.b64decode(token).decode().partition(".")
        if self._mark(at, of) != mark:
            raise ValueError(token)
        return int(at)

    def _mark(self, at: int | str, of: str) -> str:
        return hmac.digest(self._secret, f"{of}{at}".encode(), "sha256").hex()[:16]


def seed_machine() -> Machine:
    """The machine of the API document of 2016."""
    return Machine(number=0, key="u23j34j2", name="hehe", cpu=8, memory_gib=16, disks=(20,),
                   lan=("192.168.0.2", "192.168.0.3"), wan=("122.22.3.45", "122.22.3.46"), state="running",
                   created=datetime(2014, 7, 29, 15, 8, 39, tzinfo=UTC), zone=3, project=0, tags={"role": "web"})
