"""Kamatera: cloudcli's API, through Apache Libcloud's driver (see cloud/libcloud.py).

https://github.com/cloudwm/cloudcli (GET /service/servers, POST /service/server/info for all names). No paging in this
API; the two lists are held against each other. Region = datacenter, ours to filter. Memory MB, disks GB. It says on or
off and no times. No rates are published.

Unconfirmed: no real account was asked; what Libcloud's fixtures do not hold is from the vendor's own clients.
"""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec.structs import replace

from ...cloud.joining import by_scope, parted
from ...cloud.libcloud import (
    Bridge,
    Call,
    Driven,
    matched,
    party_of,
    rounded_up,
    total,
    window_of,
)
from ...cloud.party import region_names
from ...errors import PartyMalformed
from ...model import Listing, Region, Server, Size, Source, Status, Text, Window

_STATUS = {"on": Status.ACTIVE, "off": Status.SHUTOFF}


class _Server(msgspec.Struct, gc=False):
    id: Text
    datacenter: Text
    name: str | None = None
    power: str | None = None


class _Network(msgspec.Struct, gc=False):
    ips: list[str] | None = None


class _Details(msgspec.Struct, gc=False):
    id: Text
    datacenter: Text
    name: str | None = None
    networks: list[_Network] | None = None
    power: str | None = None
    cpu: str | None = None
    ram: Size | None = None
    diskSizes: list[Size | None] | None = None


class _Place(msgspec.Struct):
    id: Text


def _list_servers(driven: Driven, source: Source, window: Window) -> Listing:
    for _ in range(2):
        listed = driven.driver.list_nodes()
        brief: list[_Server] = driven.door.answers["ListServers"]
        here, elsewhere = parted(brief, lambda row: row.datacenter, source.region)
        if not here:                        # the details of no servers are an error at this party
            return Listing([], 0, elsewhere)
        nodes = driven.driver.list_nodes(ex_full_details=True)
        rows: list[_Details] = driven.door.answers["GetServers"]
        if sorted(node.id for node in listed) == sorted(row.id for row in rows):
            return replace(window_of([_server(row) for row in matched(nodes, rows, lambda row: row.id)
                                      if row.datacenter == source.region], window), elsewhere=elsewhere)
    raise PartyMalformed("The party's two lists still disagree after a second listing.")


def _mend(driven: Driven) -> None:
    """The driver would look up each row's datacenter in a table, and read the details its own way."""
    def row_of(id: object = None, name: object = None, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(id=id, name=name)

    def detailed(_: object, row: Mapping[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(id=row["id"])

    driver = driven.driver
    driver.ex_get_node, driver._update_node_from_server_info, driver.ex_get_location = row_of, detailed, row_of


def _server(row: _Details) -> Server:
    cores = re.fullmatch(r"([0-9]{1,4})[A-Z]", row.cpu or "", re.ASCII)        # 2B: two cores of type B
    return Server(
        id=row.id,
        name=row.name or "",
        cpu=int(cores[1]) if cores else None,
        memory_mib=rounded_up(row.ram, 1),
        disk_gib=None if row.diskSizes is None else total(row.diskSizes, 1),
        **by_scope(text for network in row.networks or () for text in network.ips or ()),
        status=_STATUS.get(row.power or "", Status.UNKNOWN),
        party_status=row.power or "",
        zone=row.datacenter,
        instance_type=row.cpu or "",
    )


BRIDGE = Bridge(
    module="kamatera",
    driver="KamateraNodeDriver",
    keys=("client_id", "secret"),
    url=lambda credentials, region: "https://cloudcli.cloudwm.com",
    calls=(Call("ListServers", r"GET /service/servers", list[_Server]),
           Call("GetServers", r"POST /service/server/info", list[_Details]),
           Call("ListDatacenters", r"GET /service/server\?datacenter=1", list[_Place], rows=False)),
    mend=_mend,
    servers=_list_servers,
    regions=lambda driven: [Region(place.id, place.name or "") for place in driven.driver.list_locations()],
    check=lambda driven, source: driven.driver.list_nodes(),
)

_REGION_NAMES = {                           # the list of datacenters
    "AS": "Hong Kong", "CA-TR": "Toronto", "EU": "Amsterdam", "EU-FR": "Frankfurt", "EU-LO": "London",
    "IL": "Rosh Haayin", "IL-RH": "Rosh Haayin 2", "IL-JR": "Jerusalem", "IL-PT": "Petach Tikva", "IL-TA": "Tel Aviv",
    "US-NY2": "New York", "US-SC": "Santa Clara", "US-TX": "Texas",
}

PARTY = party_of(
    BRIDGE,
    name="kamatera",
    order="no pages",
    title="Kamatera",
    reference="https://github.com/cloudwm/cloudcli",
    permissions=("list servers", "get server info", "list datacenters"),
    **region_names(_REGION_NAMES),
    region_form=r"[A-Z]{2}(-[A-Z0-9]{2,4})?",
    default_region="EU",
    unknown_region_is_empty=True,
    calls_a_second=2,
    code=lambda answer: None,
    errors={},
)
