"""ibm-vpc, IBM's own SDK, lists the same instances at the simulator as we do.

The simulator refuses what the real one refuses.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import bearer
from tests.bearer import Machines
from tests.fixtures import App


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    ibm_vpc, core = pytest.importorskip("ibm_vpc"), pytest.importorskip("ibm_cloud_sdk_core")
    vpc = ibm_vpc.VpcV1(
        version="2024-11-12", authenticator=core.authenticators.IAMAuthenticator(credentials["token"], url=url))
    vpc.set_service_url(f"{url}/v1")
    sizes = {volume["id"]: volume["capacity"] for volume in _pages(vpc.list_volumes, "volumes")}
    floating = [(ip["target"]["id"], ip["address"]) for ip in _pages(vpc.list_floating_ips, "floating_ips")
                if "target" in ip]
    by_id: Machines = {}
    for row in _pages(vpc.list_instances, "instances"):
        primary = row["primary_network_interface"]["id"]
        nets = sorted(row["network_interfaces"], key=lambda net: net["id"] != primary)
        targets = {net["id"] for net in nets} | {net["virtual_network_interface"]["id"]
                                                 for net in row["network_attachments"]}
        by_id[row["id"]] = {
            "name": row["name"], "cpu": row["vcpu"]["count"], "memory": row["memory"] * 1024, "state": row["status"],
            "disk": sum(sizes[one["volume"]["id"]] for one in row["volume_attachments"]),
            "lan": [net["primary_ip"]["address"] for net in nets],
            "wan": {ip for target, ip in floating if target in targets},
            "created": core.string_to_datetime(row["created_at"]).timestamp()}
    return by_id


def _pages(call: Callable[..., Any], key: str) -> list[dict[str, Any]]:
    """The loop that the SDK leaves to its user."""
    rows: list[dict[str, Any]] = []
    start = None
    while True:
        page = call(limit=100, start=start).get_result()
        rows += page[key]
        if "next" not in page:
            assert len(rows) == page["total_count"]
            return rows
        start = parse_qs(urlsplit(page["next"]["href"]).query)["start"][0]


def test_the_sdk_and_we_list_the_same_machines(house: App, stack: ExitStack) -> None:
    logging.getLogger("ibm-cloud-sdk-core").setLevel(logging.WARNING)
    bearer.same_machines(house, stack, "ibm", machines)


def test_a_wrong_token_is_refused_and_regions_are_the_partys(house: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(house, stack, "ibm")


@pytest.mark.parametrize(("path", "status"), [
    ("/v1/instances?generation=2", 400),
    ("/v1/instances?version=2024-11-12&generation=2&limit=101", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "ibm", path) == status
