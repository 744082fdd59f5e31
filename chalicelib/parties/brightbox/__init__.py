"""Brightbox, through Apache Libcloud's driver (see cloud/libcloud.py).

https://api.gb1.brightbox.com/1.0/ (GET /1.0/servers). No paging: the API has no such parameter. One region of several
zones. OAuth token from the API client's secret, a new one for each listing. Memory and disks MiB. A server made of
volumes lists them, else its disk is its type's. Addresses: interfaces, then cloud IPs. API clients cannot be narrowed
to reading; no rates are published. Libcloud's own connection cannot log in (it expects a value from a call that gives
none); ours can.

Unconfirmed: no real account was asked; what Libcloud's fixtures do not hold is from the vendor's own clients.
"""

from collections.abc import Mapping

import msgspec

from ...cloud.decoding import part
from ...cloud.joining import by_scope
from ...cloud.libcloud import Bridge, Call, Driven, matched, nodes_by_id, party_of, total, window_of
from ...errors import MISSING_RIGHT, WRONG_KEY, UnknownRegion
from ...model import Count, Listing, Region, Server, Source, Status, Text, Window, parse_time

_STATUS = {
    "creating": Status.BUILD,
    "active": Status.ACTIVE,
    "inactive": Status.SHUTOFF,
    "deleting": Status.DELETED,
    "failed": Status.ERROR,                 # could not be created
    "unavailable": Status.UNKNOWN,          # its host does not answer
}
_GONE = ("deleted", "terminated")           # finally gone, but still listed for a while


class _Token(msgspec.Struct):
    access_token: Text


class _Type(msgspec.Struct, gc=False):
    name: str | None = None
    handle: str | None = None
    cores: Count | None = None
    ram: Count | None = None
    disk_size: Count | None = None


class _Zone(msgspec.Struct, gc=False):
    handle: str | None = None


class _Volume(msgspec.Struct, gc=False):
    size: Count | None = None


class _Image(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None


class _Interface(msgspec.Struct, gc=False):
    ipv4_address: str | None = None
    ipv6_address: str | None = None


class _Address(msgspec.Struct, gc=False):
    public_ip: str | None = None
    public_ipv6: str | None = None


class _Server(msgspec.Struct, gc=False):
    id: Text
    name: str | None = None
    interfaces: list[_Interface] | None = None
    cloud_ips: list[_Address] | None = None
    status: str | None = None
    server_type: _Type | None = None
    zone: _Zone | None = None
    volumes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET    # none for a server that has its type's disk
    created_at: str | None = None
    image: _Image | None = None


def _list_servers(driven: Driven, source: Source, window: Window) -> Listing:
    nodes = driven.driver.list_nodes()
    rows: list[_Server] = driven.door.answers["ListServers"]
    kept = matched(nodes, rows, lambda row: row.id)
    return window_of([_server(row) for row in kept if row.status not in _GONE], window)


def _server(row: _Server) -> Server:
    kind = row.server_type or _Type()
    nothing = row.volumes is msgspec.UNSET or bytes(row.volumes) == b"null"
    volumes = [] if nothing or row.volumes is msgspec.UNSET else part(row.volumes, list[_Volume])
    sizes = [volume.size for volume in volumes] if volumes else [kind.disk_size if volumes is not None else None]
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=kind.cores,
        memory_mib=kind.ram,
        disk_gib=total(sizes, 1024),
        **by_scope([
            *(text for one in row.interfaces or () for text in (one.ipv4_address, one.ipv6_address)),
            *(text for one in row.cloud_ips or () for text in (one.public_ip, one.public_ipv6))]),
        status=_STATUS.get(row.status or "", Status.UNKNOWN),
        party_status=row.status or "",
        created_at=parse_time(row.created_at),
        zone=(row.zone and row.zone.handle) or "",
        instance_type=kind.handle or kind.name or "",
        image_id=row.image and row.image.id,
        image_name=row.image and row.image.name,
    )


def _url(credentials: Mapping[str, str], region: str) -> str:
    if region != "gb1":
        raise UnknownRegion("Brightbox has the region gb1.")
    return "https://api.gb1.brightbox.com"


BRIDGE = Bridge(
    module="brightbox",
    driver="BrightboxNodeDriver",
    keys=("client_id", "secret"),
    url=_url,
    calls=(Call("Login", r"POST /token", _Token, rows=False),
           Call("ListServers", r"GET /1\.0/servers", list[_Server])),
    mend=lambda driven: nodes_by_id(driven.driver, "_to_node", "id"),
    servers=_list_servers,
    regions=lambda driven: [Region("gb1", "Great Britain")],
    check=lambda driven, source: driven.driver.list_nodes(),
)

PARTY = party_of(
    BRIDGE,
    name="brightbox",
    order="no pages",
    title="Brightbox",
    reference="https://api.gb1.brightbox.com/1.0/",
    permissions=("list servers",),
    region_form=r"gb1",
    default_region="gb1",
    calls_a_second=5,
    code=lambda answer: answer.get("error_name") or answer.get("error"),
    errors={
        "invalid_client": WRONG_KEY,
        "unauthorized_client": WRONG_KEY,
        "invalid_token": WRONG_KEY,
        "forbidden": MISSING_RIGHT,
    },
)
