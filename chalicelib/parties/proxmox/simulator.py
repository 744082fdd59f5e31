"""A simulator for the API of a Proxmox VE cluster: guests, the cluster's state, configurations, addresses, rights.

Checked as the real one does: the token and its secret, each privilege on each path (a guest that the token may not
audit is left out in silence, `pool` where it may not audit the pool), parameters, on which node a guest is. The text of
an error stands in the first line of the answer. An offline node leaves its guests without names and sizes, and calls to
it end in 595.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ...simulators.cloud import Cloud
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator

_NODES = ("pve1", "pve2", "pve3")
_STATES = {"running": "running", "stopped": "stopped", "starting": "prelaunch", "stopping": "paused",
           "pending": "prelaunch", "terminated": "stopped"}
_BUSES = ("scsi", "virtio", "sata")
READER = ("VM.Audit", "VM.GuestAgent.Audit", "Pool.Audit", "Sys.Audit")
_CALLS = {                                  # operation -> (path, parameters)
    "ListResources": ("/cluster/resources", "type"),
    "GetClusterStatus": ("/cluster/status", ""),
    "GetPermissions": ("/access/permissions", "path userid"),
    "GetVersion": ("/version", ""),
    "ListNodes": ("/nodes", ""),
    "GetConfig": ("/nodes/([^/]+)/(qemu|lxc)/([0-9]+)/config", "current snapshot"),
    "GetAgentInterfaces": ("/nodes/([^/]+)/(qemu)/([0-9]+)/agent/network-get-interfaces", ""),
    "ListInterfaces": ("/nodes/([^/]+)/(lxc)/([0-9]+)/interfaces", ""),
}


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)


@dataclass(frozen=True, slots=True)
class Pve:
    """What a cluster is, beside its machines. `name`: "" is a node alone. `offline`: nodes. `tokens`: id -> secret.
    `acl`: token's id -> path -> privileges. `containers`: every third machine is one. `templates`: numbers of machines
    that are. `silent`: numbers whose agents do not answer. `fresh`: numbers that their nodes have not described."""

    name: str = "default"
    offline: frozenset[str] = frozenset()
    tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    acl: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict[str, Mapping[str, tuple[str, ...]]])
    containers: bool = False
    templates: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    fresh: frozenset[int] = frozenset()
    in_body: bool = False                   # the text of an error stands in the body too


class Proxmox(Simulator):
    def __init__(self, fleet: Fleet, pve: Pve, *, port: int = 0, latency: float = 0.0) -> None:
        self.fleet = fleet
        self.pve = pve
        self.kept: dict[str, dict[int, Machine]] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        path = call.path.removeprefix("/api2/json")
        return next((name for name, (form, _) in _CALLS.items() if re.fullmatch(form, path)), "?")

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json;charset=UTF-8", "Server": "pve-api-daemon/3.0"}
        try:
            return Answer(200, headers, msgspec.json.encode({"data": self._answer(call)}), "OK")
        except _Refused as refused:
            status, reason = refused.args
            if status == 595:
                return Answer(status, headers, b"", reason)
            message = {"message": f"{reason}\n"} if self.pve.in_body else {}
            return Answer(status, headers, msgspec.json.encode({"data": None, **message}), reason)

    def _answer(self, call: Call) -> object:
        token = self._token(call)
        form, words = _CALLS.get(call.operation, ("", ""))
        if not form or call.method != "GET" or not call.path.startswith("/api2/json/"):
            raise _Refused(501, f"Method '{call.method} {call.path.removeprefix('/api2/json')}' not implemented")
        query = parse_qsl(call.query, keep_blank_values=True)
        if len(dict(query)) < len(query) or dict(query).keys() - set(words.split()):
            raise _Refused(400, "Parameter verification failed.")
        place = re.fullmatch(form, call.path.removeprefix("/api2/json"))
        if place and place.groups():
            return self._of_guest(call.operation, token, *place.groups())
        return getattr(self, f"_{call.operation}")(token, dict(query))

    def _token(self, call: Call) -> str:
        match = re.fullmatch(r"PVEAPIToken=([^=]+)=(.+)", call.headers.get("authorization", ""))
        if not match:
            raise _Refused(401, "No ticket")
        if self.pve.tokens.get(match[1]) is None:
            user, _, name = match[1].partition("!")
            raise _Refused(401, f"no such token '{name}' for user '{user}'")
        if self.pve.tokens[match[1]] != match[2]:
            raise _Refused(401, "invalid token value!")
        return match[1]

    # ---------------------------------------------------------------- rights

    def _may(self, token: str, right: str, *paths: str) -> bool:
        return any(right in rights for path in paths for place, rights in self.pve.acl.get(token, {}).items()
                   if place in ("/", path) or path.startswith(f"{place}/"))

    def _demand(self, token: str, right: str, path: str, *more: str) -> None:
        if not self._may(token, right, path, *more):
            raise _Refused(403, f"Permission check failed ({path}, {right})")

    def _GetPermissions(self, token: str, query: Mapping[str, str]) -> object:
        held = self.pve.acl.get(token, {})
        places = [query["path"]] if "path" in query else [*held, "/", "/access", "/nodes", "/pool", "/vms"]
        rights = {place: {right: 1 for path, own in held.items()
                          if path in ("/", place) or place.startswith(f"{path}/") for right in own} for place in places}
        return {place: own for place, own in rights.items() if own}

    # ---------------------------------------------------------------- the cluster

    def _GetVersion(self, token: str, query: Mapping[str, str]) -> object:
        return {"version": "9.0.10", "release": "9.0", "repoid": "deadbeef"}

    def _GetClusterStatus(self, token: str, query: Mapping[str, str]) -> object:
        self._demand(token, "Sys.Audit", "/")
        nodes = _NODES if self.pve.name else _NODES[:1]
        rows: list[dict[str, Any]] = [
            {"type": "node", "id": f"node/{node}", "name": node, "nodeid": n, "ip": f"10.9.0.{n}", "level": "",
             "local": int(n == 1), "online": int(node not in self.pve.offline)} for n, node in enumerate(nodes, 1)]
        cluster = {"type": "cluster", "id": "cluster", "name": self.pve.name, "nodes": len(nodes), "quorate": 1,
                   "version": 3}
        return [cluster, *rows] if self.pve.name else rows

    def _ListNodes(self, token: str, query: Mapping[str, str]) -> object:
        nodes = _NODES if self.pve.name else _NODES[:1]
        return [{"node": node, "id": f"node/{node}", "type": "node", "level": "",
                 "status": "offline" if node in self.pve.offline else "online"} for node in nodes]

    def _ListResources(self, token: str, query: Mapping[str, str]) -> object:
        if query.get("type", "vm") not in ("vm", "storage", "node", "sdn"):
            raise _Refused(400, "Parameter verification failed.")
        machines = [self.fleet[n] for n in range(len(self.fleet))]
        rows = [self._row(token, machine) for machine in machines
                if self._may(token, "VM.Audit", f"/vms/{vmid_of(machine)}", f"/pool/{pool_of(machine)}")]
        return sorted(rows, key=lambda row: str(row["vmid"]))                   # as texts

    def _row(self, token: str, machine: Machine) -> dict[str, Any]:
        node, kind, vmid = self.node_of(machine), self.kind_of(machine), vmid_of(machine)
        row: dict[str, Any] = {"id": f"{kind}/{vmid}", "vmid": vmid, "node": node, "type": kind, "status": "unknown"}
        if node not in self.pve.offline and machine.number not in self.pve.fresh:
            status = _STATES[machine.state]
            row |= {"name": machine.name, "status": "stopped" if kind == "lxc" and status != "running" else status,
                    "template": int(machine.number in self.pve.templates), "maxcpu": machine.cpu, "cpu": 0.02,
                    "maxmem": machine.memory_gib * 1024 ** 3, "mem": 0, "maxdisk": machine.disks[0] * 1024 ** 3,
                    "disk": 0, "uptime": 0, "netin": 0, "netout": 0, "diskread": 0, "diskwrite": 0}
        if machine.tags:
            row["tags"] = ";".join(sorted(machine.tags.values()))
        if self._may(token, "Pool.Audit", f"/pool/{pool_of(machine)}"):
            row["pool"] = pool_of(machine)
        return row

    def node_of(self, machine: Machine) -> str:
        return _NODES[machine.zone - 1] if self.pve.name else _NODES[0]

    def kind_of(self, machine: Machine) -> str:
        return "lxc" if self.pve.containers and machine.number % 3 == 2 else "qemu"

    # ---------------------------------------------------------------- one guest

    def _of_guest(self, operation: str, token: str, node: str, kind: str, vmid: str) -> object:
        if not self.kept:
            self.kept["machines"] = {vmid_of(self.fleet[n]): self.fleet[n] for n in range(len(self.fleet))}
        machine = self.kept["machines"].get(int(vmid))
        right = "VM.GuestAgent.Audit" if operation == "GetAgentInterfaces" else "VM.Audit"
        self._demand(token, right, f"/vms/{vmid}", *([f"/pool/{pool_of(machine)}"] if machine else []))
        if node not in _NODES:
            raise _Refused(500, f"hostname lookup '{node}' failed - failed to get address info for: {node}")
        if node in self.pve.offline:
            raise _Refused(595, "No route to host")
        if machine is None or (self.node_of(machine), self.kind_of(machine)) != (node, kind):
            folder = "qemu-server" if kind == "qemu" else kind
            raise _Refused(500, f"Configuration file 'nodes/{node}/{folder}/{vmid}.conf' does not exist")
        if operation == "GetConfig":
            return self._config(machine)
        if machine.state != "running":
            raise _Refused(500, f"VM {vmid} is not running" if kind == "qemu" else f"CT {vmid} not running")
        if kind == "lxc":
            return _of_container(machine)
        if machine.number in self.pve.silent:
            raise _Refused(500, "QEMU guest agent is not running")
        return {"result": _of_agent(machine)}

    def _config(self, machine: Machine) -> dict[str, Any]:
        vmid, template = vmid_of(machine), {"template": 1} if machine.number in self.pve.templates else {}
        nets = range(len(machine.lan) + len(machine.wan))
        if self.kind_of(machine) == "lxc":
            disks = {f"mp{n - 1}" if n else "rootfs": f"local-lvm:vm-{vmid}-disk-{n},{f'mp=/srv/{n},' * bool(n)}"
                     f"size={size}G" for n, size in enumerate(machine.disks)}
            fixed = {f"net{n}": f"name=eth{n},bridge=vmbr0,hwaddr={mac_of(machine, n)},"
                     f"ip={(machine.lan + machine.wan)[n]}/24,type=veth" for n in nets}
            return {"hostname": machine.name, "cores": machine.cpu, "memory": machine.memory_gib * 1024,
                    "arch": "amd64", "ostype": "debian", "digest": "0" * 40, "swap": 512,
                    "mp9": "/tank/shared,mp=/mnt", **disks, **template, **fixed}
        disks = {f"{_BUSES[n % 3]}{n}": f"local-lvm:vm-{vmid}-disk-{n},iothread=1,size={size}G"
                 for n, size in enumerate(machine.disks)}
        return {"name": machine.name, "cores": machine.cpu, "sockets": 1, "memory": str(machine.memory_gib * 1024),
                "agent": "1,fstrim_cloned_disks=1", "ostype": "l26", "boot": "order=scsi0", "scsihw": "virtio-scsi-pci",
                "digest": "0" * 40, "vmgenid": "0" * 8, "meta": f"creation-qemu=9.0.2,ctime={machine.created:%s}",
                "ide2": "none,media=cdrom", "ide0": f"local-lvm:vm-{vmid}-cloudinit,media=cdrom,size=4M",
                "unused0": f"local-lvm:vm-{vmid}-disk-9", **disks, **template,
                **{f"net{n}": f"virtio={mac_of(machine, n)},bridge=vmbr0,firewall=1" for n in nets}}


def _of_agent(machine: Machine) -> list[dict[str, Any]]:
    """A bridge of a container engine, the loopback, then the interfaces that the configuration names."""
    def one(name: str, mac: str, *ips: tuple[str, str, int]) -> dict[str, Any]:
        return {"name": name, "hardware-address": mac, "ip-addresses": [
            {"ip-address": ip, "ip-address-type": kind, "prefix": prefix} for ip, kind, prefix in ips]}

    return [one("lo", "00:00:00:00:00:00", ("127.0.0.1", "ipv4", 8), ("::1", "ipv6", 128)),
            *(one(f"eth{n}", mac_of(machine, n).lower(), (ip, "ipv4", 24), ("fe80::1", "ipv6", 64))
              for n, ip in enumerate(machine.lan + machine.wan)),
            {"name": "tun0", "hardware-address": ""}]


def _of_container(machine: Machine) -> list[dict[str, Any]]:
    return [{"name": "lo", "hwaddr": "00:00:00:00:00:00", "hardware-address": "00:00:00:00:00:00",
             "inet": "127.0.0.1/8", "inet6": "::1/128"},
            *({"name": f"eth{n}", "hwaddr": mac_of(machine, n).lower(), "hardware-address": mac_of(machine, n).lower(),
               "inet": f"{ip}/24"} for n, ip in enumerate(machine.lan + machine.wan))]


def vmid_of(machine: Machine) -> int:
    return 100 + machine.number


def pool_of(machine: Machine) -> str:
    return f"pool{machine.project}"


def mac_of(machine: Machine, n: int) -> str:
    return f"BC:24:11:{machine.number // 256 % 256:02X}:{machine.number % 256:02X}:{n:02X}"


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    ((name, fleet),) = fleets.items()
    token = "twocloud@pve!read"
    made = Proxmox(fleet, Pve(name="" if name == "default" else name, tokens={token: secret},
                              acl={token: {"/": READER}}), latency=latency)
    return made, {"host": made.url, "token_id": token, "token_secret": secret}


CLOUDS = {"proxmox": Cloud("cluster1", start)}
