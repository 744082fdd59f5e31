"""The page on scale: its figures are those of the benchmark, and what it reckons with is what the program does."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from benchmarks import load
from chalicelib.access import accounts
from chalicelib.http import api
from chalicelib.http.api import HttpRequest, HttpResponse
from chalicelib.model import Source
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import snapshots
from tests import ROOT
from tests.fixtures import App


class Counting:
    """A store that counts what DynamoDB would charge: a read 4 KB, a write 1 KB; a list as a whole. `operations`: the
    round trips, by verb and kinds."""

    def __init__(self, store: Any) -> None:
        self._store, self.reads, self.writes = store, 0, 0
        self.operations: list[str] = []

    def get(self, kind: str, key: str) -> Any:
        self.operations.append(f"get {kind}")
        row = self._store.get(kind, key)
        self.reads += -(-len(row.value) // 4096) if row else 1
        return row

    def get_many(self, places: Any) -> Any:
        self.operations.append("get " + ", ".join(dict.fromkeys(kind for kind, _ in places)))
        rows = self._store.get_many(places)
        self.reads += sum(-(-len(rows[place].value) // 4096) if place in rows else 1 for place in dict.fromkeys(places))
        return rows

    def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[Any]:
        self.operations.append(f"list {kind}")
        rows = list(self._store.list(kind, prefix, start))
        self.reads += max(1, -(-sum(len(row.value) for _, row in rows) // 4096))
        return iter(rows)

    def put(self, kind: str, key: str, value: bytes, **more: Any) -> None:
        self.operations.append(f"put {kind}")
        self.writes += -(-len(value) // 1024) or 1
        self._store.put(kind, key, value, **more)

    def delete(self, kind: str, *keys: str) -> None:
        self.operations.append(f"delete {kind}")
        self.writes += len(keys)
        self._store.delete(kind, *keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store(served: App) -> Counting:
    """The store of `served`, counted, with two regions of servers at the cloud."""
    cloud: Any = served.clouds["qcloud"]
    cloud.rates.clear()
    cloud.fleets |= {"ap-guangzhou": Fleet(load.SERVERS), "ap-shanghai": Fleet(load.SERVERS, "sh")}
    store = Counting(served.deployment.store)
    msgspec.structs.force_setattr(served.deployment, "store", store)
    return store


def handle(served: App, text: str, headers: Mapping[str, str] = {}) -> HttpResponse:
    """As the API's function does, which reads the token and its user itself, whatever the authorizer has read."""
    user, password = served.token, "x"
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return api.answer(lambda: served.deployment, "/twocloud/servers", HttpRequest(
        "GET", "/twocloud/servers", parse_qsl(text), {"authorization": basic, **headers}, b"", "r",
        time.monotonic() + 25))


OPERATIONS = {                              # the authorizer's own are not counted
    "page": ["get token", "get user, account, snapshot, breaker, names", "get breaker"],
    "live": ["get token", "get user, account, snapshot, breaker, names", "put lease", "get snapshot, breaker",
             "get breaker, account, snapshot", "put snapshot", "get account", "delete lease"],
    "kept page": ["get token", "get user, account, snapshot, breaker, names", "get chunk"],
    "kept": ["get token", "get user, account, snapshot, breaker, names", "get chunk"],
    "several kept": ["get token", "get user", "get account, names", "get snapshot, breaker", "get chunk"],
    "unchanged": ["get token", "get user, account, snapshot, breaker, names", "get chunk"],
    "refused": ["get token", "get user, account, snapshot, breaker, names"],
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_request_makes_no_more_round_trips_to_the_store(served: App, store: Counting, kind: str) -> None:
    """As few as reads that depend on each other: the token names its user, a head its chunks."""
    query = f"party=qcloud&tenant_id={'7' if kind == 'refused' else '123'}&{load.KINDS[kind][1]}"
    headers = {"if-none-match": handle(served, query).headers["ETag"]} if kind == "unchanged" else {}
    handle(served, "party=qcloud&tenant_id=123&region=gz,ap-shanghai&max_age=0")    # the first time of all writes more
    store.operations.clear()
    handle(served, query, headers)
    assert store.operations == OPERATIONS[kind]


@pytest.mark.parametrize(("kind", "most"), [("page", 4), ("live", 8), ("kept page", 3)])
def test_marks_cost_no_more_round_trips(served: App, store: Counting, kind: str, most: int) -> None:
    """Of a snapshot whose servers have changed since it was first taken."""
    query = f"party=qcloud&tenant_id=123&{load.KINDS[kind][1]}"
    handle(served, "party=qcloud&tenant_id=123&region=gz&max_age=0")
    source = Source("123", "qcloud", "ap-guangzhou")
    head = next(head for of, head in snapshots.heads(served.deployment.store) if of == source)
    servers = snapshots.read(served.deployment.store, source, head)
    other = [msgspec.structs.replace(servers[0], name="other"), *servers[1:]]
    assert snapshots.save(served.deployment.store, source, head.revision, other, head.seen_at + 0.01, history=9999)
    served.clock.forward(1)
    handle(served, "party=qcloud&tenant_id=123&region=gz&max_age=0")
    assert next(head for of, head in snapshots.heads(served.deployment.store) if of == source).marks
    handle(served, query)
    store.operations.clear()
    handle(served, query)
    assert len(store.operations) <= most, store.operations


def test_a_hundred_sources_from_snapshots_are_a_handful_of_queries(served: App, store: Counting) -> None:
    """Heads and breakers of all of them are read together, and so are their interests written."""
    account = accounts.find(store, "123", "qcloud")
    codes = [f"ap-far{n}" for n in range(100)]
    row = msgspec.structs.replace(account, regions=tuple(codes))
    served.deployment.store.put("account", "123/qcloud", msgspec.json.encode(row))
    for code in codes:
        snapshots.save(store, Source("123", "qcloud", code), row.revision, [], served.clock(), history=9999)
    store.operations.clear()
    response = handle(served, "party=qcloud&tenant_id=123&region=all&max_age=600&f=1&t=10")
    assert json.loads(response.body)["complete"], response.body
    assert len(json.loads(response.body)["sources"]) == 100
    assert len(store.operations) <= 6, store.operations


def test_the_units_of_a_request_are_those_that_it_takes(served: App, store: Counting) -> None:
    units = {}
    for kind, (_, query) in load.KINDS.items():
        query = f"party=qcloud&tenant_id={'7' if kind == 'refused' else '123'}&{query}"
        headers = {"if-none-match": handle(served, query).headers["ETag"]} if kind == "unchanged" else {}
        handle(served, query)                   # the first time of all writes more: interest, the first list
        store.reads = store.writes = 0
        assert handle(served, query, headers).status == {"unchanged": 304, "refused": 403}.get(kind, 200)
        units[kind] = (store.reads, store.writes)
    assert units == load.STORE


def test_the_functions_have_the_memory_that_is_reckoned_with() -> None:
    config = json.loads((ROOT / ".chalice/config.json").read_text())
    own = config["stages"]["prod"]["lambda_functions"]
    assert load.MEMORY["APIHandler"] * 1024 == own["api_handler"]["lambda_memory_size"]
    assert load.MEMORY["Authorize"] * 1024 == own["authorize"].get("lambda_memory_size", config["lambda_memory_size"])


@pytest.mark.parametrize("kind", ["kept page", "several kept"])
def test_a_part_of_a_named_list_costs_what_a_snapshot_costs(served: App, store: Counting, kind: str) -> None:
    """Also when a newer list has taken its place."""
    query = f"party=qcloud&tenant_id=123&{load.KINDS[kind][1]}"
    handle(served, "party=qcloud&tenant_id=123&region=gz,ap-shanghai&max_age=0")
    name = handle(served, query).headers["X-List-Id"]
    cloud: Any = served.clouds["qcloud"]
    cloud.fleets["ap-guangzhou"] = Fleet(load.SERVERS - 1)
    served.clock.forward(1)
    handle(served, "party=qcloud&tenant_id=123&region=gz&max_age=0")
    store.operations.clear()
    answer = handle(served, f"{query}&list={name}&max_age=0".replace("&max_age=9999", ""))
    assert (answer.status, answer.headers["X-List-Id"]) == (200, name)
    assert [made.replace("user, list", "user") for made in store.operations] == OPERATIONS[kind]
