"""The vendor's SDK logs in as we do, signs as we do, and lists the same servers at the simulator; its models know every
field of our cases."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import jwt
import pytest
import requests
import time_machine

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.errors import InvalidParameter, PartyDenied
from chalicelib.fleet import check, many_sources
from chalicelib.model import Account
from chalicelib.parties import stackit
from chalicelib.parties.stackit.simulator import PROJECT, Stackit, start
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT, account_of
from tests.verified import assert_same, lister

SIZE, REGION = 137, "eu01"


@pytest.fixture
def cloud(stack: ExitStack, app: App) -> Stackit:
    made, credentials = start({REGION: Fleet(SIZE, "stackit"), "eu02": Fleet(3, "vienna")}, canaries.secret("stackit"))
    assert isinstance(made, Stackit)
    stack.enter_context(made)
    app.account("stackit", credentials, made.url)
    return made


def ours(app: App, region: str = REGION) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "stackit", region))


def opened(app: App) -> Account:
    return accounts.load(app.deployment.store, app.deployment.sealer, "123", "stackit", local=True)


def credentials_of(app: App) -> Mapping[str, str]:
    return opened(app).credentials


# ---------------------------------------------------------------- the SDK

machines = lister("stackit")


def test_the_sdk_and_we_list_the_same_machines(cloud: Stackit, app: App) -> None:
    theirs = machines(cloud.url, credentials_of(app), REGION)
    answer = ours(app)
    assert answer.total == len(theirs) == SIZE
    assert_same(answer.servers, theirs)


def test_the_sdk_signs_as_we_do() -> None:
    """PyJWT, with which the SDK signs, verifies ours."""
    signer, rsa = stackit._read(account_of("stackit").credentials)
    mine = stackit.sign(signer, rsa, 1_700_000_000, "a-nonce")
    assert jwt.get_unverified_header(mine) == {"alg": "RS512", "kid": signer.kid, "typ": "JWT"}
    with time_machine.travel(1_700_000_300, tick=False):
        claims = jwt.decode(mine, rsa.public_key(), ["RS512"], audience=signer.aud)
    assert claims == {"iss": signer.iss, "sub": signer.sub, "aud": signer.aud, "jti": "a-nonce", "iat": 1_700_000_000,
                      "exp": 1_700_000_600}


def test_the_models_know_every_field_of_our_cases() -> None:
    """And their lists of words are those that we know: these stand in the models' texts alone."""
    models: Any = pytest.importorskip("stackit.iaas.models")
    kinds = {"ListServers": models.server.Server, "ListVolumes": models.volume.Volume,
             "ListMachineTypes": models.machine_type.MachineType}
    count = 0
    for case in WHAT["stackit"]["cases"]:
        for exchange in case["exchanges"]:
            rows = (exchange["answer"].get("json") or {}).get("items", ())
            if exchange["operation"] in kinds and "unknown" not in case["name"]:
                for row in rows:
                    assert set(row) <= names(kinds[exchange["operation"]]), json.dumps(row)
                    for nic in row.get("nics") or ():
                        assert set(nic) <= names(models.server_network.ServerNetwork), json.dumps(nic)
                    count += 1
    assert count > 50
    words = re.findall(r"`([A-Z-]+)`", models.server.Server.model_fields["status"].description)
    assert {*words} - {"DELETED"} == {word for word in stackit._STATUS if " " not in word}
    power = re.findall(r"`([A-Z]+)`", models.server.Server.model_fields["power_status"].description)
    assert {word.partition(" ")[2] for word in stackit._STATUS if " " in word} <= set(power)


def names(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


# ---------------------------------------------------------------- keys, regions

@pytest.mark.parametrize(("field", "value"), [("kid", "another"), ("iss", "x@sa.stackit.cloud"), ("sub", "nobody"),
                                              ("aud", "https://evil.example")])
def test_a_changed_key_is_refused(field: str, value: str, cloud: Stackit, app: App) -> None:
    """The audience too, and the token is asked for at the pinned address alone."""
    key = json.loads(credentials_of(app)["service_account_key"])
    app.account("stackit", {"project_id": PROJECT, "service_account_key": {
        **key, "credentials": {**key["credentials"], field: value}}}, cloud.url)
    with pytest.raises(PartyDenied, match="invalid_grant"):
        ours(app)
    assert cloud.count("ListServers") == 0


def test_a_token_is_kept_and_another_one_made_if_it_is_refused(cloud: Stackit, app: App) -> None:
    assert ours(app).total == ours(app).total == SIZE
    assert cloud.count("Login") == 1
    cloud.tokens.clear()
    assert ours(app).total == SIZE
    assert cloud.count("Login") == 2


def test_the_types_are_asked_for_once(cloud: Stackit, app: App) -> None:
    ours(app)
    ours(app)
    assert (cloud.count("ListServers"), cloud.count("ListMachineTypes")) == (2, 1)
    assert ours(app, "eu02").total == 3
    assert cloud.count("ListMachineTypes") == 2


def test_regions_and_the_check(cloud: Stackit, app: App) -> None:
    send = app.deployment.transport.sender(stackit.PARTY, opened(app), REGION, time.monotonic() + 9)
    assert [region.code for region in parties.list_regions(opened(app), send)] == ["eu01", "eu02"]
    check.check_account(app.deployment, "123", "stackit")
    cloud.denied = {"ListServers"}
    with pytest.raises(PartyDenied, match="missing right"):
        check.check_account(app.deployment, "123", "stackit")


@pytest.mark.parametrize("credentials", [{}, {"privateKey": None}, {"privateKey": "-----BEGIN PRIVATE KEY-----\nx"},
                                         {"kid": ""}])
def test_a_file_that_cannot_sign_is_not_stored(credentials: dict[str, Any]) -> None:
    key = json.loads(account_of("stackit").credentials["service_account_key"])
    changed = {**key["credentials"], **credentials} if credentials else None
    with pytest.raises(InvalidParameter, match="whole JSON file"):
        accounts.check("1", stackit.PARTY, {"project_id": PROJECT, "service_account_key": {
            **key, "credentials": changed}}, project=None, regions=(), deep=False, endpoint=None, local=False)


@pytest.mark.parametrize(("path", "status"), [
    (f"/v2/projects/{PROJECT}/regions/eu01/servers?limit=1", 400),
    (f"/v2/projects/{PROJECT}/regions/eu01/servers?details=yes", 400),
    (f"/v2/projects/{PROJECT}/regions/eu09/servers", 404), ("/v2/projects/x/regions/eu01/servers", 404),
    (f"/v1/projects/{PROJECT}/servers", 404)])
def test_the_simulator_refuses_what_the_real_one_refuses(path: str, status: int, cloud: Stackit, app: App) -> None:
    ours(app)
    (token,) = cloud.tokens
    answer = requests.get(cloud.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=9)
    assert answer.status_code == status
