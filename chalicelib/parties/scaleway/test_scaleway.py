"""Scaleway's own SDK lists the same servers at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from contextlib import ExitStack
from uuid import uuid4

import pytest

from chalicelib.parties import scaleway
from tests import bearer, canaries
from tests.fixtures import App
from tests.verified import lister

machines = lister("scaleway")


def test_the_sdk_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_machines(app, stack, "scaleway", machines, neighbour="nl-ams", token=canaries.watch(str(uuid4())))


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "scaleway", "nl-ams",
                                                      token=canaries.watch(str(uuid4())))


@pytest.mark.parametrize(("path", "status"), [
    ("/instance/v1/zones/xx-yyy-1/servers", 400),
    ("/instance/v1/zones/fr-par-1/servers?per_page=101", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "scaleway", path) == status


def test_the_zones_are_those_that_the_sdk_names() -> None:
    """No call lists them. A new one in the SDK must come into the table; those of a new region are asked for."""
    bridge = pytest.importorskip("scaleway_core.bridge")
    known = {f"{region}-{n}" for region, most in scaleway._ZONES.items() for n in range(1, most + 1)}
    assert set(bridge.ALL_ZONES) <= known
    assert set(bridge.ALL_REGIONS) <= scaleway._ZONES.keys()
