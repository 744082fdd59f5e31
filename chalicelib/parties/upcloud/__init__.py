"""UpCloud: API 1.3.

https://developers.upcloud.com/1.3/8-servers/ and the recorded traffic in the party's Go client

Units: memory MB and cores, both numbers in text; disks GB. Times: `created` in Unix seconds, in the list as well (our
notes denied it). There is no time of the last update. Order: none is documented. Paging: limit and offset
without a total, so that the list is walked to its end, each page beginning with the last row of the page before it: if
that row is not there, the list has changed and the page is read again from farther in front. It has no filter for a
zone: it is kept by zone, put into the order of creation and cut to the window.

Disks and addresses are in the details of a server alone: one call for each of the window. Its utility network counts as
private. If a server has no details any more, the list is read again; a server that it still holds is a contradiction.
An unknown zone is an empty list, so that one is believed only of a zone in /1.3/zone. --project is a label, KEY=VALUE,
asked of the party and checked.

The token goes out as Bearer; user name and password are not taken. No rate is published: 60 details a second.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from ...cloud import api

_PAGE = 100
_CLOUD = api.Cloud("api.upcloud.com")

_STATUS = {                                 # state, the complete enumeration
    "started": api.Status.ACTIVE,
    "stopped": api.Status.SHUTOFF,
    "maintenance": api.Status.RESIZE,       # being changed; while it is made it has a `progress`, see _server
    "error": api.Status.ERROR,
}

_ERRORS = {                                 # error_code
    "AUTHENTICATION_FAILED": api.WRONG_KEY,
    "ACCESS_KEY_INVALID": api.WRONG_KEY,
    "INSUFFICIENT_CREDITS": api.ARREARS,
    "TRIAL_PERIOD_EXPIRED": api.ARREARS,
    "ACTION_FORBIDDEN": api.MISSING_RIGHT,
    "ACCOUNT_FORBIDDEN": api.MISSING_RIGHT,
    "SERVER_FORBIDDEN": api.MISSING_RIGHT,
    "TOO_MANY_REQUESTS": api.THROTTLED,
    "SERVER_NOT_FOUND": api.MALFORMED,
    "SERVER_INVALID": api.MALFORMED,
    "LABEL_INVALID": api.MALFORMED,
    "INTERNAL_ERROR": api.FAILED,
    "SERVICE_UNAVAILABLE": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

_Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]     # goes into a path
_Unix = Annotated[int, msgspec.Meta(ge=0, le=2 ** 33)]          # seconds
_Digits = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}$")]


class _Label(msgspec.Struct, gc=False):
    key: str | None = None
    value: str | None = None


class _Labels(msgspec.Struct, gc=False):
    label: list[_Label] = []


class _Tags(msgspec.Struct, gc=False):
    tag: list[str] = []


class _Row(msgspec.Struct, gc=False):
    uuid: _Uuid
    zone: api.Text
    created: _Unix | None = None
    labels: _Labels | None = None


class _Address(msgspec.Struct, gc=False):
    address: str | None = None
    access: str | None = None


class _Addresses(msgspec.Struct, gc=False):
    ip_address: list[_Address] = []


class _Interface(msgspec.Struct, gc=False):
    index: api.Count | None = None
    type: str | None = None
    network: str | None = None
    ip_addresses: _Addresses | None = None


class _Interfaces(msgspec.Struct, gc=False):
    interface: list[_Interface] = []


class _Networking(msgspec.Struct, gc=False):
    interfaces: _Interfaces | None = None


class _Storage(msgspec.Struct, gc=False):
    storage_size: api.Count | None = None
    type: str | None = None


class _Storages(msgspec.Struct, gc=False):
    storage_device: list[_Storage] | None = None


class _Detail(msgspec.Struct, gc=False):
    uuid: _Uuid
    zone: api.Text
    title: str | None = None
    hostname: str | None = None
    core_number: _Digits | api.Count | None = None
    memory_amount: _Digits | api.Count | None = None
    state: str | None = None
    progress: float | str | None = None     # in percent, of a creation
    created: _Unix | None = None
    plan: str | None = None
    host: int | str | None = None           # the id of the host, not there while the server is made
    ip_addresses: _Addresses | None = None
    networking: _Networking | None = None
    storage_devices: _Storages | None = None
    labels: _Labels | None = None
    tags: _Tags | None = None


class _Details(msgspec.Struct):
    server: _Detail


class _Zone(msgspec.Struct):
    id: api.Text
    description: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    details, gone = dict[str, _Detail](), set[str]()
    while True:
        here, elsewhere = api.parted(_rows(client), lambda row: row.zone, client.region)
        rows = sorted(here, key=lambda row: (10 ** 10 if row.created is None else row.created, row.uuid))
        if any(row.uuid in gone for row in rows):
            raise api.PartyMalformed("The party lists a server whose details it does not have.")
        wanted = [row.uuid for row in api.cut(rows, window)]
        missing = [uuid for uuid in wanted if uuid not in details]
        answers = client.for_each(missing, lambda uuid: _detail(client, uuid))
        details |= {detail.uuid: detail for detail in answers if detail}
        if None not in answers:
            return api.Listing([_server(details[uuid]) for uuid in wanted], len(rows), elsewhere)
        gone |= set(missing) - details.keys()


def _rows(client: api.Client) -> list[_Row]:
    """The account's servers."""
    def fetch(offset: int, limit: int) -> api.Page[_Row]:
        rows = client.rows(_SERVERS, label=client.project, limit=limit, offset=offset)
        return api.Page([(row.uuid, row) for row in rows])

    rows = api.by_place(fetch, _PAGE).rows
    return rows if client.project is None else api.only(rows, lambda row: client.project in _words(row.labels), True)


def _words(labels: _Labels | None) -> Sequence[str]:
    return [f"{label.key}={label.value or ''}" for label in labels.label] if labels else []


def _detail(client: api.Client, uuid: str) -> _Detail | None:
    """None if the server is gone."""
    try:
        detail = api.read(client.get(_CLOUD, "GetServer", f"/1.3/server/{uuid}"), _Details).server
    except api.PartyMalformed as refused:
        if refused.party_code != "SERVER_NOT_FOUND":
            raise
        return None
    if detail.uuid != uuid:
        raise api.PartyMalformed("The party gave another server's details than was asked for.")
    return detail


_SERVERS = api.List(_CLOUD, "ListServers", "/1.3/server", "servers.server", _Row)
_ZONES = api.List(_CLOUD, "ListZones", "/1.3/zone", "zones.zone", _Zone)


def _server(row: _Detail) -> api.Server:
    nets = sorted(row.networking.interfaces.interface if row.networking and row.networking.interfaces else [],
                  key=lambda net: net.index or 0)
    addresses = [(net.type, ip.address) for net in nets if net.ip_addresses for ip in net.ip_addresses.ip_address]
    addresses += [(ip.access, ip.address) for ip in (row.ip_addresses.ip_address if row.ip_addresses else [])]
    disks = row.storage_devices and row.storage_devices.storage_device
    labels = row.labels.label if row.labels else []
    return api.Server(
        id=row.uuid,
        name=row.title or row.hostname or "",
        cpu=None if row.core_number is None else int(row.core_number),
        memory_mib=None if row.memory_amount is None else int(row.memory_amount),
        disk_gib=None if disks is None else api.total_gib(disk.storage_size for disk in disks if disk.type != "cdrom"),
        **api.addresses(lan=(ip for kind, ip in addresses if kind in ("private", "utility")),
                        wan=(ip for kind, ip in addresses if kind == "public")),
        status=api.Status.BUILD if row.state == "maintenance" and row.progress is not None else _STATUS.get(
            row.state or "", api.Status.UNKNOWN),
        party_status=row.state or "",
        created_at=None if row.created is None else datetime.fromtimestamp(row.created, UTC),
        zone=row.zone,
        instance_type=row.plan or "",
        tags={**api.plain(row.tags and row.tags.tag), **api.labelled((label.key, label.value) for label in labels)},
        subnet_id=nets[0].network if nets else None,
        host_id=None if row.host is None else str(row.host),
    )


# the API's descriptions of zones, as HPE Morpheus' plugin for UpCloud lists them
_REGION_NAMES = {
    "fi-hel1": "Helsinki #1", "fi-hel2": "Helsinki #2", "de-fra1": "Frankfurt #1", "nl-ams1": "Amsterdam #1",
    "uk-lon1": "London #1", "es-mad1": "Madrid #1", "pl-waw1": "Warsaw #1", "se-sto1": "Stockholm #1",
    "us-chi1": "Chicago #1", "us-nyc1": "New York #1", "us-sjo1": "San Jose #1", "sg-sin1": "Singapore #1",
    "au-syd1": "Sydney #1", "dk-cph1": "Copenhagen #1", "no-svg1": "Stavanger #1",
}

PARTY = api.Party(
    name="upcloud",
    title="UpCloud",
    reference="https://developers.upcloud.com/1.3/8-servers/",
    order="none documented; pages at any row, without a total",
    credentials=(("token",),),
    grade="recorded",
    permissions=("a token of a sub-account that may view servers",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}-[a-z0-9]{2,20}(-[a-z0-9]{1,20}){0,4}",           # private clouds choose their own
    default_region="fi-hel1",
    unknown_region_is_empty=True,
    project="a label that every server of the project carries, KEY=VALUE",
    project_form=r"[^=\x00-\x20\x7f]{2,32}=[^\x00-\x1f\x7f]{0,255}",
    limits={**api.unpublished(10, "ListServers", "ListZones"), **api.per_second(60, "GetServer")},
    error_code=api.any_error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=api.regions_of(_ZONES, lambda row: api.Region(row.id, row.description or "")),
    check=lambda client: client.rows(_SERVERS, limit=1, offset=0),
)
