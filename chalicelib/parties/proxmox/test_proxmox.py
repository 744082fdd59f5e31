"""proxmoxer lists the same guests as we do, at the simulator and at fakepve, a fake of Proxmox VE 9 by others.

fakepve checks each call against Proxmox's own description of its API. It is under the AGPL and runs as a program of its
own.
"""

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cloud import api
from chalicelib.cloud.sender import Transport
from chalicelib.errors import InvalidParameter, PartyDenied, PartyUnavailable, UnknownRegion
from chalicelib.fleet import check, many_sources
from chalicelib.model import WHOLE, Window
from chalicelib.parties import proxmox
from chalicelib.parties.proxmox.simulator import READER, Proxmox, Pve
from chalicelib.route import Route
from chalicelib.simulators import tls
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App
from tests.verified import Machines, account, assert_same, reference

TOKEN = "twocloud@pve!read"
SIZE = 60


# ---------------------------------------------------------------- the judge

def machines(url: str, credentials: Mapping[str, str], region: str, folder: Path | None = None) -> Machines:
    """What proxmoxer says: each guest that is no template."""
    authorities = (folder / "simulators.pem").read_text() if folder else ""
    there = account("proxmox", url, credentials, route=Route(authorities))
    return reference("proxmox").list_servers(there, region)


def same(mine: many_sources.Answer, theirs: Machines) -> None:
    assert [server.id for server in mine.servers] == sorted(theirs, key=int)
    assert_same(mine.servers, theirs)


def without_addresses(guest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: set() if "_ipv" in name else value for name, value in guest.items()}


def put(app: App, url: str, secret: str, token: str = TOKEN, **more: Any) -> dict[str, str]:
    credentials = {"host": url, "token_id": token, "token_secret": secret}
    made = accounts.check("123", proxmox.PARTY, credentials, local=True, **{
        "project": None, "regions": (), "deep": False, "endpoint": None, **more})
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)
    return credentials


def listed(app: App, region: str = "cluster1", window: Window = WHOLE) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "proxmox", region), window)


# ---------------------------------------------------------------- at the simulator

def a_cluster(app: App, stack: ExitStack, size: int = SIZE, token: str = TOKEN, **more: Any,
              ) -> tuple[Proxmox, dict[str, str]]:
    secret = canaries.secret("proxmox")
    pve = Pve(**{"name": "cluster1", "tokens": {token: secret}, "acl": {token: {"/": READER}}, **more})
    cluster = stack.enter_context(Proxmox(Fleet(size, "proxmox"), pve))
    return cluster, put(app, cluster.url, secret, token)


@pytest.mark.parametrize("in_body", [False, True])
def test_proxmoxer_and_we_list_the_same_guests(app: App, stack: ExitStack, in_body: bool) -> None:
    """Machines and containers, templates, agents that do not answer, a guest that its node has not described."""
    cluster, credentials = a_cluster(app, stack, containers=True, templates=frozenset((3, 5)), in_body=in_body,
                                     silent=frozenset((6, 9)))
    mine = listed(app)
    same(mine, machines(cluster.url, credentials, "cluster1"))
    assert mine.total == SIZE - 2
    assert Counter(server.instance_type for server in mine.servers) == {"qemu": 39, "lxc": 19}
    assert len([server for server in mine.servers if server.lan_ipv4]) > 40


def test_an_offline_node_costs_its_guests_their_values_and_no_more(app: App, stack: ExitStack) -> None:
    cluster, credentials = a_cluster(app, stack, offline=frozenset(("pve2",)))
    mine = listed(app)
    assert not any("/pve2/" in call.path for call in cluster.calls)
    same(mine, machines(cluster.url, credentials, "cluster1"))
    lost = [server for server in mine.servers if server.zone == "pve2"]
    assert 10 < len(lost) < 30
    assert {(server.status, server.cpu, server.memory_mib, server.disk_gib, server.name) for server in lost} == {
        ("UNKNOWN", None, None, None, "")}
    assert all(server.tags or server.project_id for server in lost)


def test_a_node_that_goes_offline_meanwhile(app: App, stack: ExitStack) -> None:
    cluster, _ = a_cluster(app, stack)

    def fall() -> None:
        if cluster.count("GetConfig") == 5:
            cluster.pve = replace(cluster.pve, offline=frozenset(("pve1",)))

    cluster.between = fall
    mine = listed(app)
    assert mine.total == SIZE
    assert {server.status for server in mine.servers if server.zone == "pve1"} == {"UNKNOWN"}
    cluster.between = None
    cluster.pve = replace(cluster.pve, offline=frozenset())
    cluster.plans.clear()
    assert "UNKNOWN" not in {server.status for server in listed(app).servers}


def test_the_calls(app: App, stack: ExitStack) -> None:
    """A window reads its own guests alone; machines that are off and containers that are off have nobody to ask."""
    cluster, _ = a_cluster(app, stack)
    assert listed(app, window=Window(11, 20)).total == SIZE
    running = [n for n in range(10, 20) if cluster.fleet[n].state == "running"]
    assert Counter(call.operation for call in cluster.calls) == {
        "ListResources": 1, "GetClusterStatus": 1, "GetConfig": 10, "GetAgentInterfaces": len(running)}
    cluster.forget()
    assert listed(app, window=Window(SIZE + 1, SIZE + 9)).servers == []
    assert cluster.count() == 2


def test_at_most_eight_calls_at_once(app: App, stack: ExitStack) -> None:
    cluster, _ = a_cluster(app, stack)
    cluster.latency = 0.02
    under_way, most, answer = Counter[str](), [0], cluster.answer

    def counted(call: Any) -> Any:
        under_way["calls"] += 1
        most.append(under_way["calls"])
        time.sleep(0.01)
        under_way["calls"] -= 1
        return answer(call)

    cluster.answer = counted                # type: ignore[method-assign]
    listed(app)
    assert 2 <= max(most) <= 8


def test_a_node_alone_is_called_default(app: App, stack: ExitStack) -> None:
    cluster, credentials = a_cluster(app, stack, name="")
    same(listed(app, "default"), machines(cluster.url, credentials, "default"))
    with pytest.raises(UnknownRegion):
        listed(app, "cluster1")


@pytest.mark.parametrize(("held", "text"), [
    ({}, "Forbidden.Sys.Audit"),
    ({"/": ("Sys.Audit",)}, "missing right: VM.Audit"),
    ({"/": ("Sys.Audit",), "/vms": ("VM.PowerMgmt",)}, "missing right: VM.Audit"),
    ({"/": ("Sys.Audit", "VM.Audit")}, "Forbidden.VM.GuestAgent.Audit")])
def test_a_token_without_rights_is_denied(app: App, stack: ExitStack, held: dict[str, tuple[str, ...]],
                                          text: str) -> None:
    """Never an empty list, also where Proxmox answers one."""
    a_cluster(app, stack, acl={TOKEN: held})
    with pytest.raises(PartyDenied, match=re.escape(text)):
        listed(app)
    if "VM.Audit" not in held.get("/", ()):
        with pytest.raises(PartyDenied):
            check.check_account(app.deployment, "123", "proxmox")


def test_pools_are_projects(app: App, stack: ExitStack) -> None:
    """A token may see a pool alone; it is then the account's whole list, and --project the same."""
    rights = {"/": ("Sys.Audit",), "/pool/pool0": ("VM.Audit", "VM.GuestAgent.Audit", "Pool.Audit")}
    cluster, credentials = a_cluster(app, stack, acl={TOKEN: rights})
    own = [str(100 + n) for n in range(SIZE) if cluster.fleet[n].project == 0]
    assert [server.id for server in listed(app).servers] == own
    put(app, cluster.url, credentials["token_secret"], project="pool0")
    assert [server.id for server in listed(app).servers] == own
    assert check.check_account(app.deployment, "123", "proxmox") == "default"
    put(app, cluster.url, credentials["token_secret"], project="pool1002189")
    with pytest.raises(PartyDenied, match=r"Pool\.Audit"):
        listed(app)
    cluster.pve = replace(cluster.pve, acl={TOKEN: {"/": READER}})
    assert listed(app).total == SIZE - len(own)


def test_wrong_tokens_check_and_regions(app: App, stack: ExitStack) -> None:
    cluster, credentials = a_cluster(app, stack, 3)
    assert check.check_account(app.deployment, "123", "proxmox") == "default"
    account = accounts.load(app.deployment.store, app.deployment.sealer, "123", "proxmox", local=True)
    send = app.deployment.transport.sender(proxmox.PARTY, account, "default", time.monotonic() + 9)
    assert [region.code for region in parties.list_regions(account, send)] == ["cluster1"]
    put(app, cluster.url, credentials["token_secret"], regions=("other",))
    with pytest.raises(UnknownRegion):
        check.check_account(app.deployment, "123", "proxmox")
    for token, secret in ((TOKEN, canaries.secret("wrong")), ("twocloud@pve!other", credentials["token_secret"])):
        put(app, cluster.url, secret, token)
        with pytest.raises(PartyDenied, match="wrong key"):
            listed(app)


def test_the_forms_of_credentials() -> None:
    def checked(local: bool = False, **fields: str) -> Mapping[str, str]:
        credentials = {"host": "pve.example.com", "token_id": TOKEN, "token_secret": "x", **fields}
        return accounts.check("123", proxmox.PARTY, credentials, project=None, regions=(), deep=False, endpoint=None,
                              local=local).credentials

    for host in ("pve.example.com", "pve", "192.0.2.1:443", "[2001:db8::1]", "[2001:db8::1]:8006", "https://pve:443/x"):
        assert checked(host=host)["host"] == host
    assert checked(local=True, host="http://127.0.0.1:1")
    for wrong in ({"host": "http://127.0.0.1"}, {"host": "http://pve.example.com"}, {"host": "user@pve"},
                  {"host": "pve?x"}, {"host": "pve:99999"}, {"host": "[::1"}, {"host": "ftp://pve"}, {"host": "/"},
                  {"token_id": "root@pam"}, {"token_id": "root!x"}, {"token_id": "a@pam!b=c"}, {"token_secret": "a b"},
                  {"password": "x"}):
        with pytest.raises(InvalidParameter):
            checked(**wrong)


@pytest.mark.parametrize(("host", "url"), [
    ("pve", "https://pve:8006/api2/json/version"), ("pve:443", "https://pve:443/api2/json/version"),
    ("[2001:db8::1]", "https://[2001:db8::1]:8006/api2/json/version"),
    ("https://pve", "https://pve/api2/json/version"), ("https://pve/x/", "https://pve/x/api2/json/version"),
    ("pve/x", "https://pve:8006/x/api2/json/version")])
def test_a_name_means_proxmoxs_port_and_a_url_what_it_says(host: str, url: str) -> None:
    assert f"{api.base_url(host, 8006)}/api2/json/version" == url


@pytest.mark.parametrize(("path", "status"), [
    ("/cluster/resources?type=vms", 400), ("/cluster/resources?limit=1", 400), ("/nodes/pve1/qemu/99/config", 500),
    ("/cluster/nothing", 501), ("/nodes/pve9/qemu/100/config", 500), ("/version", 200)])
def test_the_simulator_refuses_what_we_never_ask(app: App, stack: ExitStack, path: str, status: int) -> None:
    cluster, credentials = a_cluster(app, stack, 3)
    answer = requests.get(f"{cluster.url}/api2/json{path}", timeout=9, headers={
        "Authorization": f"PVEAPIToken={TOKEN}={credentials['token_secret']}"})
    assert answer.status_code == status
    assert "message" not in answer.text


# ---------------------------------------------------------------- at fakepve

FAKE = """
import asyncio, json, sys
from fakepve import FakePve

async def serve(told):
    pve = FakePve(host="127.0.0.1", port=0)
    pve.cluster_name, pve.apitokens, pve.acl = told["name"], told["tokens"], told["acl"]
    for node, online in told["nodes"].items():
        pve.add_node(node, online=online)
    for guest in told["guests"]:
        add, later = (pve.add_ct if guest.pop("type") == "lxc" else pve.add_vm), guest.pop("later")
        made = add(guest.pop("vmid"), guest.pop("name"), **guest)
        for name, value in later.items():
            setattr(made, name, value)
    await pve.start(told["pem"], told["key"])
    print(pve.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(serve(json.loads(sys.stdin.readline())))
"""


@contextmanager
def fakepve(folder: Path, **settings: Any) -> Generator[str]:
    """Its address, behind TLS with an authority of its own; it ends with the block."""
    if find_spec("fakepve") is None:
        pytest.skip("not on this machine: fakepve")
    pem, key = tls.certificate(folder)
    with subprocess.Popen([sys.executable, "-c", FAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          cwd=folder) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(msgspec.json.encode({**settings, "pem": str(pem), "key": str(key)}).decode() + "\n")
            process.stdin.flush()
            yield f"https://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(20)


MAC = "BC:24:11:00:00:{:02X}"


def guests() -> list[dict[str, Any]]:
    """Twenty, on two nodes: machines with an agent, with one that hangs, without one, off; containers; a template."""
    made: list[dict[str, Any]] = []
    for n in range(20):
        lxc, vmid = n % 4 == 3, 990 + n
        config = {"rootfs": f"local-lvm:vm-{vmid}-disk-0,size={4 + n}G", "hostname": f"ct{n}", "cores": 2,
                  "net0": f"name=eth0,bridge=vmbr0,hwaddr={MAC.format(n)},ip=10.0.1.{n + 1}/24",
                  "memory": 512 * n + 512} if lxc else {
            "scsi0": f"local-lvm:vm-{vmid}-disk-0,size={8 + n}G", "virtio1": f"local-lvm:vm-{vmid}-disk-1,size=100G",
            "ide2": "none,media=cdrom", "cores": 1 + n % 3, "sockets": 1 + n % 2, "memory": str(1024 * (n + 1)),
            "net0": f"virtio={MAC.format(n)},bridge=vmbr0", "agent": "1" if n % 5 else "0",
            "meta": f"creation-qemu=9.0.2,ctime={1_700_000_000 + n}"}
        agent = {"interfaces": [
            {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [
                {"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
            {"name": "eth0", "hardware-address": MAC.format(n).lower(), "ip-addresses": [
                {"ip-address": f"10.0.0.{n + 1}", "ip-address-type": "ipv4", "prefix": 24},
                {"ip-address": f"203.0.114.{n + 1}", "ip-address-type": "ipv4", "prefix": 24}]}]}
        later: dict[str, Any] = {} if lxc or not n % 5 else {"agent": agent, "agent_hangs": n == 6}
        made.append({"vmid": vmid, "type": "lxc" if lxc else "qemu", "name": f"vm{n}", "node": f"pve{1 + n % 2}",
                     "status": "stopped" if n in (2, 7, 17) else "running", "config": config, "template": n == 17,
                     "later": later})
    return made


@contextmanager
def at_fakepve(app: App, folder: Path, online: bool = True, privileges: tuple[str, ...] = READER,
               ) -> Generator[tuple[str, dict[str, str]]]:
    secret = canaries.secret("fakepve")
    with fakepve(folder, name="lab", tokens={TOKEN: secret}, guests=guests(), acl={TOKEN: [["/", privileges]]},
                 nodes={"pve1": True, "pve2": online}) as url:
        app.deployment.transport.adapter = Transport(str(folder / "simulators.pem")).adapter
        yield url, put(app, url, secret)


def test_proxmoxer_and_we_list_the_same_guests_of_fakepve(app: App, tmp_path: Path) -> None:
    """Each of our calls passes the checks of Proxmox's own description: paths, parameters, rights."""
    with at_fakepve(app, tmp_path) as (url, credentials):
        mine, theirs = listed(app, "lab"), machines(url, credentials, "lab", tmp_path)
        assert [server.id for server in listed(app, "lab", Window(3, 4)).servers] == ["992", "993"]
        assert check.check_account(app.deployment, "123", "proxmox") == "default"
    addresses = {server.id: (server.lan_ipv4, server.wan_ipv4) for server in mine.servers}
    assert addresses["991"] == (("10.0.0.2",), ("203.0.114.2",))
    assert addresses["996"] == addresses["990"] == ((), ())     # its agent hangs; it has none
    assert addresses["997"] == (("10.0.1.8",), ())              # a container that is off
    assert mine.total == 19
    same(mine, {key: without_addresses(guest) if key in ("990",) else guest for key, guest in theirs.items()})


def test_an_offline_node_of_fakepve(app: App, tmp_path: Path) -> None:
    """Of a node that is gone, fakepve still says names and sizes; a real cluster soon forgets these."""
    with at_fakepve(app, tmp_path, online=False) as (url, credentials):
        mine, theirs = listed(app, "lab"), machines(url, credentials, "lab", tmp_path)
    assert {(server.zone, server.status == "UNKNOWN") for server in mine.servers} == {("pve1", False), ("pve2", True)}
    same(mine, {key: without_addresses(guest) if guest["zone"] == "pve2" or key == "990" else guest
                for key, guest in theirs.items()})


@pytest.mark.sample(3)
@pytest.mark.parametrize(("held", "text"), [
    (("Sys.Audit",), "missing right: VM.Audit"), (("VM.Audit", "Sys.Audit"), "Forbidden.VM.GuestAgent.Audit")])
def test_fakepve_denies_what_a_right_is_missing_for(app: App, tmp_path: Path, held: tuple[str, ...],
                                                    text: str) -> None:
    with at_fakepve(app, tmp_path, privileges=held) as (url, _):
        with pytest.raises(PartyDenied, match=re.escape(text)):
            listed(app, "lab")
        put(app, url, canaries.secret("wrong"))
        with pytest.raises(PartyDenied, match="wrong key"):
            listed(app, "lab")


def test_a_certificate_of_the_clusters_own_authority_is_not_believed(app: App, tmp_path: Path) -> None:
    with at_fakepve(app, tmp_path):
        app.deployment.transport.adapter = Transport().adapter
        with pytest.raises(PartyUnavailable, match="certificate"):
            listed(app, "lab")
