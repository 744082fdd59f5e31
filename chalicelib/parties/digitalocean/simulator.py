"""A simulator for DigitalOcean's API v2: Droplets, GPU Droplets (a list of their own), volumes, reserved IPs."""

from collections.abc import Callable
from typing import Any

from ...simulators.bearer import Ask, Kind, Reply, cloud, numbered, split_public, time_text
from ...simulators.fleet import Machine

_REGIONS = ("nyc1", "nyc3", "ams3", "fra1", "sfo3")
_STATES = {"running": "active", "stopped": "off", "starting": "active", "stopping": "active", "pending": "new"}


def _page(ask: Ask, key: str, make: Callable[[Ask], list[Any]], *by: object) -> Reply:
    rows = ask.kept(make, *by)
    page, total = numbered(ask, rows, "per_page", 20, 200)
    number, last = ask.number("page", 1, 1, 10 ** 6), -(-total // ask.number("per_page", 20, 1, 200))
    there = f"https://api.digitalocean.com{ask.call.path}?page="
    links = {"pages": {"next": f"{there}{number + 1}", "last": f"{there}{last}"}} if number < last else {}
    return {key: page, "links": links, "meta": {"total": total}}, {}


def _droplet(ask: Ask, region: str, machine: Machine) -> dict[str, Any]:
    return {
        "id": ask.id(region, machine), "name": machine.name, "memory": machine.memory_gib * 1024,
        "vcpus": machine.cpu, "disk": machine.disks[0], "locked": False, "status": _STATES[machine.state],
        "kernel": None, "created_at": time_text(machine), "features": ["private_networking"], "backup_ids": [],
        "next_backup_window": None, "snapshot_ids": [], "image": {
            "id": 69463186, "name": "20.04 (LTS) x64", "distribution": "Ubuntu", "slug": "x", "public": True,
            "regions": [], "created_at": "2020-09-03T02:05:57Z", "min_disk_size": 15},
        "volume_ids": [f"{machine.key}-{n}" for n in range(1, len(machine.disks))],
        "size": {"slug": f"s-{machine.cpu}vcpu-{machine.memory_gib}gb", "memory": machine.memory_gib * 1024,
                 "vcpus": machine.cpu, "disk": machine.disks[0], "transfer": 1, "price_monthly": 5,
                 "price_hourly": 0.00744, "regions": [region], "available": True},
        "size_slug": f"s-{machine.cpu}vcpu-{machine.memory_gib}gb",
        "networks": {"v4": [{"ip_address": ip, "netmask": "255.255.240.0", "gateway": "", "type": kind}
                            for kind, ips in (("public", split_public(machine)[0]), ("private", machine.lan))
                            for ip in ips],
                     "v6": []},
        "region": {"name": region, "slug": region, "features": [], "available": True, "sizes": []},
        "tags": [f"{key}:{value}" for key, value in machine.tags.items()],
        "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000"}


def _droplets(ask: Ask) -> list[Any]:
    return [_droplet(ask, region, m) for region, m in ask.machines() if m.number % 7]


def _gpu_droplets(ask: Ask) -> list[Any]:
    return [_droplet(ask, region, m) for region, m in ask.machines() if not m.number % 7]


def _volumes(ask: Ask) -> list[Any]:
    return [
        {"id": f"{m.key}-{n}", "name": f"{m.name}-{n}", "size_gigabytes": size, "droplet_ids": [ask.id(region, m)],
         "region": {"slug": region, "name": region}, "created_at": time_text(m), "tags": []}
        for region, m in ask.machines(*filter(None, [ask.one("region")])) for n, size in enumerate(m.disks) if n]


def _reserved(ask: Ask) -> list[Any]:
    return [
        *({"ip": ip, "region": {"slug": region}, "droplet": _droplet(ask, region, m), "locked": False}
          for region, m in ask.machines() for ip in split_public(m)[1]),
        {"ip": "45.55.96.47", "region": {"slug": "nyc3"}, "droplet": None, "locked": False}]


def _reserved_ipv6(ask: Ask) -> list[Any]:
    """One that no Droplet has: the fleet's machines have public addresses of IPv4 alone."""
    return [{"ip": "2a03:b0c0:3:f0::5dcf:9000", "region_slug": "nyc3", "reserved_at": "2024-11-20T11:08:30Z",
             "droplet": None}]


def _regions(ask: Ask) -> list[Any]:
    return [{"slug": slug, "name": slug.upper(), "features": [], "available": slug != "nyc1", "sizes": []}
            for slug in _REGIONS]


KIND = Kind(
    routes={
        "ListGpuDroplets": ("/v2/droplets?type=gpus", "page per_page type", lambda ask: _page(
            ask, "droplets", _gpu_droplets)),
        "ListDroplets": ("/v2/droplets", "page per_page name tag_name", lambda ask: _page(
            ask, "droplets", _droplets)),
        "ListVolumes": ("/v2/volumes", "page per_page region name", lambda ask: _page(
            ask, "volumes", _volumes, ask.one("region"))),
        "ListReservedIps": ("/v2/reserved_ips", "page per_page", lambda ask: _page(
            ask, "reserved_ips", _reserved)),
        "ListReservedIpv6": ("/v2/reserved_ipv6", "page per_page", lambda ask: _page(
            ask, "reserved_ipv6s", _reserved_ipv6)),
        "ListRegions": ("/v2/regions", "page per_page", lambda ask: _page(ask, "regions", _regions)),
    },
    refusal=lambda status, word: {"id": {429: "too_many_requests", 400: "bad_request"}.get(status, word),
                                  "message": "no"},
    rate=(250, 60.0),
)

CLOUDS = {"digitalocean": cloud(KIND, "nyc3")}
