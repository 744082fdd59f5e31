"""DynamoDB that is slow, throttled or out of reach, and tries of a call whose answers are lost."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from chalicelib.errors import Conflict, StoreBusy
from chalicelib.storage import store as stores
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.store import Entry, Store
from tests.fixtures import AWS, TABLE, Clock


def walk(store: Store) -> object:
    with store.moment() as there:
        return list(there.walk())


READS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("k", "a"),
    "get_many": lambda store: store.get_many([("k", "a"), ("k", "b")]),
    "list": lambda store: list(store.list("k")),
    "list of parts": lambda store: list(store.list("chunk", "123/")),
    "walk": walk,
}
WRITES: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("k", "a", b"2"),
    "put new": lambda store: store.put("k", "b", b"2", version=0),
    "put over": lambda store: store.put("k", "a", b"2", version=7),
    "delete": lambda store: store.delete("k", "a"),
    "write": lambda store: store.write([Entry("k", "a", b"2", 1, None)]),
}
each = pytest.mark.parametrize("verb", [*READS, *WRITES])


class Hanging:
    """A client that answers nothing until `goes_on` is set."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.called = 0
        self.meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_, **__: None))

    def __getattr__(self, name: str) -> Any:
        def call(**_: Any) -> Any:
            self.called += 1
            self.goes_on.wait(20)
            raise AssertionError("waited for longer than the request")

        return call

    def get_paginator(self, name: str) -> Any:
        return Paginator(self)


class Paginator:
    def __init__(self, client: Hanging) -> None:
        self.client = client

    def paginate(self, **_: Any) -> Iterator[Any]:
        yield self.client.page()


@each
def test_a_call_is_waited_for_as_long_as_its_request_and_no_longer(verb: str, clock: Clock) -> None:
    client: Any = Hanging()
    store = DynamoStore("t", clock, client)
    try:
        with stores.within(time.monotonic() + 0.05), pytest.raises(StoreBusy, match="did not answer in time"):
            (READS | WRITES)[verb](store)
        assert client.called == 1
        with stores.within(time.monotonic() - 1), pytest.raises(StoreBusy, match="did not answer in time"):
            (READS | WRITES)[verb](store)
        assert client.called == 1           # nobody would wait for it
    finally:
        client.goes_on.set()


@pytest.mark.parametrize("verb", WRITES)
def test_a_write_beside_an_answer_waits_as_long_as_for_a_lock(verb: str, clock: Clock,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "BESIDE_SECONDS", 0.05)
    client: Any = Hanging()
    try:
        with stores.beside(), pytest.raises(StoreBusy, match="did not answer in time"):
            WRITES[verb](DynamoStore("t", clock, client))
    finally:
        client.goes_on.set()


@each
@pytest.mark.parametrize("endpoint", ["no table", "nobody listens"])
def test_what_dynamodb_refuses_is_one_line_that_names_it(verb: str, endpoint: str, clock: Clock) -> None:
    if endpoint == "no table":
        with mock_aws():
            client = boto3.client("dynamodb", **AWS)
            with pytest.raises(StoreBusy, match=r"^DynamoDB: .*\(ResourceNotFoundException\).*$"):
                (READS | WRITES)[verb](DynamoStore("t", clock, client))
        return
    client = boto3.client("dynamodb", **AWS, endpoint_url="http://127.0.0.1:1", config=Config(
        retries={"total_max_attempts": 1}))
    with pytest.raises(StoreBusy, match=r"^DynamoDB: Could not connect.*$"):
        (READS | WRITES)[verb](DynamoStore("t", clock, client))


@pytest.mark.parametrize("verb", ["get_many", "delete", "write"])
def test_a_table_that_stays_throttled_is_given_up_with_the_request(verb: str, clock: Clock) -> None:
    class Throttled(Hanging):
        def batch_write_item(self, RequestItems: Any) -> Any:
            return {"UnprocessedItems": RequestItems}

        def batch_get_item(self, RequestItems: Any) -> Any:
            return {"Responses": {}, "UnprocessedKeys": RequestItems}

    client: Any = Throttled()
    with stores.within(time.monotonic() + 0.1), pytest.raises(StoreBusy):
        (READS | WRITES)[verb](DynamoStore("t", clock, client))


@pytest.fixture(params=["ministack", pytest.param("moto", marks=pytest.mark.slow)])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of the emulator, with a table `lost`."""
    if request.param == "ministack":
        made = request.getfixturevalue("server_client")
        made.create_table(TableName="lost", **TABLE)
        yield made
        made.delete_table(TableName="lost")
        return
    with mock_aws():
        made = boto3.client("dynamodb", **AWS)
        made.create_table(TableName="lost", **TABLE)
        yield made


def test_a_write_that_was_done_before_its_answer_was_lost_is_no_conflict(
        client: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore sends it again, and then its condition fails, because of itself."""
    store, real = DynamoStore("lost", clock, client), client.put_item

    def twice(**item: Any) -> Any:
        real(**item)
        return real(**item)

    monkeypatch.setattr(client, "put_item", twice)
    store.put("k", "a", b"1", version=0, expires=int(clock()) + 60)
    row = store.get("k", "a")
    assert row
    store.put("k", "a", b"2", version=row.version)
    after = store.get("k", "a")
    assert after
    assert after.value == b"2"
    for version in (0, row.version):        # another's
        with pytest.raises(Conflict):
            store.put("k", "a", b"3", version=version)
    with pytest.raises(Conflict):
        store.put("k", "b", b"3", version=row.version)
    assert store.get("k", "a") == after
