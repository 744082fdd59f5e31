"""P1, P5, P7, P13 for every party, generated from one table: parties × calls of a listing × faults.

The simulators are found by name; a new party's is in this table as soon as it is there. `make test` meets each fault
at some parties, and at each party some faults, at one of its calls; tests/unit/test_transport.py has those that wait
and those on the way, which no adapter sees. `make test-all` has the whole table.
"""

import importlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from chalicelib import parties, simulators
from chalicelib.cloud import cache, rate_limit
from chalicelib.errors import PartyDenied, PartyError
from chalicelib.fleet import lookup, many_sources, one_source
from chalicelib.model import Status, Window
from chalicelib.simulators.faults import FAULTS, LATE, PASSING, UNSEEN
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Simulator
from chalicelib.storage import snapshots
from tests import canaries
from tests.fixtures import App, Clock, settings_in
from tests.unit.test_parties import WHAT

CLOUDS = simulators.clouds()
SIZE = 230                                  # three pages of a hundred
FEW = 30                                    # where each server costs calls of its own
REFUSED = {"401", "403"}


def size_of(party: str) -> int:
    return FEW if WHAT[party].get("call_for_each") else SIZE


class Stage(App):
    def cloud(self, party: str) -> Simulator:
        """The simulator, forgetful, and the tenant's account at it; what a failed listing left under way has ended."""
        for thread in threading.enumerate():
            if thread.name.startswith("twocloud"):
                thread.join()
        # what had been sent by then has arrived, and is not counted with what follows
        time.sleep(0.02)
        cloud = self.clouds[party]
        cloud.forget()
        cache.forget()
        snapshots.forget_account(self.deployment.store, "123", party)
        return cloud

    def listing(self, party: str, seconds: float = 25.0, window: Window = many_sources.WHOLE) -> many_sources.Answer:
        return many_sources.list_servers(self.deployment, many_sources.source_of("123", party, CLOUDS[party].region),
                                         window,
                                      deadline=time.monotonic() + seconds)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        deployment = many_sources.open_deployment(settings_in(tmp_path_factory.mktemp("stage")), Clock())
        stack.callback(deployment.close)
        deployment.transport.jitter = lambda: 0.0
        made = Stage(deployment, Clock())
        for party, entry in CLOUDS.items():
            made.clouds[party], credentials = entry.start(
                {entry.region: Fleet(size_of(party), party)}, canaries.secret(party), limited=False)
            stack.enter_context(made.clouds[party])
            made.account(party, credentials, made.clouds[party].url)
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of listings in a row: no paces, pages of at most a hundred, a late answer is given up after a second."""
    monkeypatch.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)
    monkeypatch.setattr(lookup, "ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(one_source, "_LIVE_LISTINGS", 10 ** 6)
    for party in CLOUDS:
        module = importlib.import_module(f"chalicelib.parties.{party}")
        if getattr(module, "_PAGE", 0) > 100:
            monkeypatch.setattr(module, "_PAGE", 100)


_counted: dict[str, Counter[str]] = {}


def calls_of(stage: Stage, party: str) -> Counter[str]:
    """The calls of a whole listing by a cold process: counted once, before the first fault, as a call that a failed
    listing gave up may still arrive during the next one."""
    if party not in _counted:
        cloud = stage.cloud(party)
        assert stage.listing(party).total == size_of(party)
        _counted[party] = Counter(call.operation for call in cloud.calls)
    return _counted[party]


def test_every_party_has_a_simulator() -> None:
    assert set(CLOUDS) == {name for name in parties.names() if parties.load(name).grade != "bridged"}


def places_of(stage: Stage, party: str) -> list[tuple[str, int]]:
    """The first and the last call of each operation of a listing."""
    return [(operation, nth) for operation, made in calls_of(stage, party).items() for nth in sorted({1, made})]


def is_absent(party: str, operation: str, fault: str) -> bool:
    return any([operation, word] in WHAT[party].get("absent", []) for word in (fault, "*"))


def meets(stage: Stage, party: str, fault: str, operation: str, nth: int) -> None:
    """The answer is the fault's error, never a list; within the time; with one retry at most."""
    made, cloud = calls_of(stage, party)[operation], stage.cloud(party)
    cloud.fail(fault, operation, tuple(range(nth, nth + 50)))                   # so that a retry meets it too
    started = time.monotonic()
    if FAULTS[fault][1] is None or is_absent(party, operation, fault):
        assert stage.listing(party).total == size_of(party)
        return
    if nth == made > 1 and [operation, fault] in WHAT[party].get("absent_once", []):
        with suppress(PartyError):
            assert stage.listing(party).total == size_of(party)
        return
    with pytest.raises(PartyError) as failed:
        stage.listing(party, 0.8 if fault in LATE else 25.0)
    assert failed.value.code == FAULTS[fault][1], (operation, nth, failed.value)
    assert time.monotonic() - started < 20
    assert cloud.count(operation) <= 2 * made + 1, (operation, nth)             # at most listed again, and one retry


# of the faults of an answer a fifth at each party, in turn; fewer of those that wait and those that no adapter sees
ONCE = [(party, fault) for number, party in enumerate(CLOUDS) for place, fault in enumerate(FAULTS)
        if (number + place) % (12 if fault in LATE or fault in UNSEEN else 5) == 0]


@pytest.mark.parametrize(("party", "fault"), ONCE)
def test_every_fault_at_one_call(stage: Stage, party: str, fault: str) -> None:
    """The calls take turns."""
    places = places_of(stage, party)
    meets(stage, party, fault, *places[list(FAULTS).index(fault) % len(places)])


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("party", CLOUDS)
def test_every_fault_at_every_call(stage: Stage, party: str, fault: str) -> None:
    for operation, nth in places_of(stage, party):
        meets(stage, party, fault, operation, nth)


def passes(stage: Stage, party: str, fault: str, operation: str) -> None:
    nth, cloud = calls_of(stage, party)[operation], stage.cloud(party)
    cloud.fail(fault, operation, (nth,))
    assert stage.listing(party).total == size_of(party), (operation, fault)


@pytest.mark.sample(6)
@pytest.mark.parametrize("party", CLOUDS)
def test_a_single_fault_that_passes_is_not_seen(stage: Stage, party: str) -> None:
    """Each of them, and one at each operation."""
    operations = list(calls_of(stage, party))
    for number in range(max(len(PASSING), len(operations))):
        passes(stage, party, PASSING[number % len(PASSING)], operations[number % len(operations)])


@pytest.mark.slow
@pytest.mark.timeout(400)                   # a listing of ovh is a thousand calls
@pytest.mark.parametrize("party", CLOUDS)
def test_a_single_fault_that_passes_is_not_seen_at_any_call(stage: Stage, party: str) -> None:
    for operation in calls_of(stage, party):
        for fault in PASSING:
            passes(stage, party, fault, operation)


@pytest.mark.sample(3)
@pytest.mark.parametrize("party", CLOUDS)
def test_a_refusal_is_never_asked_again(stage: Stage, party: str) -> None:
    for operation, made in calls_of(stage, party).items():
        if is_absent(party, operation, "403"):
            continue
        cloud = stage.cloud(party)
        cloud.fail("403", operation)
        with pytest.raises(PartyDenied):
            stage.listing(party)
        assert 1 <= cloud.count(operation) <= made


@pytest.mark.parametrize("party", CLOUDS)
def test_every_field_that_the_cloud_knows_is_there(stage: Stage, party: str) -> None:
    """P13, against the fleet from which the simulator makes its answers."""
    stage.cloud(party)
    fleet = Fleet(size_of(party), party)
    machines = {fleet[n].name: fleet[n] for n in range(size_of(party))}
    listing = stage.listing(party)
    size = size_of(party)
    assert len({server.id for server in listing.servers}) == len(listing.servers) == listing.total == size
    for server in listing.servers:
        machine = machines[server.name]
        assert server.cpu is not None, server
        assert server.memory_mib is not None, server
        assert server.created_at is not None, server
        assert server.disk_gib == sum(machine.disks), server
        if machine.state == "running" or not WHAT[party].get("silent_when_off"):
            assert server.lan_ipv4[:1] == (() if WHAT[party].get("public_only") else machine.lan[:1]), server
            assert set(server.wan_ipv4) == set(machine.wan), server
        hours = 24 if WHAT[party].get("creation_is_a_date") else 1 / 60
        assert abs(server.created_at.timestamp() - machine.created.timestamp()) < hours * 3600, server
        assert server.party_status
        if machine.state in ("running", "stopped"):
            assert server.status == {"running": Status.ACTIVE, "stopped": Status.SHUTOFF}[machine.state], server
        assert server.status is not Status.UNKNOWN, server


@pytest.mark.parametrize("steps", [(144,), pytest.param((7, 100), marks=pytest.mark.slow)])
@pytest.mark.parametrize("party", CLOUDS)
def test_pages_join_to_the_whole(stage: Stage, party: str, steps: tuple[int, ...]) -> None:
    """P8, and the same bytes twice."""
    stage.cloud(party)
    whole, size = stage.listing(party).servers, size_of(party)
    assert stage.listing(party).servers == whole
    for step in steps:
        joined = [server for first in range(1, size + 1, step)
                  for server in stage.listing(party, window=Window(first, first + step - 1)).servers]
        assert joined == whole, step
    beyond = stage.listing(party, window=Window(size + 1, size + 10))
    assert beyond.servers == []
    assert beyond.total == size
    assert stage.listing(party, window=Window(size - 3)).servers == whole[-4:]
