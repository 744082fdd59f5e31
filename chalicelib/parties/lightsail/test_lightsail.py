"""boto3 and botocore's model of Lightsail: what they list at the simulator, we list. Moto has no Lightsail."""

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import boto3
import botocore.session
import pytest
import time_machine
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib import parties
from chalicelib.cloud.amazon import sign
from chalicelib.errors import PartyDenied, UnknownRegion
from chalicelib.fleet import check, many_sources
from chalicelib.fleet.many_sources import Answer, Window
from chalicelib.model import Account, Keys
from chalicelib.parties import lightsail
from chalicelib.parties.lightsail.simulator import REGIONS, Lightsail
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import App, aws_keys
from tests.unit.test_parties import WHAT
from tests.verified import assert_same, lister

REGION, SIZE = "us-east-1", 137
MODEL = botocore.session.get_session().get_service_model("lightsail")


@pytest.fixture
def cloud(stack: ExitStack, app: App) -> Lightsail:
    keys = aws_keys()
    made = stack.enter_context(Lightsail({keys["access_key_id"]: keys["secret_access_key"]},
                                         {REGION: Fleet(SIZE, gone=True)}, short=True, limited=False))
    app.account("lightsail", keys, made.url)
    return made


def boto(cloud: Lightsail, service: str = "lightsail", region: str = REGION, **more: Any) -> Any:
    key_id, secret = next(iter(cloud.keys.items()))
    return boto3.client(service, endpoint_url=cloud.url, region_name=region, config=Config(
        retries={"total_max_attempts": 1}),
        **{"aws_access_key_id": key_id, "aws_secret_access_key": secret, **more})


machines = lister("lightsail")


def ours(app: App, window: Window = many_sources.WHOLE, region: str = REGION) -> Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "lightsail", region), window)


def test_boto3_and_we_list_the_same_machines(app: App, cloud: Lightsail) -> None:
    every = [row for page in boto(cloud).get_paginator("get_instances").paginate() for row in page["instances"]]
    assert len(every) == SIZE
    theirs = sorted((row for row in every if row["state"]["name"] != "terminated"),
                    key=lambda row: (row["createdAt"], row["arn"].rpartition("/")[2]))
    assert 0 < len(theirs) < SIZE
    servers = ours(app).servers
    key_id, secret = next(iter(cloud.keys.items()))
    views = machines(cloud.url, {"access_key_id": key_id, "secret_access_key": secret}, REGION)
    assert len(servers) == len(theirs)
    assert_same(servers, views)
    for mine, row in zip(servers, theirs, strict=True):
        assert mine.created_at
        assert row["arn"].endswith(f":Instance/{mine.id}")
        assert mine.created_at.microsecond                      # the fraction is not lost
    assert any(server.memory_mib == 512 for server in servers)
    for window in (Window(1, 1), Window(31, 60), Window(100)):
        assert ours(app, window).servers == servers[window.first - 1:window.last]


def test_boto3_signs_as_we_do(cloud: Lightsail) -> None:
    """The same call at the same second: the same header, over the same headers."""
    (key_id, secret), = cloud.keys.items()
    for token in (None, "session"):
        cloud.session_tokens = {key_id: token} if token else {}
        with time_machine.travel(1_790_000_000, tick=False):
            boto(cloud, aws_session_token=token).get_regions()
            theirs = cloud.calls[-1]
            target = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Lightsail_20161128.GetRegions"}
            mine = sign("lightsail", REGION, f"{cloud.url}/", theirs.body, Keys(key_id, secret, token), target)
        assert mine.headers["Authorization"] == theirs.headers["authorization"]
        assert all(theirs.headers[name.lower()] == value for name, value in target.items())


def test_the_model_knows_every_field_of_our_cases_and_the_simulators(cloud: Lightsail) -> None:
    count = 0
    answers = [exchange["answer"]["json"] for case in WHAT["lightsail"]["cases"] for exchange in case["exchanges"]
               if not case["name"].startswith(("unknown shape", "odd value"))]
    raw = cloud._listed                     # as it is before it is written
    bodies: list[Any] = []
    cloud._listed = lambda call: bodies.append(raw(call)) or bodies[-1]             # type: ignore[method-assign,func-returns-value]
    boto(cloud).get_instances()
    shape = MODEL.operation_model("GetInstances").output_shape
    for answer in [*answers, *bodies]:
        if answer and "instances" in answer:
            known(answer, shape)
            count += 1
    assert count > 10
    assert {error.name for error in MODEL.operation_model("GetInstances").error_shapes} <= set(lightsail.PARTY.errors)


def known(value: Any, shape: Any) -> None:
    """Every key of the value is one of the model's, and of its kind."""
    if value is None:
        return
    if shape.type_name == "structure":
        assert set(value) <= set(shape.members), shape.name
        for name, inner in value.items():
            known(inner, shape.members[name])
    elif shape.type_name == "list":
        for inner in value:
            known(inner, shape.member)
    else:
        kinds = {"string": str, "integer": int, "boolean": bool, "float": int | float, "timestamp": int | float}
        assert isinstance(value, kinds[shape.type_name]), (shape.name, value)


def test_the_simulator_refuses_what_the_real_one_does(cloud: Lightsail) -> None:
    for client, code in ((boto(cloud, region="eu-central-1"), "InvalidSignatureException"),
                         (boto(cloud, aws_secret_access_key="other"), "InvalidSignatureException"),
                         (boto(cloud, aws_access_key_id="AKIAOTHER"), "UnrecognizedClientException")):
        with pytest.raises(ClientError) as refused:
            client.get_instances()
        assert refused.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError, match="InvalidInputException"):
        boto(cloud).get_instances(pageToken="made-up")


def test_an_unknown_region_and_a_key_without_the_right(app: App, cloud: Lightsail) -> None:
    for region in ("eu-central-1", "cn-north-1", "us-gov-west-1"):
        with pytest.raises(UnknownRegion):
            ours(app, region=region)
    cloud.denied = {"GetInstances"}
    with pytest.raises(PartyDenied, match="missing right"):
        ours(app)
    with pytest.raises(PartyDenied):
        check.check_account(app.deployment, "123", "lightsail", REGION)


@pytest.mark.slow
def test_temporary_keys_and_an_assumed_role(app: App, cloud: Lightsail) -> None:
    (key_id, secret), = cloud.keys.items()
    count = ours(app).total
    cloud.roles = {"arn:aws:iam::123456789012:role/reader": "shared-with-tenant"}
    account = Account(tenant_id="1", party="lightsail", endpoint=cloud.url, revision="one",
                      credentials={"role_arn": "arn:aws:iam::123456789012:role/reader",
                                   "external_id": "shared-with-tenant"},
                      identity=lambda: Keys(key_id, secret))
    source = many_sources.source_of("1", "lightsail", REGION)

    def listed(account: Account) -> int | None:
        send = app.deployment.transport.sender(lightsail.PARTY, account, REGION, time.monotonic() + 20)
        return parties.list_servers(source, account, many_sources.WHOLE, send).total

    cloud.forget()
    assert listed(account) == listed(account) == count
    assert cloud.count("AssumeRole") == 1
    call = next(call for call in cloud.calls if call.operation == "AssumeRole")
    assert b"lightsail%3AGetInstances" in call.body
    assert b"ec2" not in call.body
    with pytest.raises(PartyDenied, match="wrong role"):
        listed(replace(account, credentials={**account.credentials, "external_id": "guessed"}, revision="other"))


def test_regions(app: App, cloud: Lightsail) -> None:
    """Asked in the one region that has them, whichever is the account's."""
    (key_id, secret), = cloud.keys.items()
    account = Account(tenant_id="1", party="lightsail", endpoint=cloud.url, regions=("eu-west-1",),
                      credentials={"access_key_id": key_id, "secret_access_key": secret})
    send = app.deployment.transport.sender(lightsail.PARTY, account, "eu-west-1", time.monotonic() + 9)
    theirs = boto(cloud).get_regions()["regions"]
    assert [region.code for region in parties.list_regions(account, send)] == [region["name"] for region in theirs]
    assert [*REGIONS] == [region["name"] for region in theirs]
