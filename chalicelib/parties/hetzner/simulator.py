"""A simulator for Hetzner Cloud's API v1: servers, volumes, floating IPs, locations."""

import math
from collections.abc import Callable
from typing import Any

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, numbered, split_public, time_text
from ...simulators.fleet import Machine

_LOCATIONS = ("fsn1", "nbg1", "hel1", "ash", "hil", "sin")
_STATES = {"running": "running", "stopped": "off", "starting": "starting", "stopping": "stopping",
           "pending": "initializing"}


def _page(ask: Ask, key: str, make: Callable[[Ask], list[Any]]) -> Reply:
    rows = ask.kept(make)
    if ask.one("sort") not in (None, "id", "id:asc"):
        raise Refused(400, "invalid_input")
    page, total = numbered(ask, rows, "per_page", 25, 50)
    number, size = ask.number("page", 1, 1, 10 ** 6), ask.number("per_page", 25, 1, 50)
    last = max(1, math.ceil(total / size))
    return {key: page, "meta": {"pagination": {
        "page": number, "per_page": size, "previous_page": number - 1 or None,
        "next_page": number + 1 if number < last else None, "last_page": last, "total_entries": total}}}, {}


def _location(name: str) -> dict[str, Any]:
    return {"id": _LOCATIONS.index(name) + 1, "name": name, "description": f"{name} DC", "country": "DE",
            "city": name, "latitude": 50.47, "longitude": 12.37, "network_zone": "eu-central"}


def _server(ask: Ask, region: str, m: Machine) -> dict[str, Any]:
    key, location = ask.id(region, m), _location(region)
    own, floating = split_public(m)
    where = {"location": location, **({} if m.number % 2 else {
        "datacenter": {"id": 4, "name": f"{region}-dc8", "description": "", "location": location}})}
    return {
        "id": key, "name": m.name, "status": _STATES[m.state], "created": time_text(m, "%Y-%m-%dT%H:%M:%S+00:00"),
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


def _servers(ask: Ask) -> list[Any]:
    return [_server(ask, *one) for one in ask.machines()]


def _volumes(ask: Ask) -> list[Any]:
    return [{"id": ask.id(region, m) * 10 + n, "name": f"{m.name}-{n}", "size": size, "server": ask.id(region, m),
             "location": _location(region), "created": time_text(m), "labels": {}, "status": "available",
             "linux_device": "/dev/x", "format": "ext4", "protection": {"delete": False}}
            for region, m in ask.machines() for n, size in enumerate(m.disks) if n]


def _floating(ask: Ask) -> list[Any]:
    return [{"id": ask.id(region, m) * 10 + n, "name": f"{m.name}-{n}", "ip": ip, "type": "ipv4",
             "server": ask.id(region, m), "dns_ptr": [], "home_location": _location(region), "blocked": False,
             "protection": {"delete": False}, "labels": {}, "created": time_text(m), "description": ""}
            for region, m in ask.machines() for n, ip in enumerate(split_public(m)[1])]


KIND = Kind(
    routes={
        "ListServers": ("/v1/servers", "page per_page sort label_selector status name", lambda ask: _page(
            ask, "servers", _servers)),
        "ListVolumes": ("/v1/volumes", "page per_page sort label_selector status name", lambda ask: _page(
            ask, "volumes", _volumes)),
        "ListFloatingIps": ("/v1/floating_ips", "page per_page sort label_selector name", lambda ask: _page(
            ask, "floating_ips", _floating)),
        "ListLocations": ("/v1/locations", "page per_page sort name", lambda ask: _page(
            ask, "locations", lambda _: [_location(name) for name in _LOCATIONS])),
    },
    refusal=lambda status, word: {"error": {"code": word, "message": "no"}},
    rate=(3600, 3600.0),
)

CLOUDS = {"hetzner": cloud(KIND, "fsn1")}
