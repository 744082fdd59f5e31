"""pyVmomi, VMware's own SDK, lists the machines of a datacenter, for `twocloud verify` and the tests."""

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pyVmomi
from pyVmomi import vim, vmodl

from ...model import Account
from . import region_of, unescaped

PACKAGES = ("pyvmomi",)
_OLDEST = "6.7"                             # the first that tells when a machine was made
_PATHS = ("name", "config.template", "config.instanceUuid", "config.hardware.numCPU", "config.hardware.memoryMB",
          "config.hardware.device", "config.modified", "config.createDate", "guest.net", "guest.ipAddress",
          "runtime.powerState")
_EPOCH = 1970                               # the year of a time that the server does not know


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Each machine that is no template."""
    fields = account.credentials
    host = account.endpoint or fields["host"]
    there = urlsplit(host if "//" in host else f"https://{host}")
    trusted = ssl.create_default_context(cadata=account.route.authorities or None) if there.scheme == "https" else None

    def connected(version: str) -> tuple[Any, Any]:
        stub = pyVmomi.SoapStubAdapter(
            there.hostname, (there.port or 443) * (1 if trusted else -1), path="/sdk",     # a negative port is http
            version=pyVmomi.VmomiSupport.GetVersionFromVersionUri(f"urn:vim25/{version}"), sslContext=trusted)
        return stub, vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()

    stub, content = connected(connected(_OLDEST)[1].about.apiVersion)
    content.sessionManager.Login(fields["username"], fields["password"])
    try:
        centers = _rows(content, vim.Datacenter, content.rootFolder, ["name"])
        center = next(key for key, row in centers.items() if region_of(unescaped(row["name"])) == region)
        rows = _rows(content, vim.VirtualMachine, vim.Datacenter(center, stub), _PATHS)
    finally:
        content.sessionManager.Logout()
    return {row.get("config.instanceUuid") or key: _machine(row) for key, row in rows.items()
            if not row.get("config.template")}


def _rows(content: Any, kind: Any, below: Any, paths: Any) -> dict[str, dict[str, Any]]:
    pc = vmodl.query.PropertyCollector
    view = content.viewManager.CreateContainerView(below, [kind], True)
    walk = pc.TraversalSpec(name="view", path="view", skip=False, type=type(view))
    spec = pc.FilterSpec(objectSet=[pc.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
                         propSet=[pc.PropertySpec(type=kind, pathSet=list(paths))])
    rows, token = dict[str, dict[str, Any]](), None
    while True:
        page = content.propertyCollector.ContinueRetrievePropertiesEx(token) if token else (
            content.propertyCollector.RetrievePropertiesEx([spec], pc.RetrieveOptions(maxObjects=100)))
        for row in page.objects if page else ():
            rows[row.obj._moId] = {each.name: each.val for each in row.propSet}
        token = page and page.token
        if not token:
            return rows


def _machine(row: Mapping[str, Any]) -> dict[str, Any]:
    devices, updated = row.get("config.hardware.device"), row.get("config.modified")
    disks = [device.capacityInBytes or device.capacityInKB * 1024 for device in devices or ()
             if isinstance(device, vim.vm.device.VirtualDisk)]
    nets = sorted(row.get("guest.net") or (), key=lambda net: net.deviceConfigId == -1)      # of no card last
    texts = dict.fromkeys(filter(None, [row.get("guest.ipAddress"), *(ip for net in nets for ip in net.ipAddress)]))
    ips = [ip for ip in map(ip_address, texts) if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)]
    return {"name": unescaped(row["name"]), "cpu": row.get("config.hardware.numCPU"),
            "memory_mib": row.get("config.hardware.memoryMB"),
            "disk_gib": None if devices is None else -(-sum(disks) // 2 ** 30),
            "party_status": row["runtime.powerState"], "created_at": row.get("config.createDate"),
            "updated_at": None if updated is None or updated.year == _EPOCH else updated,
            **{f"{side}_ipv{version}": [str(ip) for ip in ips if ip.version == version and ip.is_global == public]
               for side, public in (("lan", False), ("wan", True)) for version in (4, 6)}}
