"""OVHcloud: VPS and dedicated servers by the API 1.0. Public Cloud is OpenStack and listed by the party openstack.

https://eu.api.ovh.com/console/, its specifications vps, dedicated/server and ip, and the package ovh 1.2

Units: VPS memory MB and disks GB; a dedicated server's memory and disks name theirs. Times: services state the date of
their creation, no hour, and nothing says when a server changed. Paging: none. A list holds all names, so a window costs
the calls of its servers alone. Names are sorted here, since no order is documented.

A VPS costs four calls (itself, addresses, service, disks) and one for each further disk or address; a dedicated server
costs four (itself, hardware, addresses, service). The console's aggregated lists would cost fewer calls, but come from
a cache and are not used. A server that answers 404 left after the names were read; it is gone if the next list of names
lacks it. 460 is a service that expired: nothing but its name can be read. An empty list of names is believed only if no
address is routed to a server of that kind (`/ip`).

No region can be named. A region is a site (eu, ca, us) with accounts of its own, and the datacenter is the `zone`.
Threads are counted as a dedicated server's processors, and its disks raw, before RAID. Networks that are routed to a
server, wider than one IPv4 address, are configured by its owner and not shown. A private network (vRack) gives no
addresses that the party knows.

A signature holds the party's time and the address as it is called, so the clock's difference is read once an hour, and
a proxy must not rewrite paths. OAuth2 is the other login. No rate was found: careful ones here. QUERY_TIME_OUT is
unconfirmed.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Annotated, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from ...cloud import api

_SITES = {                                  # -> host of the API, host of OAuth2, title: as node-ovh names the APIs
    "eu": ("eu.api.ovh.com", "www.ovh.com", "Europe"),
    "ca": ("ca.api.ovh.com", "ca.ovh.com", "Canada"),
    "us": ("api.us.ovhcloud.com", "us.ovhcloud.com", "United States"),
}
_WORKERS = 10
_ROUNDS = 5                                 # of a list whose servers leave while they are read
_HOUR = 3600.0
_VPS, _DEDICATED = "/vps", "/dedicated/server"
_Place = tuple[str, str]                    # (name, kind)
_T = TypeVar("_T")

_STATUS = {                                 # state of a VPS, the complete enumeration
    "installing": api.Status.BUILD,
    "running": api.Status.ACTIVE,
    "stopped": api.Status.SHUTOFF,
    "stopping": api.Status.STOPPING,
    "rebooting": api.Status.REBOOT,
    "rescued": api.Status.RESCUE,
    "upgrading": api.Status.RESIZE,
    "maintenance": api.Status.MIGRATING,    # it is moved, or its host is repaired
    "backuping": api.Status.ACTIVE,
    # state and powerState of a dedicated server, both complete
    "ok poweron": api.Status.ACTIVE,
    "ok poweroff": api.Status.SHUTOFF,
    "ok": api.Status.ACTIVE,                # powerState is not always there
    "error": api.Status.ERROR,
    "hacked": api.Status.ACTIVE,            # it runs, and attacks others
    "hackedBlocked": api.Status.SUSPENDED,
    # of the service, where it overrules the machine
    "inCreation": api.Status.BUILD,
    "expired": api.Status.SUSPENDED,
    "unPaid": api.Status.SUSPENDED,
    "locked": api.Status.SUSPENDED,
}
_OVERRULING = ("inCreation", "expired", "unPaid")

_ERRORS = {                                 # errorCode; of OAuth2: error
    "INVALID_KEY": api.WRONG_KEY,
    "INVALID_CREDENTIAL": api.WRONG_KEY,
    "INVALID_SIGNATURE": api.WRONG_KEY,
    "NOT_CREDENTIAL": api.WRONG_KEY,        # also a consumer key that nobody validated
    "NOT_GRANTED_CALL": api.MISSING_RIGHT,
    "FORBIDDEN": api.MISSING_RIGHT,
    "QUERY_TIME_OUT": api.CLOCK,
    "invalid_client": api.WRONG_KEY,
    "unauthorized_client": api.WRONG_KEY,
    "access_denied": api.MISSING_RIGHT,
}
_HEADERS = {"Accept": "application/json"}
_MEMORY = {"MB": 1.0, "MiB": 1.0, "GB": 1024.0, "GiB": 1024.0, "TB": 1024.0 ** 2}           # in MiB
_DISK = {"MB": 1 / 1000, "GB": 1.0, "GiB": 1.0, "TB": 1000.0}                               # in GB


# ---------------------------------------------------------------- the shapes that we read

_Name = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,252}\Z")]        # goes into paths


class _Metadata(msgspec.Struct):
    displayName: str | None = None
    tags: dict[str, str] | None = None


class _Model(msgspec.Struct):
    name: str | None = None
    disk: api.Count | None = None


class _Lock(msgspec.Struct):
    locked: bool = False


class _Vps(msgspec.Struct):
    name: api.Text
    displayName: str | None = None
    vcore: api.Count | None = None
    memoryLimit: api.Count | None = None
    model: _Model | None = None
    state: str | None = None
    zone: str | None = None
    lockStatus: _Lock | None = None
    iam: _Metadata | None = None


class _Address(msgspec.Struct):
    ipAddress: str
    type: str | None = None


class _Disk(msgspec.Struct):
    id: int
    size: api.Count | None = None


class _Dedicated(msgspec.Struct):
    name: api.Text
    ip: str | None = None
    reverse: str | None = None
    system: str | None = msgspec.field(name="os", default=None)
    state: str | None = None
    powerState: str | None = None
    availabilityZone: str | None = None
    datacenter: str | None = None
    commercialRange: str | None = None
    iam: _Metadata | None = None


class _Amount(msgspec.Struct):
    unit: str | None = None
    value: api.Size | None = None


class _Group(msgspec.Struct):
    numberOfDisks: api.Count | None = None
    diskSize: _Amount | None = None


class _Hardware(msgspec.Struct):
    numberOfProcessors: api.Strict[api.Count | None]
    threadsPerProcessor: api.Count | None = None
    memorySize: _Amount | None = None
    diskGroups: list[_Group] | None = None


class _Contract(msgspec.Struct):
    serviceId: int
    creation: str | None = None
    expiration: str | None = None
    status: str | None = None


class _Refusal(msgspec.Struct):
    errorCode: str | None = None
    error: str | None = None


class _Login(msgspec.Struct):
    access_token: api.Text
    expires_in: api.Count


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    ovh = _Ovh.of(client)
    names, rows = ovh.names(), dict[_Place, api.Server]()
    for _ in range(_ROUNDS):
        wanted = api.cut(names, window)
        missing = [place for place in wanted if place not in rows]
        answers = client.for_each(missing, ovh.server, _WORKERS)
        rows |= {place: server for place, server in zip(missing, answers, strict=True) if server}
        gone = {place for place in missing if place not in rows}
        later = ovh.names() if gone else names
        if not gone.isdisjoint(later):
            raise api.PartyMalformed("The party names a server that it does not know.")
        if not gone or window.last is None:
            return api.Listing([rows[place] for place in wanted if place not in gone], len(names) - len(gone))
        names = later                       # others have moved up into the window
    raise api.PartyMalformed("Servers leave faster than they can be read.")


@dataclass(frozen=True, slots=True)
class _Ovh:
    """The API of one site, opened."""

    client: api.Client
    site: str

    @classmethod
    def of(cls, client: api.Client) -> "_Ovh":
        return cls(client, api.own_site(client, "OVHcloud", lambda region: region))

    def names(self) -> list[_Place]:
        """All servers, sorted by name."""
        self.open(lambda _: None)           # once, before the calls side by side
        vps, dedicated = self.client.run_all(lambda: self.get("ListVps", _VPS, list[_Name]),
                                             lambda: self.get("ListDedicatedServers", _DEDICATED, list[_Name]))
        for names, kind in ((vps, "vps"), (dedicated, "dedicated")):
            if not names and self.get("ListAddresses", "/ip", list[str], type=kind):
                raise api.PartyMalformed(f"The party lists no {kind} server, and addresses that are routed to some.")
        return sorted({*((name, _VPS) for name in vps), *((name, _DEDICATED) for name in dedicated)})

    def server(self, place: _Place) -> api.Server | None:
        """None if it left meanwhile."""
        name, kind = place
        try:
            server = (self._vps if kind == _VPS else self._dedicated)(f"{kind}/{name}")
        except api.PartyError as refused:
            if refused.http_status == 404:
                return None
            if refused.http_status == 460:
                return api.Server(id=name, name=name, **PARTY.status_of("expired"))
            raise
        if server.id != name:
            raise api.PartyMalformed("The party describes another server than was asked for.")
        return server

    def _vps(self, path: str) -> api.Server:
        row = self.get("GetVps", path, _Vps)
        ips = self.get("ListVpsIps", f"{path}/ips", list[str])
        if not ips and row.state != "installing":
            raise api.PartyMalformed("The party lists a VPS without any address.")
        service = self.get("GetVpsService", f"{path}/serviceInfos", _Contract)
        disks = self.get("ListVpsDisks", f"{path}/disks", list[int])
        if sum("." in ip for ip in ips) > 1:
            types = {each.ipAddress: each.type for each in self.client.for_each(ips, lambda ip: self.get(
                "GetVpsIp", f"{path}/ips/{quote(ip, safe='')}", _Address), 2)}
            ips.sort(key=lambda ip: types.get(ip) != "primary")
        model = row.model or _Model()
        size = model.disk if len(disks) < 2 else api.total_gib(
            self.get("GetVpsDisk", f"{path}/disks/{key}", _Disk).size for key in sorted(set(disks)))
        return api.Server(
            id=row.name,
            name=row.displayName or row.name,
            cpu=row.vcore,
            memory_mib=row.memoryLimit,
            disk_gib=size,
            **api.addresses(wan=ips),
            **PARTY.status_of("locked" if row.lockStatus and row.lockStatus.locked else _state(row.state, service)),
            created_at=api.parse_time(service.creation),
            zone=(row.zone or "").removeprefix("Region OpenStack: "),
            instance_type=model.name or "",
            tags=_tags(row.iam),
            charge_type=api.PREPAID,
            expires_at=api.parse_time(service.expiration),
        )

    def _dedicated(self, path: str) -> api.Server:
        row = self.get("GetDedicatedServer", path, _Dedicated)
        hardware = self.get("GetDedicatedHardware", f"{path}/specifications/hardware", _Hardware)
        blocks = self.get("ListDedicatedIps", f"{path}/ips", list[str])
        service = self.get("GetDedicatedService", f"{path}/serviceInfos", _Contract)
        threads, processors = hardware.threadsPerProcessor, hardware.numberOfProcessors
        memory, power = _in(hardware.memorySize, _MEMORY), f" {row.powerState}" if row.powerState else ""
        return api.Server(
            id=row.name,
            name=(row.iam and row.iam.displayName) or row.reverse or row.name,
            cpu=None if threads is None or processors is None else threads * processors,
            memory_mib=None if memory is None else ceil(memory),
            disk_gib=None if hardware.diskGroups is None else api.total_gib(map(_group, hardware.diskGroups)),
            **api.addresses(wan=(row.ip, *(api.without_prefix(block) for block in blocks
                                           if ":" in block or block.partition("/")[2] in ("", "32")))),
            **PARTY.status_of(_state(f"ok{power}" if row.state == "ok" else row.state, service)),
            created_at=api.parse_time(service.creation),
            zone=row.availabilityZone or row.datacenter or "",
            instance_type=row.commercialRange or "",
            tags=_tags(row.iam),
            os=api.os_family(row.system),        # debian12_64
            charge_type=api.PREPAID,
            expires_at=api.parse_time(service.expiration),
        )

    # ------------------------------------------------------------ the calls

    def get(self, operation: str, path: str, shape: type[_T], **query: str) -> _T:
        url = self.client.url(f"https://{_SITES[self.site][0]}/1.0{path}{'?' * bool(query)}{urlencode(query)}")
        return self.open(lambda opened: self.client.call(operation, lambda: opened(url), shape))

    def open(self, use: Callable[[Callable[[str], api.Request]], _T]) -> _T:
        """`use` what makes the request of an address, with a token or signed by the party's clock."""
        if "client_id" in self.client.credentials:
            return self.client.with_session("oauth2", self._token, lambda token: use(
                lambda url: api.Request("GET", url, _HEADERS | {"Authorization": f"Bearer {token}"})))
        return self.client.with_session("clock", self._clock, lambda late: use(
            lambda url: sign(url, self.client, int(time.time()) + late)))

    def _clock(self) -> tuple[float, int]:
        """Seconds by which the party's clock is ahead of this one; read again after an hour."""
        url = self.client.url(f"https://{_SITES[self.site][0]}/1.0/auth/time")
        there = self.client.call("GetTime", lambda: api.Request("GET", url, _HEADERS), int)
        if not 10 ** 9 <= there < 10 ** 10:                     # half of a time is a number, too
            raise api.PartyMalformed("The party's time cannot be read.")
        now = time.time()
        return now + _HOUR, there - int(now)

    def _token(self) -> tuple[float, str]:
        url = self.client.url(f"https://{_SITES[self.site][1]}/auth/oauth2/token")
        body = urlencode({"grant_type": "client_credentials", "scope": "all",
                          **{name: self.client.credentials[name] for name in ("client_id", "client_secret")}})
        headers = _HEADERS | {"Content-Type": "application/x-www-form-urlencoded"}
        login = self.client.call("Login", lambda: api.Request("POST", url, headers, body.encode()), _Login)
        return time.time() + login.expires_in, login.access_token


def sign(url: str, client: api.Client, now: int) -> api.Request:
    """A GET of the address as it is called. `now`: Unix time at the party."""
    key, secret, consumer = (client.credentials[name] for name in (
        "application_key", "application_secret", "consumer_key"))
    text = "+".join((secret, consumer, "GET", url, "", str(now)))
    return api.Request("GET", url, _HEADERS | {
        "X-Ovh-Application": key, "X-Ovh-Consumer": consumer, "X-Ovh-Timestamp": str(now),
        "X-Ovh-Signature": "$1$" + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()})


# ---------------------------------------------------------------- the fields

def _state(word: str | None, service: _Contract) -> str | None:
    return service.status if service.status in _OVERRULING else word


def _tags(metadata: _Metadata | None) -> dict[str, str]:
    """Without those that the party makes itself."""
    tags = (metadata and metadata.tags) or {}
    return {key: value for key, value in tags.items() if not key.startswith("ovh:")}


def _in(amount: _Amount | None, units: dict[str, float]) -> float | None:
    if amount is None or amount.value is None or (amount.unit or "") not in units:
        return None
    return amount.value * units[amount.unit or ""]


def _group(group: _Group) -> int | None:
    size = _in(group.diskSize, _DISK)
    return None if size is None or group.numberOfDisks is None else ceil(size * group.numberOfDisks)


# ---------------------------------------------------------------- sites, check

def list_regions(client: api.Client) -> list[api.Region]:
    """The site of the credentials, which its API must accept."""
    ovh = _Ovh.of(client)
    ovh.get("ListVps", _VPS, list[_Name])
    return [api.Region(ovh.site, _SITES[ovh.site][2])]


def error_code(response: api.Response) -> str | None:
    if response.status < 400:
        return None
    refusal = api.refusal(response, _Refusal)
    return refusal and (refusal.errorCode or refusal.error)


PARTY = api.Party(
    name="ovh",
    title="OVHcloud",
    reference="https://eu.api.ovh.com/console/",
    order="no pages",
    credentials=(("application_key", "application_secret", "consumer_key", "site?"),
                 ("client_id", "client_secret", "site?")),
    forms={"site": "|".join(_SITES)},
    permissions=("vps:apiovh:get", "vps:apiovh:ips/get", "vps:apiovh:disks/get", "vps:apiovh:serviceInfos/get",
                 "dedicatedServer:apiovh:get", "dedicatedServer:apiovh:ips/get",
                 "dedicatedServer:apiovh:serviceInfos/get", "dedicatedServer:apiovh:specifications/hardware/get",
                 "ip:apiovh:get"),
    **api.region_names({site: title for site, (_, _, title) in _SITES.items()}),
    region_form="|".join(_SITES),
    default_region="eu",
    usual_region=lambda credentials, region: credentials.get("site") or region or "eu",
    limits=api.per_second(50, "GetTime", "Login", "ListVps", "ListDedicatedServers", "ListAddresses", "GetVps",
                          "ListVpsIps", "GetVpsIp", "GetVpsService", "ListVpsDisks", "GetVpsDisk",
                          "GetDedicatedServer", "GetDedicatedHardware", "ListDedicatedIps", "GetDedicatedService"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=lambda client: _Ovh.of(client).names(),
)
