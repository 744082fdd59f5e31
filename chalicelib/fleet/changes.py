"""What changed in a source since a time, from its snapshots."""

from dataclasses import dataclass, replace

from ..access import accounts
from ..cloud.sender import CallStats
from ..errors import InvalidParameter
from ..model import WHOLE, Source
from ..storage import snapshots
from ..storage.snapshots import Vanished
from .deployment import Deployment
from .lookup import ANY_AGE, Filter, Freshness
from .one_source import Answer, get


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different since a time. `answer`: the servers that appeared or changed, as they are now; `fields`: which
    of each one's fields, none if it appeared. `vanished`: those that are not listed any more."""

    answer: Answer
    fields: dict[str, tuple[str, ...]]
    vanished: list[Vanished]


def list_changes(deployment: Deployment, source: Source, since: float, wanted: Filter = Filter(),
                 freshness: Freshness = ANY_AGE, deadline: float | None = None,
                 stats: CallStats | None = None) -> Changes:
    """From snapshots of any age; a source that has none is listed first.

    Raises InvalidParameter if `since` is older than the history, AccountNotFound, PartyError, UnknownRegion.
    """
    check_history(deployment, since)
    answer = get(deployment, source, WHOLE, wanted, freshness, deadline, stats)
    revision = accounts.find(deployment.store, source.tenant_id, source.party).revision
    head = snapshots.find(deployment.store, source, revision)
    everything = not head or since < head.since                 # all that we know of appeared after that
    fields: dict[str, tuple[str, ...]] = {}
    gone: dict[str, Vanished] = {}
    for change in snapshots.changes(deployment.store, source, since, head) if head else ():
        fields |= dict.fromkeys(change.appeared, ())
        for key, names in change.changed.items():
            before = fields.get(key)
            fields[key] = () if before == () else tuple(dict.fromkeys((*(before or ()), *names)))
        gone |= {server.id: server for server in change.vanished}
    present = {server.id for server in (answer if not wanted else get(
        deployment, source, WHOLE, Filter(), ANY_AGE, deadline, stats)).servers}
    shown = [server for server in answer.servers if everything or server.id in fields]
    part_of_name = (wanted.name or "").casefold()               # the only filter that fits what is known of them
    vanished = sorted((server for key, server in gone.items()
                       if key not in present and part_of_name in server.name.casefold()),
                      key=lambda server: (server.vanished_at, server.id))
    return Changes(replace(answer, servers=shown, total=len(shown)), fields, vanished)


def check_history(deployment: Deployment, since: float) -> None:
    """Raises InvalidParameter."""
    if since < deployment.clock() - deployment.settings.history * 86_400:
        raise InvalidParameter("changed_since", f"Changes are kept for {deployment.settings.history} days.")
