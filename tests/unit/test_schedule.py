"""Which lists are due, the queue's messages in any order and number, the worker, the command, the timer (P9)."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
import requests
from chalice.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

import app as functions
from chalicelib import log, parties
from chalicelib.access import accounts
from chalicelib.cli import output
from chalicelib.errors import Internal, InvalidParameter, PartyError, PartyUnavailable, RateLimited, UnknownRegion
from chalicelib.fleet import changes, lookup, many_sources, one_source, schedule
from chalicelib.fleet.lookup import Freshness
from chalicelib.fleet.schedule import IDLE_EVERY, READ_EVERY, REST_EVERY, SPREAD, Message
from chalicelib.model import Server, Source, Window
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet, Machines
from chalicelib.storage import amazon, snapshots
from tests import ROOT
from tests.canaries import watch
from tests.fixtures import GZ, App, aws_keys, qcloud_keys
from tests.http.test_app import Context
from tests.programs.test_cli import TWOCLOUD, Command, twocloud  # noqa: F401  (a fixture)
from tests.unit.test_changes import POOL, at, changed, ident, machine, set_fleet

SOURCE = Source("123", "qcloud", "ap-guangzhou")
KEY = snapshots.key_of(SOURCE)


def put(app: App, regions: tuple[str, ...], tenant: str = "123", party: str = "qcloud") -> str:
    """An account that names its regions; its revision."""
    keys = {"qcloud": qcloud_keys(), "aws": aws_keys()}[party]
    made = accounts.check(tenant, parties.load(party), keys, project=None, regions=regions, deep=False,
                          endpoint=app.clouds[party].url, local=True)
    return accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True).revision


def keep(app: App, source: Source, revision: str, seen_at: float, listed: list[Server] = []) -> None:
    assert snapshots.save(app.deployment.store, source, revision, listed, seen_at, history=9999)


def read_at(app: App, source: Source, when: float) -> None:
    app.deployment.store.put("interest", snapshots.key_of(source), b"%d" % when, expires=int(when) + 30 * 86_400)


def kept(app: App) -> list[Server]:
    head = snapshots.find(app.deployment.store, SOURCE,
                          accounts.find(app.deployment.store, "123", "qcloud").revision)
    assert head
    return snapshots.read(app.deployment.store, SOURCE, head)


def message(app: App, due: float | None = None, source: Source = SOURCE) -> Message:
    return Message(source.tenant_id, source.party, source.region, app.clock() if due is None else due)


# ---------------------------------------------------------------- which are due

@pytest.mark.parametrize(("idle", "every"), [
    (0, READ_EVERY), (3599, READ_EVERY), (3600, IDLE_EVERY), (86_399, IDLE_EVERY), (86_400, REST_EVERY),
    (29 * 86_400, REST_EVERY), (None, REST_EVERY)])
def test_the_bounds(app: App, idle: int | None, every: int) -> None:
    """Nine tenths of the time after which a list should be refreshed, so that a run that is a little late is in
    time."""
    revision = put(app, ("gz",))
    now = app.clock()
    if idle is not None:
        read_at(app, SOURCE, now - idle)
    for age, is_due in ((every * 9 // 10 - 1, False), (every * 9 // 10, True), (every * 40, True)):
        app.deployment.store.delete("snapshot", KEY)
        keep(app, SOURCE, revision, now - age)
        assert schedule.due(app.deployment) == ([SOURCE] if is_due else []), age


def test_the_least_fresh_come_first(app: App) -> None:
    revision = put(app, ("gz", "sh", "ap-beijing", "ap-chengdu"))
    ages = {"ap-guangzhou": 30_000, "ap-shanghai": 70_000, "ap-chengdu": 50_000}
    for region, age in ages.items():
        keep(app, Source("123", "qcloud", region), revision, app.clock() - age)
    assert [source.region for source in schedule.due(app.deployment)] == ["ap-beijing", "ap-shanghai", "ap-chengdu",
                                                                            "ap-guangzhou"]


def test_what_is_known(app: App) -> None:
    """What accounts name and what was read in the last month; nothing of accounts that are gone, or of lists alone."""
    store, now = app.deployment.store, app.clock()
    assert schedule.known(app.deployment) == {}               # the app's accounts name no regions
    old = put(app, ("gz",))
    keep(app, Source("123", "qcloud", "ap-beijing"), old, now)                 # kept once, read by nobody
    read_at(app, Source("123", "qcloud", "ap-shanghai"), now)
    read_at(app, Source("7", "qcloud", "ap-shanghai"), now)   # no such account
    assert {source.region for source in schedule.known(app.deployment)} == {"ap-guangzhou", "ap-shanghai"}
    app.clock.forward(30 * 86_400)
    assert {source.region for source in schedule.known(app.deployment)} == {"ap-guangzhou"}
    keep(app, SOURCE, "another account's", app.clock())
    assert schedule.due(app.deployment) == [SOURCE]           # that list does not count
    accounts.remove(store, "123", "qcloud")
    assert schedule.known(app.deployment) == {}


def test_a_source_that_is_asked_for_is_known_from_then_on(served: App) -> None:
    for query in (GZ, "party=aws&tenant_id=123&region=us-east-1,eu-west-1",
                  f"{GZ.replace('gz', 'ap-beijing')}&max_age=99"):
        served.get(query)
    assert len(schedule.known(served.deployment)) == 4
    written = [row.value for _, row in served.deployment.store.list("interest")]
    served.clock.forward(599)
    served.get(GZ)
    # one small write in ten minutes
    assert [row.value for _, row in served.deployment.store.list("interest")] == written
    served.clock.forward(1)
    served.get(GZ)
    assert [row.value for _, row in served.deployment.store.list("interest")] != written
    served.get(GZ.replace("gz", "ap-nowhere"))
    assert len(schedule.known(served.deployment)) == 4


def test_what_fails_is_not_tried_more_often(app: App) -> None:
    revision = put(app, ("gz",))
    app.clouds["qcloud"].fail("html")
    assert schedule.due(app.deployment) == [SOURCE]
    schedule.work(app.deployment, message(app))
    app.clock.forward(3000)
    assert schedule.due(app.deployment) == []                 # nobody reads it: once an hour
    app.clock.forward(600)
    assert schedule.due(app.deployment) == [SOURCE]
    schedule.work(app.deployment, message(app))
    read_at(app, SOURCE, app.clock())
    app.clock.forward(269)
    assert schedule.due(app.deployment) == []
    app.clock.forward(1)
    assert schedule.due(app.deployment) == [SOURCE]
    app.clouds["qcloud"].forget()
    put_again = accounts.find(app.deployment.store, "123", "qcloud").revision
    assert put_again == revision
    assert schedule.work(app.deployment, message(app)).error is not None


def test_two_thousand_sources_in_one_table(app: App) -> None:
    regions = tuple(f"ap-r{n:03}" for n in range(100))
    dice, now = random.Random(1), app.clock()
    for tenant in range(20):
        revision = put(app, regions, tenant=f"t{tenant}")
        for n, region in enumerate(regions):
            if n % 4:
                keep(app, Source(f"t{tenant}", "qcloud", region), revision, now - dice.randrange(100_000))
    late = schedule.due(app.deployment)
    known = schedule.known(app.deployment)
    assert len(known) == 2000
    assert late == sorted(late, key=lambda source: -known[source].age)[:len(late)]
    assert len(late) > 500
    planned = list(schedule.messages(app.deployment, random.Random(2).random))
    assert [message.source for message, _ in planned] == late
    delays = [delay for _, delay in planned]
    assert delays == sorted(delays)
    assert delays[0] >= 0
    assert delays[-1] < SPREAD
    assert max(delays.count(delay) for delay in set(delays)) <= len(late) // SPREAD + 3      # none all at once


@settings(max_examples=100)
@given(st.lists(st.floats(0, 0.999999), min_size=1, max_size=50))
def test_jitter_stays_within_the_spread(dice: list[float]) -> None:
    class Nothing:
        clock = staticmethod(lambda: 5.0)

    sources = [Source("1", "qcloud", f"r{n}") for n in range(len(dice))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "due", lambda _: sources)
        planned = list(schedule.messages(Nothing(), iter(dice).__next__))        # type: ignore[arg-type]
    assert [message.source for message, _ in planned] == sources
    assert {message.due for message, _ in planned} == {5.0}
    for n, (_, delay) in enumerate(planned):
        assert SPREAD * n // len(dice) <= delay <= SPREAD * (n + 1) // len(dice)
        assert delay < SPREAD <= 900


# ---------------------------------------------------------------- one message

def test_messages_are_read_as_written() -> None:
    made = Message("123", "qcloud", "ap-guangzhou", 1_790_000_000.25)
    assert schedule.read(schedule.write(made)) == made
    assert schedule.read(schedule.write(made)[:-1] + ',"more":1}') == made         # of a newer version
    for body in ("", "null", "[]", "{}", "x", '{"tenant_id":"1","party":"aws","region":"x"}', schedule.write(made)[:-1],
                 '{"tenant_id":1,"party":"aws","region":"x","due":1}',
                 '{"tenant_id":"1","party":"aws","region":"x","due":"now"}', "\ud800", "[" * 100_000):
        with pytest.raises((msgspec.DecodeError, RecursionError, ValueError)):
            schedule.read(body)


def test_a_message_that_is_older_than_the_list_does_nothing(app: App) -> None:
    sent = message(app)
    app.clock.forward(10)
    assert schedule.work(app.deployment, sent).total == 25
    for _ in range(3):
        assert schedule.work(app.deployment, sent) == schedule.Result(SOURCE)
    assert app.clouds["qcloud"].count() == 1
    app.clock.forward(1)
    assert schedule.work(app.deployment, message(app)).total == 25
    assert app.clouds["qcloud"].count() == 2


def test_a_failure_of_the_party_leaves_the_last_list(app: App) -> None:
    schedule.work(app.deployment, message(app))
    before = kept(app)
    app.clouds["qcloud"].fail("503")
    app.clock.forward(300)
    result = schedule.work(app.deployment, message(app))
    assert isinstance(result.error, PartyUnavailable)
    assert result.total is None
    assert kept(app) == before


def test_an_account_that_went_while_the_message_waited(app: App) -> None:
    schedule.work(app.deployment, message(app))
    # as it would be if the removal had been killed in the middle
    app.deployment.store.delete("account", "123/qcloud")
    assert schedule.work(app.deployment, message(app)) == schedule.Result(SOURCE)
    assert not [key for kind in ("snapshot", "chunk", "interest")
                for key, _ in app.deployment.store.list(kind, "123/qcloud/")]


def test_a_region_that_is_not_there_is_not_asked_for_again(app: App) -> None:
    gone = Source("123", "qcloud", "ap-nowhere")
    read_at(app, gone, app.clock())
    assert isinstance(schedule.work(app.deployment, message(app, source=gone)).error, UnknownRegion)
    assert gone not in schedule.known(app.deployment)


@pytest.mark.parametrize(("party", "region"), [("nocloud", "gz"), ("qcloud", "evil.com/"), ("qcloud", ""),
                                               ("qcloud", "gz"), ("aws", "../x")])
def test_a_message_that_nobody_of_ours_wrote_is_poison(app: App, party: str, region: str) -> None:
    with pytest.raises((InvalidParameter, Internal)):
        schedule.work(app.deployment, message(app, source=Source("123", party, region)))
    assert app.clouds["qcloud"].count() == 0


def test_a_worker_that_was_asked_too_often_says_so(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_source, "_LIVE_LISTINGS", 1)
    schedule.work(app.deployment, message(app))
    app.clock.forward(1)
    assert isinstance(schedule.work(app.deployment, message(app)).error, RateLimited)


@settings(max_examples=15)
@given(dice=st.randoms(use_true_random=False), steps=st.lists(st.sets(st.integers(0, 7)), min_size=2, max_size=5))
def test_every_message_three_times_in_any_order(app: App, dice: random.Random, steps: list[set[int]]) -> None:
    """P9: late, twice and out of order: what is kept is the fleet as it is, and what is told leads to it."""
    cloud = app.clouds["qcloud"]
    cloud.rates = {}                        # type: ignore[attr-defined]
    app.deployment.transport.pace = lambda *_: None            # type: ignore[method-assign,assignment]
    app.account("qcloud", {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}, cloud.url)          # type: ignore[attr-defined]
    set_fleet(app, [machine(n) for n in sorted(steps[0])])
    schedule.work(app.deployment, message(app))
    began, waiting = app.clock(), list[Message]()
    for numbers in steps[1:]:
        app.clock.forward(300)
        set_fleet(app, [machine(n) for n in sorted(numbers)])
        waiting += [message(app)] * 3
        dice.shuffle(waiting)
        for _ in range(dice.randrange(len(waiting))):
            schedule.work(app.deployment, waiting.pop())
    calls = cloud.count()
    for sent in waiting:
        app.clock.forward(1)
        schedule.work(app.deployment, sent)
    # the first one was enough for all; none at all is asked twice
    assert cloud.count() - calls <= 2
    assert [server.id for server in kept(app)] == [ident(n) for n in sorted(steps[-1])]
    listed = changes.list_changes(lookup.Lookup(app.deployment, lookup.ANY_AGE).plan(SOURCE), began)
    assert {server.id for server in listed.vanished} >= {ident(n) for n in steps[0] - steps[-1]}
    assert {server.id for server in listed.answer.servers} >= {ident(n) for n in steps[-1] - steps[0]}
    assert not {server.id for server in listed.vanished} & {ident(n) for n in steps[-1]}


def test_workers_at_the_same_time_list_once(app: App) -> None:
    app.clouds["qcloud"].latency = 0.3
    sent = message(app)
    results: list[schedule.Result] = []
    threads = [threading.Thread(target=lambda: results.append(schedule.work(app.deployment, sent)))
               for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert app.clouds["qcloud"].count() == 1
    assert {result.error for result in results} == {None}
    assert len(kept(app)) == 25


def test_one_that_breaks_does_not_stop_the_others(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    real = one_source.refresh

    def breaking(deployment: Any, source: Source, *more: Any) -> Any:
        if source.party == "aws":
            raise OSError("disk")
        return real(deployment, source, *more)

    monkeypatch.setattr(one_source, "refresh", breaking)
    wanted = [Source("123", "aws", "us-east-1"), SOURCE]
    results = {result.source.party: result for result in schedule.run(app.deployment, wanted)}
    assert isinstance(results["aws"].error, Internal)
    assert "disk" not in results["aws"].error.text
    assert results["qcloud"].total == 25


def test_who_stops_a_run_waits_for_nothing(app: App) -> None:
    app.clouds["aws"].fail("hang")
    wanted = [SOURCE, *[Source("123", "aws", region) for region in ("us-east-1", "eu-west-1")]]
    started = time.monotonic()
    for result in schedule.run(app.deployment, wanted):
        assert result.source == SOURCE
        break
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------- the queue's function, as the framework calls it

@pytest.fixture
def client(app: App) -> Iterator[Client]:
    functions.use(app.deployment)
    with Client(functions.app, project_dir=str(ROOT)) as client:
        yield client


def test_a_batch_names_only_what_must_come_again(app: App, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    app.clouds["aws"].fail("503")
    store = type(app.deployment.store)
    get_many = store.get_many
    monkeypatch.setattr(store, "get_many", lambda self, places: get_many(self, places) if ("account", "9/qcloud")
                        not in places else 1 / 0)
    bodies = [schedule.write(message(app)), "junk",
              schedule.write(message(app, source=Source("123", "aws", "us-east-1"))),
              schedule.write(message(app, source=Source("404", "qcloud", "ap-guangzhou"))),
              schedule.write(message(app, source=Source("123", "nocloud", "x"))),
              schedule.write(message(app, source=Source("9", "qcloud", "ap-guangzhou"))),
              schedule.write(message(app))]
    event = client.events.generate_sqs_event(bodies, "twocloud-refresh")
    for n, record in enumerate(event["Records"]):
        record["messageId"] = f"m{n}"
    answer = functions.work(event, Context(28_000))
    assert answer == {"batchItemFailures": [{"itemIdentifier": f"m{n}"} for n in (1, 4, 5)]}
    assert len(kept(app)) == 25
    assert app.clouds["qcloud"].count() == 1
    assert client.lambda_.invoke("work", client.events.generate_sqs_event([], "twocloud-refresh")).payload == {
        "batchItemFailures": []}


def test_the_functions_own_time_is_the_deadline(app: App) -> None:
    functions.use(app.deployment)
    app.clouds["qcloud"].fail("hang")
    event = {"Records": [{"messageId": "m", "body": schedule.write(message(app))}]}
    started = time.monotonic()
    # a party that hangs is no reason to come again
    assert functions.work(event, Context(6_000)) == {"batchItemFailures": []}
    assert time.monotonic() - started < 6


# ---------------------------------------------------------------- from the schedule to the lists, over SQS

TICK = {"version": "0", "account": "1", "region": "us-east-1", "detail": {}, "detail-type": "Scheduled Event",
        "source": "aws.events",
        "time": "2026-11-23T00:00:00Z", "id": "x", "resources": []}


@pytest.fixture(params=["moto", "ministack"])
def sqs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in (("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "testing"),
                        ("AWS_SECRET_ACCESS_KEY", "testing")):
        monkeypatch.setenv(name, value)
    if request.param == "moto":
        with mock_aws():
            yield boto3.client("sqs")
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("server_url"))
        yield boto3.client("sqs")


def test_a_caller_of_a_page_sends_a_message_that_the_worker_reads(app: App, sqs: Any,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """As the API's function does, where nobody has listed the source."""
    cloud: Any = app.clouds["qcloud"]
    cloud.fleets["ap-guangzhou"] = Fleet(700)
    url = sqs.create_queue(QueueName="on-demand")["QueueUrl"]
    app.deployment.later.send = partial(functions._send, "on-demand")
    for _ in range(3):
        many_sources.list_servers(app.deployment, SOURCE, Window(1, 10), freshness=Freshness(max_age=60))
    (message,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)["Messages"]
    assert schedule.read(message["Body"]) == schedule.message_of(SOURCE, app.clock() - 60)
    assert schedule.work(app.deployment, schedule.read(message["Body"])).total == 700
    answer = many_sources.list_servers(app.deployment, SOURCE, Window(1, 10), freshness=Freshness(max_age=60))
    assert (answer.kept, answer.total, answer.list_id is None) == (True, 700, False)


def test_the_schedule_fills_the_queue_and_the_worker_empties_it(app: App, sqs: Any,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"ap-r{n:02}" for n in range(25)]
    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", tuple(names))
    cloud = app.clouds["qcloud"]
    cloud.fleets = {name: Fleet(2, name) for name in names}      # type: ignore[attr-defined]
    made = accounts.check("123", parties.load("qcloud"), {
        "secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}, project=None,      # type: ignore[attr-defined]
                          regions=tuple(names), deep=False, endpoint=cloud.url, local=True)
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)
    functions.use(app.deployment)
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    url = sqs.create_queue(QueueName=app.deployment.settings.queue,
                           Attributes={"VisibilityTimeout": "0", "RedrivePolicy": json.dumps(
        {"deadLetterTargetArn": arn, "maxReceiveCount": "3"})})["QueueUrl"]

    sizes: list[int] = []
    make = amazon.client

    def counted(*arguments: Any, **more: Any) -> Any:
        made = make(*arguments, **more)
        made.meta.events.register("provide-client-params.sqs.SendMessageBatch", lambda params,
                                  **_: sizes.append(len(params["Entries"])))
        made.meta.events.register("provide-client-params.sqs.SendMessageBatch", lambda params, **_: delays.extend(
            entry["DelaySeconds"] for entry in params["Entries"]))
        return made

    delays: list[int] = []
    monkeypatch.setattr(amazon, "client", counted)
    assert functions.spread(TICK, None) == {"messages": 25}
    assert sizes == [10, 10, 5]
    assert all(0 <= delay < SPREAD for delay in delays)
    assert delays[-1] > SPREAD // 2
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert int(counts["ApproximateNumberOfMessages"]) + int(counts.get("ApproximateNumberOfMessagesDelayed", 0)) == 25
    sqs.purge_queue(QueueUrl=url)
    monkeypatch.setattr(schedule, "SPREAD", 0)                  # now without the delay
    assert functions.spread(TICK, None) == {"messages": 25}
    sqs.send_message(QueueUrl=url, MessageBody="poison")
    app.clock.forward(1)
    until, worked = time.monotonic() + 60, 0
    while time.monotonic() < until:
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        if not received:
            break
        records = [{"messageId": one["MessageId"], "body": one["Body"], "receiptHandle": one["ReceiptHandle"]}
                   for one in received]
        again = {failed["itemIdentifier"] for failed in functions.work({"Records": records}, None)["batchItemFailures"]}
        worked += len(records) - len(again)
        for one in received:
            if one["MessageId"] not in again:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    assert worked == 25
    assert cloud.count() == 25
    assert {source.region: head.total for source, head in snapshots.heads(app.deployment.store)} == dict.fromkeys(
        names, 2)
    assert schedule.due(app.deployment) == []
    assert functions.spread(TICK, None) == {"messages": 0}
    (buried,) = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
    assert buried["Body"] == "poison"


def test_messages_that_the_queue_does_not_take_are_told(app: App, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    put(app, ("gz", "sh"))
    functions.use(app.deployment)

    class Full:
        taken = 1

        def get_queue_url(self, **_: Any) -> dict[str, str]:
            return {"QueueUrl": "x"}

        def send_message_batch(self, Entries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
            failed = [{"Id": "1", "Code": "InternalError", "SenderFault": False}]
            return {"Successful": Entries[:self.taken], "Failed": failed} if self.taken else {"Failed": failed}

    monkeypatch.setattr(amazon, "client", lambda *_, **__: Full())
    monkeypatch.setattr(log.logger, "propagate", True)
    assert functions.spread(TICK, None) == {"messages": 1}
    Full.taken = 0
    assert functions.spread(TICK, None) == {"messages": 0}
    assert {record.getMessage() for record in caplog.records if record.levelname == "ERROR"} == {"message not sent"}


# ---------------------------------------------------------------- twocloud refresh, serve --refresh

@pytest.fixture
def clouds(twocloud: Command, tmp_path: Path) -> Iterator[Qcloud]:               # noqa: F811
    keys = qcloud_keys()
    with Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(3), "ap-shanghai": Fleet(4)}) as cloud:
        for tenant, regions in (("123", ("gz", "sh")), ("7", ("gz",))):
            twocloud("account", "put", tenant, "qcloud", *[part for region in regions for part in ("--region", region)],
                     "--endpoint", cloud.url, stdin=json.dumps(keys))
        yield cloud
    output.deployment.cache_clear()


def test_twocloud_refresh(twocloud: Command, clouds: Qcloud) -> None:           # noqa: F811
    row = {"state": "ok", "error": "", "msg": ""}
    everything = [{"tenant_id": tenant, "party": "qcloud", "region": region, "count": count, **row}
                  for tenant, region, count in (("123", "ap-guangzhou", 3), ("123", "ap-shanghai", 4),
                                                ("7", "ap-guangzhou", 3))]

    def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: row[key] for key in everything[0]} for row in rows]

    assert plain(twocloud.json("refresh")) == everything
    assert "3 of 3 sources refreshed." in twocloud.err
    assert plain(twocloud.json("refresh", "--tenant", "123")) == everything[:2]
    assert plain(twocloud.json("refresh", "--region", "gz")) == [everything[0], everything[2]]
    assert plain(twocloud.json("refresh", "--party", "qcloud", "--region", "ap-shanghai")) == everything[1:2]
    twocloud("refresh", "--party", "awz", code=4)
    assert twocloud.json("refresh", "--party", "aws") == []
    assert "No source to refresh" in twocloud.err
    assert len(twocloud("refresh").splitlines()) == 4
    # not known yet
    assert twocloud.json("refresh", "--tenant", "7", "--party", "qcloud", "--region", "sh")[0]["count"] == 4
    twocloud("refresh", "--tenant", "8", "--party", "qcloud", "--region", "sh", code=4)
    assert "no such account" in twocloud.err
    twocloud("refresh", "--tenant", "7", "--party", "nocloud", "--region", "sh", code=4)
    calls = clouds.count()
    assert twocloud.json("servers", "--party", "all", "--tenant", "123", "--region", "all", "--max-age",
                         "60")["complete"]
    assert clouds.count() == calls


def test_twocloud_refresh_that_fails(twocloud: Command, clouds: Qcloud) -> None:  # noqa: F811
    clouds.fail("403", None, (1,))
    rows = twocloud.json("refresh", code=5)
    assert sorted(row["state"] for row in rows) == ["failed", "ok", "ok"]
    (bad,) = (row for row in rows if row["state"] == "failed")
    assert bad["count"] is None
    assert bad["error"] == "party_denied"
    assert "refused" in bad["msg"]
    assert "2 of 3 sources refreshed." in twocloud.err
    assert "1 of 3 sources could not be refreshed; their last snapshots stay." in twocloud.err
    clouds.forget()
    twocloud("refresh")


def test_serve_refreshes(twocloud: Command, clouds: Qcloud, tmp_path: Path) -> None:     # noqa: F811
    """A list that is due is refreshed while nobody asks; then answers come from it, and nothing hinders the end."""
    twocloud("user", "add", "ann", "--tenant", "123")
    token = watch(twocloud.json("token", "issue", "--user", "ann")["token"])
    process = subprocess.Popen([TWOCLOUD, "serve", "--port", "0", "--refresh", "1s"], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE,
                               text=True, cwd=tmp_path, env=dict(os.environ))
    try:
        line = process.stderr.readline() if process.stderr else ""
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line
        until = time.monotonic() + 30
        while clouds.count() < 3 and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(2.5)
        assert clouds.count() == 3          # each once; two seconds later none is due
        answer = requests.get(f"{url[0]}/twocloud/servers?party=qcloud&tenant_id=123&region=all", auth=(token, ""),
                              timeout=9,
                              headers={"Cache-Control": "only-if-cached"})
        assert answer.status_code == 200
        assert len(answer.json()["vm_servers"]) == 7
        assert int(answer.headers["Age"]) >= 1
        clouds.fail("hang")
        twocloud("account", "put", "8", "qcloud", "--region", "gz", "--endpoint", clouds.url, stdin=json.dumps(
            {"secret_id": "AKIDtest", "secret_key": clouds.keys["AKIDtest"]}))
        while clouds.count() < 4 and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)                     # in the middle of a refresh, which hangs
        stopped = time.monotonic()
        assert process.wait(25) == 0
        assert time.monotonic() - stopped < 6
    finally:
        process.kill()
        out, err = process.communicate()
        watch_nothing = token in out or token in err
    assert not watch_nothing
    assert "Traceback" not in err


def test_refresh_times_that_make_no_sense(twocloud: Command) -> None:           # noqa: F811
    for pause in ("0s", "1", "-1s", "x", "0m"):
        twocloud("serve", "--port", "0", "--refresh", pause, code=2)


def test_the_timer_and_readers_agree(served: App) -> None:
    """What the schedule saw a reader is told: appeared, vanished, and when."""
    set_fleet(served, [machine(0), machine(1)])
    served.get(GZ)
    began = served.clock()
    served.clock.forward(300)
    set_fleet(served, [machine(1), machine(2)])
    assert [result.total for result in schedule.run(served.deployment, schedule.due(served.deployment))] == [2]
    body = changed(served, at(began))
    assert [row["instance_id"] for row in body["vm_servers"]] == [ident(2)]
    assert [row["instance_id"] for row in body["vanished"]] == [ident(0)]
    assert body["vanished"][0]["vanished_at"] == datetime.fromtimestamp(began + 300, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert isinstance(POOL, Fleet)
    assert isinstance(served.clouds["qcloud"].fleets["ap-guangzhou"], Machines)
    with pytest.raises(PartyError):
        served.clouds["qcloud"].fail("503")
        one_source.refresh(served.deployment, SOURCE, time.monotonic() + 9)
