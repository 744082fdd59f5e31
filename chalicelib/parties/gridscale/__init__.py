"""gridscale: API v1 ("objects").

https://gridscale.io/en/api-documentation/index.html#operation/getServers and the party's Go client

Units: memory GB, disks GB. Times: UTC, creation and last change. Paging: none; a list is one map by id.

A region is a location, named by its airport code (`location_iata`). The list has no filter for it that takes the code:
it is read whole, kept by location, put into the order of creation and cut to the window. An unknown location is an
empty list, so that one is believed only of a location in /objects/locations.

Private addresses are given by a network's own DHCP and listed by the networks (auto_assigned_servers, and
pinned_servers for those that the user chose), read side by side with the servers, also for a window; addresses that a
machine gave itself are known to nobody. Two words tell the state: `status` and, for an active object, `power`.

Two headers open it: X-Auth-UserId and X-Auth-Token. Errors are free text. No rate is published: 5 calls a second.
"""

from collections.abc import Mapping, Sequence

import msgspec

from ...cloud.bearer import FREE_TEXT, Call, Cloud, List, error_code, in_order, plain
from ...cloud.decoding import Strict
from ...concurrency import run_both
from ...errors import PartyMalformed
from ...model import (
    Account,
    Count,
    Limit,
    Listing,
    Party,
    Region,
    Send,
    Server,
    Source,
    Status,
    Text,
    Window,
    addresses,
    parse_time,
    total_gib,
)


def _opened(account: Account) -> dict[str, str]:
    return {"X-Auth-UserId": account.credentials["user_uuid"], "X-Auth-Token": account.credentials["token"]}


_CLOUD = Cloud("api.gridscale.io", headers=_opened)

_STATUS = {                                 # status, and of an active object its power
    "active on": Status.ACTIVE,
    "active off": Status.SHUTOFF,
    "in-provisioning": Status.BUILD,
}

_ERRORS = FREE_TEXT                         # errors are free text: what it says and the HTTP status tell


# ---------------------------------------------------------------- the shapes that we read

class _Storage(msgspec.Struct, gc=False):
    capacity: Count | None = None


class _Network(msgspec.Struct, gc=False):
    network_uuid: str | None = None
    ordering: Count | None = None


class _PublicIp(msgspec.Struct, gc=False):
    ip: str | None = None


class _Relations(msgspec.Struct, gc=False):
    storages: list[_Storage] | None = None
    networks: list[_Network] | None = None
    public_ips: list[_PublicIp] | None = None


class _Row(msgspec.Struct, gc=False):
    object_uuid: Text
    name: str | None = None
    cores: Count | None = None
    memory: Count | None = None
    status: str | None = None
    power: bool | None = None
    relations: _Relations | None = None
    create_time: str | None = None
    change_time: str | None = None
    availability_zone: str | None = None
    location_iata: Strict[str | None] = None
    location_name: Strict[str | None] = None
    labels: list[str] | None = None


class _Assigned(msgspec.Struct, gc=False):
    server_uuid: str | None = None
    ip: str | None = None


class _Addressing(msgspec.Struct, gc=False):
    object_uuid: str | None = None
    public_net: bool | None = None
    auto_assigned_servers: list[_Assigned] | None = None
    pinned_servers: list[_Assigned] | None = None


class _Location(msgspec.Struct):
    iata: Text
    name: str | None = None
    active: bool | None = None


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = Call(_CLOUD, 0, source.region, account, send)
    servers, networks = run_both(lambda: call.get(_SERVERS).rows, lambda: call.get(_NETWORKS).rows)
    rows: list[_Row] = list(servers.values())
    assigned = _assigned(list(networks.values()))
    return in_order((_server(row, assigned) for row in rows if _location(row) == source.region), window)


def _assigned(networks: Sequence[_Addressing]) -> dict[tuple[str, str], list[str]]:
    """(network, server) -> its private addresses there; what the user chose comes first."""
    found: dict[tuple[str, str], list[str]] = {}
    for network in networks:
        for one in [*(network.pinned_servers or ()), *(network.auto_assigned_servers or ())]:
            if one.ip and one.server_uuid and network.object_uuid and not network.public_net:
                found.setdefault((network.object_uuid, one.server_uuid), []).append(one.ip)
    return found


def _location(row: _Row) -> str:
    code = row.location_iata or (row.location_name or "").rpartition("/")[2]
    if not code:
        raise PartyMalformed("The party listed a server without its location.")
    return code


_SERVERS = List("ListServers", "/objects/servers", "servers", dict[str, _Row])
_NETWORKS = List("ListNetworks", "/objects/networks", "networks", dict[str, _Addressing])
_LOCATIONS = List("ListLocations", "/objects/locations", "locations", dict[str, _Location])


def _server(row: _Row, assigned: Mapping[tuple[str, str], Sequence[str]]) -> Server:
    related = row.relations or _Relations()
    word = row.status or ""
    if word == "active" and row.power is not None:
        word += " on" if row.power else " off"
    networks = sorted(related.networks or (), key=lambda network: network.ordering or 0)
    lan4, lan6 = addresses(*(ip for network in networks
                             for ip in assigned.get((network.network_uuid or "", row.object_uuid), ())))
    wan4, wan6 = addresses(*(ip.ip for ip in related.public_ips or ()))
    return Server(
        id=row.object_uuid,
        name=row.name or "",
        cpu=row.cores,
        memory_mib=None if row.memory is None else row.memory * 1024,
        disk_gib=None if related.storages is None else total_gib(one.capacity for one in related.storages),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get(word, Status.UNKNOWN),
        party_status=word,
        created_at=parse_time(row.create_time),
        updated_at=parse_time(row.change_time),
        zone=row.availability_zone or row.location_name or "",
        tags=plain(row.labels),
    )


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    found: Mapping[str, _Location] = Call(_CLOUD, 0, "", account, send).get(_LOCATIONS).rows
    codes = {place.iata: Region(place.iata, place.name or "", place.active is not False) for place in found.values()}
    return [codes[code] for code in sorted(codes)]


def check(source: Source, account: Account, send: Send) -> None:
    Call(_CLOUD, 0, source.region, account, send).get(_SERVERS)


PARTY = Party(
    name="gridscale",
    title="gridscale",
    reference="https://gridscale.io/en/api-documentation/index.html#operation/getServers",
    order="no pages",
    credentials=(("user_uuid", "token"),),
    forms={"user_uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"},
    permissions=("a read-only API token",),
    region_form=r"[a-z]{3}",
    default_region="fra",
    unknown_region_is_empty=True,
    limits={operation: Limit(5) for operation in ("ListServers", "ListNetworks", "ListLocations")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
