"""ibm-vpc, IBM's own SDK, lists the same instances at the simulator as we do.

The simulator refuses what the real one refuses.
"""

import logging
from contextlib import ExitStack

import pytest

from tests import bearer
from tests.fixtures import App
from tests.verified import lister

machines = lister("ibm")


def test_the_sdk_and_we_list_the_same_machines(app: App, stack: ExitStack) -> None:
    logging.getLogger("ibm-cloud-sdk-core").setLevel(logging.WARNING)
    bearer.same_machines(app, stack, "ibm", machines)


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "ibm")


@pytest.mark.parametrize(("path", "status"), [
    ("/v1/instances?generation=2", 400),
    ("/v1/instances?version=2024-11-12&generation=2&limit=101", 400)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "ibm", path) == status
