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

from collections.abc import Callable, Mapping, Sequence

import msgspec

from ...cloud import api


def _opened(client: api.Client, call: Callable[[api.Headers], api.Response]) -> api.Response:
    return call({"X-Auth-UserId": client.credentials["user_uuid"], "X-Auth-Token": client.credentials["token"]})


_CLOUD = api.Cloud("api.gridscale.io", auth=_opened)

_STATUS = {                                 # status, and of an active object its power
    "active on": api.Status.ACTIVE,
    "active off": api.Status.SHUTOFF,
    "in-provisioning": api.Status.BUILD,
}


# ---------------------------------------------------------------- the shapes that we read

class _Storage(msgspec.Struct, gc=False):
    capacity: api.Count | None = None


class _Network(msgspec.Struct, gc=False):
    network_uuid: str | None = None
    ordering: api.Count | None = None


class _PublicIp(msgspec.Struct, gc=False):
    ip: str | None = None


class _Relations(msgspec.Struct, gc=False):
    storages: list[_Storage] | None = None
    networks: list[_Network] | None = None
    public_ips: list[_PublicIp] | None = None


class _Row(msgspec.Struct, gc=False):
    object_uuid: api.Text
    name: str | None = None
    cores: api.Count | None = None
    memory: api.Count | None = None
    status: str | None = None
    power: bool | None = None
    relations: _Relations | None = None
    create_time: str | None = None
    change_time: str | None = None
    availability_zone: str | None = None
    location_iata: api.Strict[str | None] = None
    location_name: api.Strict[str | None] = None
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
    iata: api.Text
    name: str | None = None                 # one that is not `active` still has its servers


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    servers, networks = client.run_all(lambda: client.all(_SERVERS), lambda: client.all(_NETWORKS))
    assigned = _assigned([network for _, network in networks])
    here, elsewhere = api.parted((row for _, row in servers), _location, client.region)
    return api.in_order((_server(row, assigned) for row in here), window, elsewhere)


def _assigned(networks: Sequence[_Addressing]) -> dict[tuple[str, str], list[str]]:
    """(network, server) -> its private addresses there; what the user chose comes first."""
    assigned: dict[tuple[str, str], list[str]] = {}
    for network in networks:
        for one in [*(network.pinned_servers or ()), *(network.auto_assigned_servers or ())]:
            if one.ip and one.server_uuid and network.object_uuid and not network.public_net:
                assigned.setdefault((network.object_uuid, one.server_uuid), []).append(one.ip)
    return assigned


def _location(row: _Row) -> str:
    code = row.location_iata or (row.location_name or "").rpartition("/")[2]
    if not code:
        raise api.PartyMalformed("The party listed a server without its location.")
    return code


_SERVERS = api.map_of(_CLOUD, "ListServers", "/objects/servers", "servers", _Row)
_NETWORKS = api.map_of(_CLOUD, "ListNetworks", "/objects/networks", "networks", _Addressing)
_LOCATIONS = api.map_of(_CLOUD, "ListLocations", "/objects/locations", "locations", _Location)


def _server(row: _Row, assigned: Mapping[tuple[str, str], Sequence[str]]) -> api.Server:
    related = row.relations or _Relations()
    word = row.status or ""
    if word == "active" and row.power is not None:
        word += " on" if row.power else " off"
    networks = sorted(related.networks or (), key=lambda network: network.ordering or 0)
    return api.Server(
        id=row.object_uuid,
        name=row.name or "",
        cpu=row.cores,
        memory_mib=None if row.memory is None else row.memory * 1024,
        disk_gib=None if related.storages is None else api.total_gib(one.capacity for one in related.storages),
        **api.addresses(
            lan=(ip for network in networks for ip in assigned.get((network.network_uuid or "", row.object_uuid), ())),
            wan=(ip.ip for ip in related.public_ips or ())),
        **PARTY.status_of(word),
        created_at=api.parse_time(row.create_time),
        updated_at=api.parse_time(row.change_time),
        zone=row.availability_zone or row.location_name or "",
        tags=api.plain(row.labels),
    )


# ---------------------------------------------------------------- regions

def list_regions(client: api.Client) -> list[api.Region]:
    places = [place for _, place in client.all(_LOCATIONS)]
    codes = {place.iata: api.Region(place.iata, place.name or "") for place in places}
    return [codes[code] for code in sorted(codes)]


PARTY = api.Party(
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
    limits=api.unpublished(5, "ListServers", "ListNetworks", "ListLocations"),
    error_code=api.any_error_code,
    errors=api.FREE_TEXT,                   # errors are free text: what it says and the HTTP status tell
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=api.one_row(_SERVERS),
)
