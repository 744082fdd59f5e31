"""A simulator for Scaleway: servers and their types by zone, block volumes by zone, private IPs by region."""

from typing import Any

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, numbered, time_text, uuid_of
from ...simulators.fleet import Machine

_ZONES = ("fr-par-1", "fr-par-2", "fr-par-3", "nl-ams-1", "nl-ams-2", "nl-ams-3", "pl-waw-1", "pl-waw-2",
          "pl-waw-3", "it-mil-1")
_STATES = {"running": "running", "stopped": "stopped", "starting": "starting", "stopping": "stopping",
           "pending": "starting"}
_PROJECT = "{:08x}-7bd1-4a1e-9d3e-bb1a66e9f7a5"


def _in_zone(ask: Ask) -> list[tuple[str, Machine]]:
    if ask.place not in _ZONES:
        raise Refused(400, "unknown zone in path")
    return [(region, m) for region, m in ask.machines(ask.place[:-2]) if m.zone == int(ask.place[-1])]


def _rows(ask: Ask) -> list[Any]:
    return [_server(ask.place, m) for _, m in _in_zone(ask)]


def _servers(ask: Ask) -> Reply:
    if ask.one("order") not in (None, "creation_date_asc", "creation_date_desc"):
        raise Refused(400, "invalid_request_error")
    way = -1 if ask.one("order") in (None, "creation_date_desc") else 1
    wanted = ask.one("project")
    rows = ask.kept(_rows)[::way]
    page, total = numbered(ask, [row for row in rows if wanted in (None, row["project"])], "per_page", 50, 100)
    return {"servers": page}, {"X-Total-Count": str(total)}


def _server(zone: str, m: Machine) -> dict[str, Any]:
    key = uuid_of(m, 0)
    return {
        "id": key, "name": m.name, "arch": "x86_64", "commercial_type": f"TEST-{m.cpu}-{m.memory_gib}",
        "boot_type": "local", "organization": "x", "project": _PROJECT.format(m.project),
        "hostname": m.name, "image": None, "state": _STATES[m.state], "protected": False, "state_detail": "",
        "volumes": {str(n): {"id": uuid_of(m, 10 + n), "boot": n == 0, "zone": zone, **(
            {"volume_type": "sbs_volume"} if n else {"volume_type": "l_ssd", "name": "x", "size": size * 10 ** 9})}
            for n, size in enumerate(m.disks)},
        "public_ip": {"id": "x", "address": m.wan[0], "dynamic": False} if m.wan else None,
        "public_ips": [{"id": "x", "address": ip, "gateway": "62.210.0.1", "netmask": "32", "family": "inet",
                        "dynamic": False, "provisioning_mode": "dhcp", "tags": [], "ipam_id": "x", "state": "attached"}
                       for ip in m.wan],
        "private_ip": None, "ipv6": None, "enable_ipv6": False, "routed_ip_enabled": True,
        "private_nics": [{"id": uuid_of(m, 100 + n), "server_id": key, "private_network_id": "x", "mac_address": "x",
                          "state": "available", "tags": [], "zone": zone, "ipam_ip_ids": [uuid_of(m, 200 + n)],
                          "creation_date": time_text(m)} for n in range(len(m.lan))],
        "mac_address": "de:00:00:94:80:71", "maintenances": [], "allowed_actions": [], "tags": list(m.tags.values()),
        "creation_date": time_text(m, "%Y-%m-%dT%H:%M:%S.514299+00:00"), "zone": zone, "location": None,
        "modification_date": time_text(m, "%Y-%m-%dT%H:%M:%S.514299+00:00"), "dynamic_ip_required": False,
        "security_group": None, "placement_group": None, "filesystems": [], "end_of_service": False}


def _volumes(ask: Ask) -> Reply:
    wanted, rows = ask.many("volume_ids"), ask.kept(_block_rows)
    page, total = numbered(ask, [row for row in rows if not wanted or row["id"] in wanted], "page_size", 50, 100)
    return {"volumes": page, "total_count": total}, {}


def _block_rows(ask: Ask) -> list[Any]:
    return [{"id": uuid_of(m, 10 + n), "name": m.name, "type": "sbs_5k", "size": size * 10 ** 9, "zone": ask.place,
             "project_id": _PROJECT.format(m.project), "status": "in_use", "tags": [], "references": [
                {"id": "x", "product_resource_type": "instance_server", "product_resource_id": uuid_of(m, 0),
                 "type": "exclusive", "status": "attached", "created_at": time_text(m)}],
             "created_at": time_text(m), "updated_at": time_text(m)}
            for _, m in _in_zone(ask) for n, size in enumerate(m.disks) if n]


def _ips(ask: Ask) -> Reply:
    if f"{ask.place}-1" not in _ZONES:
        raise Refused(400, "unknown region in path")
    if ask.one("resource_type") not in (None, "instance_private_nic"):
        return {"ips": [], "total_count": 0}, {}
    wanted, rows = ask.many("resource_ids"), ask.kept(_ipam_rows)
    page, total = numbered(ask, [row for row in rows if not wanted or row["resource"]["id"] in wanted],
                            "page_size", 50, 100)
    return {"ips": page, "total_count": total}, {}


def _ipam_rows(ask: Ask) -> list[Any]:
    return [{"id": uuid_of(m, 200 + n), "address": f"{ip}/22", "is_ipv6": False, "region": ask.place,
             "project_id": _PROJECT.format(m.project), "tags": [], "reverses": [],
             "source": {"subnet_id": "x"}, "created_at": time_text(m), "updated_at": time_text(m),
             "resource": {"type": "instance_private_nic", "id": uuid_of(m, 100 + n), "name": m.name,
                          "mac_address": "x"}}
            for _, m in ask.machines(ask.place) for n, ip in enumerate(m.lan)]


def _sizes(ask: Ask) -> list[Any]:
    return sorted({(m.cpu, m.memory_gib) for _, m in _in_zone(ask)} | {(64, 256)})


def _types(ask: Ask) -> Reply:
    sizes = ask.kept(_sizes)
    page, total = numbered(ask, sizes, "per_page", 50, 100)
    types: dict[str, dict[str, Any]] = {f"TEST-{cpu}-{memory}": {
        "ncpus": cpu, "ram": memory * 1024 ** 3, "arch": "x86_64", "hourly_price": 0.1, "monthly_price": 70.0,
        "alt_names": [], "scratch_storage_max_volumes_count": 0, "end_of_service": False}
        for cpu, memory in page}
    return {"servers": types}, {"X-Total-Count": str(total)}


KIND = Kind(
    routes={
        "ListServers": (r"/instance/v1/zones/([^/]+)/servers", "page per_page order project name state tags",
                        _servers),
        "ListVolumes": (r"/block/v1/zones/([^/]+)/volumes", "page page_size volume_ids project_id include_deleted",
                        _volumes),
        "ListIps": (r"/ipam/v1/regions/([^/]+)/ips", "page page_size resource_ids resource_type project_id attached",
                    _ips),
        "ListServerTypes": (r"/instance/v1/zones/([^/]+)/products/servers", "page per_page", _types),
    },
    token=lambda headers: headers.get("x-auth-token", ""),
    refusal=lambda status, word: ({"message": word} if word.startswith("unknown") else {
        "type": {401: "denied_authentication", 404: "unknown_resource"}.get(status, word), "message": "no"}),
    unknown=(404, "unknown_resource"),
)

CLOUDS = {"scaleway": cloud(KIND, "fr-par")}
