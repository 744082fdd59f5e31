"""UCloud's own SDK lists UHost, for `twocloud verify` and the tests."""

import logging
from datetime import UTC, datetime
from typing import Any

from ucloud.services.uhost.client import UHostClient

from ...model import Account

PACKAGES = ("ucloud-sdk-python3",)
IN_PROJECT = True                           # it lists the account's project alone


def client(account: Account, kind: Any, region: str) -> Any:
    """The SDK's own client; what it logs (all of it) goes nowhere."""
    silent = logging.Logger("silent", logging.CRITICAL + 1)
    there = {"base_url": account.endpoint} if account.endpoint else {}
    project = {"project_id": account.project} if account.project else {}
    return kind({"region": region, "max_retries": 0, **there, **account.credentials, **project}, logger=silent)


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """The loop over pages is left to the SDK's users."""
    uhost, rows, total = client(account, UHostClient, region), list[Any](), 1
    while len(rows) < total:
        answer = uhost.describe_uhost_instance({"Offset": len(rows), "Limit": 100})
        total = answer["TotalCount"]
        rows += answer["UHostSet"]
        if not answer["UHostSet"]:
            break
    return {row["UHostId"]: {
        "name": row["Name"], "cpu": row["CPU"], "memory_mib": row["Memory"],
        "disk_gib": sum(disk["Size"] for disk in row["DiskSet"]),
        "lan_ipv4": {ip["IP"] for ip in row["IPSet"] if ip["Type"] == "Private"},
        "wan_ipv4": {ip["IP"] for ip in row["IPSet"] if ip["Type"] != "Private"},
        "party_status": row["State"], "created_at": datetime.fromtimestamp(row["CreateTime"], UTC),
        "zone": row["Zone"], "instance_type": row["MachineType"], "tags": {"Tag": row["Tag"]}} for row in rows}
