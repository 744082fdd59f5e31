"""CloudSigma: API 2.0, through Apache Libcloud's driver (see cloud/libcloud.py).

https://docs.cloudsigma.com/en/latest/ (GET /servers/detail/ and /drives/detail/). limit=0 is documented as all, held
against meta.total_count. Memory and drives bytes; `smp` is the number of CPUs (libcloud divides the total clock). No
time of creation. Libcloud asks for a drive of each server by itself, and fails on an interface with IPv6 alone: here
all drives come in one call, and addresses from the row. The regions are libcloud's table. Rates are not given in
numbers.

Unconfirmed: no real account was asked; what Libcloud's fixtures do not hold is from the vendor's own clients.
"""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from ...cloud.joining import by_scope
from ...cloud.libcloud import (
    Bridge,
    Bytes,
    Call,
    Driven,
    library,
    matched,
    nodes_by_id,
    party_of,
    rounded_up,
    total,
    window_of,
)
from ...cloud.party import region_names
from ...errors import FAILED, MALFORMED, MISSING_RIGHT, PartyMalformed, UnknownRegion
from ...model import Count, Listing, Region, Server, Source, Status, Text, Window

_MIB, _GIB = 1024 ** 2, 1024 ** 3
T = TypeVar("T")

_STATUS = {
    "starting": Status.STARTING,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "paused": Status.PAUSED,
    "unavailable": Status.ERROR,
}


class _Meta(msgspec.Struct):
    total_count: Count


class _Objects(msgspec.Struct, Generic[T]):
    objects: list[T]
    meta: _Meta


class _Uuid(msgspec.Struct, gc=False):
    uuid: Text


class _Conf(msgspec.Struct, gc=False):
    ip: _Uuid | None = None


class _Runtime(msgspec.Struct, gc=False):
    ip_v4: _Uuid | None = None
    ip_v6: _Uuid | None = None


class _Nic(msgspec.Struct, gc=False):
    ip_v4_conf: _Conf | None = None
    ip_v6_conf: _Conf | None = None
    runtime: _Runtime | None = None


class _Mount(msgspec.Struct, gc=False):
    drive: _Uuid | None = None


class _Server(msgspec.Struct, gc=False):
    uuid: Text
    name: str | None = None
    nics: list[_Nic] | None = None
    drives: list[_Mount] | None = None
    status: str | None = None
    smp: Count | None = None
    mem: Bytes | None = None


class _Drive(msgspec.Struct, gc=False):
    uuid: Text
    media: str | None = None
    size: Bytes | None = None


def _mend(driven: Driven) -> None:
    """Drives are read in one call, not one by one for each server."""
    nodes_by_id(driven.driver, "_to_node", "uuid")
    nodes_by_id(driven.driver, "_to_drive", "uuid")


def _rows(driven: Driven, operation: str) -> list[Any]:
    answer: _Objects[Any] = driven.door.answers[operation]
    if len(answer.objects) != answer.meta.total_count:
        raise PartyMalformed("The party's count and its rows disagree.")
    return answer.objects


def _list_servers(driven: Driven, source: Source, window: Window) -> Listing:
    nodes = driven.driver.list_nodes()
    rows: list[_Server] = _rows(driven, "ListServers")
    drives: dict[str, _Drive] = {}
    if any(row.drives for row in rows):
        driven.driver.ex_list_user_drives()
        drives = {drive.uuid: drive for drive in _rows(driven, "ListDrives")}
    return window_of([_server(row, drives) for row in matched(nodes, rows, lambda row: row.uuid)], window)


def _server(row: _Server, drives: Mapping[str, _Drive]) -> Server:
    mounted = [drives.get(mount.drive.uuid if mount.drive else "", _Drive("?")) for mount in row.drives or ()]
    return Server(
        id=row.uuid,
        name=row.name or "",
        cpu=row.smp,
        memory_mib=rounded_up(row.mem, _MIB),
        disk_gib=None if row.drives is None else total((one.size for one in mounted if one.media != "cdrom"), _GIB),
        **by_scope(
            ip.uuid for nic in row.nics or () for side in (nic.ip_v4_conf, nic.ip_v6_conf, nic.runtime) if side
            for ip in ((side.ip,) if isinstance(side, _Conf) else (side.ip_v4, side.ip_v6)) if ip),
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
    )


def _regions() -> dict[str, dict[str, str]]:
    return library("common.cloudsigma").API_ENDPOINTS_2_0


def _url(credentials: Mapping[str, str], region: str) -> str:
    known = _regions()
    if region not in known:
        raise UnknownRegion("CloudSigma has no region of this name that Apache Libcloud knows.")
    return f"https://{known[region]['host']}"


BRIDGE = Bridge(
    module="cloudsigma",
    driver="CloudSigma_2_0_NodeDriver",
    keys=("email", "password"),
    url=_url,
    arguments=lambda credentials, region: {"region": region},
    calls=(Call("ListServers", r"GET /api/2\.0/servers/detail/\?limit=0", _Objects[_Server]),
           Call("ListDrives", r"GET /api/2\.0/drives/detail/\?limit=0", _Objects[_Drive])),
    mend=_mend,
    servers=_list_servers,
    regions=lambda driven: [Region(code, one["name"]) for code, one in _regions().items()],
    check=lambda driven, source: driven.driver.list_nodes(),
)

_REGION_NAMES = {                           # https://docs.cloudsigma.com/en/latest/general.html and Libcloud's table
    "zrh": "Zurich, Switzerland", "gva": "Geneva, Switzerland", "fra": "Frankfurt, Germany", "dbl": "Dublin, Ireland",
    "bdn": "Boden, Sweden", "sjc": "San Jose, CA", "wdc": "Washington, DC", "hnl": "Honolulu, HI",
    "per": "Perth, Australia", "mel": "Melbourne, Australia", "mnl": "Manila, Philippines",
    "mnl2": "Manila-2, Philippines", "crk": "Clark, Philippines", "tyo": "Tokyo, Japan", "ruh": "Riyadh, Saudi Arabia",
}

PARTY = party_of(
    BRIDGE,
    name="cloudsigma",
    order="no pages",
    title="CloudSigma",
    reference="https://docs.cloudsigma.com/en/latest/servers.html",
    permissions=("list servers", "list drives"),
    **region_names(_REGION_NAMES),
    region_form=r"[a-z]{3}[0-9]?",
    default_region="zrh",
    calls_a_second=5,
    code=lambda answer: answer[0]["error_type"],
    errors={"permission": MISSING_RIGHT, "validation": MALFORMED, "notexist": MALFORMED, "system": FAILED},
)
