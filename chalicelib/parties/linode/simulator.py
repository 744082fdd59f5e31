"""A simulator for Linode's API v4: Linodes, volumes, VPC addresses, regions. Filters come in the X-Filter header."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, numbered, time_text
from ...simulators.fleet import Machine

_REGIONS = ("us-east", "us-ord", "eu-west", "ap-south", "de-fra-2")
_STATES = {"running": "running", "stopped": "offline", "starting": "booting", "stopping": "shutting_down",
           "pending": "provisioning"}


def _page(ask: Ask, make: Callable[[Ask], list[Any]], filters: tuple[str, ...] = ()) -> Reply:
    rows = ask.kept(make)
    try:
        query = msgspec.json.decode(ask.call.headers.get("x-filter", "{}"), type=dict[str, str])
    except ValueError:
        raise Refused(400, "Cannot filter") from None
    order, way = query.pop("+order_by", None), query.pop("+order", "asc")
    if query.keys() - set(filters) or order not in (None, "id", "label") or way not in ("asc", "desc"):
        raise Refused(400, "Cannot filter")
    listed = [row for row in rows if all(row[name] == value for name, value in query.items())]
    if order:
        listed.sort(key=lambda row: row[order], reverse=way == "desc")
    page, total = numbered(ask, listed, "page_size", 100, 500, 25)
    size = ask.number("page_size", 100, 25, 500)
    return {"data": page, "page": ask.number("page", 1, 1, 10 ** 6), "pages": max(1, math.ceil(total / size)),
            "results": total}, {}


def _instance(ask: Ask, region: str, m: Machine) -> dict[str, Any]:
    listed = m.lan if m.number % 2 else ()
    return {
        "id": ask.id(region, m), "label": m.name, "group": "", "status": _STATES[m.state], "region": region,
        "created": time_text(m, "%Y-%m-%dT%H:%M:%S"), "updated": time_text(m, "%Y-%m-%dT%H:%M:%S"),
        "type": "g6-standard-2",
        "ipv4": [*m.wan, *listed], "ipv6": "2600:3c03::f03c:91ff:fe24:3a2f/128", "image": "linode/debian12",
        "specs": {"disk": m.disks[0] * 1024, "memory": m.memory_gib * 1024, "vcpus": m.cpu, "gpus": 0, "transfer": 1},
        "alerts": {}, "backups": {"enabled": False}, "hypervisor": "kvm", "watchdog_enabled": True,
        "tags": list(m.tags.values()), "host_uuid": "x", "has_user_data": False, "lke_cluster_id": None}


def _instances(ask: Ask) -> list[Any]:
    return [_instance(ask, *one) for one in ask.machines()]


def _volumes(ask: Ask) -> list[Any]:
    return [{"id": ask.id(region, m) * 10 + n, "label": f"{m.name}-{n}", "size": size, "region": region,
             "linode_id": ask.id(region, m), "linode_label": m.name, "status": "active", "tags": [],
             "filesystem_path": "/dev/x", "hardware_type": "nvme", "created": "2020-01-01T00:00:00",
             "updated": "2020-01-01T00:00:00", "encryption": "disabled"}
            for region, m in ask.machines() for n, size in enumerate(m.disks) if n]


def _vpc_ips(ask: Ask) -> list[Any]:
    return list(_vpc_rows(ask))


def _vpc_rows(ask: Ask) -> Iterator[dict[str, Any]]:
    for region, m in ask.machines():
        rows = [] if m.number % 2 else [(ip, None, True) for ip in m.lan]
        if rows and m.number % 10 == 0:    # of a configuration that is not in use, and a range
            rows = [("10.255.255.9", None, False), *rows, (None, "10.0.9.0/28", True)]
        for address, span, active in rows:
            yield {"address": address, "address_range": span, "vpc_id": 7, "subnet_id": 9, "region": region,
                   "linode_id": ask.id(region, m), "config_id": 1, "interface_id": 2, "active": active,
                   "nat_1_1": None, "gateway": "10.0.0.1", "prefix": 24, "subnet_mask": "255.255.255.0"}


def _vpc_ipv6s(ask: Ask) -> list[Any]:
    return [{"ipv6_range": f"{ip}/64", "ipv6_is_public": False, "ipv6_addresses": [{"slaac_address": ip}], "vpc_id": 7,
             "subnet_id": 9, "region": region, "linode_id": ask.id(region, m), "config_id": 1, "interface_id": 2,
             "active": True} for region, m in ask.machines() if m.number % 10 == 2 for ip in ("fd12:3456::5",)]


KIND = Kind(
    routes={
        "ListLinodes": ("/v4/linode/instances", "page page_size", lambda ask: _page(
            ask, _instances, ("region", "label", "id"))),
        "ListVolumes": ("/v4/volumes", "page page_size", lambda ask: _page(
            ask, _volumes, ("region", "label"))),
        "ListVpcIps": ("/v4/vpcs/ips", "page page_size", lambda ask: _page(ask, _vpc_ips)),
        "ListVpcSlaacAddresses": ("/v4/vpcs/ipv6s", "page page_size", lambda ask: _page(ask, _vpc_ipv6s)),
        "ListRegions": ("/v4/regions", "page page_size", lambda ask: _page(ask, lambda _: [
            {"id": region, "label": region.upper(), "country": "us", "status": "ok", "capabilities": [],
             "site_type": "core", "resolvers": {"ipv4": "", "ipv6": ""}} for region in _REGIONS])),
    },
    refusal=lambda status, word: {"errors": [{"reason": "Invalid Token" if status == 401 else word}]},
    open=("ListRegions",),
    rate=(200, 60.0),
)

CLOUDS = {"linode": cloud(KIND, "us-east")}
