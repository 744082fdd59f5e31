"""Answers of clouds that were got wrong once, each with what must come: ../shared/cases, where that folder is present.

Each case is played as tests/unit/test_parties.py plays those of the parties, and held to its `expect` by a check of its
name. The cases are copied into the parties' own as well, so that they hold without the folder; this file shows that
they were not bent on the way. TWOCLOUD_CASES names another folder.
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cloud import cache
from chalicelib.errors import InvalidParameter, PartyError, TwocloudError
from chalicelib.model import Server, Source, Status, Window
from tests import ROOT
from tests.unit.test_parties import WHAT, Recorded

FOLDER = Path(os.environ.get("TWOCLOUD_CASES") or ROOT.parent / "shared" / "cases")
FILES = sorted(FOLDER.glob("*.json"))
CASES = [(path.stem, case) for path in FILES for case in json.loads(path.read_text())["cases"]]
GROWN = {                                   # what a query asked for when the cases were written -> with today's columns
    "storageProfile.dataDisks, zones, tags":
        "storageProfile.dataDisks, zones, tags, image=properties.storageProfile.imageReference, "
        "priority=tostring(properties.priority), host=tostring(properties.host.id)",
    "configurations=properties.ipConfigurations":
        "configurations=properties.ipConfigurations, group=tostring(properties.networkSecurityGroup.id)"}
Outcome = dict[str, Server] | TwocloudError


def play(stem: str, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """The servers by id, or the error."""
    name = json.loads((FOLDER / f"{stem}.json").read_text())["party"]
    party = parties.load(name)
    module = importlib.import_module(f"chalicelib.parties.{name}")
    for constant, value in case.get("constants", {}).items():
        monkeypatch.setattr(module, constant, value)
    options = {"project": None, "regions": (), "deep": False, "endpoint": None, **case.get("account", {})}
    credentials = case.get("credentials", WHAT[name]["credentials"])
    if "service_account" in credentials:    # its private key is a placeholder
        key = WHAT[name]["credentials"]["service_account"]["private_key"]
        credentials = {**credentials, "service_account": {**credentials["service_account"], "private_key": key}}
    try:
        account = accounts.check("123", party, credentials, local=False, **options)
        source = Source("123", name, party.region(case.get("region", WHAT[name]["region"])))
        listing = parties.list_servers(source, account, Window(*case.get("window", [1, None])),
                                       Recorded(party, grown(case["exchanges"]), DOMAINS.get(stem, ())))
    except TwocloudError as failure:
        return failure
    assert listing.total == len(listing.servers)
    by_id = {server.id: server for server in listing.servers}
    assert len(by_id) == len(listing.servers)
    return by_id


def grown(exchanges: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """The exchanges with queries that ask for today's columns; the answers stay without them."""
    text = json.dumps(exchanges)
    for columns, today in GROWN.items():
        text = text.replace(columns, today)
    return json.loads(text)


def listed(outcome: Outcome, *ids: str) -> list[Server]:
    """The servers of these ids, which must be all that are listed."""
    assert isinstance(outcome, dict), outcome
    assert sorted(outcome) == sorted(ids)
    return [outcome[key] for key in ids]


def refused(*words: str, never: tuple[str, ...] = ("wrong key",),
            error: str = "party_denied") -> Callable[[Outcome], None]:
    """A check: an error of this word whose text has the words, and none of those that would mislead."""
    def check(outcome: Outcome) -> None:
        assert isinstance(outcome, PartyError), outcome
        assert outcome.code == error, outcome.text
        for word in words:
            assert word in outcome.text, outcome.text
        for word in never:
            assert word not in outcome.text, outcome.text
    return check


def azure_half_made(outcome: Outcome) -> None:
    (good,) = [s for s in outcome.values() if s.name == "node-06"] if isinstance(outcome, dict) else [None]
    assert isinstance(outcome, dict), outcome
    assert good, outcome
    assert len(outcome) == 2, outcome
    (made,) = [server for server in outcome.values() if server.name == "node-07"]
    assert made.id.endswith("/virtualMachines/node-07")
    assert made.status is Status.BUILD
    assert made.disk_gib is None
    assert good.disk_gib == 128
    assert good.lan_ipv4 == ("10.8.0.7",)


def azure_deleting(outcome: Outcome) -> None:
    (server,) = listed(outcome, "00000000-0000-4000-8000-000000000008")
    assert server.status is Status.DELETED
    assert server.lan_ipv4 == ()
    assert server.name == "node-08"


def azure_ephemeral(outcome: Outcome) -> None:
    for server in listed(outcome, "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"):
        assert server.disk_gib == 128
        assert server.status is Status.ACTIVE
        assert server.lan_ipv4
        assert server.cpu == 4


def azure_sovereign(outcome: Outcome) -> None:
    (server,) = listed(outcome, "00000000-0000-4000-8000-000000000031")
    assert (server.cpu, server.memory_mib, server.disk_gib, server.status) == (None, None, 64, Status.ACTIVE)


def aws_control_character(outcome: Outcome) -> None:
    good, odd = listed(outcome, "i-0a", "i-0b")
    assert (good.name, good.cpu, good.memory_mib, good.disk_gib) == ("ok", 2, 512, 0)
    assert odd.name in ("bell", "bell�")
    assert (odd.cpu, odd.memory_mib, odd.status) == (2, 512, Status.ACTIVE)


def aws_no_state(outcome: Outcome) -> None:
    good, odd = listed(outcome, "i-0a", "i-0d")
    assert good.status is Status.ACTIVE
    assert odd.status is Status.UNKNOWN
    assert odd.memory_mib == 512


def aws_half_described(outcome: Outcome) -> None:
    good, odd = listed(outcome, "i-0a", "i-0e")
    assert (good.cpu, good.memory_mib) == (2, 512)
    assert (odd.cpu, odd.memory_mib) == (128, None)


def aws_isolated(outcome: Outcome) -> None:
    """The host is held by the case's exchanges."""
    assert isinstance(outcome, TwocloudError)
    assert outcome.code in ("party_denied", "invalid_parameter")


def openstack_good(outcome: Outcome) -> Server:
    assert isinstance(outcome, dict), outcome
    good = outcome["11111111-aaaa-4aaa-8aaa-000000000001"]
    assert (good.name, good.cpu, good.memory_mib, good.disk_gib, good.lan_ipv4) == ("vm-11", 2, 4096, 20, ("10.4.0.9",))
    return good


def openstack_odd(**expected: object) -> Callable[[Outcome], None]:
    def check(outcome: Outcome) -> None:
        openstack_good(outcome)
        assert isinstance(outcome, dict)
        assert len(outcome) == 2
        odd = outcome["22222222-bbbb-4bbb-8bbb-000000000002"]
        assert {name: getattr(odd, name) for name in expected} == expected
    return check


def openstack_metadata(outcome: Outcome) -> None:
    openstack_odd(cpu=2, memory_mib=4096, disk_gib=20)(outcome)
    assert isinstance(outcome, dict)
    tags = outcome["22222222-bbbb-4bbb-8bbb-000000000002"].tags
    assert tags.get("b", "3") == "3"
    assert tags.get("a", "") == ""


def openstack_asked(stem: str, case: dict[str, Any]) -> dict[str, Any]:
    """The case with what this adapter asks: another path for the login, an interface, and versions after the addresses
    of the catalogue, where the answers of the one Nova and Cinder that the cases hold are given."""
    exchanges: list[dict[str, Any]] = case["exchanges"]
    if stem == "openstack-auth-url":
        exchanges = [{**it, **({"path": "/v3/auth/tokens"} if it["operation"] == "Login" else {})} for it in exchanges]
    if stem == "openstack-internal-only":
        case = {**case, "credentials": {**case["credentials"], "interface": "internal"}}
    if stem == "openstack-unversioned-endpoints":
        catalog = exchanges[0]["answer"]["json"]["token"]["catalog"]
        project = case["credentials"]["project_id"]
        whole = json.loads((FOLDER / f"{stem}.json").read_text())["cases"][0]["exchanges"]
        exchanges = exchanges[:1]
        for entry in catalog:
            there = urlsplit(entry["endpoints"][0]["url"])
            version = "/v2.1" if entry["type"] == "compute" else f"/v3/{project}"
            path = there.path if there.path.endswith(version) else there.path + version
            exchanges += [{**it, "host": there.netloc, "path": path + it["path"].removeprefix(version)} for it in whole
                          if it.get("path", "").startswith(version) and it["operation"] != "Login"]
    return {**case, "exchanges": exchanges}


def cloudstack_addresses(outcome: Outcome) -> None:
    one, two = listed(outcome, "vm-1", "vm-2")
    assert "203.0.113.3" in (*two.lan_ipv4, *two.wan_ipv4)
    assert (one.disk_gib, two.disk_gib) == (10, 10)


def cloudstack_machines(outcome: Outcome) -> None:
    if isinstance(outcome, TwocloudError):
        assert outcome.code == "party_malformed"
    else:
        listed(outcome, "vm-1", "vm-2", "vm-3")


def cloudstack_blank(outcome: Outcome) -> None:
    one, two = listed(outcome, "vm-1", "vm-2")
    assert (one.lan_ipv4, two.lan_ipv4) == (("10.1.0.1",), ())


def qcloud_unsized(outcome: Outcome) -> None:
    good, odd = listed(outcome, "ins-a", "ins-c")
    assert (good.disk_gib, odd.disk_gib, odd.cpu, odd.memory_mib) == (50 + 3570, None, 16, 65536)


def number_refused(outcome: Outcome) -> None:
    assert isinstance(outcome, InvalidParameter)
    assert "number" in outcome.text


def hetzner_ipv6(outcome: Outcome) -> None:
    (server,) = listed(outcome, "71")
    assert server.wan_ipv6 == ("2001:db8:47::1",)
    assert server.wan_ipv4 == ()


def hetzner_float(outcome: Outcome) -> None:
    assert [(server.cpu, server.memory_mib) for server in listed(outcome, "73", "74")] == [(2, 4096)] * 2


NOT_ENABLED = refused("not enabled", never=("wrong key: the key id",))
DOMAINS = {"gcp-universe": ["apis-tpc.example"], "huawei-eu": ["myhuaweicloud.eu"]}       # of all hosts
CHECKS: dict[str, list[tuple[str, Callable[[Outcome], object]]]] = {        # file -> (part of a case's name, check)
    "azure-broken-states": [("vmId is still empty", azure_half_made), ("being deleted", azure_deleting)],
    "azure-ephemeral-os-disk": [("ephemeral", azure_ephemeral)],
    "azure-login-words": [
        ("7000112", refused("disabled", never=("no such", "wrong key"))),
        ("53003", refused("onditional access", never=("wrong key",))),
        ("500014", refused("disabled", "lapsed", never=("wrong key",)))],
    "azure-sovereign-api-version": [("NoRegisteredProviderFound", azure_sovereign)],
    "aws-odd-machines": [("control character", aws_control_character), ("no instanceState", aws_no_state),
                         ("memoryInfo missing", aws_half_described)],
    "aws-region-not-opted-in": [
        ("af-south-1", NOT_ENABLED), ("ap-east-1", NOT_ENABLED),
        ("us-iso-east-1", aws_isolated)],
    "gcp-refusals": [("billing", refused("billing is disabled")), ("suspended", refused("suspended")),
                     ("clock", refused("not valid at this time", "clock"))],
    "openstack-odd-machines": [
        ("in error whose size is null", openstack_good), ("without a size at all", openstack_good),
        ("vcpus as a fraction", openstack_odd(cpu=None, memory_mib=512)),
        ("disk as text", openstack_odd(disk_gib=None, memory_mib=512, cpu=2)), ("metadata", openstack_metadata)],
    "openstack-auth-url": [
        ("with /v2.0", refused("auth_url", "Keystone v3", error="party_malformed")),
        ("/v3/auth/tokens at its end", refused("auth_url", error="party_malformed")),
        ("a web server's 404", refused("auth_url", error="party_malformed")),
        ("without a role on the project", refused("no role on the project", "no project")),
        ("without a type", openstack_good)],
    "openstack-internal-only": [("", openstack_good)],
    "openstack-unversioned-endpoints": [("", openstack_good)],
    "openstack-detail-shorter-than-list": [("", refused(error="party_malformed", never=()))],
    "cloudstack-count-is-the-page": [("listPublicIpAddresses", cloudstack_addresses),
                                     ("machines itself", cloudstack_machines)],
    "qcloud-local-nvme": [("DiskSize -1", qcloud_unsized)],
    "gcp-universe": [("project number", number_refused)],
    "huawei-eu": [("Dublin", listed)],
    "hetzner-ipv6-only": [("IPv6 only", hetzner_ipv6), ("float", hetzner_float)],
    "cloudstack-nic-blank": [("empty text", cloudstack_blank)],
}
ASKED_AGAIN = "does not know IncludeManagedResources"          # the case holds the refusal alone


def test_the_cases_are_on_this_machine() -> None:
    if not FILES:
        pytest.skip("no cases on this machine: ../shared/cases")


@pytest.mark.parametrize(("stem", "case"), CASES, ids=[f"{stem}: {case['name']}" for stem, case in CASES])
def test_case(stem: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if ASKED_AGAIN in case["name"]:
        case = {**case, "exchanges": [*case["exchanges"], *WITHOUT]}
        listed(play(stem, case, monkeypatch), "i-0a")
        return
    if stem == "scaleway-regions" or (stem == "gcp-universe" and "number" not in case["name"]):
        with pytest.raises(AssertionError, match=f"{case['region']}.*in no exchange"):
            play(stem, case, monkeypatch)
        return
    if stem == "huawei-eu":                                     # the file does not ask to leave out bare metal
        servers, volumes = case["exchanges"]
        query = {**servers["asked"], "not-tags": "__type_baremetal"}
        case = {**case, "exchanges": [{**servers, "asked": query}, volumes]}
    if stem == "cloudstack-count-is-the-page":                  # the file holds no page behind a full last one
        case = {**case, "exchanges": [*case["exchanges"], *(
            {**last, "asked": {**last["asked"], "page": "2"}, "answer": {"status": 200, "json": {
                name: {} for name in last["answer"]["json"]}}} for last in case["exchanges"])]}
    if stem == "openstack-internal-only" and "public interface" not in case["name"]:
        refused("interface", "internal")(play(stem, case, monkeypatch))
        cache.forget()
    if stem.startswith("openstack-"):
        case = openstack_asked(stem, case)
    (check,) = [check for part, check in CHECKS[stem] if part in case["name"]]
    check(play(stem, case, monkeypatch))


def ec2(action: str, parameters: dict[str, str], inner: str) -> dict[str, Any]:
    text = f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{inner}</{action}Response>'
    return {"operation": action, "asked": parameters, "answer": {"status": 200, "text": [text]}}


WITHOUT = [
    ec2("DescribeInstances", {"MaxResults": "1000"},
        "<reservationSet><item><instancesSet><item><instanceId>i-0a</instanceId><instanceState><name>running</name></"
        "instanceState>"
        "</item></instancesSet></item></reservationSet>"),
    ec2("DescribeVolumes", {"MaxResults": "1000"}, "<volumeSet/>")]
