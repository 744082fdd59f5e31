"""A simulator for gridscale's API: servers, networks, locations, each a map by id. A private IP is in its network."""

from collections.abc import Callable
from typing import Any

from ...simulators.bearer import Ask, Kind, Reply, cloud, time_text, uuid_of

_LOCATIONS = {"fra": "de/fra", "ams": "nl/ams", "cgn": "de/cgn"}
_STATES = {"running": ("active", True), "stopped": ("active", False), "starting": ("active", True),
           "stopping": ("active", True), "pending": ("in-provisioning", False)}
_USER = "95a2980b-7012-43dd-81f2-07577cfcb9f0"


def _servers(ask: Ask) -> list[Any]:
    return [{
        "object_uuid": uuid_of(m, 0), "name": m.name, "cores": m.cpu, "memory": m.memory_gib,
        "status": _STATES[m.state][0], "power": _STATES[m.state][1], "legacy": False,
        "relations": {
            "storages": [{"object_uuid": uuid_of(m, 10 + n), "capacity": size, "bootdevice": n == 0, "lun": n,
                          "storage_type": "storage", "object_name": f"{m.name}-{n}"} for n, size in enumerate(m.disks)],
            "networks": [{"object_uuid": f"net-{region}-{n}", "network_uuid": f"net-{region}-{n}", "ordering": n,
                          "network_type": "network", "public_net": n == 2, "mac": "x", "object_name": "x",
                          "l3security": [], "bootdevice": False} for n in (2, 1, 0)],
            "isoimages": [], "public_ips": [{"object_uuid": uuid_of(m, 20 + n), "ip": ip, "family": 4, "prefix": ip}
                                            for n, ip in enumerate(m.wan)]},
        "location_iata": region, "location_uuid": f"uuid-{region}", "location_name": _LOCATIONS[region],
        "location_country": "de", "hardware_profile": "default", "labels": list(m.tags.values()),
        "availability_zone": None, "current_price": 9.9, "auto_recovery": True, "console_token": "x",
        "create_time": time_text(m), "change_time": time_text(m)} for region, m in ask.machines()]


def _networks(ask: Ask) -> list[Any]:
    rows: list[Any] = [{"object_uuid": f"net-{region}-2", "public_net": True, "name": "Public", "relations": {}}
                        for region in ask.cloud.fleets]
    for region in ask.cloud.fleets:
        machines = [m for _, m in ask.machines(region)]
        rows += [{
            "object_uuid": f"net-{region}-{n}", "public_net": False, "name": f"net {n}", "location_iata": region,
            "dhcp_active": True, "relations": {}, "status": "active",
            "auto_assigned_servers": [{"server_uuid": uuid_of(m, 0), "ip": m.lan[n]} for m in machines
                                      if len(m.lan) > n and m.number % 2],
            "pinned_servers": [{"server_uuid": uuid_of(m, 0), "ip": m.lan[n]} for m in machines
                               if len(m.lan) > n and not m.number % 2]} for n in (0, 1)]
    return rows


def _map(ask: Ask, key: str, make: Callable[[Ask], list[Any]]) -> Reply:
    return {key: {row["object_uuid"]: row for row in ask.kept(make)}}, {}


KIND = Kind(
    routes={
        "ListServers": ("/objects/servers/{0,1}", "", lambda ask: _map(ask, "servers", _servers)),
        "ListNetworks": ("/objects/networks/{0,1}", "", lambda ask: _map(
            ask, "networks", _networks)),
        "ListLocations": ("/objects/locations/{0,1}", "", lambda ask: _map(ask, "locations", lambda _: [
            {"iata": iata, "name": name, "country": name[:2], "object_uuid": f"uuid-{iata}", "active": True,
             "public": True, "status": "active"} for iata, name in _LOCATIONS.items()])),
    },
    token=lambda headers: headers.get("x-auth-token", "") if headers.get("x-auth-userid") == _USER else "",
    refusal=lambda status, word: {"title": "no" if status == 401 else word, "description": "no", "trace": "x"},
)

CLOUDS = {"gridscale": cloud(KIND, "fra", user_uuid=_USER)}
