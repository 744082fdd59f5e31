"""What is known of the members behind an account: what the party listed, and which of them it lists no more.

One row of the store for each account that is a door to others: `members`, under its key `tenant/party[@name]/all`.
"""

import zlib
from collections.abc import Iterable
from typing import Annotated

import msgspec

from ..model import DEFAULT_ACCOUNT, MEMBER_ID, Member
from ..storage import snapshots
from ..storage.store import Place, Row, Store

BELIEVED_SECONDS = 3600                     # for a list of members
_LIFE = 30 * 86_400                         # seconds for which a list is kept


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A member. `missing`: since when the party lists it no more (Unix time); 0: it does. A row with an id that no
    party lists is as good as none: ids are written into paths and roles, and no seal covers the row."""

    id: Annotated[str, msgspec.Meta(pattern=rf"\A{MEMBER_ID}\Z")]
    name: str = ""
    closed: str = ""
    door: bool = False
    missing: float = 0.0

    @property
    def member(self) -> Member:
        return Member(id=self.id, name=self.name, closed=self.closed, door=self.door)


class Members(msgspec.Struct, frozen=True, kw_only=True):
    """What the party listed for the account of this revision, by id, and when (Unix time)."""

    revision: str
    at: float
    members: tuple[Kept, ...]

    def open(self) -> list[Member]:
        """Those that are sources: not what the party calls suspended, closed or being deleted."""
        return [kept.member for kept in self.members if not kept.closed]

    def find(self, member_id: str) -> Member | None:
        """The one with this id, if it is a source."""
        return next((member for member in self.open() if member.id == member_id), None)


_decode = msgspec.msgpack.Decoder(Members).decode


def place_of(tenant_id: str, party: str, name: str = DEFAULT_ACCOUNT) -> Place:
    """Where the members behind the account NAME are, or those that `NAME:ID` is one of."""
    return "members", f"{snapshots.account_key(tenant_id, party, name.partition(':')[0])}/all"


def members_in(row: Row | None, revision: str) -> Members | None:
    """The last list for the account of this revision, of any age; None if there is none that can be read."""
    try:
        last = _decode(zlib.decompress(row.value)) if row else None
    except (ValueError, zlib.error):
        return None
    return last if last and last.revision == revision else None


def after(before: Members | None, members: Iterable[Member], revision: str, now: float) -> tuple[Members, list[str]]:
    """The list after a look-up, and the ids of the members that are gone: not found in two look-ups an hour apart."""
    kept = {member.id: Kept(id=member.id, name=member.name, closed=member.closed, door=member.door)
            for member in members}
    gone: list[str] = []
    for old in before.members if before else ():
        if old.id in kept:
            continue
        if old.missing and now - old.missing >= BELIEVED_SECONDS:
            gone.append(old.id)
        else:
            kept[old.id] = msgspec.structs.replace(old, missing=old.missing or now)
    return Members(revision=revision, at=now, members=tuple(kept[key] for key in sorted(kept))), gone


def keep(store: Store, place: Place, members: Members) -> None:
    """Write down what the party listed. Raises what the store raises."""
    store.put(*place, zlib.compress(msgspec.msgpack.encode(members)), expires=int(members.at) + _LIFE)
