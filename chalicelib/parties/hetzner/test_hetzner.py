"""hcloud, Hetzner's own SDK, lists the same servers at the simulator as we do.

The simulator refuses what the real one refuses.
"""

from contextlib import ExitStack

import pytest

from tests import bearer
from tests.fixtures import App
from tests.verified import lister

machines = lister("hetzner")


def test_the_sdk_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    bearer.same_machines(app, stack, "hetzner", machines, neighbour="nbg1")


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "hetzner", "nbg1")


@pytest.mark.parametrize(("path", "status"), [("/v1/servers?per_page=51", 400), ("/v1/servers?sort=name", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "hetzner", path) == status
