"""The vendor's SDK lists the same servers at the simulator as we do, and its models know every field of our cases."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from chalicelib.errors import PartyDenied, PartyMalformed
from chalicelib.fleet import check
from chalicelib.parties import ionos
from chalicelib.parties.ionos.simulator import center_id
from tests import bearer
from tests.fixtures import App
from tests.unit.test_parties import WHAT
from tests.verified import lister

machines = lister("ionos")


def test_the_sdk_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_machines(app, stack, "ionos", machines)


def test_the_models_know_every_field_of_our_cases() -> None:
    """And its complete lists of words are those that we know."""
    ionoscloud: Any = pytest.importorskip("ionoscloud")
    models, count = ionoscloud.models, 0
    for case in WHAT["ionos"]["cases"]:
        for exchange in case["exchanges"]:
            answer = exchange["answer"]
            if exchange["operation"] == "ListServers" and answer["status"] == 200 and "unknown" not in case["name"]:
                for row in answer["json"]["items"]:
                    known(models.Server, row)
                    known(models.ServerProperties, row.get("properties") or {})
                    known(models.DatacenterElementMetadata, row.get("metadata") or {})
                    for one in ((row.get("entities") or {}).get("nics") or {}).get("items") or ():
                        known(models.NicProperties, one.get("properties") or {})
                    for one in ((row.get("entities") or {}).get("volumes") or {}).get("items") or ():
                        known(models.VolumeProperties, one.get("properties") or {})
                    count += 1
    assert count > 10
    strict = ionoscloud.Configuration()
    strict.client_side_validation = True
    for state in ionos._STATUS:
        models.ServerProperties(vm_state=state, local_vars_configuration=strict)
    for state in (*ionos._STATES, ionos._GONE):
        models.DatacenterElementMetadata(state=state, local_vars_configuration=strict)
    with pytest.raises(ValueError, match="vm_state"):
        models.ServerProperties(vm_state="MELTING", local_vars_configuration=strict)


def known(model: Any, row: Mapping[str, Any]) -> None:
    assert set(row) <= set(model.attribute_map.values()), json.dumps(row)


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "ionos", "de-txl")


def test_one_data_center_of_a_location(app: App, stack: ExitStack) -> None:
    cloud, credentials = bearer.account_at(app, stack, "ionos", "de-txl")
    whole = bearer.listed(app, "ionos").servers
    assert {server.project_id for server in whole} == {center_id("de-fra", n) for n in range(2)}
    for n in range(3):                      # the last one is empty
        app.account("ionos", credentials, cloud.url, project=center_id("de-fra", n))
        assert bearer.listed(app, "ionos").servers == [
            row for row in whole if row.project_id == center_id("de-fra", n)]
    app.account("ionos", credentials, cloud.url, project=center_id("nowhere", 0))
    with pytest.raises(PartyDenied, match="wrong project"):
        bearer.listed(app, "ionos")


def test_an_answer_that_is_not_deep_enough_is_never_a_disk_of_nothing(app: App, stack: ExitStack,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    bearer.account_at(app, stack, "ionos")
    every = ionos._all
    monkeypatch.setattr(ionos, "_all", lambda client, operation, path, row, depth: every(
        client, operation, path, row, min(depth, 2)))
    with pytest.raises(PartyMalformed):
        bearer.listed(app, "ionos")


def test_a_user_with_whom_nothing_is_shared(app: App, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, _ = bearer.account_at(app, stack, "ionos")
    cloud.kept = {}
    monkeypatch.setattr(cloud, "answer", lambda call, real=cloud.answer: real(call) if (
        call.operation != "ListDatacenters") else type(real(call))(
            200, {"Content-Type": "application/json"}, b'{"items": [], "_links": {}}'))
    with pytest.raises(PartyDenied, match="share them"):
        check.check_account(app.deployment, "123", "ionos")


@pytest.mark.parametrize(("path", "status"), [("/cloudapi/v6/datacenters?limit=10001", 400),
                                              ("/cloudapi/v6/datacenters?depth=11", 400),
                                              ("/cloudapi/v6/datacenters/x/servers", 404)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "ionos", path) == status
