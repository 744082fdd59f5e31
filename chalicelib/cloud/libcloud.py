"""The bridge to Apache Libcloud 3.9: clouds without an adapter of their own, through its drivers.

https://libcloud.readthedocs.io/en/stable/compute/index.html

A driver signs the calls and says what is a server: id, name, addresses. The rest is ours. Its HTTP connection is
replaced by a `_Door` to `send`, so that deadline, byte cap, certificates, errors, retry and pace are those of every
party; only the calls of a table pass (each lists, or logs in), and each answer is decoded into a typed shape before the
driver sees it. What the driver made is then held against what came through the door: as many, and the same, or it is
PartyMalformed. CPUs, memory, disks, times and the party's own status word are read from the rows as they came, since
libcloud drops or bends most of them.

libcloud is an optional dependency, imported when a bridged party is first asked. One driver lives for one request: a
driver shared by threads mixes up their answers, without an error.

Bridged is only what provably lists completely. Libcloud's other drivers stop silently (ec2 after a page, nttcis before
the last), cannot be told where to stop (azure_arm, gce, ovh), need words that clouds no longer send (kubevirt:
spec.running; it also reads "500m" as 500 CPUs), may be cut by a limit that the server sets and does not tell (onapp),
or stand before clouds that have closed.

brightbox   https://api.gb1.brightbox.com/1.0/ (GET /1.0/servers). No paging: the API has no such parameter. One region
            of several zones. OAuth token from the API client's secret, a new one for each listing. Memory and disks
            MiB. A server made of volumes lists them, else its disk is its type's. Addresses: interfaces, then cloud
            IPs. API clients cannot be narrowed to reading; no rates are published. Libcloud's own connection cannot
            log in (it expects a value from a call that gives none); ours can.
cloudsigma  https://docs.cloudsigma.com/en/latest/ (GET /servers/detail/ and /drives/detail/). limit=0 is documented as
            all, held against meta.total_count. Memory and drives bytes; `smp` is the number of CPUs (libcloud divides
            the total clock). No time of creation. Libcloud asks for a drive of each server by itself, and fails on an
            interface with IPv6 alone: here all drives come in one call, and addresses from the row. The regions are
            libcloud's table. Rates are not told in numbers.
cloudstack  https://cloudstack.apache.org/api/ (listVirtualMachines, listVolumes, listPublicIpAddresses, listZones).
            Libcloud asks for no page and is cut at default.page.size (500); here each list is walked by pages of 500,
            held against its count. Region = a zone, by name or id (a name with blanks: by id). Memory MiB, volumes
            bytes. Without --project the account's machines outside of projects, as CloudStack itself; with it, those
            of that project. Rates: off, or 25 calls a second, by default. Public IPs by static NAT are in the listing.
            Any CloudStack: api_url is the address of its API, mostly https://HOST/client/api.
kamatera    https://github.com/cloudwm/cloudcli (GET /service/servers, POST /service/server/info for all names). No
            paging in this API; the two lists are held against each other. Region = datacenter, ours to filter. Memory
            MB, disks GB. It says on or off and no times. No rates are published.
outscale    https://docs.outscale.com/api.html (ReadVms, ReadVolumes, ReadVmTypes). Libcloud follows no page and calls
            past every seam: here its call is replaced, signed by its signer, and walked by NextPageToken. The VM types
            tinavX.cYrZ say their size in their name (Y cores, Z GiB); others are in ReadVmTypes. Volumes GiB. Rates are
            not told in numbers.

Unconfirmed: no real account was asked; what the fixtures of libcloud do not hold is from the vendors' own clients.
"""

import importlib
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from ..errors import (
    ADDRESS,
    EXPIRED_KEY,
    FAILED,
    LOCKED,
    MALFORMED,
    MFA,
    MISSING_RIGHT,
    REGION,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    Internal,
    PartyDenied,
    PartyMalformed,
    PartyThrottled,
    UnknownRegion,
)
from ..model import (
    IDENTIFIER,
    IDENTIFIER_FORM,
    WHOLE,
    Account,
    Count,
    Limit,
    Listing,
    Party,
    Region,
    Request,
    Response,
    Send,
    Server,
    Source,
    Status,
    Text,
    Window,
    addresses,
    parse_time,
)
from .cache import cached_lookup
from .decoding import Strict, decode, part, reading, reshape
from .paging import Page, by_page, by_token, cut

_PAGE = 500                                 # CloudStack's own default limit; Outscale takes up to 1000
_T = TypeVar("_T")
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=10 ** 18)]
_Size = Annotated[float, msgspec.Meta(ge=0, le=10 ** 9)]
_MIB, _GIB = 1024 ** 2, 1024 ** 3
_OURS = {"host", "user-agent", "accept-encoding", "content-length", "connection"}       # headers that transport writes


# ---------------------------------------------------------------- the door

@dataclass(frozen=True, slots=True)
class _Call:
    """What may pass: `pattern` is the whole of "METHOD /path?query". A real answer is decoded into `shape`. If it lists
    `rows` of ours, no more than that reaches the driver, which would fail on an odd one."""

    operation: str
    pattern: str
    shape: Any
    rows: bool = True


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer as libcloud reads it; the door has found it to be JSON of a known shape."""

    status_code: int
    text: str
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    reason: str = ""
    request: None = None
    iter_content: None = None

    @property
    def status(self) -> int:
        return self.status_code

    def read(self) -> str:
        return self.text

    def json(self) -> Any:
        return msgspec.json.decode(self.text)


class _Door:
    """Stands where libcloud expects its own HTTP connection. `seen`: the last decoded answer of each operation."""

    def __init__(self, url: str, calls: Sequence[_Call], account: Account, send: Send) -> None:
        self._url = url
        self._calls = calls
        self._account = account
        self._send = send
        self._answer: _Answer | None = None
        self.seen: dict[str, Any] = {}

    def ask(self, method: str, path: str, headers: Callable[[], Mapping[str, str]],
            body: str | bytes | None) -> _Answer:
        call = next((call for call in self._calls if re.fullmatch(call.pattern, f"{method} {path}", re.ASCII)), None)
        if call is None:
            raise Internal("Apache Libcloud asked for a call that the bridge does not know as one that only lists.")
        sent = (body or "").encode() if isinstance(body, str | None) else body
        response = self._send(call.operation, lambda: Request(
            method, self._account.url(self._url + path), dict(headers()), sent))
        if response.status != 200:
            raise PartyMalformed()          # drivers take others for success
        found = self.seen[call.operation] = decode(response.body, call.shape)
        with reading():
            return _Answer(response.status, (msgspec.json.encode(found) if call.rows else response.body).decode())

    def request(self, method: str, url: str, body: str | bytes | None = None, headers: Mapping[str, Any] | None = None,
                raw: bool = False, stream: bool = False, hooks: None = None) -> _Answer:
        kept = {name: str(value) for name, value in (headers or {}).items() if name.lower() not in _OURS}
        self._answer = self.ask(method, url, lambda: kept, body)
        return self._answer

    def getresponse(self) -> _Answer | None:
        return self._answer


# ---------------------------------------------------------------- a driver

@dataclass(frozen=True, slots=True)
class _Driven:
    driver: Any
    door: _Door
    account: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bridge:
    """A party's row. `module`, `driver`: of libcloud. `keys`: the fields that are the constructor's key and secret.

    `url`: where the API stands, for (credentials, region). `arguments`: the constructor's others, for the same.
    `mend`: sets right what a driver gets wrong for us, on this one object. `servers`: its list, whole.
    """

    module: str
    driver: str
    keys: tuple[str, str]
    url: Callable[[Mapping[str, str], str], str]
    arguments: Callable[[Mapping[str, str], str], dict[str, Any]] = lambda credentials, region: {}
    calls: tuple[_Call, ...]
    mend: Callable[[_Driven], None]
    servers: Callable[[_Driven, Source, Window], Listing]
    regions: Callable[[_Driven], list[Region]]
    check: Callable[[_Driven, Source], object]


def _libcloud(module: str) -> Any:
    try:
        return importlib.import_module(f"libcloud.{module}")
    except ImportError:
        raise Internal("This party is asked through Apache Libcloud, which is not installed here: "
                       "in the clone, run .venv/bin/pip install -e \".[bridge]\".") from None
    except ValueError:                      # it looks at this as it is imported, though no call of ours uses it
        raise Internal("Apache Libcloud cannot be imported here: SSL_CERT_FILE names no file.") from None


@contextmanager
def _driven(bridge: _Bridge, account: Account, region: str, send: Send) -> Generator[_Driven, None, None]:
    """A driver of its own, whose every call goes through `send`, and whose every failure has our name."""
    given = account.credentials
    types, http = _libcloud("common.types"), _libcloud("common.exceptions")
    driver_class = getattr(_libcloud(f"compute.drivers.{bridge.module}"), bridge.driver)
    door = _Door(bridge.url(given, region), bridge.calls, account, send)
    try:
        driver = driver_class(*(given[name] for name in bridge.keys), **bridge.arguments(given, region))
        def connection(**_: object) -> _Door:
            return door

        driver.connection.conn_class = connection               # nothing was sent yet; its own is never asked
        driver.connection.connect()
        driven = _Driven(driver, door, account)
        bridge.mend(driven)
        yield driven
    except types.InvalidCredsError:
        raise PartyDenied() from None
    except http.RateLimitReachedError:
        raise PartyThrottled() from None
    except (types.LibcloudError, http.BaseHTTPError, LookupError, TypeError, AttributeError, ValueError):
        raise PartyMalformed() from None    # an answer that the driver does not know


def _by_id(driver: Any, method: str, key: str) -> None:
    """The driver makes a node of nothing but a row's id: the rest it would read its own way, and fail on odd rows."""
    def node(row: Mapping[str, Any] | None = None, *_: object, data: Mapping[str, Any] | None = None, **__: object,
             ) -> SimpleNamespace:
        return SimpleNamespace(id=(row or data or {})[key])

    setattr(driver, method, node)


def _held(nodes: Sequence[Any], rows: Sequence[_T], key: Callable[[_T], object]) -> list[_T]:
    """The rows, of which the driver must have made as many nodes; the first, if the party gives one twice."""
    if [str(node.id) for node in nodes] != [str(key(row)) for row in rows]:
        raise PartyMalformed("Apache Libcloud made another list of the party's answer.")
    kept: dict[str, _T] = {}
    for row in rows:
        kept.setdefault(str(key(row)), row)
    return list(kept.values())


def _split(found: Iterable[str | None]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """((IPv4, IPv6) of the LAN, (IPv4, IPv6) of the WAN), by what the addresses themselves are."""
    lan: list[str] = []
    wan: list[str] = []
    for text in found:
        with suppress(ValueError):
            (wan if ip_address(text or "").is_global else lan).append(text or "")
    return addresses(*lan), addresses(*wan)


def _whole(servers: Sequence[Server], window: Window) -> Listing:
    return Listing(cut(servers, window), len(servers))


def _rounded_up(number: float | None, unit: float) -> int | None:
    return None if number is None else int(-(-number // unit))


def _sum(sizes: Iterable[float | None], unit: float) -> int | None:
    """The sum, rounded up; None if one is not known."""
    known = list(sizes)
    return None if None in known else _rounded_up(sum(size for size in known if size is not None), unit)


# ---------------------------------------------------------------- brightbox

_BRIGHTBOX = {
    "creating": Status.BUILD,
    "active": Status.ACTIVE,
    "inactive": Status.SHUTOFF,
    "deleting": Status.DELETED,
    "failed": Status.ERROR,                 # could not be created
    "unavailable": Status.UNKNOWN,          # its host does not answer
}
_GONE = ("deleted", "terminated")           # finally gone, but still listed for a while: brightbox, outscale


class _Token(msgspec.Struct):
    access_token: Text


class _BrightboxType(msgspec.Struct, gc=False):
    name: str | None = None
    handle: str | None = None
    cores: Count | None = None
    ram: Count | None = None
    disk_size: Count | None = None


class _BrightboxZone(msgspec.Struct, gc=False):
    handle: str | None = None


class _BrightboxVolume(msgspec.Struct, gc=False):
    size: Count | None = None


class _BrightboxInterface(msgspec.Struct, gc=False):
    ipv4_address: str | None = None
    ipv6_address: str | None = None


class _BrightboxAddress(msgspec.Struct, gc=False):
    public_ip: str | None = None
    public_ipv6: str | None = None


class _BrightboxServer(msgspec.Struct, gc=False):
    id: Text
    name: str | None = None
    interfaces: list[_BrightboxInterface] | None = None
    cloud_ips: list[_BrightboxAddress] | None = None
    status: str | None = None
    server_type: _BrightboxType | None = None
    zone: _BrightboxZone | None = None
    volumes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET    # none for a server that has its type's disk
    created_at: str | None = None


def _list_brightbox(driven: _Driven, source: Source, window: Window) -> Listing:
    nodes = driven.driver.list_nodes()
    rows: list[_BrightboxServer] = driven.door.seen["ListServers"]
    kept = _held(nodes, rows, lambda row: row.id)
    return _whole([_brightbox(row) for row in kept if row.status not in _GONE], window)


def _brightbox(row: _BrightboxServer) -> Server:
    kind = row.server_type or _BrightboxType()
    nothing = row.volumes is msgspec.UNSET or bytes(row.volumes) == b"null"
    volumes = [] if nothing or row.volumes is msgspec.UNSET else part(row.volumes, list[_BrightboxVolume])
    sizes = [volume.size for volume in volumes] if volumes else [kind.disk_size if volumes is not None else None]
    (lan4, lan6), (wan4, wan6) = _split([
        *(text for one in row.interfaces or () for text in (one.ipv4_address, one.ipv6_address)),
        *(text for one in row.cloud_ips or () for text in (one.public_ip, one.public_ipv6))])
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=kind.cores,
        memory_mib=kind.ram,
        disk_gib=_sum(sizes, 1024),
        lan_ipv4=lan4, wan_ipv4=wan4, lan_ipv6=lan6, wan_ipv6=wan6,
        status=_BRIGHTBOX.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created_at),
        zone=(row.zone and row.zone.handle) or "",
        instance_type=kind.handle or kind.name or "",
    )


def _brightbox_url(credentials: Mapping[str, str], region: str) -> str:
    if region != "gb1":
        raise UnknownRegion("Brightbox has the region gb1.")
    return "https://api.gb1.brightbox.com"


_brightbox_bridge = _Bridge(
    module="brightbox",
    driver="BrightboxNodeDriver",
    keys=("client_id", "secret"),
    url=_brightbox_url,
    calls=(_Call("Login", r"POST /token", _Token, rows=False),
           _Call("ListServers", r"GET /1\.0/servers", list[_BrightboxServer])),
    mend=lambda driven: _by_id(driven.driver, "_to_node", "id"),
    servers=_list_brightbox,
    regions=lambda driven: [Region("gb1", "Great Britain")],
    check=lambda driven, source: driven.driver.list_nodes(),
)


# ---------------------------------------------------------------- cloudsigma

_CLOUDSIGMA = {
    "starting": Status.STARTING,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "paused": Status.PAUSED,
    "unavailable": Status.ERROR,
}


class _Meta(msgspec.Struct):
    total_count: Count


class _Objects(msgspec.Struct, Generic[_T]):
    objects: list[_T]
    meta: _Meta


class _Uuid(msgspec.Struct, gc=False):
    uuid: Text


class _CloudsigmaConf(msgspec.Struct, gc=False):
    ip: _Uuid | None = None


class _CloudsigmaRuntime(msgspec.Struct, gc=False):
    ip_v4: _Uuid | None = None
    ip_v6: _Uuid | None = None


class _CloudsigmaNic(msgspec.Struct, gc=False):
    ip_v4_conf: _CloudsigmaConf | None = None
    ip_v6_conf: _CloudsigmaConf | None = None
    runtime: _CloudsigmaRuntime | None = None


class _CloudsigmaMount(msgspec.Struct, gc=False):
    drive: _Uuid | None = None


class _CloudsigmaServer(msgspec.Struct, gc=False):
    uuid: Text
    name: str | None = None
    nics: list[_CloudsigmaNic] | None = None
    drives: list[_CloudsigmaMount] | None = None
    status: str | None = None
    smp: Count | None = None
    mem: _Bytes | None = None


class _CloudsigmaDrive(msgspec.Struct, gc=False):
    uuid: Text
    media: str | None = None
    size: _Bytes | None = None


def _mend_cloudsigma(driven: _Driven) -> None:
    """Drives are read in one call, not one by one for each server."""
    _by_id(driven.driver, "_to_node", "uuid")
    _by_id(driven.driver, "_to_drive", "uuid")


def _cloudsigma_rows(driven: _Driven, operation: str) -> list[Any]:
    answer: _Objects[Any] = driven.door.seen[operation]
    if len(answer.objects) != answer.meta.total_count:
        raise PartyMalformed("The party's count and its rows disagree.")
    return answer.objects


def _list_cloudsigma(driven: _Driven, source: Source, window: Window) -> Listing:
    nodes = driven.driver.list_nodes()
    rows: list[_CloudsigmaServer] = _cloudsigma_rows(driven, "ListServers")
    drives: dict[str, _CloudsigmaDrive] = {}
    if any(row.drives for row in rows):
        driven.driver.ex_list_user_drives()
        drives = {drive.uuid: drive for drive in _cloudsigma_rows(driven, "ListDrives")}
    return _whole([_cloudsigma(row, drives) for row in _held(nodes, rows, lambda row: row.uuid)], window)


def _cloudsigma(row: _CloudsigmaServer, drives: Mapping[str, _CloudsigmaDrive]) -> Server:
    (lan4, lan6), (wan4, wan6) = _split(
        ip.uuid for nic in row.nics or () for side in (nic.ip_v4_conf, nic.ip_v6_conf, nic.runtime) if side
        for ip in ((side.ip,) if isinstance(side, _CloudsigmaConf) else (side.ip_v4, side.ip_v6)) if ip)
    mounted = [drives.get(mount.drive.uuid if mount.drive else "", _CloudsigmaDrive("?")) for mount in row.drives or ()]
    return Server(
        id=row.uuid,
        name=row.name or "",
        cpu=row.smp,
        memory_mib=_rounded_up(row.mem, _MIB),
        disk_gib=None if row.drives is None else _sum((one.size for one in mounted if one.media != "cdrom"), _GIB),
        lan_ipv4=lan4, wan_ipv4=wan4, lan_ipv6=lan6, wan_ipv6=wan6,
        status=_CLOUDSIGMA.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
    )


def _cloudsigma_regions() -> dict[str, dict[str, str]]:
    return _libcloud("common.cloudsigma").API_ENDPOINTS_2_0


def _cloudsigma_url(credentials: Mapping[str, str], region: str) -> str:
    known = _cloudsigma_regions()
    if region not in known:
        raise UnknownRegion("CloudSigma has no region of this name that Apache Libcloud knows.")
    return f"https://{known[region]['host']}"


_cloudsigma_bridge = _Bridge(
    module="cloudsigma",
    driver="CloudSigma_2_0_NodeDriver",
    keys=("email", "password"),
    url=_cloudsigma_url,
    arguments=lambda credentials, region: {"region": region},
    calls=(_Call("ListServers", r"GET /api/2\.0/servers/detail/\?limit=0", _Objects[_CloudsigmaServer]),
           _Call("ListDrives", r"GET /api/2\.0/drives/detail/\?limit=0", _Objects[_CloudsigmaDrive])),
    mend=_mend_cloudsigma,
    servers=_list_cloudsigma,
    regions=lambda driven: [Region(code, one["name"]) for code, one in _cloudsigma_regions().items()],
    check=lambda driven, source: driven.driver.list_nodes(),
)


# ---------------------------------------------------------------- cloudstack

_CLOUDSTACK = {
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


class _CloudstackAddress(msgspec.Struct, gc=False):
    ipaddress: str | None = None


class _CloudstackNic(msgspec.Struct, gc=False):
    ipaddress: str | None = None
    ip6address: str | None = None
    secondaryip: list[_CloudstackAddress] | None = None
    isdefault: bool | None = None


class _CloudstackTag(msgspec.Struct, gc=False):
    key: str | None = None
    value: str | None = None


class _CloudstackServer(msgspec.Struct, gc=False):
    id: _Id
    name: str | None = None
    displayname: str | None = None
    nic: list[_CloudstackNic] | None = None
    state: str | None = None
    cpunumber: Count | None = None
    memory: Count | None = None
    created: str | None = None
    lastupdated: str | None = None
    zoneid: Strict[_Id | None] = None
    zonename: str | None = None
    projectid: Strict[_Id | None] = None
    serviceofferingname: str | None = None
    tags: list[_CloudstackTag] | None = None


class _CloudstackPublicIp(msgspec.Struct, gc=False):
    ipaddress: str | None = None
    virtualmachineid: _Id | None = None


class _CloudstackVolume(msgspec.Struct, gc=False):
    size: _Bytes | None = None
    virtualmachineid: Strict[_Id | None] = None                 # or else a size would be missing in a sum


_COUNTED = ("listVirtualMachines", "listVolumes", "listPublicIpAddresses")     # whose count may be that of the page
_ITEMS = {"listVirtualMachines": "virtualmachine", "listPublicIpAddresses": "publicipaddress", "listVolumes": "volume",
          "listZones": "zone"}


def _cloudstack_call(command: str, item: str) -> _Call:
    """{"listzonesresponse": {"count": 1, "zone": […]}}, nothing inside if there is nothing, and never anything else."""
    inner = msgspec.defstruct(item, [("count", Count | None, None), (item, list[dict[str, Any]] | None, None)],
                              forbid_unknown_fields=True)
    return _Call(command[0].upper() + command[1:], rf"GET /[^?]*\?([^&]*&)*command={command}(&[^&]*)*",
                 msgspec.defstruct(command, [(f"{command.lower()}response", inner)]))


def _mend_cloudstack(driven: _Driven) -> None:
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
            first = found = ahead.pop((number, size), None) or page(number, size)
            while found.token:
                number += 1
                found = ahead[number, size] = page(number, size)
            return Page(first.rows, first.total if found is first else found.total)

        driven.door.seen[item] = by_page(fetch, WHOLE, _PAGE, 1).rows
        return {item: driven.door.seen[item]}

    driven.driver._sync_request = whole


def _known(key: object) -> str:
    if not isinstance(key, str | int) or not str(key):
        raise ValueError
    return str(key)


def _seen(driven: _Driven, item: str, shape: type[_T]) -> list[_T]:
    return reshape(driven.door.seen[item], list[shape])


def _zone(driven: _Driven, region: str) -> Any:
    """libcloud's location of this id or name."""
    zones = driven.driver.list_locations()
    found = [zone for zone in zones if zone.id == region] or [zone for zone in zones if zone.name == region]
    if len(found) != 1:
        raise UnknownRegion("This CloudStack has no zone of this name or id that this account may use.")
    return found[0]


def _list_cloudstack(driven: _Driven, source: Source, window: Window) -> Listing:
    zone, project = _zone(driven, source.region), driven.account.project
    where = {"zoneid": zone.id, **({"projectid": project} if project else {})}
    for command in ("listVirtualMachines", "listPublicIpAddresses"):            # list_nodes asks for more, and reads it
        driven.driver._sync_request(command, params=where)
    rows = _seen(driven, "virtualmachine", _CloudstackServer)
    if any(str(row.zoneid) != zone.id or (project and str(row.projectid) != project) for row in rows):
        raise PartyMalformed("The party listed servers of another zone or project than was asked for.")
    wide: dict[str, list[str]] = defaultdict(list)
    for ip in _seen(driven, "publicipaddress", _CloudstackPublicIp):
        wide[str(ip.virtualmachineid)].append(ip.ipaddress or "")
    sizes: dict[str, list[int | None]] = defaultdict(list)
    if rows:
        driven.driver._sync_request("listVolumes", params=where)
        for volume in _seen(driven, "volume", _CloudstackVolume):
            sizes[str(volume.virtualmachineid)].append(volume.size)
    return _whole([_cloudstack(row, wide[str(row.id)], sizes[str(row.id)]) for row in rows], window)


def _cloudstack(row: _CloudstackServer, wide: list[str], sizes: list[int | None]) -> Server:
    (lan4, lan6), (wan4, wan6) = _split([
        *(text for nic in sorted(row.nic or (), key=lambda nic: not nic.isdefault)
          for text in (nic.ipaddress, nic.ip6address, *(ip.ipaddress for ip in nic.secondaryip or ()))), *wide])
    return Server(
        id=str(row.id),
        name=row.displayname or "" if row.name is None else row.name,
        cpu=row.cpunumber,
        memory_mib=row.memory,
        disk_gib=_sum(sizes, _GIB),
        lan_ipv4=lan4, wan_ipv4=wan4, lan_ipv6=lan6, wan_ipv6=wan6,
        status=_CLOUDSTACK.get(row.state or "", Status.UNKNOWN),
        party_status=row.state or "",
        created_at=parse_time(row.created),
        updated_at=parse_time(row.lastupdated),
        zone=row.zonename or "",
        project_id="" if row.projectid is None else str(row.projectid),
        instance_type=row.serviceofferingname or "",
        tags={tag.key: tag.value or "" for tag in row.tags or () if tag.key is not None},
    )


def _check_cloudstack(driven: _Driven, source: Source) -> None:
    """Without a region of the account's: any zone that it may use."""
    zones = driven.driver.list_locations()
    zone = None if source.region == "default" else _zone(driven, source.region)
    if not zones:
        raise UnknownRegion("This CloudStack has no zone that this account may use.")
    driven.driver.connection._sync_request("listVirtualMachines", params={
        "page": 1, "pagesize": 1, **({"zoneid": zone.id} if zone else {})})


_cloudstack_bridge = _Bridge(
    module="cloudstack",
    driver="CloudStackNodeDriver",
    keys=("api_key", "secret_key"),
    url=lambda credentials, region: "{0.scheme}://{0.netloc}".format(urlsplit(credentials["api_url"])),
    arguments=lambda credentials, region: {
        "host": urlsplit(credentials["api_url"]).hostname,
        "path": urlsplit(credentials["api_url"]).path.rstrip("/") or "/client/api"},
    calls=tuple(_cloudstack_call(command, item) for command, item in _ITEMS.items()),
    mend=_mend_cloudstack,
    servers=_list_cloudstack,
    regions=lambda driven: [Region(zone.name if IDENTIFIER_FORM.fullmatch(zone.name) else zone.id, zone.name)
                            for zone in driven.driver.list_locations()],
    check=_check_cloudstack,
)


# ---------------------------------------------------------------- kamatera

_KAMATERA = {"on": Status.ACTIVE, "off": Status.SHUTOFF}


class _KamateraServer(msgspec.Struct, gc=False):
    id: Text
    datacenter: Text
    name: str | None = None
    power: str | None = None


class _KamateraNetwork(msgspec.Struct, gc=False):
    ips: list[str] | None = None


class _KamateraDetails(msgspec.Struct, gc=False):
    id: Text
    datacenter: Text
    name: str | None = None
    networks: list[_KamateraNetwork] | None = None
    power: str | None = None
    cpu: str | None = None
    ram: _Size | None = None
    diskSizes: list[_Size | None] | None = None


class _KamateraPlace(msgspec.Struct):
    id: Text


def _list_kamatera(driven: _Driven, source: Source, window: Window) -> Listing:
    for _ in range(2):
        listed = driven.driver.list_nodes()
        here = [row for row in driven.door.seen["ListServers"] if row.datacenter == source.region]
        if not here:                        # the details of no servers are an error at this party
            return Listing([], 0)
        nodes = driven.driver.list_nodes(ex_full_details=True)
        rows: list[_KamateraDetails] = driven.door.seen["GetServers"]
        if sorted(node.id for node in listed) == sorted(row.id for row in rows):
            return _whole([_kamatera(row) for row in _held(nodes, rows, lambda row: row.id)
                           if row.datacenter == source.region], window)
    raise PartyMalformed("The party's two lists still disagree after a second listing.")


def _mend_kamatera(driven: _Driven) -> None:
    """The driver would look up each row's datacenter in a table, and read the details its own way."""
    def row_of(id: object = None, name: object = None, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(id=id, name=name)

    def detailed(_: object, row: Mapping[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(id=row["id"])

    driver = driven.driver
    driver.ex_get_node, driver._update_node_from_server_info, driver.ex_get_location = row_of, detailed, row_of


def _kamatera(row: _KamateraDetails) -> Server:
    (lan4, lan6), (wan4, wan6) = _split(text for network in row.networks or () for text in network.ips or ())
    cores = re.fullmatch(r"([0-9]{1,4})[A-Z]", row.cpu or "", re.ASCII)        # 2B: two cores of type B
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=int(cores[1]) if cores else None,
        memory_mib=_rounded_up(row.ram, 1),
        disk_gib=None if row.diskSizes is None else _sum(row.diskSizes, 1),
        lan_ipv4=lan4, wan_ipv4=wan4, lan_ipv6=lan6, wan_ipv6=wan6,
        status=_KAMATERA.get(row.power or "", Status.UNKNOWN),
        party_status=row.power or "",
        zone=row.datacenter,
        instance_type=row.cpu or "",
    )


_kamatera_bridge = _Bridge(
    module="kamatera",
    driver="KamateraNodeDriver",
    keys=("client_id", "secret"),
    url=lambda credentials, region: "https://cloudcli.cloudwm.com",
    calls=(_Call("ListServers", r"GET /service/servers", list[_KamateraServer]),
           _Call("GetServers", r"POST /service/server/info", list[_KamateraDetails]),
           _Call("ListDatacenters", r"GET /service/server\?datacenter=1", list[_KamateraPlace], rows=False)),
    mend=_mend_kamatera,
    servers=_list_kamatera,
    regions=lambda driven: [Region(place.id, place.name or "") for place in driven.driver.list_locations()],
    check=lambda driven, source: driven.driver.list_nodes(),
)


# ---------------------------------------------------------------- outscale

_OUTSCALE = {
    "pending": Status.BUILD,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "shutting-down": Status.DELETED,
    "quarantine": Status.SUSPENDED,         # taken out of service by the cloud
}
_MOST_FILTERED = 100                        # how many values a filter takes is not documented
_TINA = re.compile(r"tinav[0-9]+\.c([0-9]{1,3})r([0-9]{1,4})(p[0-9])?", re.ASCII)


class _OutscalePublicIp(msgspec.Struct, gc=False):
    PublicIp: str | None = None


class _OutscalePrivateIp(msgspec.Struct, gc=False):
    PrivateIp: str | None = None
    IsPrimary: bool | None = None
    LinkPublicIp: _OutscalePublicIp | None = None


class _OutscaleNic(msgspec.Struct, gc=False):
    PrivateIps: list[_OutscalePrivateIp] | None = None


class _OutscaleBsu(msgspec.Struct, gc=False):
    VolumeId: Text


class _OutscaleDevice(msgspec.Struct, gc=False):
    Bsu: _OutscaleBsu | None = None


class _OutscalePlacement(msgspec.Struct, gc=False):
    SubregionName: str | None = None


class _OutscaleTag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _OutscaleVm(msgspec.Struct, gc=False):
    VmId: Text
    Tags: list[_OutscaleTag] | None = None
    State: str | None = None
    VmType: str | None = None
    PrivateIp: str | None = None
    PublicIp: str | None = None
    Nics: list[_OutscaleNic] | None = None
    BlockDeviceMappings: list[_OutscaleDevice] | None = None
    CreationDate: str | None = None
    Placement: _OutscalePlacement | None = None


class _OutscaleVms(msgspec.Struct):
    Vms: list[_OutscaleVm]
    NextPageToken: Strict[str | None] = None


class _OutscaleVolume(msgspec.Struct, gc=False):
    VolumeId: Text
    Size: Count | None = None


class _OutscaleVolumes(msgspec.Struct):
    Volumes: list[_OutscaleVolume]
    NextPageToken: Strict[str | None] = None


class _OutscaleType(msgspec.Struct, gc=False):
    VmTypeName: str = ""
    VcoreCount: Count | None = None
    MemorySize: _Size | None = None


class _OutscaleTypes(msgspec.Struct):
    VmTypes: list[_OutscaleType]
    NextPageToken: Strict[str | None] = None


class _OutscaleRegion(msgspec.Struct):
    RegionName: Text


class _OutscaleRegions(msgspec.Struct):
    Regions: list[_OutscaleRegion]


def _mend_outscale(driven: _Driven) -> None:
    """It calls past its own connection: here the same call goes through the door, freshly signed for each try."""
    driver = driven.driver
    _by_id(driver, "_to_node", "VmId")

    def call(action: str, data: str) -> _Answer:
        return driven.door.ask("POST", f"/api/{driver.version}/{action}",
                               lambda: driver._ex_generate_headers(action, data), data)

    driver._call_api = call


def _list_outscale(driven: _Driven, source: Source, window: Window) -> Listing:
    size = _PAGE if window.last is None else min(_PAGE, window.last + 1)

    def fetch(token: str | None) -> Page[_OutscaleVm]:
        nodes = driven.driver.list_nodes(ex_data=_outscale_page(size, token))
        answer: _OutscaleVms = driven.door.seen["ListVms"]
        return Page([(row.VmId, row) for row in _held(nodes, answer.Vms, lambda row: row.VmId)
                     if row.State not in _GONE], token=answer.NextPageToken)

    found = by_token(fetch, window, stable=False)
    sizes = _outscale_volumes(driven, found.rows) if found.rows else {}
    types = _outscale_types(driven, source.region, {row.VmType or "" for row in found.rows})
    return Listing([_outscale(row, sizes, types) for row in found.rows], found.total)


def _outscale_page(size: int, token: str | None, **more: Any) -> str:
    return msgspec.json.encode({"ResultsPerPage": size, **({"NextPageToken": token} if token else {}), **more}).decode()


def _outscale_volumes(driven: _Driven, vms: Sequence[_OutscaleVm]) -> dict[str, int | None]:
    only = {"Filters": {"LinkVolumeVmIds": [row.VmId for row in vms]}} if len(vms) <= _MOST_FILTERED else {}

    def fetch(token: str | None) -> Page[_OutscaleVolume]:
        driven.driver._call_api("ReadVolumes", _outscale_page(_PAGE, token, **only))
        answer: _OutscaleVolumes = driven.door.seen["ListVolumes"]
        return Page([(volume.VolumeId, volume) for volume in answer.Volumes], token=answer.NextPageToken)

    return {volume.VolumeId: volume.Size for volume in by_token(fetch).rows}


def _outscale_types(driven: _Driven, region: str, names: Iterable[str]) -> dict[str, _OutscaleType]:
    def fetch(missing: Sequence[str]) -> dict[str, _OutscaleType]:
        driven.driver._call_api("ReadVmTypes", msgspec.json.encode(
            {"Filters": {"VmTypeNames": list(missing)}, "DryRun": False}).decode())
        answer: _OutscaleTypes = driven.door.seen["ListVmTypes"]
        if answer.NextPageToken:
            raise PartyMalformed()
        return {kind.VmTypeName: kind for kind in answer.VmTypes}

    told = {name: _OutscaleType(name, int(found[1]), int(found[2]))
            for name in names if (found := _TINA.fullmatch(name))}
    others = sorted(name for name in names if name and name not in told)
    return told | cached_lookup(("outscale", driven.account.endpoint, region), others, fetch)


def _outscale(row: _OutscaleVm, sizes: Mapping[str, int | None],
              types: Mapping[str, _OutscaleType]) -> Server:
    kind = types.get(row.VmType or "")
    ips = [ip for nic in row.Nics or () for ip in nic.PrivateIps or ()]
    (lan4, lan6), (wan4, wan6) = _split([
        row.PrivateIp, row.PublicIp, *(text for ip in ips for text in (
            ip.PrivateIp, ip.LinkPublicIp and ip.LinkPublicIp.PublicIp))])
    devices = row.BlockDeviceMappings
    tags = {tag.Key: tag.Value or "" for tag in row.Tags or () if tag.Key is not None}
    return Server(
        id=row.VmId,
        name=tags.get("Name", ""),
        cpu=kind and kind.VcoreCount,
        memory_mib=None if kind is None or kind.MemorySize is None else _rounded_up(kind.MemorySize * 1024, 1),
        disk_gib=None if devices is None else _sum(
            (sizes.get(one.Bsu.VolumeId) if one.Bsu else None for one in devices), 1),
        lan_ipv4=lan4, wan_ipv4=wan4, lan_ipv6=lan6, wan_ipv6=wan6,
        status=_OUTSCALE.get(row.State or "", Status.UNKNOWN),
        party_status=row.State or "",
        created_at=parse_time(row.CreationDate),
        zone=(row.Placement and row.Placement.SubregionName) or "",
        instance_type=row.VmType or "",
        tags=tags,
    )


_outscale_bridge = _Bridge(
    module="outscale",
    driver="OutscaleNodeDriver",
    keys=("access_key", "secret_key"),
    url=lambda credentials, region: f"https://api.{region}.outscale.com",
    arguments=lambda credentials, region: {"region": region},
    calls=(_Call("ListVms", r"POST /api/latest/ReadVms", _OutscaleVms),
           _Call("ListVolumes", r"POST /api/latest/ReadVolumes", _OutscaleVolumes),
           _Call("ListVmTypes", r"POST /api/latest/ReadVmTypes", _OutscaleTypes),
           _Call("ListRegions", r"POST /api/latest/ReadRegions", _OutscaleRegions, rows=False)),
    mend=_mend_outscale,
    servers=_list_outscale,
    regions=lambda driven: [Region(one["RegionName"]) for one in driven.driver.ex_list_regions()],
    check=lambda driven, source: driven.driver.list_nodes(ex_data=_outscale_page(1, None)),
)


# ---------------------------------------------------------------- the parties

def _list_servers(bridge: _Bridge, source: Source, account: Account, window: Window, send: Send) -> Listing:
    with _driven(bridge, account, source.region, send) as driven:
        return bridge.servers(driven, source, window)


def _list_regions(bridge: _Bridge, default: str, account: Account, send: Send) -> list[Region]:
    with _driven(bridge, account, (*account.regions, default)[0], send) as driven:
        return bridge.regions(driven)


def _check(bridge: _Bridge, source: Source, account: Account, send: Send) -> None:
    with _driven(bridge, account, source.region, send) as driven:
        bridge.check(driven, source)


def _error_word(read: Callable[[Any], Any], response: Response) -> str | None:
    """What `read` finds in a JSON answer; nothing else is an error's word."""
    with suppress(msgspec.DecodeError, RecursionError, LookupError, TypeError, AttributeError):
        word = read(msgspec.json.decode(response.body))
        return str(word) if isinstance(word, str | int) else None
    return None


def _party(bridge: _Bridge, *, name: str, default_region: str, calls_a_second: int, word: Callable[[Any], Any],
           **more: Any) -> Party:
    return Party(
        name=name,
        credentials=((*bridge.keys, *more.get("addresses", ())),),
        grade="bridged",
        default_region=default_region,
        limits={call.operation: Limit(calls_a_second) for call in bridge.calls},
        error_code=partial(_error_word, word),
        list_servers=partial(_list_servers, bridge),
        list_regions=partial(_list_regions, bridge, default_region),
        check=partial(_check, bridge),
        **more,
    )


PARTIES: dict[str, Party] = {party.name: party for party in (
    _party(
        _brightbox_bridge,
        name="brightbox",
        order="no pages",
        title="Brightbox",
        reference="https://api.gb1.brightbox.com/1.0/",
        permissions=("list servers",),
        region_form=r"gb1",
        default_region="gb1",
        calls_a_second=5,
        word=lambda answer: answer.get("error_name") or answer.get("error"),
        errors={
            "invalid_client": WRONG_KEY,
            "unauthorized_client": WRONG_KEY,
            "invalid_token": WRONG_KEY,
            "forbidden": MISSING_RIGHT,
        },
    ),
    _party(
        _cloudsigma_bridge,
        name="cloudsigma",
        order="no pages",
        title="CloudSigma",
        reference="https://docs.cloudsigma.com/en/latest/servers.html",
        permissions=("list servers", "list drives"),
        region_form=r"[a-z]{3}[0-9]?",
        default_region="zrh",
        calls_a_second=5,
        word=lambda answer: answer[0]["error_type"],
        errors={"permission": MISSING_RIGHT, "validation": MALFORMED, "notexist": MALFORMED, "system": FAILED},
    ),
    _party(
        _cloudstack_bridge,
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
        word=lambda answer: next((inner.get("errorcode") for inner in answer.values()), None),
        errors={                            # org.apache.cloudstack.api.ApiErrorCode
            "401": WRONG_KEY,
            "511": MFA,                     # UNAUTHORIZED2FA
            "432": MISSING_RIGHT,           # not known, or not given to this account's role
            "531": MISSING_RIGHT,
            "429": THROTTLED,
            "430": MALFORMED,
            "431": MALFORMED,
            "405": MALFORMED,
            "503": UNAVAILABLE,
            "530": FAILED,
            "534": FAILED,
        },
    ),
    _party(
        _kamatera_bridge,
        name="kamatera",
        order="no pages",
        title="Kamatera",
        reference="https://github.com/cloudwm/cloudcli",
        permissions=("list servers", "get server info", "list datacenters"),
        region_form=r"[A-Z]{2}(-[A-Z0-9]{2,4})?",
        default_region="EU",
        unknown_region_is_empty=True,
        calls_a_second=2,
        word=lambda answer: None,
        errors={},
    ),
    _party(
        _outscale_bridge,
        name="outscale",
        order="none documented; opaque tokens that prove nothing",
        title="3DS OUTSCALE",
        reference="https://docs.outscale.com/api.html#readvms",
        permissions=("api:ReadVms", "api:ReadVolumes", "api:ReadVmTypes", "api:ReadRegions"),
        region_form=r"(cloudgouv-)?[a-z]{2}-[a-z]{4,9}-[0-9]{1,2}",
        default_region="eu-west-2",
        calls_a_second=5,
        word=lambda answer: "{Type}.{Code}".format(**answer["Errors"][0]),
        errors={                            # https://docs.outscale.com/api-errors.html
            "AccessDenied.1": WRONG_KEY,
            "AccessDenied.4": MISSING_RIGHT,
            "AccessDenied.5": MISSING_RIGHT,
            "AccessDenied.7": MISSING_RIGHT,
            "AccessDenied.6": THROTTLED,
            "AccessDenied.24": THROTTLED,
            "AccessDenied.25": THROTTLED,
            "AccessDenied.11": LOCKED,      # until the support unlocks it
            "AccessDenied.13": LOCKED,      # for 60 seconds
            "AccessDenied.14": ADDRESS,     # the account's API access rules: addresses and certificates
            "PasswordExpired": EXPIRED_KEY,
            "AuthFailure": WRONG_KEY,
            "InvalidResource.5043": REGION,
            "InvalidParameterValue": MALFORMED,
        },
    ),
)}
