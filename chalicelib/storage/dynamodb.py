"""The store on AWS: one table, partition key `pk` (the kind) and sort key `sk` (the key).

Item: {pk: S, sk: S, value: B, version: N, expires: N}. `expires` is the table's TTL attribute; DynamoDB removes
expired items within days, so reads compare it themselves. Reads are consistent.
Permissions on the table: dynamodb:GetItem, Query, PutItem, BatchWriteItem; `twocloud store copy` also Scan and
BatchGetItem.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
"""

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, Internal
from . import amazon
from .store import Entry, Moment, Row, check_value, in_batches, new_version

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, WriteRequestUnionTypeDef

_BATCH = 25                                 # most writes that BatchWriteItem takes
_READ_BATCH = 40                            # keys of one BatchGetItem, which gives 16 MB
_BATCH_TRIES = 8


class DynamoStore:
    """`client` is for tests; otherwise it is made on first use from AWS's usual settings."""

    def __init__(self, table: str, clock: Callable[[], float], client: "DynamoDBClient | None" = None) -> None:
        self.table = table
        self._clock = clock
        self._made = client

    @property
    def _client(self) -> "DynamoDBClient":
        if self._made is None:
            self._made = amazon.client("dynamodb", attempts=3)
        return self._made

    def get(self, kind: str, key: str) -> Row | None:
        item = self._client.get_item(TableName=self.table, Key={"pk": {"S": kind}, "sk": {"S": key}},
                                     ConsistentRead=True).get("Item")
        return self._row(item) if item else None

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None,
            expires: int | None = None) -> None:
        item = _item(Entry(kind, key, value, new_version(), expires))
        now: dict[str, AttributeValueTypeDef] = {":now": {"N": str(int(self._clock()))}}
        client = self._client
        try:
            if version is None:
                client.put_item(TableName=self.table, Item=item)
            elif version == 0:
                client.put_item(TableName=self.table, Item=item, ExpressionAttributeValues=now,
                                ConditionExpression="attribute_not_exists(pk) OR expires <= :now")
            else:
                client.put_item(TableName=self.table, Item=item, ExpressionAttributeNames={"#version": "version"},
                                ExpressionAttributeValues={**now, ":version": {"N": str(version)}},
                                ConditionExpression="#version = :version AND "
                                                    "(attribute_not_exists(expires) OR expires > :now)")
        except client.exceptions.ConditionalCheckFailedException:
            raise Conflict(f"{kind} {key} was changed by another writer") from None

    def delete(self, kind: str, *keys: str) -> None:
        for batch in in_batches(dict.fromkeys(keys), _BATCH):
            self._write([{"DeleteRequest": {"Key": {"pk": {"S": kind}, "sk": {"S": key}}}} for key in batch])

    def _write(self, todo: "Sequence[WriteRequestUnionTypeDef]") -> None:
        for tried in range(_BATCH_TRIES):
            answer = self._client.batch_write_item(RequestItems={self.table: todo})
            todo = answer.get("UnprocessedItems", {}).get(self.table, [])
            if not todo:
                return
            time.sleep(random.uniform(0, 0.05 * 2 ** tried))        # the table is throttled: full jitter
        raise Internal(f"{len(todo)} rows could not be written or deleted. Run the command again.")

    def list(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Row]]:
        condition, values = "pk = :pk", {":pk": {"S": kind}}
        if prefix:
            condition, values = "pk = :pk AND begins_with(sk, :sk)", {**values, ":sk": {"S": prefix}}
        pages = self._client.get_paginator("query").paginate(
            TableName=self.table, KeyConditionExpression=condition, ExpressionAttributeValues=values,
            ConsistentRead=True)
        for page in pages:
            for item in page["Items"]:
                if row := self._row(item):
                    yield item["sk"].get("S", ""), row

    @contextmanager
    def moment(self) -> Generator[Moment]:
        yield self

    def count(self) -> None:
        """DynamoDB counts its items every six hours, the expired too."""

    def walk(self) -> Iterator[Entry]:
        for page in self._client.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True):
            for item in page["Items"]:
                if self._row(item):
                    yield _entry(item)

    def fetch(self, places: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        found: Any = []
        for batch in in_batches(dict.fromkeys(places), _READ_BATCH):
            asked: Any = {"Keys": [{"pk": {"S": kind}, "sk": {"S": key}} for kind, key in batch],
                          "ConsistentRead": True}
            for tried in range(_BATCH_TRIES):
                answer = self._client.batch_get_item(RequestItems={self.table: asked})
                items = answer.get("Responses", {}).get(self.table, [])
                found += [_entry(item) for item in items if self._row(item)]
                asked = answer.get("UnprocessedKeys", {}).get(self.table)
                if not asked:
                    break
                if not items:               # 16 MB of them were given, or else it is throttled
                    time.sleep(random.uniform(0, 0.05 * 2 ** tried))
            else:
                raise Internal("Some rows could not be read. Run the command again.")
        return found

    def write(self, entries: Sequence[Entry]) -> None:
        for batch in in_batches(entries, _BATCH):
            self._write([{"PutRequest": {"Item": _item(entry)}} for entry in batch])

    def scrub(self) -> None:
        """Deleted items are gone from the table; point-in-time backups keep them for 35 days."""

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def _row(self, item: "Mapping[str, AttributeValueTypeDef]") -> Row | None:
        if "expires" in item and float(item["expires"].get("N", "0")) <= self._clock():
            return None
        value = item["value"].get("B", b"")
        return Row(bytes(value), int(item["version"].get("N", "0")))


def _item(entry: Entry) -> "dict[str, AttributeValueTypeDef]":
    item: dict[str, AttributeValueTypeDef] = {
        "pk": {"S": entry.kind}, "sk": {"S": entry.key}, "value": {"B": check_value(entry.value)},
        "version": {"N": str(entry.version)}}
    if entry.expires is not None:
        item["expires"] = {"N": str(entry.expires)}
    return item


def _entry(item: "Mapping[str, AttributeValueTypeDef]") -> Entry:
    return Entry(item["pk"].get("S", ""), item["sk"].get("S", ""), bytes(item["value"].get("B", b"")),
                 int(item["version"].get("N", "0")),
                 int(float(item["expires"].get("N", "0"))) if "expires" in item else None)

