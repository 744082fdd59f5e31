"""A simulator for IONOS Cloud: data centers in several locations, and the servers of each, with depth and pages as the
Cloud API v6 has them.

Checked as the real one does: the token, parameters, depth of at most 10, limit of at most 10,000 (default 100). What
lies deeper than asked comes as a bare reference.
"""

from typing import Any
from urllib.parse import urlencode
from uuid import NAMESPACE_OID, uuid5

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, time_text, uuid_of
from ...simulators.fleet import Machine

_LOCATIONS = {"de/fra": "frankfurt", "de/txl": "berlin", "gb/lhr": "london", "us/las": "lasvegas"}
_STATES = {"running": "RUNNING", "stopped": "SHUTOFF", "starting": "RUNNING", "stopping": "SHUTDOWN",
           "pending": "NOSTATE"}
_WORDS = "depth offset limit pretty"


def _centers(ask: Ask) -> list[Any]:
    """Three in each location, the last one empty; one that is in no location of the fleets' stands first."""
    centers = [("gb/lhr", "other", center_id("other", 0))]
    centers += [(region.replace("-", "/"), f"center-{n}", center_id(region, n))
                for region in ask.cloud.fleets for n in range(3)]
    return [{"id": key, "type": "datacenter", "href": "", "metadata": {"state": "AVAILABLE"}, "properties": {
        "name": name, "location": location, "version": 3, "secAuthProtection": False}}
        for location, name, key in centers]


def center_id(region: str, n: int) -> str:
    return str(uuid5(NAMESPACE_OID, f"{region}/{n}"))


def _collection(ask: Ask, rows: list[Any], path: str) -> Reply:
    depth, offset = ask.number("depth", 0, 0, 10), ask.number("offset", 0, 0, 10 ** 6)
    limit = ask.number("limit", 100, 1, 10_000)
    shown = [_cut(row, depth) for row in rows[offset:offset + limit]]
    more = offset + limit < len(rows)
    following = {"next": f"https://api.ionos.com{path}?{urlencode({'offset': offset + limit, 'limit': limit})}"}
    return {"id": path, "type": "collection", "href": path, "items": shown, "offset": offset, "limit": limit,
            "_links": {"self": path, **(following if more else {})}}, {}


def _cut(row: dict[str, Any], depth: int) -> dict[str, Any]:
    """The row as a list shows it: 0 is a reference, 1 the properties, and then a level of children each."""
    if depth == 0:
        return {name: row[name] for name in ("id", "type", "href")}
    shown = {name: value for name, value in row.items() if name != "entities"}
    if "entities" in row and depth > 1:
        shown["entities"] = {name: {"id": name, "type": "collection", "href": "",
                                    "items": [_cut(one, depth - 2) for one in children]}
                             for name, children in row["entities"].items()}
    return shown


def _datacenters(ask: Ask) -> Reply:
    return _collection(ask, ask.kept(_centers), "/cloudapi/v6/datacenters")


def _servers(ask: Ask) -> Reply:
    if ask.place not in {row["id"] for row in ask.kept(_centers)}:
        raise Refused(404, "309")
    rows = [_row(m) for region, m in ask.machines() if center_id(region, m.number % 2) == ask.place]
    return _collection(ask, rows, f"/cloudapi/v6/datacenters/{ask.place}/servers")


def _row(m: Machine) -> dict[str, Any]:
    state = {"starting": "BUSY", "pending": "DEPLOYING"}.get(m.state, "AVAILABLE")
    ips = (*m.lan, *m.wan)
    return {
        "id": uuid_of(m, 0), "type": "server", "href": "",
        "metadata": {"etag": "45480eb3fbfc31f1d916c1eaa4abdcc3", "createdDate": time_text(m), "state": state,
                     "lastModifiedDate": time_text(m), "createdBy": "user@example.com"},
        "properties": {"name": m.name, "cores": m.cpu, "ram": m.memory_gib * 1024, "availabilityZone": "AUTO",
                       "vmState": _STATES[m.state], "type": "ENTERPRISE", "cpuFamily": "INTEL_SKYLAKE"},
        "entities": {
            "cdroms": [],
            "volumes": [{"id": uuid_of(m, 10 + n), "type": "volume", "href": "", "metadata": {"state": "AVAILABLE"},
                         "properties": {"name": f"disk{n}", "type": "SSD", "size": float(size), "bus": "VIRTIO"}}
                        for n, size in enumerate(m.disks)],
            "nics": [{"id": uuid_of(m, 20 + n), "type": "nic", "href": "", "metadata": {"state": "AVAILABLE"},
                      "properties": {"name": f"nic{n}", "ips": [ip], "dhcp": True, "lan": n + 1, "pciSlot": 6 + n,
                                     "deviceNumber": n + 1, "firewallActive": False}}
                     for n, ip in reversed([*enumerate(ips)])]}}


KIND = Kind(
    routes={
        "ListServers": (r"/cloudapi/v6/datacenters/([^/]+)/servers", _WORDS, _servers),
        "ListDatacenters": ("/cloudapi/v6/datacenters", _WORDS, _datacenters),
        "ListLocations": ("/cloudapi/v6/locations", _WORDS, lambda ask: _collection(ask, [
            {"id": name, "type": "location", "href": "", "metadata": None,
             "properties": {"name": shown, "features": ["SSD"]}} for name, shown in _LOCATIONS.items()],
            "/cloudapi/v6/locations")),
    },
    refusal=lambda status, word: {"httpStatus": status, "messages": [
        {"errorCode": "315" if status == 401 else word, "message": "[VDC-x] no"}]},
)

CLOUDS = {"ionos": cloud(KIND, "de-fra")}
