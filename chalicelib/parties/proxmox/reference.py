"""proxmoxer lists the guests of a cluster, for `twocloud verify` and the tests. Proxmox has no client of its own in
Python; this one is the one that its users take."""

import re
import tempfile
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import proxmoxer

from ...model import Account

PACKAGES = ("proxmoxer", "requests")
_PORT = 8006
_UNREACHABLE, _NO_AGENT = 595, 500          # HTTP statuses: the guest's node, its agent


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """Each guest that is no template. The region is the cluster, so all of them."""
    fields = account.credentials
    host = account.endpoint or fields["host"]
    url = urlsplit(host if "//" in host else f"https://{host}")
    user, _, name = fields["token_id"].partition("!")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(account.route.authorities)
        file.flush()
        cluster: Any = proxmoxer.ProxmoxAPI(
            url.hostname, port=url.port or _PORT, user=user, token_name=name, token_value=fields["token_secret"],
            verify_ssl=file.name if account.route.authorities else True, timeout=30)
        if url.scheme == "http":            # it knows https alone
            cluster._store["base_url"] = f"http://{url.netloc}/api2/json"
        return {str(row["vmid"]): {
            "name": row.get("name", ""), "cpu": row.get("maxcpu"), "party_status": row["status"], "zone": row["node"],
            "memory_mib": row["maxmem"] // 2 ** 20 if "maxmem" in row else None, "instance_type": row["type"],
            **_detail(cluster, row)} for row in cluster.cluster.resources.get(type="vm") if not row.get("template")}


def _detail(cluster: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    guest = getattr(cluster.nodes(row["node"]), row["type"])(row["vmid"])
    try:
        config = guest.config.get(current=1)
    except proxmoxer.ResourceException as refused:
        if refused.status_code != _UNREACHABLE:
            raise
        return {"disk_gib": None, **addresses(set())}
    try:
        interfaces = guest.agent("network-get-interfaces").get()["result"] if row["type"] == "qemu" else (
            guest.interfaces.get()) or []
    except proxmoxer.ResourceException as refused:
        if refused.status_code != _NO_AGENT:
            raise
        interfaces = []
    ips = {ip["ip-address"] for one in interfaces for ip in one.get("ip-addresses", ())}
    ips |= {one[kind].partition("/")[0] for one in interfaces for kind in ("inet", "inet6") if kind in one}
    if row["type"] == "lxc" and row["status"] == "stopped":
        ips = set(re.findall(r"(?<=ip=)[0-9.]+", str(config)))
    disks = [text for key, text in config.items() if "cdrom" not in str(text)
             and re.fullmatch(r"(scsi|virtio|sata|ide|mp)\d+|rootfs", key)]
    return {"disk_gib": sum(int(size) for text in disks for size in re.findall(r"size=(\d+)G", text)),
            **addresses(ips)}


def addresses(ips: set[str]) -> dict[str, set[str]]:
    """Sorted by what the internet knows, without those that mean the guest or its wire alone."""
    known = [ip for ip in map(ip_address, ips) if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)]
    return {f"{scope}_ipv{version}": {str(ip) for ip in known if ip.version == version and ip.is_global == wide}
            for scope, wide in (("lan", False), ("wan", True)) for version in (4, 6)}
