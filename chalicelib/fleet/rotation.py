"""Replace an account's credentials, or the key that seals them, while requests go on.

The snapshots of an account stay when its credentials are rotated, so that readers have a list even if the new ones
fail. That is right only if they open the same account: what they list is compared with a snapshot.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from .. import parties
from ..access import accounts
from ..access.accounts import AccountRow
from ..access.sealing import Sealer
from ..concurrency import run_all
from ..errors import Conflict, SnapshotReplaced, TwocloudError
from ..model import WHOLE, Account, Source
from ..storage import snapshots
from .check import check_credentials
from .deployment import Deployment
from .lookup import Lookup

_LISTING_SECONDS = 120.0
_AT_ONCE = 64                               # accounts that are resealed before the first of them is yielded
_WRITERS = 8


def check(deployment: Deployment, account: Account) -> None:
    """Ask the party with credentials that are not stored yet, and list the region with the largest snapshot.

    Raises PartyError, UnknownRegion; Conflict if no server of the snapshot is in the new list.
    """
    check_credentials(deployment, account)
    heads = [(source, head) for source, head in snapshots.heads(deployment.store, account.tenant_id)
             if source.party == account.party and head.revision == account.revision and head.total]
    if not heads:
        return
    source, head = max(heads, key=lambda it: it[1].total)
    account = _opened_as(deployment, account, source)
    party = parties.load(account.party)
    sender = deployment.transport.sender(party, account, source.region, time.monotonic() + _LISTING_SECONDS,
                                         known=True)
    try:
        listed = {server.id for server in parties.list_servers(source, account, WHOLE, sender).servers}
    finally:
        sender.close()
    with suppress(SnapshotReplaced):
        if listed.isdisjoint(server.id for server in snapshots.read(deployment.store, source, head)):
            raise Conflict(
                f"None of the {head.total} servers in the snapshot of {source.region} is among the {len(listed)} that "
                "the new credentials list: they belong to another account, or lack a permission. Nothing was changed. "
                "To switch to another account: twocloud account put --replace")


def _opened_as(deployment: Deployment, account: Account, source: Source) -> Account:
    """The account, or the member of it that the source lists."""
    row = accounts.find(deployment.store, account.tenant_id, account.party, account.name)
    member = Lookup(deployment).named(row, source.account).member
    return replace(account, name=source.account, member=member) if member else account


def reseal(deployment: Deployment, old: Sealer, new: Sealer) -> Iterator[tuple[AccountRow, bool, TwocloudError | None]]:
    """Seal every account's credentials under the new key; (account, whether it was not yet, why it could not be)."""
    def one(row: AccountRow) -> tuple[AccountRow, bool, TwocloudError | None]:
        try:
            return row, accounts.reseal(deployment.store, row, old, new), None
        except TwocloudError as refused:
            return row, False, refused

    rows = accounts.every(deployment.store)
    for at in range(0, len(rows), _AT_ONCE):
        yield from run_all([lambda row=row: one(row) for row in rows[at:at + _AT_ONCE]], _WRITERS)
