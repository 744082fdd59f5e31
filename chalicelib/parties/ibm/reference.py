"""ibm-vpc, IBM's own SDK, lists instances, for `twocloud verify` and the tests."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ibm_cloud_sdk_core as core
import ibm_vpc

from ...model import Account

PACKAGES = ("ibm-vpc",)
BY_PROJECT = True                           # each record names the project that --project means


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    there = {"url": account.endpoint} if account.endpoint else {}
    vpc = ibm_vpc.VpcV1(version="2024-11-12",
                        authenticator=core.authenticators.IAMAuthenticator(account.credentials["token"], **there))
    vpc.set_service_url(f"{account.endpoint or f'https://{region}.iaas.cloud.ibm.com'}/v1")
    sizes = {volume["id"]: volume["capacity"] for volume in pages(vpc.list_volumes, "volumes")}
    floating = [(ip["target"]["id"], ip["address"]) for ip in pages(vpc.list_floating_ips, "floating_ips")
                if "target" in ip]
    by_id = {}
    for row in pages(vpc.list_instances, "instances"):
        primary = row["primary_network_interface"]["id"]
        nets = sorted(row["network_interfaces"], key=lambda net: net["id"] != primary)
        targets = {net["id"] for net in nets} | {net["virtual_network_interface"]["id"]
                                                 for net in row["network_attachments"]}
        by_id[row["id"]] = {
            "name": row["name"], "cpu": row["vcpu"]["count"], "memory_mib": row["memory"] * 1024,
            "party_status": row["status"],
            "disk_gib": sum(sizes[one["volume"]["id"]] for one in row["volume_attachments"]),
            "lan_ipv4": [net["primary_ip"]["address"] for net in nets],
            "wan_ipv4": {ip for target, ip in floating if target in targets},
            "created_at": core.string_to_datetime(row["created_at"]), "project_id": row["resource_group"]["id"]}
    return by_id


def pages(call: Callable[..., Any], key: str) -> list[dict[str, Any]]:
    """The loop that the SDK leaves to its user."""
    rows: list[dict[str, Any]] = []
    start = None
    while True:
        page = call(limit=100, start=start).get_result()
        rows += page[key]
        if "next" not in page:
            return rows
        start = parse_qs(urlsplit(page["next"]["href"]).query)["start"][0]
