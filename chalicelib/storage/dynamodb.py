"""The store on AWS: one table, partition key `pk` (the kind, for some with part of the key), sort key `sk` (the key).

A partition gives 3,000 read units a second. Chunks and changes are most of what is read, so theirs are spread: each
tenant has sixteen of a kind, `chunk/TENANT/N`, and a source's rows are in one of them. Versions before 0.2 kept all
rows of a kind under the kind alone: what is not found in its partition is looked for there, and deleted there too.

Item: {pk: S, sk: S, value: B, version: N, expires: N}. `expires` is the table's TTL attribute; DynamoDB removes
expired items within days, so reads compare it themselves. Reads are consistent.
Permissions on the table: dynamodb:GetItem, BatchGetItem, Query, PutItem, BatchWriteItem; `twocloud store copy` also
Scan.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
"""

import heapq
import random
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..errors import Conflict, StoreBusy
from . import amazon
from .store import (
    Entry,
    Moment,
    Place,
    Row,
    check_value,
    end_of,
    in_batches,
    new_version,
    patience,
    read_patience,
)

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, WriteRequestUnionTypeDef

T = TypeVar("T")
_BATCH = 25                                 # most writes that BatchWriteItem takes
_READ_BATCH = 100                           # keys of one BatchGetItem; it gives 16 MB and names the rest
_BATCH_TRIES = 8
_READ_SECONDS = 10.0                        # that a read waits: three tries, and the pauses between them
_CALLS = 64                                 # under way at a time, those that nobody waits for any more among them
_SPREAD = ("chunk", "change")               # kinds with a partition for each sixteenth of a tenant's sources
_PARTS = 16                                 # never another number: rows would not be found


class _Value(msgspec.Struct, frozen=True, gc=False):
    """An attribute's: a text, bytes or a number."""

    S: str = ""
    B: bytes = b""
    N: str = "0"


class _Item(msgspec.Struct, frozen=True, gc=False):
    pk: _Value
    sk: _Value
    value: _Value
    version: _Value
    expires: _Value | None = None

    @property
    def entry(self) -> Entry:
        return Entry(self.pk.S.partition("/")[0], self.sk.S, self.value.B, int(self.version.N),
                     int(float(self.expires.N)) if self.expires else None)


_READS = ("GetItem", "BatchGetItem", "Query", "Scan")
_ITEMS = {"Item": msgspec.json.Decoder(_Item), "Items": msgspec.json.Decoder(list[_Item]),
          "Responses": msgspec.json.Decoder(dict[str, list[_Item]])}
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _take_items(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Before botocore reads an answer: its items are decoded here. botocore looks at each value in Python, which takes
    ten times as long. The names of the arguments are its own."""
    if response_dict["status_code"] >= 300:
        return
    fields = _FIELDS.decode(response_dict["body"])
    for name, items in _ITEMS.items():
        if name in fields:
            customized_response_dict[name] = items.decode(fields.pop(name))
    response_dict["body"] = msgspec.json.encode(fields)


class DynamoStore:
    """`client` is for tests; otherwise it is made on first use from AWS's usual settings.

    A call to AWS has limits for each try and each receive, none for the whole. So each is made in a thread, and is
    waited for as long as the request allows.
    """

    def __init__(self, table: str, clock: Callable[[], float], client: "DynamoDBClient | None" = None) -> None:
        self.table = table
        self._clock = clock
        self._made = client and _reading(client)
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def _client(self) -> "DynamoDBClient":
        if self._made is None:
            self._made = _reading(amazon.client("dynamodb", attempts=3))
        return self._made

    def get(self, kind: str, key: str) -> Row | None:
        for pk in _partitions(kind, key):
            item = self._read("get_item", Key={"pk": {"S": pk}, "sk": {"S": key}}, ConsistentRead=True).get("Item")
            if item and self._is_there(item):
                return _row(item)
        return None

    def get_many(self, places: Sequence[Place]) -> dict[Place, Row]:
        return {(entry.kind, entry.key): Row(entry.value, entry.version) for entry in self.fetch(places)}

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None,
            expires: int | None = None) -> None:
        item = _item(Entry(kind, key, value, new_version(), expires))
        condition: dict[str, Any] = {}
        if version is not None:
            condition = {"ConditionExpression": "attribute_not_exists(pk) OR expires <= :now",
                         "ExpressionAttributeValues": {":now": {"N": str(int(self._clock()))}},
                         "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if version:
            condition["ConditionExpression"] = ("#version = :version AND "
                                                "(attribute_not_exists(expires) OR expires > :now)")
            condition["ExpressionAttributeNames"] = {"#version": "version"}
            condition["ExpressionAttributeValues"][":version"] = {"N": str(version)}
        there = self._wait(partial(self._put, item, condition), patience())
        if there is not None and there.get("version") != item["version"]:
            raise Conflict(f"{kind} {key} was changed by another writer")

    def _put(self, item: "dict[str, AttributeValueTypeDef]", condition: dict[str, Any]) -> dict[str, Any] | None:
        """None, or the row for which the condition failed: the one that was to be written, if a first try wrote it and
        its answer was lost."""
        client = self._client
        try:
            client.put_item(TableName=self.table, Item=item, **condition)
        except client.exceptions.ConditionalCheckFailedException as failed:
            return dict(failed.response.get("Item", {}))
        return None

    def delete(self, kind: str, *keys: str) -> None:
        places = [(pk, key) for key in dict.fromkeys(keys) for pk in _partitions(kind, key)]
        for batch in in_batches(places, _BATCH):
            self._write([{"DeleteRequest": {"Key": {"pk": {"S": pk}, "sk": {"S": key}}}} for pk, key in batch])

    def _write(self, todo: "Sequence[WriteRequestUnionTypeDef]") -> None:
        until = time.monotonic() + patience()
        for tried in range(_BATCH_TRIES):
            answer = self._call("batch_write_item", until - time.monotonic(), RequestItems={self.table: todo})
            todo = answer.get("UnprocessedItems", {}).get(self.table, [])
            if not todo:
                return
            _pause(tried, until)
        raise StoreBusy(f"DynamoDB throttles the table: {len(todo)} rows could not be written or deleted. "
                        "Run the command again.")

    # ------------------------------------------------------------ calls

    def _read(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self._call(operation, read_patience(_READ_SECONDS), TableName=self.table, **parameters)

    def _call(self, operation: str, seconds: float, **parameters: Any) -> dict[str, Any]:
        return self._wait(lambda: getattr(self._client, operation)(**parameters), seconds)

    def _pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        def read() -> Iterator[Any]:
            client: Any = self._client
            yield from client.get_paginator(operation).paginate(TableName=self.table, ConsistentRead=True, **parameters)

        pages = read()
        while page := self._wait(lambda: next(pages, None), read_patience(_READ_SECONDS)):
            yield page

    def _wait(self, call: Callable[[], T], seconds: float) -> T:
        """What the call returns, if it does within so long. Raises StoreBusy."""
        if seconds <= 0:
            raise StoreBusy(_LATE)
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_CALLS, thread_name_prefix="dynamodb")
            future = self._threads.submit(call)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise StoreBusy(_LATE) from None
        except Exception as problem:
            from botocore.exceptions import BotoCoreError, ClientError  # slow to import, and there by now

            if isinstance(problem, BotoCoreError | ClientError):
                raise StoreBusy(f"DynamoDB: {problem}") from None
            raise

    def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[tuple[str, Row]]:
        if kind not in _SPREAD:
            yield from self._query(kind, prefix, start)
            return
        if "/" not in prefix:               # of no tenant: reads the whole table
            rows = {entry.key: Row(entry.value, entry.version) for entry in self.walk()
                     if entry.kind == kind and entry.key.startswith(prefix) and entry.key >= start}
            yield from ((key, rows[key]) for key in sorted(rows, key=str.encode))
            return
        last = ""
        for key, row in heapq.merge(*(self._query(pk, prefix, start) for pk in _partitions(kind, prefix)),
                                    key=lambda row: row[0].encode()):
            if key != last:                 # the same row in two layouts: the new one comes first
                yield key, row
            last = key

    def _query(self, pk: str, prefix: str, start: str) -> Iterator[tuple[str, Row]]:
        condition, values = _range_of(pk, prefix, start)
        for page in self._pages("query", KeyConditionExpression=condition, ExpressionAttributeValues=values):
            for item in page["Items"]:
                key = item.sk.S
                if key.startswith(prefix) and self._is_there(item):
                    yield key, _row(item)

    @contextmanager
    def moment(self) -> Generator[Moment]:
        yield self

    def count(self) -> None:
        """DynamoDB counts its items every six hours, the expired too."""

    def walk(self) -> Iterator[Entry]:
        for page in self._pages("scan"):
            yield from (item.entry for item in page["Items"] if self._is_there(item))

    def fetch(self, places: Sequence[Place]) -> Sequence[Entry]:
        wanted = dict.fromkeys(places)
        entries = [*self._fetch((_partitions(kind, key)[0], key) for kind, key in wanted)]
        if missing := [(kind, key) for kind, key in wanted.keys() - {(entry.kind, entry.key) for entry in entries}
                       if kind in _SPREAD]:
            entries += self._fetch(sorted(missing))
        return entries

    def _fetch(self, wanted: Iterable[tuple[str, str]]) -> Iterator[Entry]:
        """Of (partition key, sort key) those that are there."""
        for batch in in_batches(wanted, _READ_BATCH):
            unread: Any = {"Keys": [{"pk": {"S": pk}, "sk": {"S": key}} for pk, key in batch], "ConsistentRead": True}
            until = time.monotonic() + read_patience(_READ_SECONDS)
            for tried in range(_BATCH_TRIES):
                answer = self._call("batch_get_item", until - time.monotonic(), RequestItems={self.table: unread})
                items: Any = answer["Responses"].get(self.table, [])
                yield from (item.entry for item in items if self._is_there(item))
                unread = answer.get("UnprocessedKeys", {}).get(self.table)
                if not unread:
                    break
                if not items:               # 16 MB of them were given, or else it is throttled
                    _pause(tried, until)
            else:
                raise StoreBusy("DynamoDB throttles the table: some rows could not be read. Run the command again.")

    def write(self, entries: Sequence[Entry]) -> None:
        for batch in in_batches(entries, _BATCH):
            self._write([{"PutRequest": {"Item": _item(entry)}} for entry in batch])

    def scrub(self) -> None:
        """Deleted items are gone from the table; point-in-time backups keep them for 35 days."""

    def close(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, None
        if threads:
            threads.shutdown(wait=False, cancel_futures=True)
        if self._made is not None:
            self._made.close()
            self._made = None

    def _is_there(self, item: _Item) -> bool:
        return item.expires is None or float(item.expires.N) > self._clock()


def _reading(client: "DynamoDBClient") -> "DynamoDBClient":
    for call in _READS:
        client.meta.events.register(f"before-parse.dynamodb.{call}", _take_items, unique_id=f"twocloud-{call}")
    return client


def _row(item: _Item) -> Row:
    return Row(item.value.B, int(item.version.N))


_LATE = "DynamoDB did not answer in time."


def _pause(tried: int, until: float) -> None:
    """The table is throttled: full jitter."""
    time.sleep(max(0.0, min(random.uniform(0, 0.05 * 2 ** tried), until - time.monotonic())))


def _range_of(pk: str, prefix: str, start: str) -> "tuple[str, dict[str, AttributeValueTypeDef]]":
    """The condition of a query, and its values. A sort key takes one condition: with `start` it may be met by one key
    after those of the prefix."""
    values: dict[str, AttributeValueTypeDef] = {":pk": {"S": pk}}
    end = end_of(prefix)
    if not prefix and not start:
        return "pk = :pk", values
    if start <= prefix:
        return "pk = :pk AND begins_with(sk, :sk)", {**values, ":sk": {"S": prefix}}
    if end is None:
        return "pk = :pk AND sk >= :sk", {**values, ":sk": {"S": start}}
    return "pk = :pk AND sk BETWEEN :sk AND :end", {**values, ":sk": {"S": min(start, end)}, ":end": {"S": end}}


def _partitions(kind: str, key: str) -> Sequence[str]:
    """Where rows of this key, or with keys that begin so, can be: the present layout's partitions first."""
    if kind not in _SPREAD:
        return [kind]
    tenant_id, *rest = key.split("/")
    if len(rest) < 3:                       # not yet one source: any of the tenant's
        return [*(f"{kind}/{tenant_id}/{part}" for part in range(_PARTS)), kind]
    source = f"{tenant_id}/{rest[0]}/{rest[1]}"
    return [f"{kind}/{tenant_id}/{zlib.crc32(source.encode()) % _PARTS}", kind]


def _item(entry: Entry) -> "dict[str, AttributeValueTypeDef]":
    item: dict[str, AttributeValueTypeDef] = {
        "pk": {"S": _partitions(entry.kind, entry.key)[0]}, "sk": {"S": entry.key},
        "value": {"B": check_value(entry.value)}, "version": {"N": str(entry.version)}}
    if entry.expires is not None:
        item["expires"] = {"N": str(entry.expires)}
    return item
