"""A simulator for UpCloud's API 1.3: servers in an order that nobody promised, one server's details, zones."""

import re
from typing import Any

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, uuid_of
from ...simulators.fleet import Machine

_ZONES = ("fi-hel1", "fi-hel2", "de-fra1", "us-nyc1", "uk-lon1")
_STATES = {"running": "started", "stopped": "stopped", "starting": "maintenance", "stopping": "maintenance",
           "pending": "maintenance"}


def _labels(m: Machine) -> dict[str, Any]:
    return {"label": [{"key": key, "value": value} for key, value in m.tags.items()]}


def _row(region: str, m: Machine) -> dict[str, Any]:
    return {"core_number": str(m.cpu), "created": int(m.created.timestamp()), "host": 6862160515,
            "hostname": f"{m.name}.example.com", "labels": _labels(m), "license": 0,
            "memory_amount": str(m.memory_gib * 1024), "plan": "custom", "plan_ipv4_bytes": "0", "plan_ipv6_bytes": "0",
            "server_group": None, "simple_backup": "no", "state": _STATES[m.state], "tags": {"tag": []},
            "title": m.name, "uuid": uuid_of(m, 0), "zone": region}


def _rows(ask: Ask) -> list[Any]:
    wanted = ask.many("label")
    rows = [_row(region, m) for region, m in ask.machines()
             if set(wanted) <= {*m.tags, *(f"{key}={value}" for key, value in m.tags.items())}]
    return rows[::-1]                      # no order that anybody promised


def _servers(ask: Ask) -> Reply:
    rows = ask.kept(_rows, *ask.many("label"))
    offset, limit = ask.number("offset", 0, 0, 10 ** 6), ask.number("limit", 100, 1, 100)
    return {"servers": {"server": rows[offset:offset + limit]}}, {}


def _by_uuid(ask: Ask) -> list[Any]:
    return [{uuid_of(m, 0): (region, m) for region, m in ask.machines()}]


def _detail(ask: Ask) -> Reply:
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ask.place):
        raise Refused(400, "SERVER_INVALID")
    region, m = ask.kept(_by_uuid)[0].get(ask.place, ("", None))
    if m is None:
        raise Refused(404, "SERVER_NOT_FOUND")
    ips = [("utility" if n else "private", ip) for n, ip in enumerate(m.lan)] + [("public", ip) for ip in m.wan]
    return {"server": {
        **_row(region, m), "boot_order": "disk", "firewall": "off", "metadata": "no", "nic_model": "virtio",
        "ip_addresses": {"ip_address": [{"access": kind, "address": ip, "family": "IPv4"} for kind, ip in ips[::-1]]},
        "networking": {"interfaces": {"interface": [
            {"index": n, "type": kind, "bootable": "no", "mac": "x", "network": "x", "source_ip_filtering": "yes",
             "ip_addresses": {"ip_address": [{"address": ip, "family": "IPv4", "floating": "no"}]}}
            for n, (kind, ip) in enumerate(ips, 1)][::-1]}},
        "storage_devices": {"storage_device": [
            {"address": f"virtio:{n}", "boot_disk": "0", "storage": uuid_of(m, 10 + n), "storage_size": size,
             "storage_tier": "maxiops", "storage_title": f"{m.name}-{n}", "type": "disk"}
            for n, size in enumerate(m.disks)]},
        "timezone": "UTC", "video_model": "vga", "remote_access_enabled": "no"}}, {}


KIND = Kind(
    routes={
        "ListServers": ("/1.3/server", "limit offset label", _servers),
        "GetServer": (r"/1\.3/server/([^/]+)", "", _detail),
        "ListZones": ("/1.3/zone", "", lambda ask: ({"zones": {"zone": [
            {"id": zone, "description": zone.upper(), "public": "yes"} for zone in _ZONES]}}, {})),
    },
    refusal=lambda status, word: {"error": {
        "error_code": "AUTHENTICATION_FAILED" if status == 401 else word, "error_message": "no"}},
)

CLOUDS = {"upcloud": cloud(KIND, "fi-hel1")}
