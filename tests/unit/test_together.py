"""Members behind one door that their party lists together: a request, a run and a message cost one set of calls."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

import app
from chalicelib.access import accounts
from chalicelib.cloud import cache
from chalicelib.errors import PartyTimeout
from chalicelib.fleet import schedule, together
from chalicelib.fleet.lookup import Lookup
from chalicelib.fleet.organisations import members
from chalicelib.model import Source
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.server import Plan
from tests.fixtures import App
from tests.http.test_app import Context
from tests.unit.test_discovery import Organisation

NAMED = {"door": 4, "top": 3, "payments": 5, "empty": 0, "basket": 2}       # servers of each open subscription
SIZE, REGION = sum(NAMED.values()), "eastus"


@dataclass
class Door:
    """A deployment whose tenant 777 has a door to an organisation, the members of which are known."""

    served: App
    behind: Organisation
    token: str

    def ask(self, more: str = "") -> Any:
        return self.served.get(f"party=azure&tenant_id=777&region={REGION}&on_error=partial{more}", self.token).json()

    @property
    def sources(self) -> list[Source]:
        row = accounts.find(self.served.deployment.store, "777", "azure")
        return [Source("777", "azure", REGION, f"default:{member.id}")
                for member in members(Lookup(self.served.deployment), row)]

    def cold(self) -> None:
        """A process that knows no login and no sizes."""
        self.behind.cloud.forget()
        cache.forget()

    def queries(self) -> int:
        return sum(call.operation.startswith("Query") for call in self.behind.cloud.calls)


def door(served: App, stack: ExitStack, more: int = 0) -> Door:
    behind = Organisation("azure", stack, more)
    account = replace(behind.account, tenant_id="777", regions=(REGION,))
    store = served.deployment.store
    accounts.put(store, served.deployment.sealer(), account, served.clock(), replace=True)
    made = Door(served, behind, served.issue(served.user(f"bob{more}", ("777",))))
    assert len(made.sources) == len(NAMED) + more
    made.cold()
    return made


@pytest.fixture
def one(served: App, stack: ExitStack) -> Iterator[Door]:
    yield door(served, stack)


@pytest.mark.parametrize("way", ["request", "run", "message"])
def test_the_calls_do_not_grow_with_the_members(served: App, stack: ExitStack, way: str) -> None:
    """Five members and fifty cost the same: the login, a query for each kind, the sizes."""
    app.use(served.deployment)
    counts: list[int] = []
    for more in (0, 45):
        made = door(served, stack, more)
        if way == "request":
            answer = made.ask()
            assert answer["complete"], answer
            assert len(answer["vm_servers"]) == SIZE + more
        elif way == "run":
            results = list(schedule.run(served.deployment, made.sources))
            assert sum(result.total or 0 for result in results) == SIZE + more
        else:
            ((message, _),) = schedule.messages(served.deployment, waiting=made.sources)
            body = {"messageId": "1", "receiptHandle": "r", "body": schedule.write(message)}
            assert app.work({"Records": [body]}, Context(130_000)) == {"batchItemFailures": []}
        counts.append(len(made.behind.cloud.calls))
        kept = made.ask("&max_age=600")                         # each of them is kept, as if it had been listed alone
        assert {source["count"] for source in kept["sources"]} == {*NAMED.values(), *([1] if more else [])}
        assert len(made.behind.cloud.calls) == counts[-1]
        served.clock.forward(1)
    assert counts[0] == counts[1] == 1 + 5 + 1


def test_a_message_for_a_door_twice_lists_once(one: Door) -> None:
    ((message, _),) = schedule.messages(one.served.deployment, waiting=one.sources)
    assert message.sources == one.sources
    schedule.work_on(one.served.deployment, schedule.read(schedule.write(message)))
    calls = len(one.behind.cloud.calls)
    schedule.work_on(one.served.deployment, message)
    assert len(one.behind.cloud.calls) == calls


def test_what_the_whole_fails_with_each_member_fails_with(one: Door) -> None:
    """One breaker each learns of it, and the next request asks again."""
    one.behind.cloud.fail("503")
    answer = one.ask()
    assert {source["error"] for source in answer["sources"]} == {"party_unavailable"}
    assert len(one.behind.cloud.calls) < len(NAMED)             # the first ones, and one retry
    one.cold()
    assert len(one.ask()["vm_servers"]) == SIZE


@pytest.mark.slow
def test_an_answer_that_cannot_be_understood_lets_each_be_listed_alone(one: Door) -> None:
    one.behind.cloud.plans.append(Plan(answer=Answer(200, {}, b"{}"), operation="Query subscriptions"))
    answer = one.ask()
    assert answer["complete"]
    assert len(answer["vm_servers"]) == SIZE
    assert one.queries() > len(NAMED)


def test_a_member_that_is_hidden_fails_alone(one: Door) -> None:
    """The door's list names it still, the party shows it no more."""
    cloud: Any = one.behind.cloud
    key = cloud.ids["payments"]
    cloud.subscriptions[key] = replace(cloud.subscriptions[key], locked=True)
    states = {source["account"].partition(":")[2]: source.get("error") for source in one.ask()["sources"]}
    assert {member for member, error in states.items() if error} == {key}
    assert states[key] == "party_denied"


def test_regions_that_no_member_uses_are_empty_and_unknown_ones_are_not(one: Door) -> None:
    """What the party names is asked once for all of them."""
    query = "party=azure&tenant_id=777&on_error=partial&region="
    empty = one.served.get(query + "westeurope", one.token).json()
    assert {(source["state"], source["count"]) for source in empty["sources"]} == {("ok", 0)}
    assert one.behind.cloud.count("locations") == 1
    unknown = one.served.get(query + "atlantis", one.token)
    assert unknown.status_code == 400 or {source["state"] for source in unknown.json()["sources"]} == {"failed"}


def test_the_lists_are_no_younger_than_their_calls(one: Door) -> None:
    """A source that gets its part later says when the calls began; one that comes a minute later is listed alone."""
    deployment, clock = one.served.deployment, one.served.clock
    began, sources = clock(), one.sources
    shared = together.by_source(sources, clock)
    for n, source in enumerate(sources):
        message = schedule.message_of(source, began)
        assert schedule.work(deployment, message, None, shared[source]).error is None
        clock.forward(50 if n == 0 else 5)
    ages = {source["account"]: source["age"] for source in one.ask("&max_age=600")["sources"]}
    assert ages[sources[0].account] == ages[sources[1].account] == clock() - began
    assert ages[sources[-1].account] < 60


def test_who_waits_for_the_others_waits_until_its_deadline(one: Door) -> None:
    shared: Any = together.Together(one.sources, one.served.clock)
    shared.lock.acquire()
    with pytest.raises(PartyTimeout):
        shared.listing(one.sources[0], None, None, 0.0)


def test_who_is_grouped() -> None:
    """Members of one door at a party that lists them together; not accounts of their own, not another door's."""
    doors = [Source("1", "azure", "eastus", f"default:{n}") for n in range(together.MOST + 1)]
    alone = [Source("1", "azure", "eastus", "second"), Source("1", "aws", "us-east-1", "default:1"),
             Source("2", "azure", "eastus", "default:1")]
    assert together.grouped([alone[0], *doors, *alone[1:]]) == [
        [alone[0]], doors[:-1], doors[-1:], [alone[1]], [alone[2]]]
    assert together.by_source([*doors, *alone], lambda: 0.0).keys() == set(doors[:-1])
