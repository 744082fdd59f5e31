"""What is known of a party's regions, for one account: what the party listed, and which names it refused.

Two rows of the store for each account, whatever names callers invent, under its key (snapshots.account_key):
  regions  …/all   the regions that the party listed, and when
  regions  …/?     the last answers about names that the party is not known to have, each for an hour
"""

import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from ..cloud.party import Party
from ..errors import Conflict, PartyError, UnknownRegion
from ..model import Region
from ..storage.store import Place, Row, Store

EVERY = "all"                               # in place of a region: the list of regions itself
UNKNOWN = "?"                               # in place of a region: all that the party is not known to have
BELIEVED_SECONDS = 3600                     # for a list, and for the answer that a region does not exist
_NAMES = 128                                # unknown names that are remembered for an account
_TRIES = 20                                 # to write a row that others write too
_LIFE = 30 * 86_400                         # seconds for which a list is kept


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """The codes that the party listed for the account of this revision, and when (Unix time): those open to the
    account, and those that exist but are closed to it. `unlisted`: those of the open ones that it did not list, but in
    which it lists servers. `doubtful`: those of the open ones that may be closed all the same."""

    revision: str
    at: float
    codes: tuple[str, ...]
    closed: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True, rename={"code": "word"}):
    """The failure of the last request about a name: its error code and text, and when (Unix time). `serial`: another
    one each time."""

    code: str
    text: str
    at: float
    serial: str

    @property
    def refused(self) -> bool:
        """Whether the party answered that it has no such region."""
        return self.code == UnknownRegion.code


class _Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    revision: str
    names: dict[str, Outcome]


_decode_listed = msgspec.msgpack.Decoder(Listed).decode
_decode_outcomes = msgspec.msgpack.Decoder(_Outcomes).decode


def is_built_in(party: Party, code: str) -> bool:
    """Whether twocloud knows without asking that the party has this region."""
    return code == party.default_region or code in party.aliases.values()


# ---------------------------------------------------------------- what the party listed

def listed(store: Store, account: str, revision: str) -> Listed | None:
    """The party's last list for the account of this revision, of any age; None if there is none."""
    return listed_in(store.get(*listed_place(account)), revision)


def listed_place(account: str) -> Place:
    """`account`: its key, here and below."""
    return "regions", f"{account}/{EVERY}"


def listed_in(row: Row | None, revision: str) -> Listed | None:
    """As `listed`, of a row that was read."""
    try:
        last = _decode_listed(row.value) if row else None
    except ValueError:
        return None
    return last if last and last.revision == revision else None


def keep(store: Store, account: str, revision: str, regions: Iterable[Region], now: float,
         before: Listed | None = None) -> Listed:
    """Write down what the party listed; `before`: the list that was kept. Raises what the store raises."""
    made = listed_of(regions, revision, now, before)
    _put(store, account, made)
    return made


def listed_of(regions: Iterable[Region], revision: str, now: float, before: Listed | None = None) -> Listed:
    """What the party listed. A region that was in its list before is only doubtful: the list may be short."""
    rows = list(regions)
    made = Listed(revision=revision, at=now, codes=tuple(row.code for row in rows if row.open),
                  closed=tuple(row.code for row in rows if not row.open),
                  doubtful=tuple(row.code for row in rows if row.doubtful))
    if before is None:
        return made
    gone = tuple(code for code in before.codes if code not in {*made.codes, *made.closed, *before.unlisted})
    return _with_unlisted(replace(made, codes=made.codes + gone, doubtful=made.doubtful + gone), before.unlisted)


def note_servers(store: Store, account: str, last: Listed, named: Collection[str]) -> None:
    """Write down in which regions the party lists servers, beside its last list. Raises what the store raises."""
    made = _with_unlisted(last, named)
    if made != last:
        _put(store, account, made)


def _with_unlisted(listed: Listed, named: Iterable[str]) -> Listed:
    codes = tuple(code for code in listed.codes if code not in listed.unlisted)
    unlisted = tuple(sorted({*named} - {*codes}))
    return replace(listed, codes=codes + unlisted, unlisted=unlisted)


def _put(store: Store, account: str, listed: Listed) -> None:
    store.put(*listed_place(account), msgspec.msgpack.encode(listed), expires=int(listed.at) + _LIFE)


# ---------------------------------------------------------------- answers about names that are not known

def outcome(store: Store, account: str, revision: str, name: str, now: float) -> Outcome | None:
    """The last answer about this name within the hour."""
    return outcome_in(store.get(*outcomes_place(account)), revision, name, now)


def outcomes_place(account: str) -> Place:
    return "regions", f"{account}/{UNKNOWN}"


def outcome_in(row: Row | None, revision: str, name: str, now: float) -> Outcome | None:
    """As `outcome`, of a row that was read."""
    last = _outcomes(row, revision).get(name)
    return last if last and now - last.at < BELIEVED_SECONDS else None


def note(store: Store, account: str, revision: str, name: str, failure: PartyError | UnknownRegion,
         now: float) -> None:
    """Write down an answer about a name. Only the last names are kept; if many write at once, one may be lost."""
    place = outcomes_place(account)
    new = Outcome(code=failure.code, text=failure.text, at=now, serial=secrets.token_hex(4))
    for _ in range(_TRIES):
        row = store.get(*place)
        names = {known: it for known, it in _outcomes(row, revision).items()
                 if now - it.at < BELIEVED_SECONDS and known != name}
        kept = dict([*names.items(), (name, new)][-_NAMES:])
        with suppress(Conflict):
            store.put(*place, msgspec.msgpack.encode(_Outcomes(revision=revision, names=kept)),
                      version=row.version if row else 0, expires=int(now) + BELIEVED_SECONDS)
            return


def _outcomes(row: Row | None, revision: str) -> dict[str, Outcome]:
    try:
        stored = _decode_outcomes(row.value) if row else None
    except ValueError:
        return {}
    return stored.names if stored and stored.revision == revision else {}


def explained(party: Party, code: str, there: Listed | None, refused: PartyError | UnknownRegion) -> \
        PartyError | UnknownRegion:
    """Why a party refused a region, as its list of regions tells: some say "wrong key" of a region that is not enabled
    for the account. Without a list, or if that names the region as open, the party's own answer stands."""
    if there is None or code in there.codes:
        return refused
    if code in there.closed:
        return UnknownRegion(f"{party.title} has the region {code}, but it is not enabled for this account. Enable it "
                             "at the party, or name another region.")
    return UnknownRegion(f"{party.title} lists no region {code} for this account.")
