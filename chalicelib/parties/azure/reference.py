"""Microsoft's own clients for Resource Graph and Compute list virtual machines, for `twocloud verify` and the tests."""

import time
from typing import Any

import requests
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute import models as compute_models
from azure.mgmt.resourcegraph import ResourceGraphClient
from azure.mgmt.resourcegraph import models as graph_models

from ...model import Account

IN_PROJECT = True                           # it lists the account's project alone
PACKAGES = ("azure-mgmt-resourcegraph", "azure-mgmt-compute")
_LOGIN, _ARM = "https://login.microsoftonline.com", "https://management.azure.com"


class Secret:
    """The login of an app registration: the package that holds the clients' own takes https alone."""

    def __init__(self, url: str, credentials: Any) -> None:
        self.url, self.fields = url, credentials

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        answer = requests.post(f"{self.url}/{self.fields['directory_id']}/oauth2/v2.0/token", timeout=9, data={
            "grant_type": "client_credentials", "client_id": self.fields["client_id"],
            "client_secret": self.fields["client_secret"], "scope": scopes[0]}).json()
        return AccessToken(answer["access_token"], int(time.time()) + answer["expires_in"])


def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
    """From whole resources, by $skipToken, joined by whose interface or disk it is."""
    fields = account.credentials
    subscription = account.member.id if account.member else fields.get("subscription_id")
    if not subscription:
        raise NotImplementedError("name one subscription (subscription_id) among the credentials")
    if fields.get("site", "public") != "public":
        raise NotImplementedError("the reference knows the public site alone")
    secret, url = Secret(account.endpoint or _LOGIN, fields), account.endpoint or _ARM
    http: dict[str, Any] = {"enforce_https": False} if url.startswith("http:") else {}
    graph = ResourceGraphClient(secret, url, retry_total=0)
    compute = ComputeManagementClient(secret, subscription, url, retry_total=0)

    def every(kind: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        options = graph_models.QueryRequestOptions(result_format="objectArray", top=1000)
        while True:
            answer = graph.resources(graph_models.QueryRequest(
                query=f"Resources | where type =~ '{kind}' and location =~ '{region}' | order by id asc",
                subscriptions=[subscription], options=options), **http)
            rows += answer.data
            if not answer.skip_token:
                return rows
            options = graph_models.QueryRequestOptions(result_format="objectArray", skip_token=answer.skip_token)

    def by_id(kind: str) -> dict[str, Any]:
        return {row["id"].lower(): compute_models.Disk(row) if "disks" in kind else row["properties"]
                for row in every(kind)}

    interfaces, public = by_id("microsoft.network/networkinterfaces"), by_id("microsoft.network/publicipaddresses")
    disks = by_id("microsoft.compute/disks")
    sizes = {size.name: size for size in compute.virtual_machine_sizes.list(region, **http)}
    machines = {}
    for row in every("microsoft.compute/virtualmachines"):
        if account.project is not None and row["resourceGroup"].lower() != account.project.lower():
            continue
        vm = compute_models.VirtualMachine(row)
        nics = sorted((interfaces[n.id.lower()] for n in vm.network_profile.network_interfaces),
                      key=lambda n: not n.get("primary"))
        configurations = [c["properties"] for nic in nics for c in nic["ipConfigurations"]]
        attached = [vm.storage_profile.os_disk, *(vm.storage_profile.data_disks or ())]
        power = row["properties"].get("extended", {}).get("instanceView", {}).get("powerState", {}).get("code")
        addresses = [public[c["publicIPAddress"]["id"].lower()].get("ipAddress") for c in configurations
                     if "publicIPAddress" in c]
        machines[vm.vm_id] = {
            "name": vm.name, "cpu": sizes[vm.hardware_profile.vm_size].number_of_cores,
            "memory_mib": sizes[vm.hardware_profile.vm_size].memory_in_mb,
            "disk_gib": sum(disks[d.managed_disk.id.lower()].properties.disk_size_gb for d in attached),
            "lan_ipv4": [c["privateIPAddress"] for c in configurations],
            "wan_ipv4": [address for address in addresses if address],
            "party_status": power or vm.provisioning_state, "created_at": vm.time_created,
            "zone": vm.zones[0] if vm.zones else "", "tags": vm.tags or {},
            "instance_type": vm.hardware_profile.vm_size}
    return machines
