"""A simulator for Vultr's API v2: instances, block storage, reserved IPs, regions. A cursor leads to the next page."""

from collections.abc import Callable
from typing import Any

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, split_public, time_text
from ...simulators.fleet import Machine

_REGIONS = ("ewr", "ord", "fra", "sgp", "nrt")
_STATES = {"running": ("active", "running", "ok"), "stopped": ("active", "stopped", "ok"),
           "starting": ("active", "running", "installingbooting"), "stopping": ("active", "running", "locked"),
           "pending": ("pending", "stopped", "none")}


def _page(ask: Ask, key: str, make: Callable[[Ask], list[Any]], *by: object) -> Reply:
    rows = ask.kept(make, *by)
    size, cursor = ask.number("per_page", 100, 1, 500), ask.one("cursor") or "next_0"
    ids = [row["id"] for row in rows]
    try:
        at = ask.cloud.cursors.take(cursor.removeprefix("next_"), ids) if cursor != "next_0" else 0
    except ValueError:
        raise Refused(400, "Invalid cursor") from None
    following = f"next_{ask.cloud.cursors.give(ids, at + size)}" if at + size < len(rows) else ""
    return {key: rows[at:at + size], "meta": {"total": len(rows), "links": {"next": following, "prev": ""}}}, {}


def _instance(region: str, m: Machine) -> dict[str, Any]:
    status, power, server = _STATES[m.state]
    own, _ = split_public(m)
    return {
        "id": f"{m.key}-0000-4000-8000-{m.number:012d}", "os": "Debian 12 x64 (bookworm)", "ram": m.memory_gib * 1024,
        "disk": m.disks[0], "main_ip": own[0] if own else "0.0.0.0", "vcpu_count": m.cpu, "region": region,
        "plan": f"vc2-{m.cpu}c-{m.memory_gib}gb", "date_created": time_text(m, "%Y-%m-%dT%H:%M:%S+00:00"),
        "status": status,
        "allowed_bandwidth": 2000, "netmask_v4": "255.255.254.0", "gateway_v4": "45.76.82.1", "power_status": power,
        "server_status": server, "v6_network": "", "v6_main_ip": "", "v6_network_size": 0, "label": m.name,
        "internal_ip": m.lan[0], "kvm": "https://my.vultr.com/x", "hostname": m.name, "tag": "", "os_id": 477,
        "app_id": 0, "image_id": "", "firewall_group_id": "", "features": [], "user_scheme": "root",
        "tags": list(m.tags.values())}


def _instances(ask: Ask) -> list[Any]:
    return [_instance(*one) for one in ask.machines(*filter(None, [ask.one("region")]))]


def _blocks(ask: Ask) -> list[Any]:
    return [{"id": f"{m.key}-{n}", "size_gb": size, "region": region, "status": "active", "label": "", "cost": 1,
             "attached_to_instance": _instance(region, m)["id"], "date_created": time_text(m), "mount_id": "x",
             "block_type": "high_perf"}
            for region, m in ask.machines() for n, size in enumerate(m.disks) if n]


def _reserved(ask: Ask) -> list[Any]:
    return [
        *({"id": f"{m.key}-{n}", "region": region, "ip_type": "v4", "subnet": ip, "subnet_size": 32, "label": "",
           "instance_id": _instance(region, m)["id"]}
          for region, m in ask.machines() for n, ip in enumerate(split_public(m)[1])),
        {"id": "free", "region": "ewr", "ip_type": "v6", "subnet": "2001:db8::", "subnet_size": 64, "label": "",
         "instance_id": ""}]


KIND = Kind(
    routes={
        "ListInstances": ("/v2/instances", "cursor per_page region label tag main_ip", lambda ask: _page(
            ask, "instances", _instances, ask.one("region"))),
        "ListBlocks": ("/v2/blocks", "cursor per_page", lambda ask: _page(ask, "blocks", _blocks)),
        "ListReservedIps": ("/v2/reserved-ips", "cursor per_page", lambda ask: _page(
            ask, "reserved_ips", _reserved)),
        "ListRegions": ("/v2/regions", "cursor per_page", lambda ask: _page(ask, "regions", lambda _: [
            {"id": region, "city": region.upper(), "country": "US", "continent": "x", "options": []}
            for region in _REGIONS])),
    },
    refusal=lambda status, word: {"error": word, "status": status},
    open=("ListRegions",),
    rate=(30, 1.0),
)

CLOUDS = {"vultr": cloud(KIND, "ewr")}
