"""Judges of the bearer-token clouds that we did not write: the vendors' SDKs, Apache Libcloud's drivers and its fixtures.

`MACHINES[party](url, credentials, region)` lists the machines at a simulator through such a program.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
import requests

from chalicelib import parties
from chalicelib.fleet import many_sources
from chalicelib.model import WHOLE, Account, Response, Sign, Source
from chalicelib.parties import scaleway
from chalicelib.simulators import bearer
from chalicelib.simulators.bearer import CLOUDS, Rest
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT

SIZE = 137
NEIGHBOURS = {"digitalocean": "ams3", "hetzner": "nbg1", "linode": "eu-west", "vultr": "fra", "scaleway": "nl-ams",
              "upcloud": "us-nyc1", "cloudscale": "lpg", "gridscale": "ams"}       # another region of the same account
Machines = dict[str, dict[str, Any]]


# ---------------------------------------------------------------- the vendors' SDKs

def hcloud_machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    client = pytest.importorskip("hcloud").Client(credentials["token"], api_endpoint=f"{url}/v1")
    sizes = {volume.id: volume.size for volume in client.volumes.get_all()}
    floating = [(ip.server.id, ip.ip) for ip in client.floating_ips.get_all() if ip.server]
    found: Machines = {}
    for server in client.servers.get_all():
        if server.location.name == region:
            found[str(server.id)] = {
                "name": server.name, "cpu": server.server_type.cores, "memory": server.server_type.memory * 1024,
                "disk": server.primary_disk_size + sum(sizes[volume.id] for volume in server.volumes), "state": server.status,
                "lan": [ip for net in server.private_net for ip in (net.ip, *net.alias_ips)],
                "wan": {ip.ip for ip in [server.public_net.ipv4] if ip} | {ip for owner, ip in floating if owner == server.id},
                "created": server.created.timestamp()}
    return found


def linode_machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    linode_api4 = pytest.importorskip("linode_api4")
    client = linode_api4.LinodeClient(credentials["token"], base_url=f"{url}/v4", page_size=500, retry=False)
    volumes = [(volume.linode_id, volume.size) for volume in client.volumes()]
    vpcs = [(ip.linode_id, ip.address) for ip in client.vpcs.ips() if ip.active and ip.address]
    found: Machines = {}
    for linode in client.linode.instances(linode_api4.Instance.region == region):
        private = [ip for ip in linode.ipv4 if ip.startswith(("10.", "192.168.", "172.16."))]
        found[str(linode.id)] = {
            "name": linode.label, "cpu": linode.specs.vcpus, "memory": linode.specs.memory,
            "disk": linode.specs.disk // 1024 + sum(size for owner, size in volumes if owner == linode.id),
            "lan": private + [ip for owner, ip in vpcs if owner == linode.id], "wan": set(linode.ipv4) - set(private),
            "state": linode.status, "created": linode.created.replace(tzinfo=UTC).timestamp()}
    return found


def scaleway_machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    pytest.importorskip("scaleway")
    from scaleway import Client
    from scaleway.block.v1 import BlockV1API
    from scaleway.instance.v1 import InstanceV1API
    from scaleway.ipam.v1 import IpamV1API
    client = Client(api_url=url, access_key="SCWXXXXXXXXXXXXXXXXX", secret_key=credentials["token"])
    ips = IpamV1API(client).list_i_ps_all(region=region)
    found: Machines = {}
    for zone in [f"{region}-{n}" for n in (1, 2, 3)]:
        instances = InstanceV1API(client)
        types = instances.list_servers_types(zone=zone, per_page=100).servers
        volumes = {volume.id: volume.size for volume in BlockV1API(client).list_volumes_all(zone=zone, include_deleted=False)}
        for server in instances.list_servers_all(zone=zone):
            kind = types[server.commercial_type]
            found[server.id] = {
                "name": server.name, "cpu": kind.ncpus, "memory": kind.ram // 1024 ** 2,
                "disk": sum(v.size or volumes[v.id] for v in server.volumes.values()) // 10 ** 9, "state": str(server.state),
                "lan": [ip.address.partition("/")[0] for nic in server.private_nics for ip in ips if ip.resource.id == nic.id],
                "wan": {ip.address for ip in server.public_ips}, "created": server.creation_date.timestamp()}
    return found


def ibm_machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    ibm_vpc, core = pytest.importorskip("ibm_vpc"), pytest.importorskip("ibm_cloud_sdk_core")
    vpc = ibm_vpc.VpcV1(version="2024-11-12", authenticator=core.authenticators.IAMAuthenticator(credentials["token"], url=url))
    vpc.set_service_url(f"{url}/v1")
    sizes = {volume["id"]: volume["capacity"] for volume in _ibm_pages(vpc.list_volumes, "volumes")}
    floating = [(ip["target"]["id"], ip["address"]) for ip in _ibm_pages(vpc.list_floating_ips, "floating_ips") if "target" in ip]
    found: Machines = {}
    for row in _ibm_pages(vpc.list_instances, "instances"):
        primary = row["primary_network_interface"]["id"]
        nets = sorted(row["network_interfaces"], key=lambda net: net["id"] != primary)
        targets = {net["id"] for net in nets} | {net["virtual_network_interface"]["id"] for net in row["network_attachments"]}
        found[row["id"]] = {
            "name": row["name"], "cpu": row["vcpu"]["count"], "memory": row["memory"] * 1024, "state": row["status"],
            "disk": sum(sizes[one["volume"]["id"]] for one in row["volume_attachments"]),
            "lan": [net["primary_ip"]["address"] for net in nets], "wan": {ip for target, ip in floating if target in targets},
            "created": core.string_to_datetime(row["created_at"]).timestamp()}
    return found


def _ibm_pages(call: Callable[..., Any], key: str) -> list[dict[str, Any]]:
    """The loop that the SDK leaves to its user."""
    found: list[dict[str, Any]] = []
    start = None
    while True:
        page = call(limit=100, start=start).get_result()
        found += page[key]
        if "next" not in page:
            assert len(found) == page["total_count"]
            return found
        start = parse_qs(urlsplit(page["next"]["href"]).query)["start"][0]


SDKS = {"hetzner": hcloud_machines, "linode": linode_machines, "scaleway": scaleway_machines, "ibm": ibm_machines}


# ---------------------------------------------------------------- Apache Libcloud

def libcloud_driver(party: str, url: str, credentials: Mapping[str, str]) -> Any:
    pytest.importorskip("libcloud")
    from libcloud.compute.providers import get_driver
    from libcloud.compute.types import Provider
    provider, keys, more = {
        "digitalocean": (Provider.DIGITAL_OCEAN, ["token"], {"api_version": "v2"}),
        "linode": (Provider.LINODE, ["token"], {"api_version": "4.0"}),
        "vultr": (Provider.VULTR, ["token"], {"api_version": "2"}),
        "cloudscale": (Provider.CLOUDSCALE, ["token"], {}),
        "gridscale": (Provider.GRIDSCALE, ["user_uuid", "token"], {}),
    }[party]
    made = get_driver(provider)(*(credentials[key] for key in keys), **more)
    made.connection.secure = False
    made.connection.host, made.connection.port = "127.0.0.1", int(url.rpartition(":")[2])
    made.connection.connect()
    return made


def libcloud_machines(party: str) -> Callable[[str, Mapping[str, str], str], Machines]:
    """What the driver says: names and addresses; it has no processors, memory or disks."""
    def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
        made = libcloud_driver(party, url, credentials)
        nodes = made.list_nodes(ex_list_bare_metals=False) if party == "vultr" else made.list_nodes()
        return {str(node.id): {"name": node.name, "lan": node.private_ips, "wan": set(node.public_ips)} for node in nodes}

    return machines


LIBCLOUD = ("digitalocean", "linode", "vultr", "cloudscale", "gridscale")
MACHINES = {**{party: libcloud_machines(party) for party in LIBCLOUD}, **SDKS}


# ---------------------------------------------------------------- the same machines

def cloud_of(house: App, stack: Any, party: str, neighbour: bool = True, **more: object) -> tuple[Rest, dict[str, str]]:
    """A simulator with two regions, and the tenant's account there."""
    kind: bearer.Kind = getattr(bearer, party.upper())
    token = canaries.watch(str(uuid4())) if party == "scaleway" else canaries.secret(party)
    fleets = {CLOUDS[party].region: Fleet(SIZE, party)}
    if neighbour and party in NEIGHBOURS:
        fleets[NEIGHBOURS[party]] = Fleet(23, "neighbour")
    cloud = stack.enter_context(Rest(kind, token, fleets, limited=False))
    credentials = {"token": token, **({"user_uuid": WHAT["gridscale"]["credentials"]["user_uuid"]} if party == "gridscale" else {})}
    house.account(party, credentials, cloud.url, **more)        # type: ignore[arg-type]
    return cloud, credentials


def listed(house: App, party: str, **more: Any) -> many_sources.Answer:
    return many_sources.list_servers(house.deployment, many_sources.source_of("123", party, CLOUDS[party].region), **more)


@pytest.mark.parametrize("party", SDKS)
def test_the_sdk_and_we_list_the_same_machines(house: App, stack: Any, party: str) -> None:
    logging.getLogger("ibm-cloud-sdk-core").setLevel(logging.WARNING)
    cloud, credentials = cloud_of(house, stack, party)
    theirs = SDKS[party](cloud.url, credentials, CLOUDS[party].region)
    mine = listed(house, party)
    assert len(theirs) == mine.total == SIZE
    for server in mine.servers:
        other = theirs[server.id]
        assert (server.name, server.cpu, server.memory_mib, server.disk_gib) == (
            other["name"], other["cpu"], other["memory"], other["disk"]), server
        assert list(server.lan_ipv4) == other["lan"], server
        assert set(server.wan_ipv4) == other["wan"], server
        assert server.party_status == other["state"]
        assert server.created_at
        assert int(server.created_at.timestamp()) == int(other["created"])


@pytest.mark.parametrize("party", LIBCLOUD)
def test_libcloud_and_we_list_the_same_machines(house: App, stack: Any, party: str) -> None:
    """Its drivers read one list and no other: what else belongs to a machine is known to us alone."""
    cloud, credentials = cloud_of(house, stack, party, neighbour=False)
    theirs = libcloud_machines(party)(cloud.url, credentials, CLOUDS[party].region)
    mine = {server.id: server for server in listed(house, party).servers}
    assert len(mine) == SIZE
    assert len(theirs) > 100
    assert theirs.keys() <= mine.keys()
    for key, other in theirs.items():
        assert mine[key].name == other["name"]
        assert other["wan"] - {"0.0.0.0"} <= {*mine[key].wan_ipv4, *mine[key].wan_ipv6} | {"2600:3c03::f03c:91ff:fe24:3a2f"}
        assert {ip for ip in other["lan"] if ip} <= set(mine[key].lan_ipv4) | set(mine[key].wan_ipv4)
    if party != "digitalocean":             # whose driver does not know GPU Droplets
        assert theirs.keys() == mine.keys()


@pytest.mark.parametrize("party", sorted(WHAT.keys() & CLOUDS.keys()))
def test_a_wrong_token_is_refused_and_regions_are_the_partys(house: App, stack: Any, party: str) -> None:
    cloud, credentials = cloud_of(house, stack, party)
    for changed in (credentials["token"][:-1], credentials["token"] + "0", "x"):
        house.account(party, {**credentials, "token": changed}, cloud.url)
        with pytest.raises(many_sources.PartyDenied):
            listed(house, party)
    account = Account(tenant_id="1", party=party, credentials=credentials, endpoint=cloud.url)
    send = house.deployment.transport.sender(parties.load(party), account, CLOUDS[party].region, time.monotonic() + 9)
    codes = {region.code for region in parties.load(party).list_regions(account, send) if region.open}
    assert {CLOUDS[party].region, NEIGHBOURS.get(party, CLOUDS[party].region)} <= codes
    parties.load(party).check(Source("1", party, CLOUDS[party].region), account, send)
    assert all(parties.load(party).region(code) == code for code in codes)


def test_floating_ips_of_cloudscale_are_read_by_deep(house: App, stack: Any) -> None:
    cloud, _ = cloud_of(house, stack, "cloudscale", deep=True)
    deep = listed(house, "cloudscale")
    assert cloud.count("ListFloatingIps") == 1
    assert sum(
        any(ip.startswith("203.0.113.") for ip in server.wan_ipv4) for server in deep.servers) == -(-SIZE // 5)


def test_the_party_refuses_what_we_never_ask(stack: Any) -> None:
    """Page sizes and filters are held to as the real ones do."""
    for party, path, status in (
        ("digitalocean", "/v2/droplets?per_page=201", 400), ("hetzner", "/v1/servers?per_page=51", 400),
        ("hetzner", "/v1/servers?sort=name", 400), ("linode", "/v4/linode/instances?page_size=24", 400),
        ("linode", "/v4/linode/instances?page_size=501", 400), ("vultr", "/v2/instances?per_page=501", 400),
        ("vultr", "/v2/instances?cursor=made-up", 400), ("scaleway", "/instance/v1/zones/xx-yyy-1/servers", 400),
        ("scaleway", "/instance/v1/zones/fr-par-1/servers?per_page=101", 400), ("upcloud", "/1.3/server?limit=101", 400),
        ("upcloud", "/1.3/server/00000000-0000-4000-8000-000000000000", 404), ("cloudscale", "/v1/servers?page=2", 400),
        ("gridscale", "/objects/servers?limit=1", 400), ("ibm", "/v1/instances?generation=2", 400),
        ("ibm", "/v1/instances?version=2024-11-12&generation=2&limit=101", 400),
    ):
        cloud = stack.enter_context(Rest(getattr(bearer, party.upper()), "t", {CLOUDS[party].region: Fleet(1)}, limited=False))
        token = cloud.kind.issued("t")
        headers = {"Authorization": f"Bearer {token}", "X-Auth-Token": token,
                   "X-Auth-UserId": WHAT["gridscale"]["credentials"]["user_uuid"]}
        assert requests.get(cloud.url + path, headers=headers, timeout=9).status_code == status, (party, path)


# ---------------------------------------------------------------- the fixtures that ship with Libcloud

def fixture(name: str) -> Any:
    libcloud = pytest.importorskip("libcloud")
    return json.loads((Path(libcloud.__file__).parent / "test/compute/fixtures" / name).read_text())


def listed_from(party: str, region: str, answers: Mapping[str, Any], headers: Mapping[str, str] = {}) -> many_sources.Answer:
    """Our listing of these answers, by operation."""
    def send(operation: str, sign: Sign) -> Response:
        sign()
        return Response(200, headers, json.dumps(answers[operation]).encode())

    account = Account(tenant_id="1", party=party, credentials=WHAT[party]["credentials"])
    return parties.list_servers(Source("1", party, region), account, WHOLE, send)       # type: ignore[return-value]


def test_libclouds_fixtures_become_the_machines_that_they_show() -> None:
    none = {"meta": {"total": 0}}
    droplets = fixture("digitalocean_v2/list_nodes.json")
    found = listed_from("digitalocean", "sfo3", {
        "ListDroplets": droplets, "ListGpuDroplets": {"droplets": [], **none}, "ListVolumes": fixture(
            "digitalocean_v2/list_volumes_empty.json") | none, "ListReservedIps": {"reserved_ips": [], **none}}).servers
    assert [(s.name, s.cpu, s.memory_mib, s.disk_gib, s.lan_ipv4, s.wan_ipv4) for s in found] == [
        ("ubuntu-s-1vcpu-1gb-sfo3-01", 1, 1024, 25, ("10.124.0.2",), ("128.199.13.158",))]
    empty = {"data": [], "results": 0}
    linodes = fixture("linode_v4/list_nodes.json")
    found = listed_from("linode", "eu-west", {"ListLinodes": {**linodes, "results": len(linodes["data"])},
                                              "ListVolumes": empty, "ListVpcIps": empty,
                                              "ListVpcSlaacAddresses": empty}).servers
    assert (found[0].name, found[0].cpu, found[0].memory_mib, found[0].disk_gib, found[0].lan_ipv4, found[0].wan_ipv4) == (
        "test_2", 1, 1024, 25, ("192.168.1.230",), ("138.89.34.81",))
    instances = fixture("vultr_v2/list_nodes.json")
    here = [row for row in instances["instances"] if row["region"] == "fra"]
    volumes = fixture("vultr_v2/list_volumes.json")
    found = listed_from("vultr", "fra", {
        "ListInstances": {**instances, "instances": here, "meta": {"total": len(here), "links": {"next": "", "prev": ""}}},
        "ListBlocks": {**volumes, "meta": {"total": len(volumes["blocks"])}}, "ListReservedIps": {"reserved_ips": [], **none}}).servers
    assert (found[0].name, found[0].cpu, found[0].memory_mib, found[0].disk_gib, found[0].wan_ipv4, found[0].party_status) == (
        "test1", 1, 2048, 55, ("45.76.83.44",), "active running")
    grid = fixture("gridscale/list_nodes.json")
    found = listed_from("gridscale", "fra", {"ListServers": grid, "ListNetworks": {"networks": {}}}).servers
    row = next(iter(grid["servers"].values()))
    assert (found[0].name, found[0].cpu, found[0].memory_mib, found[0].disk_gib, found[0].wan_ipv4) == (
        row["name"], 2, 10 * 1024, 50, ("185.102.95.236",))
    cloudscale = [{**row, "zone": {"slug": "lpg1"}} for row in fixture("cloudscale/list_nodes.json")]      # older than zones
    found = listed_from("cloudscale", "lpg", {"ListServers": cloudscale, "ListRegions": [
        {"slug": "lpg", "zones": [{"slug": "lpg1"}]}]}).servers
    assert (found[0].name, found[0].cpu, found[0].memory_mib, found[0].disk_gib, found[0].wan_ipv4) == (
        "db-master", 2, 4096, 50, ("185.98.122.176",))


def test_uuids_of_the_stand_ins_are_uuids(stack: Any) -> None:
    machine = Fleet(3, "upcloud")[2]
    assert str(UUID(bearer._uuid(machine, 0))) == bearer._uuid(machine, 0)


def test_the_zones_of_scaleway_are_those_that_the_sdk_names() -> None:
    """No call lists them. A new one in the SDK must come into the table; those of a new region are asked for."""
    bridge = pytest.importorskip("scaleway_core.bridge")
    known = {f"{region}-{n}" for region, most in scaleway._ZONES.items() for n in range(1, most + 1)}
    assert set(bridge.ALL_ZONES) <= known
    assert set(bridge.ALL_REGIONS) <= scaleway._ZONES.keys()
