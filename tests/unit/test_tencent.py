"""Tencent's products by its own SDK and its published signature: all are signed in one way, and hold what it knows."""

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import time_machine
from tencentcloud.cbs.v20170312 import cbs_client
from tencentcloud.cbs.v20170312 import models as cbs_models
from tencentcloud.common import abstract_client
from tencentcloud.cvm.v20170312 import cvm_client
from tencentcloud.cvm.v20170312 import models as cvm_models
from tencentcloud.lighthouse.v20200324 import lighthouse_client
from tencentcloud.lighthouse.v20200324 import models as lighthouse_models
from tencentcloud.vpc.v20170312 import models as vpc_models
from tencentcloud.vpc.v20170312 import vpc_client

from chalicelib.cloud.tencent import sign
from chalicelib.model import Account
from chalicelib.parties.lighthouse.simulator import Lighthouse
from chalicelib.parties.qcloud import reference
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from tests import verified
from tests.fixtures import qcloud_keys
from tests.unit.test_parties import WHAT

REGION = "ap-guangzhou"


@dataclass(frozen=True, slots=True)
class Product:
    """`sdk`: for each action, the SDK's client and its models."""

    party: str
    service: str
    version: str
    simulator: type[Qcloud]
    sdk: dict[str, tuple[type[Any], ModuleType]]


PRODUCTS = [
    Product("qcloud", "cvm", "2017-03-12", Qcloud, {
        "DescribeInstances": (cvm_client.CvmClient, cvm_models),
        "DescribeDisks": (cbs_client.CbsClient, cbs_models),
        "DescribeNetworkInterfaces": (vpc_client.VpcClient, vpc_models)}),
    Product("lighthouse", "lighthouse", "2020-03-24", Lighthouse, dict.fromkeys(
        ("DescribeInstances", "DescribeDisks", "DescribeRegions"),
        (lighthouse_client.LighthouseClient, lighthouse_models))),
]
each_product = pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.party)


@pytest.fixture
def cloud(stack: ExitStack, product: Product) -> Qcloud:
    keys = qcloud_keys()
    return stack.enter_context(product.simulator({keys["secret_id"]: keys["secret_key"]}, {REGION: Fleet(237)},
                                                 attached=True, limited=False))


def account(cloud: Qcloud, party: str, token: str | None = None) -> Account:
    (key_id, secret), = cloud.keys.items()
    return verified.account(party, cloud.url, {
        "secret_id": key_id, "secret_key": secret, **({"token": token} if token else {})})


def test_tc3_of_tencents_own_document() -> None:
    """https://cloud.tencent.com/document/api/213/30654"""
    account = Account(tenant_id="1", party="qcloud", credentials={
        "secret_id": "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "secret_key": "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"})
    body = b'{"Limit": 1, "Filters": [{"Values": ["\\u672a\\u547d\\u540d"], "Name": "instance-name"}]}'
    request = sign("cvm", "2017-03-12", "DescribeInstances", "ap-guangzhou", "https://cvm.tencentcloudapi.com/", body,
                   account, 1551113065)
    assert request.headers["Authorization"].endswith(
        "Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168")
    assert (
        "Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request" in request.headers["Authorization"]
    )


@each_product
def test_the_sdk_signs_as_we_do(cloud: Qcloud, product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call at the same second with the same content type: the same header."""
    monkeypatch.setattr(abstract_client, "_json_content", "application/json; charset=utf-8")
    kind, models = product.sdk["DescribeInstances"]
    for token in (None, "session"):
        holder = account(cloud, product.party, token)
        cloud.tokens = {holder.credentials["secret_id"]: token} if token else {}
        with time_machine.travel(1_790_000_000, tick=False):
            request = models.DescribeInstancesRequest()
            request._deserialize({"Limit": 5})
            reference.client(holder, kind, REGION).DescribeInstances(request)
            theirs = cloud.calls[-1]
            mine = sign(product.service, product.version, "DescribeInstances", REGION, f"{cloud.url}/", theirs.body,
                        holder, time.time())
        assert mine.headers["Authorization"].replace(", ", ",") == theirs.headers["authorization"].replace(", ", ",")
        for name in ("X-TC-Action", "X-TC-Version", "X-TC-Region", "X-TC-Timestamp",
                     *(["X-TC-Token"] if token else [])):
            assert mine.headers[name] == theirs.headers[name.lower()]


@each_product
def test_the_sdk_knows_every_field_of_our_cases_and_the_simulators(cloud: Qcloud, product: Product) -> None:
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")      # the SDK warns of names that it does not know
        warnings.simplefilter("ignore", DeprecationWarning)     # and Python, since 3.12, of how the SDK reads its clock
        for case in WHAT[product.party]["cases"]:
            if case["name"].startswith(("unknown shape", "odd value")):
                continue
            for exchange in case["exchanges"]:
                body = exchange["answer"].get("json", {}).get("Response", {})
                if "Error" not in body and body:
                    _, models = product.sdk[exchange["operation"]]
                    getattr(models, f"{exchange['operation']}Response")()._deserialize(body)
                    count += 1
        for action, (kind, models) in product.sdk.items():
            getattr(reference.client(account(cloud, product.party), kind, REGION), action)(
                getattr(models, f"{action}Request")())
    assert count > 20
