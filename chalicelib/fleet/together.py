"""Sources behind one door, listed by one set of calls where their party can: azure's queries search many subscriptions.

Each source keeps its own lease, circuit breaker, snapshot and share of the time. The first that comes to its party
lists all of them, and the others get their parts of that.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from .. import parties
from ..cloud import paging
from ..errors import PartyError, PartyMalformed, PartyTimeout
from ..model import Account, Listing, Member, Server, Source

if TYPE_CHECKING:
    from ..cloud.sender import Sender

MOST = 100                                  # sources that are listed together: ten messages of so many fit a batch
_BELIEVED_SECONDS = 60                      # after its beginning, in which a source may still get its part

Door = tuple[str, str, str]                 # tenant, party and name of an account that is a door to others
Lists = Mapping[str, Mapping[str, list[Server]] | PartyError]


class Together(msgspec.Struct):
    """`sources`: those that are listed by one set of calls. `began`: when that did (Unix time), None: not yet. `lists`:
    what it gave, by member; None: the party must be queried for each. `regions`: that the party names. `served`: who
    got its part."""

    sources: Sequence[Source]
    clock: Callable[[], float]
    began: float | None = None
    lists: Lists | PartyError | None = None
    regions: frozenset[str] | None = None
    served: set[Source] = msgspec.field(default_factory=set[Source])
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def listing(self, source: Source, account: Account, send: "Sender", deadline: float) -> Listing | None:
        """The source's part of the lists; None: it must be listed by itself. `deadline`: on time.monotonic's scale.
        Raises PartyError, UnknownRegion."""
        if not self.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise PartyTimeout()
        try:
            if self.began is None:
                self.began = self.clock()
                self.lists = self._list(account, send)
            if self.lists is None or self.clock() - self.began > _BELIEVED_SECONDS:
                return None
            if isinstance(self.lists, PartyError):
                raise self.lists
            own = self.lists.get(_member_of(source), None)
            if isinstance(own, PartyError):
                raise own
            if own is None:
                return None
            if not (servers := own.get(source.region, [])) and not self._is_region(source.region, account, send):
                return None                 # its own listing says why
            self.served.add(source)
            return Listing(servers, len(servers), frozenset(own.keys() - {source.region}))
        finally:
            self.lock.release()

    def began_at(self, source: Source, now: float) -> float:
        """When the calls began that listed the source; `now`, if it was not listed by those."""
        return now if self.began is None or source not in self.served else min(now, self.began)

    def _list(self, account: Account, send: "Sender") -> Lists | PartyError | None:
        """An answer that cannot be understood may be about one member: then each is listed by itself."""
        members = [Member(id=key) for key in dict.fromkeys(map(_member_of, self.sources))]
        try:
            with paging.reading(seams=True, room=send.room):
                return parties.list_many(account, members, send)
        except PartyMalformed:
            return None
        except PartyError as failure:
            return failure

    def _is_region(self, region: str, account: Account, send: "Sender") -> bool:
        """Whether the party names the region, so that an empty list of it is believed."""
        assert isinstance(self.lists, Mapping)
        if any(region in lists for lists in self.lists.values() if not isinstance(lists, PartyError)):
            return True
        if self.regions is None:
            self.regions = frozenset(each.code for each in parties.list_regions(account, send) if each.open)
        return region in self.regions


def grouped(sources: Iterable[Source]) -> list[list[Source]]:
    """The sources in their order; those behind one door that can be listed together are one group, where the first of
    them is."""
    groups = defaultdict[Door | Source, list[Source]](list)
    for source in sources:
        groups[_door_of(source) or source].append(source)
    return [group[at:at + MOST] for group in groups.values() for at in range(0, len(group), MOST)]


def by_source(sources: Iterable[Source], clock: Callable[[], float]) -> dict[Source, Together]:
    """How those are listed that are not listed alone."""
    made = [Together(group, clock) for group in grouped(sources) if len(group) > 1]
    return {source: together for together in made for source in together.sources}


def _door_of(source: Source) -> Door | None:
    door, _, member = source.account.partition(":")
    return (source.tenant_id, source.party, door) if member and parties.load(source.party).list_many else None


def _member_of(source: Source) -> str:
    return source.account.partition(":")[2]
