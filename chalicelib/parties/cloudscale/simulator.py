"""A simulator for cloudscale.ch's API v1: servers, volumes, floating IPs, regions. No list has pages."""

from typing import Any

from ...simulators.bearer import Ask, Kind, cloud, time_text, uuid_of

_STATES = {"running": "running", "stopped": "stopped", "starting": "changing", "stopping": "changing",
           "pending": "changing"}


def _servers(ask: Ask) -> list[Any]:
    return [{
        "href": f"https://api.cloudscale.ch/v1/servers/{uuid_of(m, 0)}", "uuid": uuid_of(m, 0), "name": m.name,
        "status": _STATES[m.state], "zone": {"slug": f"{region}1"}, "tags": m.tags,
        "flavor": {"slug": f"flex-{m.cpu}-{m.memory_gib}", "name": f"Flex-{m.cpu}-{m.memory_gib}",
                   "vcpu_count": m.cpu, "memory_gb": m.memory_gib},
        "image": {"slug": "debian-12", "name": "Debian 12", "operating_system": "Debian", "default_username": "debian"},
        "volumes": [{"type": "ssd", "uuid": uuid_of(m, 10 + n), "name": f"{m.name}-{n}", "size_gb": size,
                     "device_path": "/dev/vda"} for n, size in enumerate(m.disks)],
        "interfaces": [{"type": kind, "network": {"uuid": "x", "name": "x"}, "addresses": [
            {"version": 4, "address": ip, "prefix_length": 24, "gateway": "", "reverse_ptr": "", "subnet": None}
            for ip in ips]} for kind, ips in (("public", m.wan), ("private", m.lan)) if ips],
        "ssh_fingerprints": [], "ssh_host_keys": None, "anti_affinity_with": [], "server_groups": [],
        "created_at": time_text(m, "%Y-%m-%dT%H:%M:%S.241824Z")} for region, m in ask.machines()]


def _volumes(ask: Ask) -> list[Any]:
    return [{"uuid": uuid_of(m, 10 + n), "name": f"{m.name}-{n}", "size_gb": size, "type": "ssd",
             "zone": {"slug": f"{region}1"}, "server_uuids": [uuid_of(m, 0)], "tags": {}, "created_at": time_text(m)}
            for region, m in ask.machines() for n, size in enumerate(m.disks)]


def _floating(ask: Ask) -> list[Any]:
    return [*({"network": f"203.0.113.{m.number % 250 + 1}/32", "ip_version": 4, "type": "regional", "tags": {},
               "region": {"slug": region}, "server": {"uuid": uuid_of(m, 0), "name": m.name}, "load_balancer": None,
               "next_hop": "192.0.2.1", "reverse_ptr": "x", "created_at": time_text(m)}
              for region, m in ask.machines() if m.number % 5 == 0),
            {"network": "203.0.113.252/32", "ip_version": 4, "type": "global", "region": None, "server": None}]


KIND = Kind(
    routes={
        "ListServers": ("/v1/servers", "", lambda ask: (ask.kept(_servers), {})),
        "ListVolumes": ("/v1/volumes", "", lambda ask: (ask.kept(_volumes), {})),
        "ListFloatingIps": ("/v1/floating-ips", "", lambda ask: (ask.kept(_floating), {})),
        "ListRegions": ("/v1/regions", "", lambda ask: ([
            {"slug": region, "zones": [{"slug": f"{region}1"}]} for region in ("lpg", "rma")], {})),
    },
    refusal=lambda status, word: {"detail": "Invalid token." if status == 401 else word},
)

CLOUDS = {"cloudscale": cloud(KIND, "rma")}
