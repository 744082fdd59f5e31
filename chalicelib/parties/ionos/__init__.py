"""IONOS Cloud: Cloud API v6, the servers of every virtual data center of a location.

https://api.ionos.com/docs/cloud/v6/ and the models of the SDK ionoscloud 6.1

Units: memory MB, disks GB, maybe as a fraction. Times: ISO 8601; a server states when it was last modified. Paging: at
any row, no total; `_links.next` is there as long as more rows follow (documented). Without `limit` a list ends at 100.

A region is a location, with `-` for the `/` of its name (de-fra is de/fra). No call lists all servers: one call names
the data centers, and one for each of those in the location holds all ten fields (`depth=3`, two levels below a server).
A child that comes without its properties is malformed, never a disk of 0. A data center that is removed meanwhile
answers 404; it is gone if the next list of data centers lacks it. There is no documented order: all are read to the end
and put into the order of creation. An unknown location is an empty list, so one is believed only of a location that
the party names.

A user sees the data centers that are shared with its groups, and an empty list if there are none; `account check`
refuses that. Addresses are public if the internet knows them. `metadata.state` says whether the record is in place, and
`vmState` whether the machine runs. Errors: a number, and the HTTP status. No rate was found: careful ones here.
"""

import re
from math import ceil
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from ...cloud import api

_CLOUD = api.Cloud("api.ionos.com")
_PAGE = 500                                 # of at most 10,000: an answer stays small enough
_WORKERS = 6
_T = TypeVar("_T")

_STATUS = {                                 # vmState, the complete enumeration
    "RUNNING": api.Status.ACTIVE,
    "BLOCKED": api.Status.ACTIVE,           # it runs and waits for a device: libvirt's word
    "PAUSED": api.Status.PAUSED,
    "SHUTDOWN": api.Status.STOPPING,
    "SHUTOFF": api.Status.SHUTOFF,
    "CRASHED": api.Status.ERROR,
    "SUSPENDED": api.Status.SUSPENDED,      # a Cube that is stopped and keeps its disk
    "NOSTATE": api.Status.UNKNOWN,
}
_SYSTEMS = {                                # licenceType; OTHER and UNKNOWN are no family
    "LINUX": "linux",
    "RHEL": "linux",
    "WINDOWS": "windows",
    "WINDOWS2016": "windows",
    "WINDOWS2019": "windows",
    "WINDOWS2022": "windows",
    "WINDOWS2025": "windows",
}
_STATES = {                                 # metadata.state, where it says more than vmState does
    "DEPLOYING": api.Status.BUILD,
    "DESTROYING": api.Status.DELETED,
    "HIBERNATING": api.Status.SUSPENDED,
    "SUSPENDED": api.Status.SUSPENDED,      # the contract is
    "INACTIVE": api.Status.SHUTOFF,
    **dict.fromkeys(("FAILED", "FAILED_SUSPENDED", "FAILED_UPDATING", "FAILED_DESTROYING", "FAILED_HIBERNATING",
                     "FAILED_MAINTENANCE"), api.Status.ERROR),
}
_GONE = "TERMINATED"

_ERRORS = {                                 # messages[].errorCode; the HTTP status says the rest
    "315": api.WRONG_KEY,                   # unauthorised
}


# ---------------------------------------------------------------- the shapes that we read

_Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z-]{1,64}\Z")]        # goes into paths


class _Links(msgspec.Struct):
    next: api.Strict[str | None] = None


class _List(msgspec.Struct, Generic[_T]):
    items: list[_T]
    links: api.Strict[_Links | None] = msgspec.field(name="_links", default=None)


class _Placed(msgspec.Struct):
    location: api.Text


class _Center(msgspec.Struct):
    id: _Uuid
    properties: _Placed

    @property
    def region(self) -> str:
        return self.properties.location.replace("/", "-")


class _Metadata(msgspec.Struct, gc=False):
    state: str | None = None
    createdDate: str | None = None
    lastModifiedDate: str | None = None


class _Boot(msgspec.Struct, gc=False):
    id: str | None = None


class _Properties(msgspec.Struct, gc=False):
    name: str | None = None
    cores: api.Count | None = None
    ram: api.Count | None = None
    vmState: str | None = None
    availabilityZone: str | None = None
    type: str | None = None
    bootVolume: _Boot | None = None


class _NicProperties(msgspec.Struct, gc=False):
    ips: list[str] | None = None
    ipv6Ips: list[str] | None = None
    deviceNumber: api.Count | None = None
    pciSlot: api.Count | None = None
    lan: int | None = None


class _Group(msgspec.Struct, gc=False):
    id: str | None = None


class _Groups(msgspec.Struct, gc=False):
    items: list[_Group] | None = None

    @property
    def ids(self) -> list[str | None] | None:
        return None if self.items is None else [group.id for group in self.items]


class _NicEntities(msgspec.Struct, gc=False):
    securitygroups: _Groups | None = None


class _Nic(msgspec.Struct, gc=False):
    properties: _NicProperties
    entities: _NicEntities | None = None


class _VolumeProperties(msgspec.Struct, gc=False):
    size: api.Size | None = None
    image: str | None = None
    imageAlias: str | None = None
    licenceType: str | None = None


class _Volume(msgspec.Struct, gc=False):
    properties: _VolumeProperties
    id: str | None = None


class _Nics(msgspec.Struct, gc=False):
    items: list[_Nic]


class _Volumes(msgspec.Struct, gc=False):
    items: list[_Volume]


class _Entities(msgspec.Struct, gc=False):
    nics: api.Strict[_Nics | None] = None
    volumes: api.Strict[_Volumes | None] = None
    securitygroups: _Groups | None = None


class _Server(msgspec.Struct, gc=False):
    id: api.Text
    properties: _Properties
    metadata: _Metadata | None = None
    entities: api.Strict[_Entities | None] = None


class _LocationProperties(msgspec.Struct):
    name: str | None = None


class _Location(msgspec.Struct):
    id: api.Text
    properties: _LocationProperties | None = None


class _Message(msgspec.Struct):
    errorCode: str | None = None


class _Refusal(msgspec.Struct):
    messages: list[_Message] | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    places = _datacenters(client)
    lists = client.for_each(places, lambda place: _servers(client, place), _WORKERS)
    rows = {row.id: (row, place) for place, part in zip(places, lists, strict=True) for row in part}
    return api.in_order((_server(row, place) for row, place in rows.values()
                         if (row.metadata or _Metadata()).state != _GONE), window)


def _datacenters(client: api.Client) -> list[str]:
    """The data centers of the region, or the account's alone."""
    rows = _all(client, "ListDatacenters", "/datacenters", _Center, depth=1)
    if client.project is not None:
        rows = [row for row in rows if row.id == client.project]
        if not rows:
            raise api.refused("wrong project: there is no data center of this id, or it is not shared with the user")
    return sorted(row.id for row in rows if row.region == client.region)


def _servers(client: api.Client, place: str) -> list[_Server]:
    try:
        return _all(client, "ListServers", f"/datacenters/{place}/servers", _Server, depth=3)
    except api.PartyMalformed as refused:
        if refused.http_status != 404 or place in {row.id for row in _all(
                client, "ListDatacenters", "/datacenters", _Center, depth=1)}:
            raise
        return []                           # removed meanwhile, with all that it held


def _server(row: _Server, place: str) -> api.Server:
    shown, metadata, entities = row.properties, row.metadata or _Metadata(), row.entities or _Entities()
    state = PARTY.status_of(shown.vmState)
    if metadata.state in _STATES:
        state["status"], state["party_status"] = _STATES[metadata.state], metadata.state
    nics = sorted((nic.properties for nic in entities.nics.items) if entities.nics else (),
                  key=lambda nic: next((slot for slot in (nic.deviceNumber, nic.pciSlot) if slot is not None), 10 ** 9))
    boot = next((volume.properties for volume in (entities.volumes.items if entities.volumes else ())
                 if volume.id and shown.bootVolume and volume.id == shown.bootVolume.id), _VolumeProperties())
    return api.Server(
        id=row.id,
        name=shown.name or "",
        cpu=shown.cores,
        memory_mib=shown.ram,
        disk_gib=None if entities.volumes is None else api.total_gib(
            None if volume.properties.size is None else ceil(volume.properties.size)
            for volume in entities.volumes.items),
        **api.by_scope(ip for nic in nics for ip in (*(nic.ips or ()), *(nic.ipv6Ips or ()))),
        **state,
        created_at=api.parse_time(metadata.createdDate),
        updated_at=api.parse_time(metadata.lastModifiedDate),
        zone=shown.availabilityZone or "",
        project_id=place,
        instance_type=shown.type or "",
        image_id=boot.image,
        image_name=boot.imageAlias,
        os=_SYSTEMS.get(boot.licenceType or ""),
        vpc_id=place,
        subnet_id=api.first(None if nic.lan is None else str(nic.lan) for nic in nics[:1]),
        security_groups=_groups(entities),
        charge_type=api.POSTPAID,           # the vendor sells no other kind: the minutes of a month
    )


def _groups(entities: _Entities) -> tuple[str, ...] | None:
    """The server's own and those of its interfaces; None if the server does not say which are its own. An interface
    that the depth of the list cuts off names none."""
    if entities.securitygroups is None:
        return None
    nics = [nic.entities.securitygroups for nic in (entities.nics.items if entities.nics else ())
            if nic.entities and nic.entities.securitygroups]
    return api.groups([entities.securitygroups.ids, *(groups.ids for groups in nics)])


# ---------------------------------------------------------------- regions, check, the calls

def list_regions(client: api.Client) -> list[api.Region]:
    """The locations, and those of data centers that are in none of them: their servers are there all the same."""
    rows, centers = client.run_all(lambda: _all(client, "ListLocations", "/locations", _Location, depth=1),
                                   lambda: _all(client, "ListDatacenters", "/datacenters", _Center, depth=1))
    if not rows:
        raise api.PartyMalformed("The party lists no location.")
    named = {row.id.replace("/", "-"): (row.properties and row.properties.name) or "" for row in rows}
    return [api.Region(code, name) for code, name in ({center.region: "" for center in centers} | named).items()]


def check(client: api.Client) -> None:
    """A user that sees nothing gets empty lists, not an error."""
    if not _all(client, "ListDatacenters", "/datacenters", _Center, depth=1):
        raise api.refused("missing right: the user sees no virtual data center; share them with a group of the user")


def _all(client: api.Client, operation: str, path: str, row: type[_T], depth: int) -> list[_T]:
    """Every row of a list; each has an `id`."""
    shape: Any = row

    def fetch(token: str | None) -> api.Page[_T]:
        start = int(token or 0)
        page: Any = api.read(client.get(_CLOUD, operation, f"/cloudapi/v6{path}", depth=depth, offset=start,
                                        limit=_PAGE), _List[shape])
        return api.Page([(one.id, one) for one in page.items], token=_following(page.links, start))

    return api.by_token(fetch, stable=False).rows


def _following(links: _Links | None, start: int) -> str | None:
    """The row with which the next page starts."""
    if links is None or not links.next:
        return None
    offset = parse_qs(urlsplit(links.next).query).get("offset", [""])[0]
    if not re.fullmatch(r"[0-9]{1,9}", offset, re.ASCII) or int(offset) <= start:
        raise api.PartyMalformed("The party's next page does not follow this one.")
    return offset


def error_code(response: api.Response) -> str | None:
    if response.status < 400:
        return None
    refusal = api.refusal(response, _Refusal)
    return next((each.errorCode for each in (refusal and refusal.messages) or () if each.errorCode), None)


# the API's names, as https://github.com/ionos-cloud/ui-driver-ionoscloud lists them, spelt out
_REGION_NAMES = {
    "de-fra": "Frankfurt", "de-txl": "Berlin", "es-vit": "Logroño", "fr-par": "Paris", "gb-lhr": "London",
    "gb-bhx": "Worcester", "us-las": "Las Vegas", "us-ewr": "Newark", "us-mci": "Lenexa",
}

PARTY = api.Party(
    name="ionos",
    title="IONOS Cloud",
    reference="https://api.ionos.com/docs/cloud/v6/",
    order="none documented; tokens that prove nothing",
    credentials=(("token",),),
    permissions=("a token of a user with read access to the data centers",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}-[a-z]{2,8}(-[a-z0-9]{1,8})?",
    default_region="de-fra",
    unknown_region_is_empty=True,
    project="a data center's id",
    project_form=r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    limits=api.unpublished(10, "ListDatacenters", "ListServers", "ListLocations"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
