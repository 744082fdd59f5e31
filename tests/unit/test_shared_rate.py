"""The rate of an account whose sources several processes refresh: ten of them keep it together, and a store that fails
stops none of them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cloud.rate_limit import MARGIN, RateLimits
from chalicelib.errors import PartyThrottled, StoreBusy
from chalicelib.fleet import many_sources, schedule, shared_rate
from chalicelib.fleet.many_sources import Deployment
from chalicelib.model import Account, Limit, Source
from chalicelib.parties.vultr.simulator import CLOUDS
from chalicelib.settings import Settings
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Rate
from tests import ROOT, canaries
from tests.fixtures import AWS, TABLE, Clock, settings_in

PROCESSES = 10
PARTY = parties.load("vultr")
LIMIT = PARTY.limits["ListInstances"]
CODES = tuple(f"aa{letter}" for letter in "abcdefghijklmno")
SLOW = Limit(5, 5.0)                        # which ten processes pass on any machine, if each keeps it for itself
WORKER = """
import json, sys, time
import msgspec
from chalicelib import parties, settings
from chalicelib.fleet import many_sources, schedule
from chalicelib.model import Limit
party = parties.load("vultr")
msgspec.structs.force_setattr(party, "limits", dict.fromkeys(party.limits, Limit(int(sys.argv[1]), float(sys.argv[2]))))
deployment = many_sources.open_deployment(settings.load())
print("ready", flush=True)
for region in json.loads(sys.stdin.readline()):
    result = schedule.work(deployment, schedule.Message("123", "vultr", region, time.time()))
    print(json.dumps([region, result.total, result.error and result.error.code]), flush=True)
"""


def start(regions: tuple[str, ...] = CODES, size: int = 2) -> tuple[Any, Any]:
    return CLOUDS["vultr"].start({code: Fleet(size, code) for code in regions}, canaries.secret("vultr"))


def put(deployment: Deployment, cloud: Any, credentials: Any, regions: tuple[str, ...] = CODES) -> None:
    made = accounts.check("123", PARTY, credentials, project=None, regions=regions, deep=False, endpoint=cloud.url,
                          local=True)
    accounts.put(deployment.store, deployment.sealer(), made, time.time(), replace=True)


# ---------------------------------------------------------------- ten processes

@pytest.fixture(params=["sqlite", pytest.param("dynamodb", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Of a store that the processes of a test share; DynamoDB is MiniStack's."""
    if request.param == "sqlite":
        yield settings_in(tmp_path)
        return
    client, name = request.getfixturevalue("server_client"), f"twocloud-rate-{os.getpid()}"
    client.create_table(TableName=name, **TABLE)
    for variable, value in {"AWS_ENDPOINT_URL": request.getfixturevalue("server_url"),
                            "AWS_DEFAULT_REGION": AWS["region_name"], "AWS_ACCESS_KEY_ID": "testing",
                            "AWS_SECRET_ACCESS_KEY": "testing"}.items():
        monkeypatch.setenv(variable, value)
    yield settings_in(tmp_path, store=f"dynamodb://{name}")
    client.delete_table(TableName=name)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_processes_keep_the_rate_of_one_account(settings: Settings, stack: ExitStack) -> None:
    """The simulator refuses what passes half as much again, for a busy machine bunches up what was spaced out."""
    made, credentials = start()
    cloud = stack.enter_context(made)
    cloud.rate = Rate(3 * SLOW.calls * 3 // 2, SLOW.seconds)    # of three lists
    deployment = many_sources.open_deployment(settings)
    stack.callback(deployment.close)
    put(deployment, cloud, credentials)
    environment = {**os.environ, "TWOCLOUD_STORE": settings.store, "TWOCLOUD_KEY": settings.key, "TWOCLOUD_LOCAL": "1"}
    workers = [stack.enter_context(subprocess.Popen(
        [sys.executable, "-c", WORKER, str(SLOW.calls), str(SLOW.seconds)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)) for _ in range(PROCESSES)]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for n, worker in enumerate(workers):
        assert worker.stdin
        worker.stdin.write(json.dumps(CODES[n::PROCESSES]) + "\n")
        worker.stdin.flush()
    results = [json.loads(line) for worker in workers for line in worker.stdout or ()]
    assert sorted(results) == sorted([code, 2, None] for code in CODES)
    assert not [call for call in cloud.calls if call.operation not in PARTY.limits]
    for operation in ("ListInstances", "ListBlocks", "ListReservedIps"):
        came = sorted(call.at for call in cloud.calls if call.operation == operation)
        assert len(came) == len(CODES)                          # none was refused and repeated
        assert len(came) <= SLOW.calls * ((came[-1] - came[0]) / SLOW.seconds + 1)


# ---------------------------------------------------------------- which calls are taken

@given(st.builds(Limit, st.integers(1, 60), st.sampled_from([0.5, 1.0, 5.0, 60.0])),
       st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20)), min_size=1, max_size=30))
def test_no_window_holds_more_than_the_rate(limit: Limit, steps: list[tuple[float, int]]) -> None:
    """Whoever takes how many calls and when, and wherever in its cell each starts; none could start a window sooner."""
    taken, now, cell = Counter[int](), 1_790_000_000.0, shared_rate.cell_seconds(limit)
    for windows, wanted in steps:
        now += windows * limit.seconds
        grant = shared_rate.take(taken, limit, now, wanted)
        assert len(grant) == wanted
        assert grant == sorted(grant)
        assert grant[0] >= int(now / cell)
        assert grant[0] <= max(int(now / cell), max(taken, default=0) + 17)
        taken.update(grant)
    starts = sorted(taken.elements())
    for first, next_ in zip(starts, starts[limit.calls:], strict=False):        # the first at its end, the next at once
        assert (next_ - first - 1) * cell >= limit.seconds


def test_parties_whose_rates_count_in_all_regions_have_one_limiter(stack: ExitStack) -> None:
    rates = RateLimits()
    account = Account(tenant_id="1", party="vultr", credentials={"token": "t"})
    one, other = (rates.limiter(PARTY, account, region, "ListInstances") for region in ("ewr", "ams"))
    assert one is other
    aws = parties.load("aws")
    one, other = (rates.limiter(aws, account, region, "DescribeInstances") for region in ("us-east-1", "us-east-2"))
    assert one is not other


# ---------------------------------------------------------------- what a refresh takes from the store

@dataclass
class Noting:
    """A store that notes what is done with rates, and fails at it with `error`."""

    store: Any
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.done: list[str] = []

    def _note(self, verb: str, kind: str) -> None:
        if kind == "rate":
            self.done.append(verb)
            if self.error:
                raise self.error

    def get(self, kind: str, key: str) -> Any:
        self._note("get", kind)
        return self.store.get(kind, key)

    def put(self, kind: str, key: str, value: bytes, **more: Any) -> None:
        self._note("put", kind)
        self.store.put(kind, key, value, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.fixture
def noting(deployment: Deployment, stack: ExitStack) -> Noting:
    """The store of `deployment`, with an account of many regions."""
    made, credentials = start()
    put(deployment, stack.enter_context(made), credentials)
    store = Noting(deployment.store)
    msgspec.structs.force_setattr(deployment, "store", store)
    return store


def refresh(deployment: Deployment, region: str) -> schedule.Result:
    return schedule.work(deployment, schedule.message_of(Source("123", "vultr", region), deployment.clock() + 1))


def test_a_source_that_is_alone_reads_one_row(deployment: Deployment, noting: Noting, clock: Clock) -> None:
    """The first time it writes, so that others see it. With others, each kind of call takes a pair of operations."""
    pair = ["get", "put"]
    assert refresh(deployment, CODES[0]).total == 2
    assert noting.done == pair * 3
    for _ in range(2):
        noting.done.clear()
        clock.forward(300)
        assert refresh(deployment, CODES[0]).total == 2
        assert set(noting.done) == {"get"}  # once for each of its calls that begin at the same time
        assert len(noting.done) <= 3
    noting.done.clear()
    assert refresh(deployment, CODES[1]).total == 2
    assert noting.done == pair * 3
    noting.done.clear()
    clock.forward(300)
    assert refresh(deployment, CODES[0]).total == 2
    assert noting.done == pair * 3


def test_requests_take_nothing(deployment: Deployment, noting: Noting) -> None:
    assert many_sources.list_servers(deployment, Source("123", "vultr", CODES[0])).total == 2
    assert noting.done == []


def test_parties_whose_rates_count_in_each_region_take_nothing(app: Any) -> None:
    """There a source has its rate for itself."""
    store = Noting(app.deployment.store)
    msgspec.structs.force_setattr(app.deployment, "store", store)
    source = Source("123", "aws", "us-east-1")
    assert schedule.work(app.deployment, schedule.message_of(source, app.clock())).total == 12
    assert store.done == []


@pytest.mark.parametrize("error", [StoreBusy("locked"), RuntimeError("broken")], ids=["busy", "broken"])
def test_a_store_that_fails_stops_no_refresh(deployment: Deployment, noting: Noting, error: Exception) -> None:
    noting.error = error
    assert refresh(deployment, CODES[0]).total == 2
    assert len(noting.done) <= 3


def taken_until(deployment: Deployment, seconds: float) -> None:
    """Others have taken all calls for so long."""
    cell, now = shared_rate.cell_seconds(LIMIT), deployment.clock()
    first, last = int(now / cell), int((now + seconds) / cell)
    counts = [LIMIT.calls if n % 17 == 0 else 0 for n in range(last - first + 1)]
    others = shared_rate._Taken(first, counts)
    row = shared_rate._Rate({"123/vultr/another": now}, dict.fromkeys(PARTY.limits, others))
    deployment.store.put("rate", "123/vultr", shared_rate.msgspec.msgpack.encode(row))


def test_a_refresh_whose_turn_comes_too_late_calls_nobody(deployment: Deployment, noting: Noting,
                                                          stack: ExitStack) -> None:
    """The next run tries again; the circuit breaker does not count it."""
    taken_until(deployment, 60)
    noting.done.clear()
    result = refresh(deployment, CODES[0])
    assert isinstance(result.error, PartyThrottled)
    assert result.error.retry_after
    assert 50 < result.error.retry_after < 62
    assert "put" not in noting.done


def test_a_clock_that_is_wrong_by_an_hour_stops_nobody(deployment: Deployment, noting: Noting, clock: Clock) -> None:
    clock.forward(3600)
    taken_until(deployment, 60)
    clock.forward(-3600)
    assert refresh(deployment, CODES[0]).total == 2


def test_threads_that_wait_take_their_calls_together(deployment: Deployment, noting: Noting) -> None:
    """One write of the row serves all of them."""
    taken_until(deployment, 0)
    noting.done.clear()
    plan = many_sources.Lookup(deployment).plan(Source("123", "vultr", CODES[0]))
    rate = shared_rate.SharedRate(plan, "123/vultr", shared_rate.Stock())
    waits: list[float] = []
    with rate.stock.lock:
        threads = [threading.Thread(target=lambda: waits.append(rate("ListInstances", LIMIT, time.monotonic() + 30)))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        while rate.stock.waiting["ListInstances"] < len(threads):
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert noting.done == ["get", "put"]
    assert len(waits) == len(threads)
    assert max(waits) - min(waits) < LIMIT.seconds * MARGIN
    assert all(earlier <= later for earlier, later in pairwise(sorted(waits)))
