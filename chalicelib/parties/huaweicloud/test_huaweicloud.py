"""Huawei Cloud's own SDK (huaweicloudsdkcore, -ecs, -evs): its signer, its clients, its models."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests

pytest.importorskip("huaweicloudsdkecs")
pytest.importorskip("huaweicloudsdkevs")

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, SdkException
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from huaweicloudsdkecs.v2 import EcsClient, ListServersDetailsRequest, ServerAddress, ServerDetail
from huaweicloudsdkecs.v2.region.ecs_region import EcsRegion
from huaweicloudsdkevs.v2 import EvsClient, ListVolumesRequest, VolumeDetail

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

from ...errors import PartyDenied, UnknownRegion
from ...fleet import check, many_sources
from ...model import Account, Window
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet
from ...simulators.server import Plan
from .. import huaweicloud
from . import simulator
from .simulator import CLOSED, REGIONS, Huaweicloud, enterprise_project_of, project_of

HOME = "cn-north-4"
PROJECT = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def cloud(stack: ExitStack) -> Iterator[Huaweicloud]:
    yield stack.enter_context(Huaweicloud({"AKIDtest": canaries.secret("huaweicloud")},
                                          {HOME: Fleet(1234), "eu-west-101": Fleet(3, "europe")}, limited=False))


def keys_of(cloud: Huaweicloud, **more: str) -> dict[str, str]:
    (key, secret), = cloud.keys.items()
    return {"access_key": key, "secret_key": secret, **more}


def sdk(client: Any, url: str, credentials: Mapping[str, Any], region: str) -> Any:
    return reference("huaweicloud").client(account("huaweicloud", url, credentials), client, region)


machines = lister("huaweicloud")


def ours(app: App, region: str = HOME, window: Window = many_sources.WHOLE) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "huaweicloud", region), window)


# ---------------------------------------------------------------- signatures

def test_a_signature_of_the_sdk() -> None:
    """By huaweicloudsdkcore 3.1.219, with the public example key of AWS's documents."""
    account = Account(tenant_id="1", party="huaweicloud", credentials={
        "access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
    request = huaweicloud.sign(
        f"https://ecs.cn-north-4.myhuaweicloud.com/v1/{PROJECT}/cloudservers/detail?limit=100&offset=1",
        PROJECT, account, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert request.headers["Authorization"] == (
        "SDK-HMAC-SHA256 Access=AKIDEXAMPLE, SignedHeaders=content-type;host;x-project-id;x-sdk-date, "
        "Signature=dd9d5795edc98a6f5bfa0c02c2e1581db6f18592fce30d19036cb6844432e26c")


@pytest.mark.parametrize("temporary", [False, True])
def test_the_sdks_signer_signs_our_requests_alike(app: App, cloud: Huaweicloud, temporary: bool) -> None:
    """Every request of a listing, as it arrived: lists of ids with quotes and brackets, lookups without a project."""
    more = {"security_token": canaries.watch(canaries.secret("token") + "+/==")} if temporary else {}
    if temporary:
        cloud.tokens["AKIDtest"] = more["security_token"]
    app.account("huaweicloud", keys_of(cloud, **more), cloud.url)
    ours(app)
    ours(app, window=Window(1, 50))
    assert {call.operation for call in cloud.calls} == {"ListAuthProjects", "ListServersDetails", "ListVolumes"}
    for call in cloud.calls:
        names = call.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        request = SdkRequest(
            method=call.method, schema="http", host=call.headers["host"], resource_path=call.path, body="",
            query_params=parse_qsl(call.query),
            header_params={name: call.headers[name] for name in names})
        theirs = Signer(BasicCredentials(*next(iter(cloud.keys.items()))))
        assert theirs.sign(request).header_params["Authorization"] == call.headers["authorization"]
        assert request.uri == f"{call.path}?{call.query}".rstrip("?")


@pytest.mark.parametrize("change", ["Authorization", "query", "X-Sdk-Date", "Host", "X-Project-Id", "token", "old",
                                    None])
def test_the_simulator_refuses_a_changed_byte(cloud: Huaweicloud, change: str | None) -> None:
    account = Account(tenant_id="1", party="huaweicloud", credentials=keys_of(cloud))
    url = f"{cloud.url}/v1/{project_of(HOME)}/cloudservers/detail?limit=1&offset=1"
    request = huaweicloud.sign(url, project_of(HOME), account, time.time() - (901 if change == "old" else 0))
    headers = dict(request.headers)
    if change == "query":
        url += "0"
    elif change == "token":
        headers["X-Security-Token"] = "unasked"
    elif change == "Host":
        headers["Host"] = "ecs.cn-north-4.myhuaweicloud.com"
    elif change in headers:
        at = -2 if change == "X-Sdk-Date" else -1
        headers[change] = headers[change][:at] + ("0" if headers[change][at] != "0" else "1") + headers[change][at:][1:]
    answer = requests.get(url, headers=headers, timeout=9)
    assert answer.status_code == (200 if change is None else 401), answer.text


# ---------------------------------------------------------------- the same machines

def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Huaweicloud) -> None:
    app.account("huaweicloud", keys_of(cloud), cloud.url)
    answer = ours(app)
    theirs = machines(cloud.url, keys_of(cloud), HOME)
    assert_same(answer.servers, theirs)
    assert answer.total == len(theirs) == 1234
    assert [s.id for s in answer.servers] == list(theirs)
    for window in (Window(1, 10), Window(96, 105), Window(1201)):
        assert ours(app, window=window).servers == answer.servers[window.first - 1:window.last]
    assert_same(ours(app, "eu-west-101").servers, machines(cloud.url, keys_of(cloud), "eu-west-101"))


def test_how_many_calls(app: App, cloud: Huaweicloud) -> None:
    """A whole list: pages of 100 and one list of disks, at first with one page more as the proof. A window: one page,
    its disks by 60. One lookup in all."""
    cloud.fleets[HOME] = Fleet(1000)
    app.account("huaweicloud", keys_of(cloud), cloud.url)
    calls: list[tuple[int, int, int]] = []
    for window in (many_sources.WHOLE, Window(501, 510), Window(1, 1000), many_sources.WHOLE):
        cloud.forget()
        ours(app, window=window)
        calls.append((cloud.count("ListAuthProjects"), cloud.count("ListServersDetails"), cloud.count("ListVolumes")))
    assert calls == [(1, 11, 2), (0, 1, 1), (0, 10, 2), (0, 10, 2)]


def test_bare_metal_is_no_virtual_machine(app: App, cloud: Huaweicloud) -> None:
    """The list holds both kinds; the SDK's user leaves out the one by its tag, and so do we."""
    cloud.fleets[HOME], cloud.bare_metal = Fleet(3), True
    ecs = sdk(EcsClient, cloud.url, keys_of(cloud), HOME)
    assert len(ecs.list_servers_details(ListServersDetailsRequest()).servers) == 4
    virtual = ecs.list_servers_details(ListServersDetailsRequest(not_tags="__type_baremetal")).servers
    app.account("huaweicloud", keys_of(cloud), cloud.url)
    assert [s.id for s in ours(app).servers] == [s.id for s in virtual]


def test_enterprise_projects(app: App, cloud: Huaweicloud) -> None:
    """A key that has rights in enterprise projects alone must ask for them, as the SDK's user has to know."""
    cloud.granted = True
    with pytest.raises(ClientRequestException) as refused:
        sdk(EcsClient, cloud.url, keys_of(cloud), HOME).list_servers_details(ListServersDetailsRequest())
    assert refused.value.error_code == "Ecs.0003"
    app.account("huaweicloud", keys_of(cloud), cloud.url)
    assert ours(app).total == 1234
    wanted = enterprise_project_of(next(m for m in cloud.fleets[HOME] if m.project))
    app.account("huaweicloud", keys_of(cloud), cloud.url, project=wanted)
    listed = sdk(EcsClient, cloud.url, keys_of(cloud), HOME).list_servers_details(
        ListServersDetailsRequest(limit=1000, enterprise_project_id=wanted)).servers
    assert [s.id for s in ours(app).servers] == [s.id for s in listed]
    assert 0 < len(listed) < 1234


@pytest.mark.parametrize(("populated", "visible", "ok", "warned"), [
    (99, 130, True, True), (100, 100, True, False), (100, 101, False, True), (100, 0, False, False),
    (101, 130, True, True)])
def test_a_list_that_may_be_cut_at_a_hundred_projects(
        app: App, cloud: Huaweicloud, monkeypatch: pytest.MonkeyPatch, populated: int, visible: int, ok: bool,
        warned: bool) -> None:
    """It is believed only if the key may see no more."""
    app.account("huaweicloud", keys_of(cloud), cloud.url)
    monkeypatch.setattr(simulator, "enterprise_project_of", lambda machine: str(uuid.uuid5(
        uuid.NAMESPACE_OID, str(int(machine.key, 36) % 100_000 % populated))))
    cloud.projects = visible
    warning = check.warning(app.deployment, "123", "huaweicloud", HOME)
    assert (f"may see {visible} enterprise projects" in warning) == warned
    try:
        answer = ours(app)
    except PartyDenied as refused:
        assert not ok
        assert ("more than 100 enterprise projects" if visible else "eps:enterpriseProjects:list") in refused.text
        return
    assert ok
    assert len({server.project_id for server in answer.servers}) == populated


def test_temporary_keys_and_a_project_of_ones_own(app: App, cloud: Huaweicloud) -> None:
    token = canaries.secret("token")
    cloud.tokens["AKIDtest"] = token
    with pytest.raises(SdkException):
        machines(cloud.url, keys_of(cloud, project_id=project_of("eu-west-101")), "eu-west-101")
    keys = keys_of(cloud, security_token=token, project_id=project_of("eu-west-101"))
    app.account("huaweicloud", keys, cloud.url)
    cloud.forget()
    assert_same(ours(app, "eu-west-101").servers, machines(cloud.url, keys, "eu-west-101"))
    assert not cloud.count("ListAuthProjects")
    app.account("huaweicloud", {**keys, "security_token": "another"}, cloud.url)
    with pytest.raises(PartyDenied, match=r"APIGW\.0301"):
        ours(app, "eu-west-101")


# ---------------------------------------------------------------- regions

def test_regions(app: App, cloud: Huaweicloud) -> None:
    """All of the party's; open are those in which the key has a project; an unknown one is an error, not a list."""
    app.account("huaweicloud", keys_of(cloud), cloud.url)
    for region in (CLOSED, "cn-nowhere-9"):
        with pytest.raises(UnknownRegion):
            ours(app, region)
    assert ours(app).total == 1234
    assert cloud.count("ListAuthProjects") == 2
    for fields, opened in (({}, set(REGIONS)), ({"project_id": project_of("cn-east-3")}, {"cn-east-3"})):
        account = Account(tenant_id="1", party="huaweicloud", credentials=keys_of(cloud, **fields), endpoint=cloud.url)
        send = app.deployment.transport.sender(huaweicloud.PARTY, account, HOME, time.monotonic() + 9)
        regions = parties.list_regions(account, send)
        assert {r.code for r in regions} == {*REGIONS, CLOSED}
        assert {r.code for r in regions if r.open} == opened
        parties.check(many_sources.source_of("1", "huaweicloud", "cn-east-3"), account, send)
    assert all(huaweicloud.PARTY.region(r.code) == r.code for r in regions)


def test_the_sdks_regions_have_the_form() -> None:
    known = [value for value in vars(EcsRegion).values() if isinstance(value, Region)]
    assert len(known) > 25
    for region in known:
        assert huaweicloud.PARTY.region(region.id) == region.id
        assert region.endpoints[0] == f"https://ecs.{region.id}.myhuaweicloud.com"
        # the SDK disagrees with the help pages of the European site, which are right
        assert huaweicloud._site_of(region.id) == ("europe" if region.id == "eu-west-101" else "public")


# ---------------------------------------------------------------- shapes and limits

def test_the_sdks_models_know_every_name(cloud: Huaweicloud) -> None:
    """Of the simulator's rows and of the fixtures' rows; and the SDK takes the documented sample as an answer."""
    sample = next(c for c in WHAT["huaweicloud"]["cases"] if c["name"] == "the documented sample")
    answers = {e["operation"]: e["answer"]["json"] for e in sample["exchanges"]}
    machine = cloud.fleets[HOME][0]
    for rows, model in (([cloud._row(machine, HOME), *answers["ListServersDetails"]["servers"]], ServerDetail),
                        (answers["ListVolumes"]["volumes"], VolumeDetail)):
        for row in rows:
            assert set(row) <= set(model.attribute_map.values()), set(row) - set(model.attribute_map.values())
    for network in cloud._row(machine, HOME)["addresses"].values():
        assert all(set(address) <= set(ServerAddress.attribute_map.values()) for address in network)
    body = json.dumps(answers["ListServersDetails"]).encode()
    cloud.plans.append(Plan(answer=Answer(200, {"Content-Type": "application/json"}, body),
                            operation="ListServersDetails"))
    answer = sdk(EcsClient, cloud.url, keys_of(cloud), HOME).list_servers_details(ListServersDetailsRequest())
    assert [s.id for s in answer.servers] == [s["id"] for s in sample["servers"]]
    assert [s.status for s in answer.servers] == [s["party_status"] for s in sample["servers"]]


def test_the_simulator_enforces_what_is_documented(cloud: Huaweicloud) -> None:
    ecs, evs = (sdk(client, cloud.url, keys_of(cloud), HOME) for client in (EcsClient, EvsClient))
    assert len(ecs.list_servers_details(ListServersDetailsRequest()).servers) == 25         # the default
    first = ecs.list_servers_details(ListServersDetailsRequest(limit=10, offset=0)).servers
    assert [s.id for s in first] == [s.id for s in ecs.list_servers_details(
        ListServersDetailsRequest(limit=10, offset=1)).servers]
    ids = [volume.id for volume in evs.list_volumes(ListVolumesRequest(limit=61)).volumes]
    assert len(evs.list_volumes(ListVolumesRequest(ids=str([*ids[:59], "gone"]).replace(" ", ""))).volumes) == 59
    for call, request in ((ecs.list_servers_details, ListServersDetailsRequest(limit=1001)),
                          (ecs.list_servers_details, ListServersDetailsRequest(offset=-1)),
                          (evs.list_volumes, ListVolumesRequest(ids=str(ids).replace(" ", ""))),
                          (evs.list_volumes, ListVolumesRequest(limit=0))):
        with pytest.raises(ClientRequestException) as refused:
            call(request)
        assert refused.value.status_code == 400
