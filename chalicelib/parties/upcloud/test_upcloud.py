"""No client that we did not write reads the simulator yet.

The simulator refuses what the real one refuses.
"""

from contextlib import ExitStack
from uuid import UUID

import pytest

from chalicelib.simulators.bearer import uuid_of
from chalicelib.simulators.fleet import Fleet
from tests import bearer
from tests.fixtures import App


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "upcloud", "us-nyc1")


@pytest.mark.parametrize(("path", "status"), [("/1.3/server?limit=101", 400),
                                              ("/1.3/server/00000000-0000-4000-8000-000000000000", 404)])
def test_the_simulator_refuses_what_we_never_ask(stack: ExitStack, path: str, status: int) -> None:
    assert bearer.status_of(stack, "upcloud", path) == status


def test_uuids_of_the_simulator_are_uuids() -> None:
    machine = Fleet(3, "upcloud")[2]
    assert str(UUID(uuid_of(machine, 0))) == uuid_of(machine, 0)
