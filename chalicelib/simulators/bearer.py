"""Simulators for the clouds that a bearer token opens.

Checked as the real ones do: the token where each wants it, paths, unknown parameters, the least and most rows of a
page, filters, documented rates. A machine's further disks, and some of its addresses, are only in the lists that the
real clouds have for them.
"""

import base64
import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from .cloud import Cloud
from .faults import Answer
from .fleet import Cursors, Fleet, Machine
from .server import Call, Rate, Simulator


class _Refused(Exception):
    """`word`: the cloud's own for it, or the text where it has none."""

    def __init__(self, status: int, word: str) -> None:
        super().__init__(status, word)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `place` is what the path names (a zone, a server), `query` its words in order."""

    cloud: "Rest"
    call: Call
    place: str
    query: tuple[tuple[str, str], ...]

    def one(self, name: str) -> str | None:
        found = [value for word, value in self.query if word == name]
        if len(found) > 1:
            raise _Refused(400, "bad_request")
        return found[0] if found else None

    def many(self, name: str) -> list[str]:
        return [value for word, value in self.query if word == name]

    def number(self, name: str, usual: int, least: int, most: int) -> int:
        text = self.one(name)
        if text is None:
            return usual
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise _Refused(400, "invalid_input")
        return int(text)

    def machines(self, *regions: str) -> Iterator[tuple[str, Machine]]:
        for region, fleet in self.cloud.fleets.items():
            if not regions or region in regions:
                yield from ((region, fleet[n]) for n in range(len(fleet)))

    def kept(self, make: Callable[["Ask"], list[Any]], *by: object) -> list[Any]:
        """What `make` makes of the fleets, made once for each `by`: a slow simulator is no measure of anything."""
        key = make, self.place, by
        if key not in self.cloud.kept:
            self.cloud.kept[key] = make(self)
        return self.cloud.kept[key]

    def id(self, region: str, machine: Machine) -> int:
        return (sorted(self.cloud.fleets).index(region) + 1) * 1_000_000 + machine.number


Said = tuple[object, dict[str, str]]
Route = Callable[[Ask], Said]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one cloud is spoken to. `routes`: operation -> (path, its parameters, answer). `token`: in which headers.
    `refusal`: the body of an error. `rate`: calls, in seconds."""

    name: str
    routes: Mapping[str, tuple[str, str, Route]]
    refusal: Callable[[int, str], object]
    token: Callable[[Mapping[str, str]], str] = lambda headers: _bearer(headers)
    issued: Callable[[str], str] = lambda token: token          # what a login gives for the token
    open: tuple[str, ...] = ()              # operations that need no token
    rate: tuple[int, float] | None = None
    unknown: tuple[int, str] = field(default=(404, "not_found"))


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""


class Rest(Simulator):
    """A cloud of this kind. `limited`: its documented rate is enforced."""

    def __init__(self, kind: Kind, token: str, fleets: Mapping[str, Fleet], *, limited: bool = True, port: int = 0,
                 latency: float = 0.0) -> None:
        self.kind = kind
        self.token = token
        self.fleets = dict(fleets)
        self.rate = Rate(*kind.rate) if limited and kind.rate else None
        self.kept: dict[object, list[Any]] = {}
        self.cursors = Cursors()
        super().__init__(port, latency)

    def _route(self, call: Call) -> tuple[str, str]:
        """The operation and the place that the path names."""
        for operation, (path, _, _) in self.kind.routes.items():
            named, _, needed = path.partition("?")
            found = re.fullmatch(named, call.path)
            if found and (not needed or needed in call.query.split("&")):
                return operation, (found.groups() or ("",))[0]
        return "?", ""

    def operation(self, call: Call) -> str:
        return self._route(call)[0]

    def answer(self, call: Call) -> Answer:
        kind = {"Content-Type": "application/json"}
        try:
            said, headers = self._answer(call)
            return Answer(200, {**kind, **headers}, msgspec.json.encode(said))
        except _Refused as refused:
            status, word = refused.args
            return Answer(status, kind, msgspec.json.encode(self.kind.refusal(status, word)))

    def _answer(self, call: Call) -> Said:
        operation, place = self._route(call)
        if operation not in self.kind.open and self.kind.token(call.headers) != self.kind.issued(self.token):
            raise _Refused(401, "unauthorized")
        if operation == "?" or call.method != ("POST" if operation == "Login" else "GET"):
            raise _Refused(*self.kind.unknown)
        if self.rate and not self.rate.allows("all", call.at):
            raise _Refused(429, "rate_limit_exceeded")
        _, words, route = self.kind.routes[operation]
        query = tuple(parse_qsl(call.query, keep_blank_values=True))
        if unknown := {name for name, _ in query} - set(words.split()):
            raise _Refused(400, f"unknown parameter {sorted(unknown)}")
        return route(Ask(self, call, place, query))


def _numbered(ask: Ask, rows: Sequence[Any], size: str, usual: int, most: int, least: int = 1) -> tuple[list[Any], int]:
    """The page that was asked for, and the number of all rows."""
    rows_of_page, page = ask.number(size, usual, least, most), ask.number("page", 1, 1, 10 ** 6)
    return list(rows[(page - 1) * rows_of_page:page * rows_of_page]), len(rows)


def _apart(machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Public addresses: the machine's own, and those that are listed elsewhere."""
    own = machine.wan[:1] if machine.number % 3 else ()
    return own, machine.wan[len(own):]


def _time(machine: Machine, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return machine.created.strftime(form)


# ---------------------------------------------------------------- digitalocean

_DO_REGIONS = ("nyc1", "nyc3", "ams3", "fra1", "sfo3")
_DO_STATES = {"running": "active", "stopped": "off", "starting": "active", "stopping": "active", "pending": "new"}


def _do_page(ask: Ask, key: str, make: Callable[[Ask], list[Any]], *by: object) -> Said:
    rows = ask.kept(make, *by)
    page, total = _numbered(ask, rows, "per_page", 20, 200)
    number, last = ask.number("page", 1, 1, 10 ** 6), -(-total // ask.number("per_page", 20, 1, 200))
    there = f"https://api.digitalocean.com{ask.call.path}?page="
    links = {"pages": {"next": f"{there}{number + 1}", "last": f"{there}{last}"}} if number < last else {}
    return {key: page, "links": links, "meta": {"total": total}}, {}


def _do_droplet(ask: Ask, region: str, machine: Machine) -> dict[str, Any]:
    return {
        "id": ask.id(region, machine), "name": machine.name, "memory": machine.memory_gib * 1024,
        "vcpus": machine.cpu, "disk": machine.disks[0], "locked": False, "status": _DO_STATES[machine.state],
        "kernel": None, "created_at": _time(machine), "features": ["private_networking"], "backup_ids": [],
        "next_backup_window": None, "snapshot_ids": [], "image": {
            "id": 69463186, "name": "20.04 (LTS) x64", "distribution": "Ubuntu", "slug": "x", "public": True,
            "regions": [], "created_at": "2020-09-03T02:05:57Z", "min_disk_size": 15},
        "volume_ids": [f"{machine.key}-{n}" for n in range(1, len(machine.disks))],
        "size": {"slug": f"s-{machine.cpu}vcpu-{machine.memory_gib}gb", "memory": machine.memory_gib * 1024,
                 "vcpus": machine.cpu, "disk": machine.disks[0], "transfer": 1, "price_monthly": 5,
                 "price_hourly": 0.00744, "regions": [region], "available": True},
        "size_slug": f"s-{machine.cpu}vcpu-{machine.memory_gib}gb",
        "networks": {"v4": [{"ip_address": ip, "netmask": "255.255.240.0", "gateway": "", "type": kind}
                            for kind, ips in (("public", _apart(machine)[0]), ("private", machine.lan)) for ip in ips],
                     "v6": []},
        "region": {"name": region, "slug": region, "features": [], "available": True, "sizes": []},
        "tags": [f"{key}:{value}" for key, value in machine.tags.items()],
        "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000"}


def _do_droplets(ask: Ask) -> list[Any]:
    return [_do_droplet(ask, region, m) for region, m in ask.machines() if m.number % 7]


def _do_gpu_droplets(ask: Ask) -> list[Any]:
    return [_do_droplet(ask, region, m) for region, m in ask.machines() if not m.number % 7]


def _do_volumes(ask: Ask) -> list[Any]:
    return [
        {"id": f"{m.key}-{n}", "name": f"{m.name}-{n}", "size_gigabytes": size, "droplet_ids": [ask.id(region, m)],
         "region": {"slug": region, "name": region}, "created_at": _time(m), "tags": []}
        for region, m in ask.machines(*filter(None, [ask.one("region")])) for n, size in enumerate(m.disks) if n]


def _do_reserved(ask: Ask) -> list[Any]:
    return [
        *({"ip": ip, "region": {"slug": region}, "droplet": _do_droplet(ask, region, m), "locked": False}
          for region, m in ask.machines() for ip in _apart(m)[1]),
        {"ip": "45.55.96.47", "region": {"slug": "nyc3"}, "droplet": None, "locked": False}]


def _do_regions(ask: Ask) -> list[Any]:
    return [{"slug": slug, "name": slug.upper(), "features": [], "available": slug != "nyc1", "sizes": []}
            for slug in _DO_REGIONS]


DIGITALOCEAN = Kind(
    name="digitalocean",
    routes={
        "ListGpuDroplets": ("/v2/droplets?type=gpus", "page per_page type", lambda ask: _do_page(
            ask, "droplets", _do_gpu_droplets)),
        "ListDroplets": ("/v2/droplets", "page per_page name tag_name", lambda ask: _do_page(
            ask, "droplets", _do_droplets)),
        "ListVolumes": ("/v2/volumes", "page per_page region name", lambda ask: _do_page(
            ask, "volumes", _do_volumes, ask.one("region"))),
        "ListReservedIps": ("/v2/reserved_ips", "page per_page", lambda ask: _do_page(
            ask, "reserved_ips", _do_reserved)),
        "ListRegions": ("/v2/regions", "page per_page", lambda ask: _do_page(ask, "regions", _do_regions)),
    },
    refusal=lambda status, word: {"id": {429: "too_many_requests", 400: "bad_request"}.get(status, word),
                                  "message": "no"},
    rate=(250, 60.0),
)


# ---------------------------------------------------------------- hetzner

_HETZNER_LOCATIONS = ("fsn1", "nbg1", "hel1", "ash", "hil", "sin")
_HETZNER_STATES = {"running": "running", "stopped": "off", "starting": "starting", "stopping": "stopping",
                   "pending": "initializing"}


def _hetzner_page(ask: Ask, key: str, make: Callable[[Ask], list[Any]]) -> Said:
    rows = ask.kept(make)
    if ask.one("sort") not in (None, "id", "id:asc"):
        raise _Refused(400, "invalid_input")
    page, total = _numbered(ask, rows, "per_page", 25, 50)
    number, size = ask.number("page", 1, 1, 10 ** 6), ask.number("per_page", 25, 1, 50)
    last = max(1, math.ceil(total / size))
    return {key: page, "meta": {"pagination": {
        "page": number, "per_page": size, "previous_page": number - 1 or None,
        "next_page": number + 1 if number < last else None, "last_page": last, "total_entries": total}}}, {}


def _hetzner_location(name: str) -> dict[str, Any]:
    return {"id": _HETZNER_LOCATIONS.index(name) + 1, "name": name, "description": f"{name} DC", "country": "DE",
            "city": name, "latitude": 50.47, "longitude": 12.37, "network_zone": "eu-central"}


def _hetzner_server(ask: Ask, region: str, m: Machine) -> dict[str, Any]:
    key, location = ask.id(region, m), _hetzner_location(region)
    own, floating = _apart(m)
    where = {"location": location, **({} if m.number % 2 else {
        "datacenter": {"id": 4, "name": f"{region}-dc8", "description": "", "location": location}})}
    return {
        "id": key, "name": m.name, "status": _HETZNER_STATES[m.state], "created": _time(m, "%Y-%m-%dT%H:%M:%S+00:00"),
        "public_net": {"ipv4": {"id": key, "ip": own[0], "blocked": False, "dns_ptr": "x"} if own else None,
                       "ipv6": {"id": key, "ip": "2001:db8::/64", "blocked": False, "dns_ptr": []},
                       "floating_ips": [key * 10 + n for n in range(len(floating))], "firewalls": []},
        "private_net": [{"network": 4711, "ip": m.lan[0], "alias_ips": list(m.lan[1:]), "mac_address": "x"}],
        "server_type": {"id": 1, "name": f"cx{m.cpu}{m.memory_gib}", "cores": m.cpu, "memory": float(m.memory_gib),
                        "disk": m.disks[0], "prices": [], "storage_type": "local", "cpu_type": "shared",
                        "architecture": "x86", "deprecated": False, "description": "CX"},
        **where, "image": None, "iso": None, "rescue_enabled": False, "locked": False, "backup_window": None,
        "outgoing_traffic": 0, "ingoing_traffic": 0, "included_traffic": 0, "placement_group": None,
        "protection": {"delete": False, "rebuild": False}, "labels": m.tags,
        "volumes": [key * 10 + n for n in range(1, len(m.disks))], "load_balancers": [],
        "primary_disk_size": m.disks[0]}


def _hetzner_servers(ask: Ask) -> list[Any]:
    return [_hetzner_server(ask, *one) for one in ask.machines()]


def _hetzner_volumes(ask: Ask) -> list[Any]:
    return [{"id": ask.id(region, m) * 10 + n, "name": f"{m.name}-{n}", "size": size, "server": ask.id(region, m),
             "location": _hetzner_location(region), "created": _time(m), "labels": {}, "status": "available",
             "linux_device": "/dev/x", "format": "ext4", "protection": {"delete": False}}
            for region, m in ask.machines() for n, size in enumerate(m.disks) if n]


def _hetzner_floating(ask: Ask) -> list[Any]:
    return [{"id": ask.id(region, m) * 10 + n, "name": f"{m.name}-{n}", "ip": ip, "type": "ipv4",
             "server": ask.id(region, m), "dns_ptr": [], "home_location": _hetzner_location(region), "blocked": False,
             "protection": {"delete": False}, "labels": {}, "created": _time(m), "description": ""}
            for region, m in ask.machines() for n, ip in enumerate(_apart(m)[1])]


HETZNER = Kind(
    name="hetzner",
    routes={
        "ListServers": ("/v1/servers", "page per_page sort label_selector status name", lambda ask: _hetzner_page(
            ask, "servers", _hetzner_servers)),
        "ListVolumes": ("/v1/volumes", "page per_page sort label_selector status name", lambda ask: _hetzner_page(
            ask, "volumes", _hetzner_volumes)),
        "ListFloatingIps": ("/v1/floating_ips", "page per_page sort label_selector name", lambda ask: _hetzner_page(
            ask, "floating_ips", _hetzner_floating)),
        "ListLocations": ("/v1/locations", "page per_page sort name", lambda ask: _hetzner_page(
            ask, "locations", lambda _: [_hetzner_location(name) for name in _HETZNER_LOCATIONS])),
    },
    refusal=lambda status, word: {"error": {"code": word, "message": "no"}},
    rate=(3600, 3600.0),
)


# ---------------------------------------------------------------- linode

_LINODE_REGIONS = ("us-east", "us-ord", "eu-west", "ap-south", "de-fra-2")
_LINODE_STATES = {"running": "running", "stopped": "offline", "starting": "booting", "stopping": "shutting_down",
                  "pending": "provisioning"}


def _linode_page(ask: Ask, make: Callable[[Ask], list[Any]], filters: tuple[str, ...] = ()) -> Said:
    rows = ask.kept(make)
    try:
        asked = msgspec.json.decode(ask.call.headers.get("x-filter", "{}"), type=dict[str, str])
    except msgspec.DecodeError:
        raise _Refused(400, "Cannot filter") from None
    order, way = asked.pop("+order_by", None), asked.pop("+order", "asc")
    if asked.keys() - set(filters) or order not in (None, "id", "label") or way not in ("asc", "desc"):
        raise _Refused(400, "Cannot filter")
    found = [row for row in rows if all(row[name] == value for name, value in asked.items())]
    if order:
        found.sort(key=lambda row: row[order], reverse=way == "desc")
    page, total = _numbered(ask, found, "page_size", 100, 500, 25)
    size = ask.number("page_size", 100, 25, 500)
    return {"data": page, "page": ask.number("page", 1, 1, 10 ** 6), "pages": max(1, math.ceil(total / size)),
            "results": total}, {}


def _linode(ask: Ask, region: str, m: Machine) -> dict[str, Any]:
    listed = m.lan if m.number % 2 else ()
    return {
        "id": ask.id(region, m), "label": m.name, "group": "", "status": _LINODE_STATES[m.state], "region": region,
        "created": _time(m, "%Y-%m-%dT%H:%M:%S"), "updated": _time(m, "%Y-%m-%dT%H:%M:%S"), "type": "g6-standard-2",
        "ipv4": [*m.wan, *listed], "ipv6": "2600:3c03::f03c:91ff:fe24:3a2f/128", "image": "linode/debian12",
        "specs": {"disk": m.disks[0] * 1024, "memory": m.memory_gib * 1024, "vcpus": m.cpu, "gpus": 0, "transfer": 1},
        "alerts": {}, "backups": {"enabled": False}, "hypervisor": "kvm", "watchdog_enabled": True,
        "tags": list(m.tags.values()), "host_uuid": "x", "has_user_data": False, "lke_cluster_id": None}


def _linodes(ask: Ask) -> list[Any]:
    return [_linode(ask, *one) for one in ask.machines()]


def _linode_volumes(ask: Ask) -> list[Any]:
    return [{"id": ask.id(region, m) * 10 + n, "label": f"{m.name}-{n}", "size": size, "region": region,
             "linode_id": ask.id(region, m), "linode_label": m.name, "status": "active", "tags": [],
             "filesystem_path": "/dev/x", "hardware_type": "nvme", "created": "2020-01-01T00:00:00",
             "updated": "2020-01-01T00:00:00", "encryption": "disabled"}
            for region, m in ask.machines() for n, size in enumerate(m.disks) if n]


def _vpc_ips(ask: Ask) -> list[Any]:
    return list(_vpc_rows(ask))


def _vpc_rows(ask: Ask) -> Iterator[dict[str, Any]]:
    for region, m in ask.machines():
        found = [] if m.number % 2 else [(ip, None, True) for ip in m.lan]
        if found and m.number % 10 == 0:    # of a configuration that is not in use, and a range
            found = [("10.255.255.9", None, False), *found, (None, "10.0.9.0/28", True)]
        for address, span, active in found:
            yield {"address": address, "address_range": span, "vpc_id": 7, "subnet_id": 9, "region": region,
                   "linode_id": ask.id(region, m), "config_id": 1, "interface_id": 2, "active": active,
                   "nat_1_1": None, "gateway": "10.0.0.1", "prefix": 24, "subnet_mask": "255.255.255.0"}


def _vpc_ipv6s(ask: Ask) -> list[Any]:
    return [{"ipv6_range": f"{ip}/64", "ipv6_is_public": False, "ipv6_addresses": [{"slaac_address": ip}], "vpc_id": 7,
             "subnet_id": 9, "region": region, "linode_id": ask.id(region, m), "config_id": 1, "interface_id": 2,
             "active": True} for region, m in ask.machines() if m.number % 10 == 2 for ip in ("fd12:3456::5",)]


LINODE = Kind(
    name="linode",
    routes={
        "ListLinodes": ("/v4/linode/instances", "page page_size", lambda ask: _linode_page(
            ask, _linodes, ("region", "label", "id"))),
        "ListVolumes": ("/v4/volumes", "page page_size", lambda ask: _linode_page(
            ask, _linode_volumes, ("region", "label"))),
        "ListVpcIps": ("/v4/vpcs/ips", "page page_size", lambda ask: _linode_page(ask, _vpc_ips)),
        "ListVpcSlaacAddresses": ("/v4/vpcs/ipv6s", "page page_size", lambda ask: _linode_page(ask, _vpc_ipv6s)),
        "ListRegions": ("/v4/regions", "page page_size", lambda ask: _linode_page(ask, lambda _: [
            {"id": region, "label": region.upper(), "country": "us", "status": "ok", "capabilities": [],
             "site_type": "core", "resolvers": {"ipv4": "", "ipv6": ""}} for region in _LINODE_REGIONS])),
    },
    refusal=lambda status, word: {"errors": [{"reason": "Invalid Token" if status == 401 else word}]},
    open=("ListRegions",),
    rate=(200, 60.0),
)


# ---------------------------------------------------------------- vultr

_VULTR_REGIONS = ("ewr", "ord", "fra", "sgp", "nrt")
_VULTR_STATES = {"running": ("active", "running", "ok"), "stopped": ("active", "stopped", "ok"),
                 "starting": ("active", "running", "installingbooting"), "stopping": ("active", "running", "locked"),
                 "pending": ("pending", "stopped", "none")}


def _vultr_page(ask: Ask, key: str, make: Callable[[Ask], list[Any]], *by: object) -> Said:
    rows = ask.kept(make, *by)
    size, cursor = ask.number("per_page", 100, 1, 500), ask.one("cursor") or "next_0"
    ids = [row["id"] for row in rows]
    try:
        at = ask.cloud.cursors.take(cursor.removeprefix("next_"), ids) if cursor != "next_0" else 0
    except ValueError:
        raise _Refused(400, "Invalid cursor") from None
    following = f"next_{ask.cloud.cursors.give(ids, at + size)}" if at + size < len(rows) else ""
    return {key: rows[at:at + size], "meta": {"total": len(rows), "links": {"next": following, "prev": ""}}}, {}


def _vultr_instance(region: str, m: Machine) -> dict[str, Any]:
    status, power, server = _VULTR_STATES[m.state]
    own, _ = _apart(m)
    return {
        "id": f"{m.key}-0000-4000-8000-{m.number:012d}", "os": "Debian 12 x64 (bookworm)", "ram": m.memory_gib * 1024,
        "disk": m.disks[0], "main_ip": own[0] if own else "0.0.0.0", "vcpu_count": m.cpu, "region": region,
        "plan": f"vc2-{m.cpu}c-{m.memory_gib}gb", "date_created": _time(m, "%Y-%m-%dT%H:%M:%S+00:00"), "status": status,
        "allowed_bandwidth": 2000, "netmask_v4": "255.255.254.0", "gateway_v4": "45.76.82.1", "power_status": power,
        "server_status": server, "v6_network": "", "v6_main_ip": "", "v6_network_size": 0, "label": m.name,
        "internal_ip": m.lan[0], "kvm": "https://my.vultr.com/x", "hostname": m.name, "tag": "", "os_id": 477,
        "app_id": 0, "image_id": "", "firewall_group_id": "", "features": [], "user_scheme": "root",
        "tags": list(m.tags.values())}


def _vultr_instances(ask: Ask) -> list[Any]:
    return [_vultr_instance(*one) for one in ask.machines(*filter(None, [ask.one("region")]))]


def _vultr_blocks(ask: Ask) -> list[Any]:
    return [{"id": f"{m.key}-{n}", "size_gb": size, "region": region, "status": "active", "label": "", "cost": 1,
             "attached_to_instance": _vultr_instance(region, m)["id"], "date_created": _time(m), "mount_id": "x",
             "block_type": "high_perf"}
            for region, m in ask.machines() for n, size in enumerate(m.disks) if n]


def _vultr_reserved(ask: Ask) -> list[Any]:
    return [
        *({"id": f"{m.key}-{n}", "region": region, "ip_type": "v4", "subnet": ip, "subnet_size": 32, "label": "",
           "instance_id": _vultr_instance(region, m)["id"]}
          for region, m in ask.machines() for n, ip in enumerate(_apart(m)[1])),
        {"id": "free", "region": "ewr", "ip_type": "v6", "subnet": "2001:db8::", "subnet_size": 64, "label": "",
         "instance_id": ""}]


VULTR = Kind(
    name="vultr",
    routes={
        "ListInstances": ("/v2/instances", "cursor per_page region label tag main_ip", lambda ask: _vultr_page(
            ask, "instances", _vultr_instances, ask.one("region"))),
        "ListBlocks": ("/v2/blocks", "cursor per_page", lambda ask: _vultr_page(ask, "blocks", _vultr_blocks)),
        "ListReservedIps": ("/v2/reserved-ips", "cursor per_page", lambda ask: _vultr_page(
            ask, "reserved_ips", _vultr_reserved)),
        "ListRegions": ("/v2/regions", "cursor per_page", lambda ask: _vultr_page(ask, "regions", lambda _: [
            {"id": region, "city": region.upper(), "country": "US", "continent": "x", "options": []}
            for region in _VULTR_REGIONS])),
    },
    refusal=lambda status, word: {"error": word, "status": status},
    open=("ListRegions",),
    rate=(30, 1.0),
)


# ---------------------------------------------------------------- scaleway

_SCALEWAY_ZONES = ("fr-par-1", "fr-par-2", "fr-par-3", "nl-ams-1", "nl-ams-2", "nl-ams-3", "pl-waw-1", "pl-waw-2",
                   "pl-waw-3", "it-mil-1")
_SCALEWAY_STATES = {"running": "running", "stopped": "stopped", "starting": "starting", "stopping": "stopping",
                    "pending": "starting"}
_SCALEWAY_PROJECT = "{:08x}-7bd1-4a1e-9d3e-bb1a66e9f7a5"


def _uuid(machine: Machine, n: int) -> str:
    return f"{machine.number:08x}-{n:04x}-4000-8000-{int(machine.key, 36) % 16 ** 12:012x}"


def _in_zone(ask: Ask) -> list[tuple[str, Machine]]:
    if ask.place not in _SCALEWAY_ZONES:
        raise _Refused(400, "unknown zone in path")
    return [(region, m) for region, m in ask.machines(ask.place[:-2]) if m.zone == int(ask.place[-1])]


def _scaleway_rows(ask: Ask) -> list[Any]:
    return [_scaleway_server(ask.place, m) for _, m in _in_zone(ask)]


def _scaleway_servers(ask: Ask) -> Said:
    if ask.one("order") not in (None, "creation_date_asc", "creation_date_desc"):
        raise _Refused(400, "invalid_request_error")
    way = -1 if ask.one("order") in (None, "creation_date_desc") else 1
    wanted = ask.one("project")
    rows = ask.kept(_scaleway_rows)[::way]
    page, total = _numbered(ask, [row for row in rows if wanted in (None, row["project"])], "per_page", 50, 100)
    return {"servers": page}, {"X-Total-Count": str(total)}


def _scaleway_server(zone: str, m: Machine) -> dict[str, Any]:
    key = _uuid(m, 0)
    return {
        "id": key, "name": m.name, "arch": "x86_64", "commercial_type": f"TEST-{m.cpu}-{m.memory_gib}",
        "boot_type": "local", "organization": "x", "project": _SCALEWAY_PROJECT.format(m.project),
        "hostname": m.name, "image": None, "state": _SCALEWAY_STATES[m.state], "protected": False, "state_detail": "",
        "volumes": {str(n): {"id": _uuid(m, 10 + n), "boot": n == 0, "zone": zone, **(
            {"volume_type": "sbs_volume"} if n else {"volume_type": "l_ssd", "name": "x", "size": size * 10 ** 9})}
            for n, size in enumerate(m.disks)},
        "public_ip": {"id": "x", "address": m.wan[0], "dynamic": False} if m.wan else None,
        "public_ips": [{"id": "x", "address": ip, "gateway": "62.210.0.1", "netmask": "32", "family": "inet",
                        "dynamic": False, "provisioning_mode": "dhcp", "tags": [], "ipam_id": "x", "state": "attached"}
                       for ip in m.wan],
        "private_ip": None, "ipv6": None, "enable_ipv6": False, "routed_ip_enabled": True,
        "private_nics": [{"id": _uuid(m, 100 + n), "server_id": key, "private_network_id": "x", "mac_address": "x",
                          "state": "available", "tags": [], "zone": zone, "ipam_ip_ids": [_uuid(m, 200 + n)],
                          "creation_date": _time(m)} for n in range(len(m.lan))],
        "mac_address": "de:00:00:94:80:71", "maintenances": [], "allowed_actions": [], "tags": list(m.tags.values()),
        "creation_date": _time(m, "%Y-%m-%dT%H:%M:%S.514299+00:00"), "zone": zone, "location": None,
        "modification_date": _time(m, "%Y-%m-%dT%H:%M:%S.514299+00:00"), "dynamic_ip_required": False,
        "security_group": None, "placement_group": None, "filesystems": [], "end_of_service": False}


def _scaleway_volumes(ask: Ask) -> Said:
    wanted, rows = ask.many("volume_ids"), ask.kept(_block_rows)
    page, total = _numbered(ask, [row for row in rows if not wanted or row["id"] in wanted], "page_size", 50, 100)
    return {"volumes": page, "total_count": total}, {}


def _block_rows(ask: Ask) -> list[Any]:
    return [{"id": _uuid(m, 10 + n), "name": m.name, "type": "sbs_5k", "size": size * 10 ** 9, "zone": ask.place,
             "project_id": _SCALEWAY_PROJECT.format(m.project), "status": "in_use", "tags": [], "references": [
                {"id": "x", "product_resource_type": "instance_server", "product_resource_id": _uuid(m, 0),
                 "type": "exclusive", "status": "attached", "created_at": _time(m)}],
             "created_at": _time(m), "updated_at": _time(m)}
            for _, m in _in_zone(ask) for n, size in enumerate(m.disks) if n]


def _scaleway_ips(ask: Ask) -> Said:
    if f"{ask.place}-1" not in _SCALEWAY_ZONES:
        raise _Refused(400, "unknown region in path")
    if ask.one("resource_type") not in (None, "instance_private_nic"):
        return {"ips": [], "total_count": 0}, {}
    wanted, rows = ask.many("resource_ids"), ask.kept(_ipam_rows)
    page, total = _numbered(ask, [row for row in rows if not wanted or row["resource"]["id"] in wanted],
                            "page_size", 50, 100)
    return {"ips": page, "total_count": total}, {}


def _ipam_rows(ask: Ask) -> list[Any]:
    return [{"id": _uuid(m, 200 + n), "address": f"{ip}/22", "is_ipv6": False, "region": ask.place,
             "project_id": _SCALEWAY_PROJECT.format(m.project), "tags": [], "reverses": [],
             "source": {"subnet_id": "x"}, "created_at": _time(m), "updated_at": _time(m),
             "resource": {"type": "instance_private_nic", "id": _uuid(m, 100 + n), "name": m.name, "mac_address": "x"}}
            for _, m in ask.machines(ask.place) for n, ip in enumerate(m.lan)]


def _sizes(ask: Ask) -> list[Any]:
    return sorted({(m.cpu, m.memory_gib) for _, m in _in_zone(ask)} | {(64, 256)})


def _scaleway_types(ask: Ask) -> Said:
    sizes = ask.kept(_sizes)
    page, total = _numbered(ask, sizes, "per_page", 50, 100)
    types: dict[str, dict[str, Any]] = {f"TEST-{cpu}-{memory}": {
        "ncpus": cpu, "ram": memory * 1024 ** 3, "arch": "x86_64", "hourly_price": 0.1, "monthly_price": 70.0,
        "alt_names": [], "scratch_storage_max_volumes_count": 0, "end_of_service": False}
        for cpu, memory in page}
    return {"servers": types}, {"X-Total-Count": str(total)}


SCALEWAY = Kind(
    name="scaleway",
    routes={
        "ListServers": (r"/instance/v1/zones/([^/]+)/servers", "page per_page order project name state tags",
                        _scaleway_servers),
        "ListVolumes": (r"/block/v1/zones/([^/]+)/volumes", "page page_size volume_ids project_id include_deleted",
                        _scaleway_volumes),
        "ListIps": (r"/ipam/v1/regions/([^/]+)/ips", "page page_size resource_ids resource_type project_id attached",
                    _scaleway_ips),
        "ListServerTypes": (r"/instance/v1/zones/([^/]+)/products/servers", "page per_page", _scaleway_types),
    },
    token=lambda headers: headers.get("x-auth-token", ""),
    refusal=lambda status, word: ({"message": word} if word.startswith("unknown") else {
        "type": {401: "denied_authentication", 404: "unknown_resource"}.get(status, word), "message": "no"}),
    unknown=(404, "unknown_resource"),
)


# ---------------------------------------------------------------- ibm

_IBM_REGIONS = ("us-south", "us-east", "eu-de", "eu-gb", "jp-tok")
_IBM_STATES = {"running": "running", "stopped": "stopped", "starting": "starting", "stopping": "stopping",
               "pending": "pending"}
_IBM_GROUP = "{:032x}"


def _iam_token(key: str) -> str:
    """A JWT, as its SDK expects one; what it says is not checked, and it ends in 2100."""
    parts = ({"alg": "none"}, {"iat": 4102441200, "exp": 4102444800}, hashlib.sha256(key.encode()).hexdigest())
    return ".".join(base64.urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=").decode() for part in parts)


def _ibm_login(ask: Ask) -> Said:
    form = dict(parse_qsl(ask.call.body.decode()))
    if form.get("grant_type") != "urn:ibm:params:oauth:grant-type:apikey":
        raise _Refused(400, "BXNIM0429E")
    if form.get("apikey") != ask.cloud.token:
        raise _Refused(400, "BXNIM0415E")
    return {"access_token": _iam_token(ask.cloud.token), "refresh_token": "not_supported", "token_type": "Bearer",
            "expires_in": 3600, "expiration": int(time.time()) + 3600, "scope": "ibm openid"}, {}


def _ibm_page(ask: Ask, key: str, make: Callable[[Ask], list[Any]], *by: object) -> Said:
    if not re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", ask.one("version") or ""):
        raise _Refused(400, "bad_version")
    if ask.one("generation") != "2":
        raise _Refused(400, "invalid_generation")
    rows, limit, start = ask.kept(make, *by), ask.number("limit", 50, 1, 100), ask.one("start") or "at0"
    ids = [row["id"] if "id" in row else row["name"] for row in rows]
    try:
        at = ask.cloud.cursors.take(start.removeprefix("at"), ids) if start != "at0" else 0
    except ValueError:
        raise _Refused(400, "bad_field") from None
    there = f"https://{ask.call.headers.get('host')}{ask.call.path}"
    more = {"next": {"href": f"{there}?start=at{ask.cloud.cursors.give(ids, at + limit)}&limit={limit}"}
            } if at + limit < len(rows) else {}
    return {key: rows[at:at + limit], "first": {"href": f"{there}?limit={limit}"}, "limit": limit,
            "total_count": len(rows), **more}, {}


def _ibm_named(kind: str, key: str) -> dict[str, Any]:
    return {"id": key, "crn": f"crn:{key}", "href": f"https://x/{kind}/{key}", "name": f"{kind}-{key}",
            "resource_type": kind}


def _ibm_instances(ask: Ask) -> list[Any]:
    wanted = ask.one("resource_group.id")
    found: list[Any] = []
    for region, m in ask.machines():
        key, group = f"0717_{_uuid(m, 0)}", _IBM_GROUP.format(m.project)
        if wanted not in (None, group):
            continue
        nets = [{**_ibm_named("network_interface", f"{key}-{n}"), "subnet": _ibm_named("subnet", "1"),
                 "primary_ip": {**_ibm_named("subnet_reserved_ip", f"{key}-{n}"), "address": ip}}
                for n, ip in enumerate(m.lan)]
        attached = [{**net, "resource_type": "instance_network_attachment", "id": f"{net['id']}-attached",
                     "virtual_network_interface": _ibm_named("virtual_network_interface", f"vni-{net['id']}")}
                    for net in nets] if m.number % 2 else []
        found.append({
            "id": key, "crn": "crn:x", "href": "https://x", "name": m.name, "resource_type": "instance",
            "status": _IBM_STATES[m.state], "status_reasons": [], "created_at": _time(m, "%Y-%m-%dT%H:%M:%S.000Z"),
            "vcpu": {"architecture": "amd64", "count": m.cpu, "manufacturer": "intel", "percentage": 100, "burst": {}},
            "memory": m.memory_gib, "disks": [], "zone": {"name": f"{region}-{m.zone}", "href": "https://x"},
            "profile": {"name": f"bx2-{m.cpu}x{m.memory_gib}", "href": "https://x", "resource_type": "x"},
            "resource_group": {"id": group, "name": "x", "href": "https://x"},
            "primary_network_interface": nets[0], "network_interfaces": nets[::-1],
            "network_attachments": attached[::-1],
            **({"primary_network_attachment": attached[0]} if attached else {}),
            "boot_volume_attachment": {"id": f"{key}-a0", "name": "x", "href": "https://x",
                                       "volume": _ibm_named("volume", f"{key}-v0")},
            "volume_attachments": [{"id": f"{key}-a{n}", "name": "x", "href": "https://x",
                                    "volume": _ibm_named("volume", f"{key}-v{n}")} for n in range(len(m.disks))],
            "vpc": _ibm_named("vpc", "1")})
    return found


def _ibm_volumes(ask: Ask) -> list[Any]:
    return [{"id": f"0717_{_uuid(m, 0)}-v{n}", "name": f"{m.name}-{n}", "capacity": size, "resource_type": "volume",
             "zone": {"name": f"{region}-{m.zone}"}, "status": "available", "attachment_state": "attached"}
            for region, m in ask.machines() for n, size in enumerate(m.disks)]


def _ibm_floating(ask: Ask) -> list[Any]:
    return [*({"id": f"fip-{m.key}-{n}", "name": f"{m.name}-{n}", "address": ip, "status": "available",
               "target": _ibm_named("virtual_network_interface", f"vni-0717_{_uuid(m, 0)}-0") if m.number % 2 else
               _ibm_named("network_interface", f"0717_{_uuid(m, 0)}-0")}
              for _, m in ask.machines() for n, ip in enumerate(m.wan)),
            {"id": "fip-free", "name": "free", "address": "203.0.113.250", "status": "available"}]


def _ibm_regions(_: Ask) -> list[Any]:
    return [{"name": name, "href": f"https://x/{name}", "endpoint": f"https://{name}.iaas.cloud.ibm.com",
             "status": "available"} for name in _IBM_REGIONS]


IBM = Kind(
    name="ibm",
    routes={
        "Login": ("/identity/token", "", _ibm_login),
        "ListInstances": ("/v1/instances", "version generation limit start resource_group.id name", lambda ask:
                          _ibm_page(ask, "instances", _ibm_instances, ask.one("resource_group.id"))),
        "ListVolumes": ("/v1/volumes", "version generation limit start attachment_state", lambda ask: _ibm_page(
            ask, "volumes", _ibm_volumes)),
        "ListFloatingIps": ("/v1/floating_ips", "version generation limit start", lambda ask: _ibm_page(
            ask, "floating_ips", _ibm_floating)),
        "ListRegions": ("/v1/regions", "version generation", lambda ask: _ibm_page(ask, "regions", _ibm_regions)),
    },
    refusal=lambda status, word: {"errorCode": word, "errorMessage": "no"} if word.startswith("BXNIM") else {
        "errors": [{"code": "not_authenticated" if status == 401 else word, "message": "no"}], "trace": "x"},
    issued=_iam_token,
    open=("Login",),
)


# ---------------------------------------------------------------- upcloud

_UPCLOUD_ZONES = ("fi-hel1", "fi-hel2", "de-fra1", "us-nyc1", "uk-lon1")
_UPCLOUD_STATES = {"running": "started", "stopped": "stopped", "starting": "maintenance", "stopping": "maintenance",
                   "pending": "maintenance"}


def _upcloud_labels(m: Machine) -> dict[str, Any]:
    return {"label": [{"key": key, "value": value} for key, value in m.tags.items()]}


def _upcloud_row(region: str, m: Machine) -> dict[str, Any]:
    return {"core_number": str(m.cpu), "created": int(m.created.timestamp()), "host": 6862160515,
            "hostname": f"{m.name}.example.com", "labels": _upcloud_labels(m), "license": 0,
            "memory_amount": str(m.memory_gib * 1024), "plan": "custom", "plan_ipv4_bytes": "0", "plan_ipv6_bytes": "0",
            "server_group": None, "simple_backup": "no", "state": _UPCLOUD_STATES[m.state], "tags": {"tag": []},
            "title": m.name, "uuid": _uuid(m, 0), "zone": region}


def _upcloud_rows(ask: Ask) -> list[Any]:
    wanted = ask.many("label")
    found = [_upcloud_row(region, m) for region, m in ask.machines()
             if set(wanted) <= {*m.tags, *(f"{key}={value}" for key, value in m.tags.items())}]
    return found[::-1]                      # no order that anybody promised


def _upcloud_servers(ask: Ask) -> Said:
    rows = ask.kept(_upcloud_rows, *ask.many("label"))
    offset, limit = ask.number("offset", 0, 0, 10 ** 6), ask.number("limit", 100, 1, 100)
    return {"servers": {"server": rows[offset:offset + limit]}}, {}


def _upcloud_by_uuid(ask: Ask) -> list[Any]:
    return [{_uuid(m, 0): (region, m) for region, m in ask.machines()}]


def _upcloud_detail(ask: Ask) -> Said:
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ask.place):
        raise _Refused(400, "SERVER_INVALID")
    region, m = ask.kept(_upcloud_by_uuid)[0].get(ask.place, ("", None))
    if m is None:
        raise _Refused(404, "SERVER_NOT_FOUND")
    ips = [("utility" if n else "private", ip) for n, ip in enumerate(m.lan)] + [("public", ip) for ip in m.wan]
    return {"server": {
        **_upcloud_row(region, m), "boot_order": "disk", "firewall": "off", "metadata": "no", "nic_model": "virtio",
        "ip_addresses": {"ip_address": [{"access": kind, "address": ip, "family": "IPv4"} for kind, ip in ips[::-1]]},
        "networking": {"interfaces": {"interface": [
            {"index": n, "type": kind, "bootable": "no", "mac": "x", "network": "x", "source_ip_filtering": "yes",
             "ip_addresses": {"ip_address": [{"address": ip, "family": "IPv4", "floating": "no"}]}}
            for n, (kind, ip) in enumerate(ips, 1)][::-1]}},
        "storage_devices": {"storage_device": [
            {"address": f"virtio:{n}", "boot_disk": "0", "storage": _uuid(m, 10 + n), "storage_size": size,
             "storage_tier": "maxiops", "storage_title": f"{m.name}-{n}", "type": "disk"}
            for n, size in enumerate(m.disks)]},
        "timezone": "UTC", "video_model": "vga", "remote_access_enabled": "no"}}, {}


UPCLOUD = Kind(
    name="upcloud",
    routes={
        "ListServers": ("/1.3/server", "limit offset label", _upcloud_servers),
        "GetServer": (r"/1\.3/server/([^/]+)", "", _upcloud_detail),
        "ListZones": ("/1.3/zone", "", lambda ask: ({"zones": {"zone": [
            {"id": zone, "description": zone.upper(), "public": "yes"} for zone in _UPCLOUD_ZONES]}}, {})),
    },
    refusal=lambda status, word: {"error": {
        "error_code": "AUTHENTICATION_FAILED" if status == 401 else word, "error_message": "no"}},
)


# ---------------------------------------------------------------- cloudscale

_CLOUDSCALE_STATES = {"running": "running", "stopped": "stopped", "starting": "changing", "stopping": "changing",
                      "pending": "changing"}


def _cloudscale_servers(ask: Ask) -> list[Any]:
    return [{
        "href": f"https://api.cloudscale.ch/v1/servers/{_uuid(m, 0)}", "uuid": _uuid(m, 0), "name": m.name,
        "status": _CLOUDSCALE_STATES[m.state], "zone": {"slug": f"{region}1"}, "tags": m.tags,
        "flavor": {"slug": f"flex-{m.cpu}-{m.memory_gib}", "name": f"Flex-{m.cpu}-{m.memory_gib}",
                   "vcpu_count": m.cpu, "memory_gb": m.memory_gib},
        "image": {"slug": "debian-12", "name": "Debian 12", "operating_system": "Debian", "default_username": "debian"},
        "volumes": [{"type": "ssd", "uuid": _uuid(m, 10 + n), "name": f"{m.name}-{n}", "size_gb": size,
                     "device_path": "/dev/vda"} for n, size in enumerate(m.disks)],
        "interfaces": [{"type": kind, "network": {"uuid": "x", "name": "x"}, "addresses": [
            {"version": 4, "address": ip, "prefix_length": 24, "gateway": "", "reverse_ptr": "", "subnet": None}
            for ip in ips]} for kind, ips in (("public", m.wan), ("private", m.lan)) if ips],
        "ssh_fingerprints": [], "ssh_host_keys": None, "anti_affinity_with": [], "server_groups": [],
        "created_at": _time(m, "%Y-%m-%dT%H:%M:%S.241824Z")} for region, m in ask.machines()]


def _cloudscale_volumes(ask: Ask) -> list[Any]:
    return [{"uuid": _uuid(m, 10 + n), "name": f"{m.name}-{n}", "size_gb": size, "type": "ssd",
             "zone": {"slug": f"{region}1"}, "server_uuids": [_uuid(m, 0)], "tags": {}, "created_at": _time(m)}
            for region, m in ask.machines() for n, size in enumerate(m.disks)]


def _cloudscale_floating(ask: Ask) -> list[Any]:
    return [*({"network": f"203.0.113.{m.number % 250 + 1}/32", "ip_version": 4, "type": "regional", "tags": {},
               "region": {"slug": region}, "server": {"uuid": _uuid(m, 0), "name": m.name}, "load_balancer": None,
               "next_hop": "192.0.2.1", "reverse_ptr": "x", "created_at": _time(m)}
              for region, m in ask.machines() if m.number % 5 == 0),
            {"network": "203.0.113.252/32", "ip_version": 4, "type": "global", "region": None, "server": None}]


CLOUDSCALE = Kind(
    name="cloudscale",
    routes={
        "ListServers": ("/v1/servers", "", lambda ask: (ask.kept(_cloudscale_servers), {})),
        "ListVolumes": ("/v1/volumes", "", lambda ask: (ask.kept(_cloudscale_volumes), {})),
        "ListFloatingIps": ("/v1/floating-ips", "", lambda ask: (ask.kept(_cloudscale_floating), {})),
        "ListRegions": ("/v1/regions", "", lambda ask: ([
            {"slug": region, "zones": [{"slug": f"{region}1"}]} for region in ("lpg", "rma")], {})),
    },
    refusal=lambda status, word: {"detail": "Invalid token." if status == 401 else word},
)


# ---------------------------------------------------------------- gridscale

_GRIDSCALE_LOCATIONS = {"fra": "de/fra", "ams": "nl/ams", "cgn": "de/cgn"}
_GRIDSCALE_STATES = {"running": ("active", True), "stopped": ("active", False), "starting": ("active", True),
                     "stopping": ("active", True), "pending": ("in-provisioning", False)}
_GRIDSCALE_USER = "95a2980b-7012-43dd-81f2-07577cfcb9f0"


def _gridscale_servers(ask: Ask) -> list[Any]:
    return [{
        "object_uuid": _uuid(m, 0), "name": m.name, "cores": m.cpu, "memory": m.memory_gib,
        "status": _GRIDSCALE_STATES[m.state][0], "power": _GRIDSCALE_STATES[m.state][1], "legacy": False,
        "relations": {
            "storages": [{"object_uuid": _uuid(m, 10 + n), "capacity": size, "bootdevice": n == 0, "lun": n,
                          "storage_type": "storage", "object_name": f"{m.name}-{n}"} for n, size in enumerate(m.disks)],
            "networks": [{"object_uuid": f"net-{region}-{n}", "network_uuid": f"net-{region}-{n}", "ordering": n,
                          "network_type": "network", "public_net": n == 2, "mac": "x", "object_name": "x",
                          "l3security": [], "bootdevice": False} for n in (2, 1, 0)],
            "isoimages": [], "public_ips": [{"object_uuid": _uuid(m, 20 + n), "ip": ip, "family": 4, "prefix": ip}
                                            for n, ip in enumerate(m.wan)]},
        "location_iata": region, "location_uuid": f"uuid-{region}", "location_name": _GRIDSCALE_LOCATIONS[region],
        "location_country": "de", "hardware_profile": "default", "labels": list(m.tags.values()),
        "availability_zone": None, "current_price": 9.9, "auto_recovery": True, "console_token": "x",
        "create_time": _time(m), "change_time": _time(m)} for region, m in ask.machines()]


def _gridscale_networks(ask: Ask) -> list[Any]:
    found: list[Any] = [{"object_uuid": f"net-{region}-2", "public_net": True, "name": "Public", "relations": {}}
                        for region in ask.cloud.fleets]
    for region in ask.cloud.fleets:
        machines = [m for _, m in ask.machines(region)]
        found += [{
            "object_uuid": f"net-{region}-{n}", "public_net": False, "name": f"net {n}", "location_iata": region,
            "dhcp_active": True, "relations": {}, "status": "active",
            "auto_assigned_servers": [{"server_uuid": _uuid(m, 0), "ip": m.lan[n]} for m in machines
                                      if len(m.lan) > n and m.number % 2],
            "pinned_servers": [{"server_uuid": _uuid(m, 0), "ip": m.lan[n]} for m in machines
                               if len(m.lan) > n and not m.number % 2]} for n in (0, 1)]
    return found


def _gridscale_map(ask: Ask, key: str, make: Callable[[Ask], list[Any]]) -> Said:
    return {key: {row["object_uuid"]: row for row in ask.kept(make)}}, {}


GRIDSCALE = Kind(
    name="gridscale",
    routes={
        "ListServers": ("/objects/servers/{0,1}", "", lambda ask: _gridscale_map(ask, "servers", _gridscale_servers)),
        "ListNetworks": ("/objects/networks/{0,1}", "", lambda ask: _gridscale_map(
            ask, "networks", _gridscale_networks)),
        "ListLocations": ("/objects/locations/{0,1}", "", lambda ask: _gridscale_map(ask, "locations", lambda _: [
            {"iata": iata, "name": name, "country": name[:2], "object_uuid": f"uuid-{iata}", "active": True,
             "public": True, "status": "active"} for iata, name in _GRIDSCALE_LOCATIONS.items()])),
    },
    token=lambda headers: headers.get("x-auth-token", "") if headers.get("x-auth-userid") == _GRIDSCALE_USER else "",
    refusal=lambda status, word: {"title": "no" if status == 401 else word, "description": "no", "trace": "x"},
)


# ---------------------------------------------------------------- all of them

def _cloud(kind: Kind, region: str) -> Cloud:
    def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
              latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
        keys: dict[str, object] = {"token": secret, **({"user_uuid": _GRIDSCALE_USER} if kind is GRIDSCALE else {})}
        return Rest(kind, secret, fleets, limited=limited, latency=latency), keys

    return Cloud(region, start)


CLOUDS = {kind.name: _cloud(kind, region) for kind, region in (
    (DIGITALOCEAN, "nyc3"), (HETZNER, "fsn1"), (LINODE, "us-east"), (VULTR, "ewr"), (SCALEWAY, "fr-par"),
    (IBM, "us-south"), (UPCLOUD, "fi-hel1"), (CLOUDSCALE, "rma"), (GRIDSCALE, "fra"))}
