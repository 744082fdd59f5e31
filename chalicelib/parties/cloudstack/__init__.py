"""Apache CloudStack, through Apache Libcloud's driver (see cloud/libcloud.py).

https://cloudstack.apache.org/api/ (listVirtualMachines, listVolumes, listPublicIpAddresses, listZones). Libcloud asks
for no page and is cut at default.page.size (500); here each list is walked by pages of 500, held against its count.
Region = a zone, by name or id (a name with blanks: by id). Memory MiB, volumes bytes. Without --project the account's
machines outside of projects, as CloudStack itself; with it, those of that project. Rates: off, or 25 calls a second, by
default. Public IPs by static NAT are in the listing. Any CloudStack: api_url is the address of its API, mostly
https://HOST/client/api.

Unconfirmed: no real account was asked; what Libcloud's fixtures do not hold is from the vendor's own clients.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from ...cloud.decoding import Strict, reading, reshape
from ...cloud.joining import by_scope, groups, os_family
from ...cloud.libcloud import Bridge, Bytes, Call, Driven, party_of, total, window_of
from ...cloud.paging import Page, by_page
from ...errors import (
    FAILED,
    MALFORMED,
    MFA,
    MISSING_RIGHT,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    PartyMalformed,
    UnknownRegion,
)
from ...model import (
    IDENTIFIER,
    IDENTIFIER_FORM,
    WHOLE,
    Count,
    Listing,
    Region,
    Server,
    Source,
    Status,
    Window,
    parse_time,
)

_PAGE = 500                                 # CloudStack's own default limit
_GIB = 1024 ** 3
T = TypeVar("T")

_STATUS = {
    "Starting": Status.STARTING,
    "Running": Status.ACTIVE,
    "Stopping": Status.STOPPING,
    "Stopped": Status.SHUTOFF,
    "Migrating": Status.MIGRATING,
    "Destroyed": Status.SOFT_DELETED,       # until it is expunged it can be recovered
    "Expunging": Status.DELETED,
    "Error": Status.ERROR,                  # could not be deployed
    "Restoring": Status.REBUILD,
}
_Id = str | int                             # older ones count, newer ones have UUIDs


class _Address(msgspec.Struct, gc=False):
    ipaddress: str | None = None


class _Nic(msgspec.Struct, gc=False):
    ipaddress: str | None = None
    ip6address: str | None = None
    secondaryip: list[_Address] | None = None
    isdefault: bool | None = None
    networkid: _Id | None = None
    vpcid: _Id | None = None


class _Group(msgspec.Struct, gc=False):
    id: _Id | None = None


class _Tag(msgspec.Struct, gc=False):
    key: str | None = None
    value: str | None = None


class _Server(msgspec.Struct, gc=False):
    id: _Id
    name: str | None = None
    displayname: str | None = None
    nic: list[_Nic] | None = None
    state: str | None = None
    cpunumber: Count | None = None
    memory: Count | None = None
    created: str | None = None
    lastupdated: str | None = None
    zoneid: Strict[_Id | None] = None
    zonename: str | None = None
    projectid: Strict[_Id | None] = None
    serviceofferingname: str | None = None
    tags: list[_Tag] | None = None
    templateid: _Id | None = None
    templatename: str | None = None
    osdisplayname: str | None = None
    securitygroup: list[_Group] | None = None
    keypair: str | None = None              # in newer versions keypairs, with commas
    keypairs: str | None = None
    hostid: _Id | None = None               # for administrators


class _PublicIp(msgspec.Struct, gc=False):
    ipaddress: str | None = None
    virtualmachineid: _Id | None = None


class _Volume(msgspec.Struct, gc=False):
    size: Bytes | None = None
    virtualmachineid: Strict[_Id | None] = None                 # or else a size would be missing in a sum


_COUNTED = ("listVirtualMachines", "listVolumes", "listPublicIpAddresses")     # whose count may be that of the page
_ITEMS = {"listVirtualMachines": "virtualmachine", "listPublicIpAddresses": "publicipaddress", "listVolumes": "volume",
          "listZones": "zone"}


def _call(command: str, item: str) -> Call:
    """{"listzonesresponse": {"count": 1, "zone": […]}}, nothing inside if there is nothing, and never anything else."""
    inner = msgspec.defstruct(item, [("count", Count | None, None), (item, list[dict[str, Any]] | None, None)],
                              forbid_unknown_fields=True)
    return Call(command[0].upper() + command[1:], rf"GET /[^?]*\?([^&]*&)*command={command}(&[^&]*)*",
                 msgspec.defstruct(command, [(f"{command.lower()}response", inner)]))


def _mend(driven: Driven) -> None:
    """Every list is walked to its end; the driver itself takes the first page for all."""
    ask = driven.driver._sync_request

    def whole(command: str, params: Mapping[str, Any] | None = None, **_: Any) -> dict[str, list[dict[str, Any]]]:
        item = _ITEMS[command]

        ahead: dict[tuple[int, int], Page[dict[str, Any]]] = {}

        def page(number: int, size: int) -> Page[dict[str, Any]]:
            answer = ask(command, params={**(params or {}), "page": number, "pagesize": size})
            rows: list[dict[str, Any]] = answer.get(item) or []
            count: int | None = answer.get("count")
            if count is None and len(rows) >= size:             # old ones do not count
                raise PartyMalformed("The party gave a full page and no count; the list may go on.")
            end = (number - 1) * size + len(rows)
            more = command in _COUNTED and len(rows) == size and count == size
            with reading():
                return Page([(_known(row.get("id")), row) for row in rows], max(count or 0, end), "?" if more else None)

        def fetch(number: int, size: int) -> Page[dict[str, Any]]:
            """A count may be that of the page alone: after a full one that claims to be the last, the next is read."""
            first = last = ahead.pop((number, size), None) or page(number, size)
            while last.token:
                number += 1
                last = ahead[number, size] = page(number, size)
            return Page(first.rows, first.total if last is first else last.total)

        driven.door.answers[item] = by_page(fetch, WHOLE, _PAGE, 1).rows
        return {item: driven.door.answers[item]}

    driven.driver._sync_request = whole


def _known(key: object) -> str:
    if not isinstance(key, str | int) or not str(key):
        raise ValueError
    return str(key)


def _seen(driven: Driven, item: str, shape: type[T]) -> list[T]:
    return reshape(driven.door.answers[item], list[shape])


def _zone(driven: Driven, region: str) -> Any:
    """libcloud's location of this id or name."""
    zones = driven.driver.list_locations()
    matching = [zone for zone in zones if zone.id == region] or [zone for zone in zones if zone.name == region]
    if len(matching) != 1:
        raise UnknownRegion("This CloudStack has no zone of this name or id that this account may use.")
    return matching[0]


def _list_servers(driven: Driven, source: Source, window: Window) -> Listing:
    zone, project = _zone(driven, source.region), driven.account.project
    where = {"zoneid": zone.id, **({"projectid": project} if project else {})}
    for command in ("listVirtualMachines", "listPublicIpAddresses"):            # list_nodes asks for more, and reads it
        driven.driver._sync_request(command, params=where)
    rows = _seen(driven, "virtualmachine", _Server)
    if any(str(row.zoneid) != zone.id or (project and str(row.projectid) != project) for row in rows):
        raise PartyMalformed("The party listed servers of another zone or project than was asked for.")
    wide: dict[str, list[str]] = defaultdict(list)
    for ip in _seen(driven, "publicipaddress", _PublicIp):
        wide[str(ip.virtualmachineid)].append(ip.ipaddress or "")
    sizes: dict[str, list[int | None]] = defaultdict(list)
    if rows:
        driven.driver._sync_request("listVolumes", params=where)
        for volume in _seen(driven, "volume", _Volume):
            sizes[str(volume.virtualmachineid)].append(volume.size)
    return window_of([_server(row, wide[str(row.id)], sizes[str(row.id)]) for row in rows], window)


def _server(row: _Server, wide: list[str], sizes: list[int | None]) -> Server:
    primary = next((nic for nic in row.nic or () if nic.isdefault), _Nic())
    return Server(
        id=str(row.id),
        name=row.displayname or "" if row.name is None else row.name,
        cpu=row.cpunumber,
        memory_mib=row.memory,
        disk_gib=total(sizes, _GIB),
        **by_scope([
            *(text for nic in sorted(row.nic or (), key=lambda nic: not nic.isdefault)
              for text in (nic.ipaddress, nic.ip6address, *(ip.ipaddress for ip in nic.secondaryip or ()))), *wide]),
        status=_STATUS.get(row.state or "", Status.UNKNOWN),
        party_status=row.state or "",
        created_at=parse_time(row.created),
        updated_at=parse_time(row.lastupdated),
        zone=row.zonename or "",
        project_id="" if row.projectid is None else str(row.projectid),
        instance_type=row.serviceofferingname or "",
        tags={tag.key: tag.value or "" for tag in row.tags or () if tag.key is not None},
        image_id=_text(row.templateid),
        image_name=row.templatename,
        os=os_family(row.osdisplayname),
        vpc_id=_text(primary.vpcid),
        subnet_id=_text(primary.networkid),
        security_groups=groups([None if row.securitygroup is None else [_text(one.id) for one in row.securitygroup]]),
        key_name=row.keypairs or row.keypair,
        host_id=_text(row.hostid),
    )


def _text(key: _Id | None) -> str | None:
    return None if key is None else str(key)


def _check(driven: Driven, source: Source) -> None:
    """Without a region of the account's: any zone that it may use."""
    zones = driven.driver.list_locations()
    zone = None if source.region == "default" else _zone(driven, source.region)
    if not zones:
        raise UnknownRegion("This CloudStack has no zone that this account may use.")
    driven.driver.connection._sync_request("listVirtualMachines", params={
        "page": 1, "pagesize": 1, **({"zoneid": zone.id} if zone else {})})


BRIDGE = Bridge(
    module="cloudstack",
    driver="CloudStackNodeDriver",
    keys=("api_key", "secret_key"),
    url=lambda credentials, region: "{0.scheme}://{0.netloc}".format(urlsplit(credentials["api_url"])),
    arguments=lambda credentials, region: {
        "host": urlsplit(credentials["api_url"]).hostname,
        "path": urlsplit(credentials["api_url"]).path.rstrip("/") or "/client/api"},
    calls=tuple(_call(command, item) for command, item in _ITEMS.items()),
    mend=_mend,
    servers=_list_servers,
    regions=lambda driven: [Region(zone.name if IDENTIFIER_FORM.fullmatch(zone.name) else zone.id, zone.name)
                            for zone in driven.driver.list_locations()],
    check=_check,
)

PARTY = party_of(
    BRIDGE,
    name="cloudstack",
    order="none documented; numbered pages",
    title="Apache CloudStack",
    reference="https://cloudstack.apache.org/api/apidocs-4.20/apis/listVirtualMachines.html",
    addresses=("api_url",),
    permissions=tuple(_ITEMS),
    region_form=IDENTIFIER,
    default_region="default",
    project="a project's id",
    project_form=r"[A-Za-z0-9-]{1,64}",
    calls_a_second=25,
    code=lambda answer: next((inner.get("errorcode") for inner in answer.values()), None),
    errors={                                # org.apache.cloudstack.api.ApiErrorCode
        "401": WRONG_KEY,
        "511": MFA,                         # UNAUTHORIZED2FA
        "432": MISSING_RIGHT,               # not known, or not given to this account's role
        "531": MISSING_RIGHT,
        "429": THROTTLED,
        "430": MALFORMED,
        "431": MALFORMED,
        "405": MALFORMED,
        "503": UNAVAILABLE,
        "530": FAILED,
        "534": FAILED,
    },
)
