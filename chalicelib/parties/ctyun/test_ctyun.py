"""Tianyi Cloud's own SDK (ctyun-python-sdk-core, ctyunsdk-ecs20220909, -ebs20220909): its signer, clients and models.

The SDK prints what it sends and gets, keys not among it; it signs with the machine's own time, which must be Beijing's.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests

pytest.importorskip("ctyun_python_sdk_core")
pytest.importorskip("ctyunsdk_ecs20220909")
pytest.importorskip("ctyunsdk_ebs20220909")

from ctyun_python_sdk_core import Credential, sign_util
from ctyunsdk_ebs20220909.ebs_client import EbsClient
from ctyunsdk_ebs20220909.models.v4_ebs_list_ebs import V4EbsListEbsRequest, V4EbsListEbsResponse
from ctyunsdk_ecs20220909.ecs_client import EcsClient
from ctyunsdk_ecs20220909.models import v4_ecs_list_instances as models
from ctyunsdk_ecs20220909.models.v4_region_list_regions import V4RegionListRegionsRequest

from chalicelib import parties
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import account, assert_same, lister, reference

from ...errors import PartyDenied, UnknownRegion
from ...fleet import many_sources
from ...model import Account, Region, Window
from ...simulators.fleet import Fleet
from .. import ctyun
from .simulator import CLOSED, REGIONS, Ctyun, project_of

HOME = "bb9fdb42056f11eda1610242ac110002"
ELSEWHERE = "41f64827f25f468595ffa3a5deb5d15d"


def sdk(client: Any, url: str, credentials: Mapping[str, Any], call: str, request: Any) -> Any:
    """One call by the SDK."""
    return reference("ctyun").call(account("ctyun", url, credentials), client, call, request)


machines = lister("ctyun")


@pytest.fixture
def cloud(stack: ExitStack) -> Iterator[Ctyun]:
    yield stack.enter_context(Ctyun({"AKtest": canaries.secret("ctyun")},
                                    {HOME: Fleet(467), ELSEWHERE: Fleet(3, "elsewhere")}, limited=False))


def keys_of(cloud: Ctyun) -> dict[str, str]:
    (key, secret), = cloud.keys.items()
    return {"access_key": key, "secret_key": secret}


def ours(app: App, region: str = HOME, window: Window = many_sources.WHOLE) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "ctyun", region), window)


def regions_of(app: App, cloud: Ctyun) -> list[Region]:
    account = Account(tenant_id="1", party="ctyun", credentials=keys_of(cloud), endpoint=cloud.url)
    send = app.deployment.transport.sender(ctyun.PARTY, account, HOME, time.monotonic() + 9)
    parties.check(many_sources.source_of("1", "ctyun", HOME), account, send)
    return parties.list_regions(account, send)


# ---------------------------------------------------------------- signatures

def test_a_signature_of_the_sdk() -> None:
    """By ctyun-python-sdk-core 0.0.1, with the public example key of AWS's documents: 03:04:05 UTC is 11:04:05."""
    account = Account(tenant_id="1", party="ctyun", credentials={
        "access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
    request = ctyun.sign(
        "POST", "https://ctecs-global.ctapi.ctyun.cn/v4/ecs/list-instances",
        b'{"regionID": "bb9fdb42056f11eda1610242ac110002", "pageNo": 1, "pageSize": 50}', account,
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp(), "27cfe4dc-e640-45f6-92ca-492ca73e8680")
    assert request.headers["Eop-date"] == "20260102T110405Z"
    assert request.headers["Eop-Authorization"] == (
        "AKIDEXAMPLE Headers=ctyun-eop-request-id;eop-date Signature=U0ff70jrjHEfVCmZZSWDewLLZmcIQEJ1KSMRvlrpFEs=")


def test_the_day_of_the_key_is_beijings() -> None:
    """Between 16:00 and 24:00 UTC the date there is the next day's; the SDK's signer is the judge."""
    account = Account(tenant_id="1", party="ctyun", credentials={"access_key": "AK", "secret_key": "example"})
    for hour in (0, 15, 16, 23):
        now = datetime(2026, 12, 31, hour, 59, 59, tzinfo=UTC).timestamp()
        request = ctyun.sign("GET", "https://ebs-global.ctapi.ctyun.cn/v4/ebs/list-ebs?pageNo=1&regionID=a%2Fb",
                             b"", account, now, "id")
        assert request.headers["Eop-date"].startswith("20270101T" if hour > 15 else "20261231T")
        assert request.headers["Eop-Authorization"] == sign_util.sign(
            Credential("AK", "example"), {"regionID": "a/b", "pageNo": 1}, None, "id", request.headers["Eop-date"])


def test_the_sdks_signer_signs_our_requests_alike(app: App, cloud: Ctyun) -> None:
    """Every request of a listing and of the regions, as it arrived."""
    app.account("ctyun", keys_of(cloud), cloud.url)
    ours(app)
    regions_of(app, cloud)
    assert {call.operation for call in cloud.calls} == {"ListInstances", "ListEbs", "ListRegions"}
    for call in cloud.calls:
        theirs = sign_util.sign(Credential(*next(iter(cloud.keys.items()))), dict(parse_qsl(call.query)),
                                call.body.decode(), call.headers["ctyun-eop-request-id"], call.headers["eop-date"])
        assert theirs == call.headers["eop-authorization"]
    assert len({call.headers["ctyun-eop-request-id"] for call in cloud.calls}) == len(cloud.calls)


@pytest.mark.parametrize("change", ["Eop-Authorization", "body", "query", "Eop-date", "ctyun-eop-request-id", "old",
                                    "UTC", None])
def test_the_simulator_refuses_a_changed_byte(cloud: Ctyun, change: str | None) -> None:
    account = Account(tenant_id="1", party="ctyun", credentials=keys_of(cloud))
    url, body = f"{cloud.url}/v4/ecs/list-instances", f'{{"regionID":"{HOME}","pageNo":1,"pageSize":1}}'.encode()
    late = {"old": 301, "UTC": 8 * 3600}.get(change or "", 0)
    request = ctyun.sign("POST", url, body, account, time.time() - late, "27cfe4dc-e640-45f6-92ca-492ca73e8680")
    headers = dict(request.headers)
    if change == "body":
        body = body.replace(b'"pageNo":1', b'"pageNo":2')
    elif change == "query":
        url += "?pageNo=2"
    elif change in headers:
        at = -2 if change == "Eop-date" else -5
        headers[change] = headers[change][:at] + ("0" if headers[change][at] != "0" else "1") + headers[change][at:][1:]
    answer = requests.post(url, data=body, headers=headers, timeout=9)
    assert answer.status_code == (200 if change is None else 401), answer.text
    assert answer.json()["statusCode"] == (800 if change is None else "CTAPI_10009")


# ---------------------------------------------------------------- the same machines

def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Ctyun) -> None:
    app.account("ctyun", keys_of(cloud), cloud.url)
    answer = ours(app)
    theirs = machines(cloud.url, keys_of(cloud), HOME)
    assert_same(answer.servers, theirs)
    assert answer.total == len(theirs) == 467
    assert [s.id for s in answer.servers] == list(theirs)
    for window in (Window(1, 10), Window(46, 55), Window(451)):
        assert ours(app, window=window).servers == answer.servers[window.first - 1:window.last]
    assert_same(ours(app, ELSEWHERE).servers, machines(cloud.url, keys_of(cloud), ELSEWHERE))


def test_how_many_calls(app: App, cloud: Ctyun) -> None:
    """Instances by fifty, and the region's disks by three hundred for any window: they cannot be asked for by id.
    The first listing reads one page more of each list, as a proof."""
    cloud.fleets[HOME] = Fleet(1000)
    disks = sum(len(cloud.fleets[HOME][n].disks) for n in range(1000))
    app.account("ctyun", keys_of(cloud), cloud.url)
    for window, pages, proofs in ((many_sources.WHOLE, 20, 1), (Window(501, 510), 1, 0), (many_sources.WHOLE, 20, 0)):
        cloud.forget()
        ours(app, window=window)
        assert (cloud.count("ListInstances"), cloud.count("ListEbs")) == (pages + proofs, -(-disks // 300) + proofs)
        assert cloud.count("ListRegions") == 0


def test_a_project(app: App, cloud: Ctyun) -> None:
    wanted = project_of(next(m for m in cloud.fleets[HOME] if m.project))
    app.account("ctyun", keys_of(cloud), cloud.url, project=wanted)
    listed = sdk(EcsClient, cloud.url, keys_of(cloud), "v4_ecs_list_instances", models.V4EcsListInstancesRequest(
        regionID=HOME, projectID=wanted, pageSize=50)).returnObj
    answer = ours(app)
    assert answer.total == listed.totalCount
    assert 0 < answer.total < 467
    assert [s.id for s in answer.servers[:50]] == [row.instanceID for row in listed.results]


@pytest.mark.parametrize("silent", [False, True])
def test_regions(app: App, cloud: Ctyun, silent: bool) -> None:
    """An unknown region is an error whether the party refuses it or lists nothing; an empty one that is there is
    not."""
    cloud.silent = silent
    app.account("ctyun", keys_of(cloud), cloud.url)
    for region in ("0" * 32, CLOSED):
        with pytest.raises(UnknownRegion):
            ours(app, region)
    assert ours(app, "100054c0416811e9a6690242ac110002").total == 0
    theirs = sdk(EcsClient, cloud.url, keys_of(cloud), "v4_region_list_regions", V4RegionListRegionsRequest())
    assert {r.code: r.open for r in regions_of(app, cloud)} == {
        r["regionID"]: r["openapiAvailable"] for r in theirs.returnObj["regionList"]}
    assert all(ctyun.PARTY.region(code) == code for code in REGIONS)


def test_a_wrong_key(app: App, cloud: Ctyun) -> None:
    for keys in ({**keys_of(cloud), "access_key": "AKother"}, {**keys_of(cloud), "secret_key": "another"}):
        app.account("ctyun", keys, cloud.url)
        with pytest.raises(PartyDenied, match="wrong key"):
            ours(app)
        refused = sdk(EcsClient, cloud.url, keys, "v4_ecs_list_instances", models.V4EcsListInstancesRequest(HOME))
        assert refused.statusCode == 900
        assert refused.errorCode.startswith("CTAPI_1000")


# ---------------------------------------------------------------- shapes and limits

def test_the_sdks_models_know_every_name(cloud: Ctyun) -> None:
    """Of the simulator's rows and of the fixtures' rows, through the model and back."""
    keys = keys_of(cloud)
    account = Account(tenant_id="1", party="ctyun", credentials=keys)
    body = json.dumps({"regionID": HOME, "pageSize": 5}).encode()
    posted = ctyun.sign("POST", f"{cloud.url}/v4/ecs/list-instances", body, account, time.time(), "id")
    url = f"{cloud.url}/v4/ebs/list-ebs?pageSize=5&regionID={HOME}"
    signed = ctyun.sign("GET", url, b"", account, time.time(), "id")
    sample = next(c for c in WHAT["ctyun"]["cases"] if c["name"] == "every field of the model")
    fixture = {e["operation"]: e["answer"]["json"] for e in sample["exchanges"]}
    for answers, response, rows in (
            ((requests.post(posted.url, data=body, headers=posted.headers, timeout=9).json(),
              fixture["ListInstances"]), models.V4EcsListInstancesResponse, "results"),
            ((requests.get(url, headers=signed.headers, timeout=9).json(), fixture["ListEbs"]),
             V4EbsListEbsResponse, "diskList")):
        for answer in answers:
            back = response.from_dict(answer).to_dict()
            assert answer["returnObj"][rows]
            for mine, kept in zip(answer["returnObj"][rows], back["returnObj"][rows], strict=True):
                assert _held(mine, kept), mine


def _held(mine: Any, kept: Any) -> bool:
    """All that was given is kept; names that the model adds do not matter."""
    if isinstance(mine, dict) and isinstance(kept, dict):
        return all(name in kept and _held(value, kept[name]) for name, value in mine.items())
    if isinstance(mine, list) and isinstance(kept, list):
        return len(mine) == len(kept) and all(map(_held, mine, kept))
    return mine == kept


def test_the_simulator_enforces_what_is_documented(cloud: Ctyun) -> None:
    keys = keys_of(cloud)
    for client, call, request, default in (
            (EcsClient, "v4_ecs_list_instances", models.V4EcsListInstancesRequest, "results"),
            (EbsClient, "v4_ebs_list_ebs", V4EbsListEbsRequest, "diskList")):
        assert len(getattr(sdk(client, cloud.url, keys, call, request(HOME)).returnObj, default)) == 10
        for wrong in (request(HOME, pageSize=301), request(HOME, pageNo=0), request(""), request("0" * 32)):
            refused = sdk(client, cloud.url, keys, call, wrong)
            assert refused.statusCode == 900, wrong
            assert refused.errorCode.startswith("Openapi."), wrong
    assert sdk(EcsClient, cloud.url, keys, "v4_ecs_list_instances", models.V4EcsListInstancesRequest(
        HOME, pageSize=51)).statusCode == 900
