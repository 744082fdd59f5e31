"""What changed since a time: told over HTTP and by the command, from what each listing found."""

import dataclasses
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cli import output
from chalicelib.cloud import cache
from chalicelib.errors import PartyError
from chalicelib.fleet import changes, circuit_breaker, lookup, many_sources, schedule
from chalicelib.fleet.lookup import Filter, Freshness
from chalicelib.model import WHOLE, Source, Window
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet, Machine, Machines
from chalicelib.storage import snapshots
from tests.fixtures import GZ, App, Clock, qcloud_keys, settings_in
from tests.http.test_serve import error
from tests.programs.test_cli import Command, twocloud  # noqa: F401  (a fixture)
from tests.unit.test_fleet import ALL, fleet  # noqa: F401

SOURCE = Source("123", "qcloud", "ap-guangzhou")
POOL = Fleet(40, "pool")


def machine(n: int, **more: Any) -> Machine:
    return dataclasses.replace(POOL[n], state="running", **more)


def ident(n: int) -> str:
    return f"ins-{POOL[n].key}"


def at(clock: Clock | float) -> str:
    unix = clock if isinstance(clock, float) else clock()
    return quote(datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z"))


def shown(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")


def set_fleet(app: App, machines: list[Machine]) -> None:
    app.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(machines)           # type: ignore[attr-defined]


def changed(app: App, since: str, more: str = "") -> dict[str, Any]:
    answer = app.get(f"{GZ}&changed_since={since}{more}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# ---------------------------------------------------------------- over HTTP

def test_appeared_changed_and_vanished(served: App) -> None:
    set_fleet(served, [machine(n) for n in range(6)])
    served.get(GZ)
    began = served.clock()
    served.clock.forward(60)
    set_fleet(served, [machine(0), dataclasses.replace(machine(1), state="stopped"), machine(3), machine(4, cpu=99),
                       machine(9)])
    served.get(GZ)
    served.clock.forward(60)
    calls = served.clouds["qcloud"].count()
    body = changed(served, at(began))
    assert served.clouds["qcloud"].count() == calls             # from what is kept
    assert list(body) == ["code", "msg", "vm_servers", "vanished"]
    assert [row["instance_id"] for row in body["vm_servers"]] == [ident(1), ident(4), ident(9)]
    assert body["vanished"] == [
        {"instance_id": ident(n), "instance_name": POOL[n].name, "party": "qcloud", "region": "ap-guangzhou",
         "seen_at": shown(began), "vanished_at": shown(began + 60), "tenant_id": "123",
         "account": "default"} for n in sorted((2, 5), key=ident)]
    answer = served.get(f"{GZ}&changed_since={at(began)}&view=full&f=2&t=2")
    assert [row["instance_id"] for row in answer.json()["vm_servers"]] == [ident(4)]
    assert answer.headers["X-Total-Count"] == "3"
    assert answer.headers["Age"] == "60"
    assert answer.headers["Cache-Status"] == "twocloud; hit"
    assert len(answer.json()["vanished"]) == 2
    # a time between, and after, is answered by what came after it
    assert changed(served, at(began + 59.999999))["vanished"]
    assert not changed(served, at(began + 60))["vanished"]
    assert changed(served, at(began + 60))["vm_servers"] == []
    # everything that is known appeared after we first looked
    assert len(changed(served, at(began - 1))["vm_servers"]) == 5
    # filters
    assert [row["instance_id"] for row in changed(served, at(began), "&status=SHUTOFF")["vm_servers"]] == [ident(1)]
    one = changed(served, at(began), f"&name={POOL[2].name}")
    assert [row["instance_id"] for row in one["vanished"]] == [ident(2)]


def test_not_changed_is_304_until_something_vanishes(served: App) -> None:
    set_fleet(served, [machine(n) for n in range(3)])
    served.get(GZ)
    query = f"{GZ}&changed_since={at(served.clock)}"
    tag = served.get(query).headers["ETag"]
    served.clock.forward(5)
    served.get(GZ)
    assert served.get(query, headers={"If-None-Match": tag}).status_code == 304
    set_fleet(served, [machine(n) for n in range(2)])
    served.get(GZ)
    assert served.get(query, headers={"If-None-Match": tag}).status_code == 200


def test_what_comes_back_has_not_vanished(served: App) -> None:
    began = served.clock()
    for numbers in ((0, 1, 2), (0, 1), (0, 1, 2), (0, 2)):
        set_fleet(served, [machine(n) for n in numbers])
        served.get(GZ)
        served.clock.forward(10)
    body = changed(served, at(began))
    assert [row["instance_id"] for row in body["vanished"]] == [ident(1)]
    assert [row["instance_id"] for row in body["vm_servers"]] == [ident(2)]
    assert [row["instance_id"] for row in changed(served, at(began + 10))["vanished"]] == [ident(1)]


def test_the_first_question_lists(served: App) -> None:
    body = changed(served, at(served.clock))
    assert served.clouds["qcloud"].count() == 1
    assert body["vm_servers"] == []
    assert body["vanished"] == []
    assert len(changed(served, at(served.clock() - 1))["vm_servers"]) == 25
    assert served.clouds["qcloud"].count() == 1


def test_a_caller_may_have_it_looked_up_now(served: App) -> None:
    set_fleet(served, [machine(0), machine(1)])
    served.get(GZ)
    since = at(served.clock)
    served.clock.forward(30)
    set_fleet(served, [machine(0)])
    assert changed(served, since)["vanished"] == []
    for fresh in ("&max_age=0", "&max_age=10"):
        assert [row["instance_id"] for row in changed(served, since, fresh)["vanished"]] == [ident(1)]
    assert served.get(f"{GZ}&changed_since={since}", headers={"Cache-Control": "no-cache"}).headers.get("Age") is None
    answer = served.get(f"{GZ.replace('gz', 'sh')}&changed_since={since}", headers={"Cache-Control": "only-if-cached"})
    error(answer, 504, "party_timeout")


@pytest.mark.parametrize("query", [GZ, ALL])
def test_older_than_the_history_is_refused(served: App, query: str) -> None:
    served.get(GZ)
    for seconds, status in ((30 * 86_400, 200), (30 * 86_400 + 1, 400)):
        answer = served.get(f"{query}&max_age=0&on_error=stale&changed_since={at(served.clock() - seconds)}")
        assert answer.status_code == status or (query == ALL and status == 200)
        if status == 400:
            assert "30 days" in error(answer, 400, "invalid_parameter", "changed_since")


def test_several_sources(fleet: App) -> None:         # noqa: F811
    fleet.get(ALL)
    began = fleet.clock()
    fleet.clock.forward(60)
    qcloud = fleet.clouds["qcloud"]
    was = [qcloud.fleets["ap-guangzhou"][n] for n in range(25)]                  # type: ignore[attr-defined]
    set_fleet(fleet, [*was[:3], *was[4:24], machine(30)])
    fleet.clouds["aws"].fleets["us-east-1"] = Fleet(11)          # type: ignore[attr-defined]
    fleet.get(f"{ALL}&max_age=0")
    answer = fleet.get(f"{ALL}&changed_since={at(began)}")
    body = answer.json()
    assert list(body) == ["code", "msg", "vm_servers", "complete", "sources", "vanished"]
    assert [(row["region"], row["instance_id"]) for row in body["vm_servers"]] == [("ap-guangzhou", ident(30))]
    assert [row["region"] for row in body["vanished"]] == ["us-east-1", "ap-guangzhou", "ap-guangzhou"]
    assert {row["instance_id"] for row in body["vanished"][1:]} == {f"ins-{was[3].key}", f"ins-{was[24].key}"}
    assert [row["count"] for row in body["sources"]] == [0, 0, 1, 0]
    assert answer.headers["X-Total-Count"] == "1"
    for cloud in fleet.clouds.values():                         # whatever the parties do now, this is known
        cloud.close()
    assert fleet.get(f"{ALL}&changed_since={at(began)}").json() == body


# ---------------------------------------------------------------- update_at

def test_update_at_is_the_time_we_last_saw_it_change(served: App) -> None:
    """In the whole list, in a window, live and kept, filtered, over several sources."""
    set_fleet(served, [machine(n) for n in range(4)])
    created = [row["update_at"] for row in served.get(GZ).json()["vm_servers"]]
    assert created == [shown(POOL[n].created.timestamp()) for n in range(4)]
    served.clock.forward(60)
    first = served.clock()
    set_fleet(served, [machine(0), machine(1, name="renamed"), machine(2), machine(3)])
    served.get(GZ)
    served.clock.forward(60)
    second = served.clock()
    set_fleet(served, [machine(0), machine(1, name="renamed"), machine(2),
                       dataclasses.replace(machine(3), state="stopped")])
    expected = [created[0], shown(first), created[2], shown(second)]
    for more in ("&max_age=0", "", "&max_age=999"):
        assert [row["update_at"] for row in served.get(GZ + more).json()["vm_servers"]] == expected, more
    for more in ("&f=2&t=4", "&f=2&t=4&max_age=999", "&f=2", "&f=2&max_age=999"):
        assert [row["update_at"] for row in served.get(GZ + more).json()["vm_servers"]] == expected[1:], more
    assert [row["update_at"] for row in served.get(f"{GZ}&name=renamed").json()["vm_servers"]] == [shown(first)]
    assert [row["update_at"] for row in changed(served, at(first))["vm_servers"]] == [shown(second)]
    several = served.get("party=qcloud&tenant_id=123&region=gz,ap-beijing").json()["vm_servers"]
    assert [row["update_at"] for row in several] == expected
    served.clouds["qcloud"].fail("503")
    assert [row["update_at"] for row in served.get(GZ).json()["vm_servers"]] == expected


# ---------------------------------------------------------------- what never makes anything vanish

@pytest.mark.parametrize("fault", ["503", "403", "html", "cut body", "reset", "object", "empty body"])
def test_a_failure_makes_nothing_vanish(served: App, fault: str) -> None:
    served.get(GZ)
    began = served.clock()
    for nth in (1, 2):
        served.clouds["qcloud"].forget()
        served.clouds["qcloud"].fail(fault, None, tuple(range(nth, 9)))
        served.clock.forward(60)
        served.get(GZ)
        served.get(f"{GZ}&f=1&t=100")
        schedule.work(served.deployment, schedule.Message("123", "qcloud", "ap-guangzhou", served.clock()))
    served.clouds["qcloud"].forget()
    body = changed(served, at(began))
    assert body["vanished"] == []
    assert body["vm_servers"] == []


@pytest.mark.parametrize("more", ["", "&f=1&t=100", "&status=ACTIVE"])
def test_an_empty_list_after_one_that_was_not_is_asked_for_twice(served: App, more: str) -> None:
    """An answer that says that all are gone is believed when it is given again."""
    served.get(GZ)
    began, cloud = served.clock(), served.clouds["qcloud"]
    served.clock.forward(60)
    proper = cloud.answer
    empty = dataclasses.replace(proper(cloud.calls[0]),
                                body=b'{"Response":{"TotalCount":0,"InstanceSet":[],"RequestId":"x"}}')
    answers = iter([empty])
    cloud.answer = lambda call: next(answers, None) or proper(call)              # type: ignore[method-assign]
    calls = cloud.count()
    assert len(served.get(GZ + more).json()["vm_servers"]) >= 20
    assert cloud.count() == calls + 2
    assert changed(served, at(began))["vanished"] == []
    set_fleet(served, [])
    cloud.answer = proper                   # type: ignore[method-assign]
    calls = cloud.count()
    assert served.get(GZ + more).json()["vm_servers"] == []
    assert cloud.count() == calls + 2
    assert len(changed(served, at(began))["vanished"]) == 25
    served.clock.forward(1)
    served.get(GZ + more)
    assert cloud.count() == calls + 3       # empty and empty again is no news


def test_overlapping_refreshes_lose_nobody(app: App) -> None:
    """A slow listing that began before a machine was made ends after a quick one that saw it: the machine is not
    gone."""
    set_fleet(app, [machine(0)])
    many_sources.list_servers(app.deployment, SOURCE)
    revision = accounts.find(app.deployment.store, "123", "qcloud").revision
    slow_began = app.clock()
    app.clock.forward(5)
    set_fleet(app, [machine(0), machine(1)])
    quick = many_sources.list_servers(app.deployment, SOURCE)
    assert quick.total == 2
    app.clock.forward(5)
    assert snapshots.save(app.deployment.store, SOURCE, revision, quick.servers[:1], slow_began + 1,
                          history=99_999) is None
    listed = changes.list_changes(lookup.Lookup(app.deployment, lookup.ANY_AGE).plan(SOURCE), slow_began)
    assert [server.id for server in listed.answer.servers] == [ident(1)]
    assert listed.vanished == []
    assert listed.fields == {ident(1): ()}


# ---------------------------------------------------------------- the command

def test_twocloud_changes(twocloud: Command, tmp_path: Path) -> None:           # noqa: F811
    keys = qcloud_keys()
    with Qcloud({keys["secret_id"]: keys["secret_key"]},
                {"ap-guangzhou": Machines([machine(n) for n in range(3)])}) as cloud:
        twocloud("account", "put", "123", "qcloud", "--region", "gz", "--endpoint", cloud.url, stdin=json.dumps(keys))
        since = ("--party", "qcloud", "--tenant", "123", "--region", "all", "--since",
                 datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        assert [row["count"] for row in twocloud.json("refresh")] == [3]
        assert {row["what"] for row in twocloud.json("changes", *since)} <= {"appeared"}
        time.sleep(1.1)
        since = (*since[:-1], datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        cloud.fleets["ap-guangzhou"] = Machines([machine(0, name="new name"), machine(2), machine(7)])
        twocloud("refresh", "--tenant", "123")
        answer = twocloud.json("changes", *since)
        (when,) = {row["at"] for row in answer}
        where = {"party": "qcloud", "region": "ap-guangzhou", "at": when, "tenant_id": "123", "account": "default"}
        assert answer == [
            {"what": "changed", "id": ident(0), "name": "new name", **where, "fields": ["name"],
             "values": {"instance_name": [POOL[0].name, "new name"]}},
            {"what": "appeared", "id": ident(7), "name": POOL[7].name, **where, "fields": [], "values": {}},
            {"what": "vanished", "id": ident(1), "name": POOL[1].name, **where, "fields": [], "values": {}}]
        lines = twocloud("changes", *since).splitlines()
        assert lines[0].split() == ["AT", "WHAT", "ID", "NAME", "PARTY", "REGION", "FIELDS"]
        assert len(lines) == 4
        assert lines[1].split()[:3] == [f"{when[:19]}Z", "changed", ident(0)]
        assert lines[1].endswith(f"instance_name: {POOL[0].name} -> new name")
        assert twocloud("changes", "--tenant", "123", "--since", since[-1]).splitlines() == lines
        parts = twocloud("changes", *since, "--from", "2", "--to", "2", "-o", "csv", "--columns", "what,values")
        assert parts.splitlines() == ["what,values", "appeared,{}"]
        (line,) = twocloud("changes", *since, "--kind", "changed", "-o", "ndjson").splitlines()
        assert json.loads(line) == answer[0]
        assert twocloud.json("changes", *since[:-1], when) == []
        twocloud("changes", *since, "--kind", "gone", code=4)
        assert twocloud("changes", *since[:-1], "2020-01-01T00:00:00Z", code=4) == ""
        assert "30 days" in twocloud.err
        twocloud("changes", *since[:-1], "yesterday", code=4)
        body = twocloud.json("servers", *since[:-2], "--changed-since", since[-1])
        assert len(body["vm_servers"]) == 2
        assert len(body["vanished"]) == 1
    output.deployment.cache_clear()


def test_twocloud_changes_from_a_server(twocloud: Command, served: App,          # noqa: F811
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOCLOUD_TOKEN", served.token)
    set_fleet(served, [machine(n) for n in range(5)])
    served.get(GZ)
    since = ("--tenant", "123", "--url", served.url, "--since", datetime.fromtimestamp(served.clock(), UTC).isoformat())
    served.clock.forward(60)
    set_fleet(served, [machine(n, cpu=99) for n in range(1, 5)])
    served.get(GZ)
    where = {"party": "qcloud", "region": "ap-guangzhou", "tenant_id": "123", "account": "default",
             "at": datetime.fromtimestamp(served.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    answer = twocloud.json("changes", *since, "--party", "qcloud")
    assert answer == [
        *({"what": "changed", "id": ident(n), "name": POOL[n].name, **where, "fields": ["cpu"],
           "values": {"cpu_num": [POOL[n].cpu, 99]}} for n in sorted(range(1, 5), key=ident)),
        {"what": "vanished", "id": ident(0), "name": POOL[0].name, **where, "fields": [], "values": {}}]
    monkeypatch.setattr("chalicelib.cli.changes._PART", 2)      # in parts, which join
    assert twocloud.json("changes", *since) == answer
    assert "never listed" in twocloud.err   # aws
    assert twocloud.json("changes", *since, "--from", "2", "--to", "3") == answer[1:3]
    assert twocloud("changes", *since, "--kind", "vanished", "-o", "csv").splitlines()[0] == (
        "what,id,name,party,region,fields,at,tenant_id,account,values")
    twocloud("changes", *since[:-1], "2020-01-01T00:00:00Z", code=4)
    assert "30 days" in twocloud.err
    twocloud("changes", "--tenant", "9", *since[2:], code=4)
    twocloud("changes", "--tenant", "123", "--since", since[-1], "--url", "http://127.0.0.1:9", code=3)


# ---------------------------------------------------------------- against a plain model of the inventory

class Small(RuleBasedStateMachine):
    """A small fleet that changes between calls, a clock that moves, a party that fails now and then.

    The model: what the fleet is, what the last listing that was kept held and when, and what each one before it held.
    """

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        cache.forget()
        self.clock = Clock()
        self.dice = random.Random(1)
        self.cloud = Qcloud({"AKIDtest": "model"}, {"ap-guangzhou": Machines()}, limited=False)
        self.deployment = many_sources.open_deployment(settings_in(self.folder / str(time.monotonic_ns())), self.clock)
        self.deployment.transport.jitter = lambda: 0.0
        self.there: dict[int, int] = {}     # number -> cpu
        self.lists: list[tuple[float, dict[int, int]]] = []     # that were kept, with their times
        self.failing = ""

    @initialize()
    def account(self) -> None:
        made = accounts.check("123", parties.load("qcloud"), {"secret_id": "AKIDtest", "secret_key": "model"},
                              project=None,
                              regions=("gz",), deep=False, endpoint=self.cloud.url, local=True)
        accounts.put(self.deployment.store, self.deployment.sealer(), made, self.clock(), replace=True)
        self.lists = []

    @rule(n=st.integers(0, 11), cpu=st.sampled_from([1, 2]))
    def made_or_changed(self, n: int, cpu: int) -> None:
        self.there[n] = cpu
        self.set()

    @precondition(lambda self: self.there)
    @rule(n=st.integers(0, 11))
    def terminated(self, n: int) -> None:
        self.there.pop(n, None)
        self.set()

    @rule()
    def all_terminated(self) -> None:
        self.there.clear()
        self.set()

    def set(self) -> None:
        self.cloud.fleets["ap-guangzhou"] = Machines([machine(n, cpu=cpu) for n, cpu in sorted(self.there.items())])

    @rule(seconds=st.sampled_from([1, 30, 899, 900, 901, 3600, 86_399, 86_400]))
    def later(self, seconds: int) -> None:
        self.clock.forward(seconds)

    @rule(fault=st.sampled_from(["", "", "403", "html"]))
    def weather(self, fault: str) -> None:
        self.cloud.forget()
        self.failing = fault
        if fault:
            self.cloud.fail(fault)

    @rule()
    def put_again(self) -> None:
        self.account()

    def is_open(self) -> bool:
        row = self.deployment.store.get("breaker", snapshots.key_of(SOURCE))
        return bool(row and (b := circuit_breaker.read(row.value)) and b.until > self.clock())

    def rows(self, answer: many_sources.Answer) -> dict[int, int]:
        numbers = {ident(n): n for n in range(12)}
        return {numbers[server.id]: server.cpu or 0 for server in answer.servers}

    @rule(max_age=st.sampled_from([0, 0, 30, 900, 86_400]), stale=st.sampled_from([0, 900, 86_400]),
          cached=st.booleans(),
          window=st.sampled_from([WHOLE, WHOLE, Window(1, 5), Window(2, 3), Window(1, 100), Window(3)]),
          filtered=st.booleans())
    def asks(self, max_age: int, stale: int, cached: bool, window: Window, filtered: bool) -> None:
        calls, was_open = self.cloud.count(), self.is_open()
        wanted = Filter(ip=None, name="-") if filtered else Filter()

        def cut(rows: dict[int, int]) -> dict[int, int]:
            return dict(sorted(rows.items())[window.first - 1:window.last])

        age = self.clock() - self.lists[-1][0] if self.lists else None
        young = age is not None and max_age > 0 and age <= max_age
        try:
            answer = many_sources.list_servers(self.deployment, SOURCE, window, wanted,
                                               Freshness(max_age, stale, cached))
        except PartyError as error:
            assert not young
            if cached:
                assert error.status == 504
            else:
                assert self.failing or was_open
                limit = min(stale, 900) if error.code == "party_denied" else stale
                assert not limit or age is None or age > limit
            return
        if answer.failure:
            limit = min(stale, 900) if self.failing == "403" and not was_open else stale
            assert answer.kept
            assert not young
            assert not cached
            assert (self.failing or was_open)
            assert age is not None
            assert age <= limit
        if answer.kept:
            assert young or answer.failure
            assert self.rows(answer) == cut(self.lists[-1][1])
            assert int(answer.seen_at) == int(self.lists[-1][0])
            assert self.cloud.count() == calls or answer.failure
        else:
            assert not young
            assert not cached
            assert not self.failing
            assert not was_open
            assert self.cloud.count() > calls
            assert self.rows(answer) == cut(self.there)
            whole = window.last is None or filtered or (window.first == 1 and len(self.there) <= window.last)
            if whole or max_age:            # who accepts a snapshot causes a listing of the whole
                self.lists.append((self.clock(), dict(self.there)))
        if answer.total is not None:
            assert answer.total == len(self.lists[-1][1] if answer.kept else self.there)

    @rule(late=st.sampled_from([0.0, 0.0, 50.0, 5000.0]))
    def a_message_comes(self, late: float) -> None:
        calls, was_open = self.cloud.count(), self.is_open()
        due = self.clock() - late
        result = schedule.work(self.deployment, schedule.Message("123", "qcloud", "ap-guangzhou", due))
        if self.lists and self.lists[-1][0] >= due:
            assert result.total is None
            assert result.error is None
            assert self.cloud.count() == calls
        elif self.failing or was_open:
            assert isinstance(result.error, PartyError)
        else:
            assert result.total == len(self.there)
            self.lists.append((self.clock(), dict(self.there)))

    @precondition(lambda self: self.lists)
    @rule(which=st.integers(0, 5))
    def asks_what_changed(self, which: int) -> None:
        """Since any of the listings: what was there then and the changes give what is kept now."""
        since, then = self.lists[-1 - which % len(self.lists)]
        if since < self.clock() - 30 * 86_400:
            return
        listed = changes.list_changes(lookup.Lookup(self.deployment, lookup.ANY_AGE).plan(SOURCE), since)
        assert listed.answer.kept
        now = self.lists[-1][1]
        then = next(rows for when, rows in reversed(self.lists) if when == since)             # the last of that moment
        changed_rows = self.rows(listed.answer)
        gone = {server.id for server in listed.vanished}
        assert {ident(n) for n in then.keys() - now.keys()} <= gone
        assert not gone & {ident(n) for n in now}
        assert {n: cpu for n, cpu in now.items() if then.get(n) != cpu}.items() <= changed_rows.items() <= now.items()
        if which == 0:
            assert not changed_rows
            assert not gone
        passed = [rows for when, rows in self.lists if when >= since]
        for n in changed_rows:               # nothing is listed that did not happen
            assert len({rows.get(n) for rows in passed}) > 1
        for server in listed.vanished:
            assert any(server.id == ident(n) for rows in passed for n in rows)

    @invariant()
    def what_is_kept_is_the_last_list(self) -> None:
        revision = accounts.find(self.deployment.store, "123", "qcloud").revision if self.lists else ""
        head = snapshots.find(self.deployment.store, SOURCE, revision)
        if not self.lists:
            assert head is None
            return
        if self.clock() - self.lists[-1][0] < 14 * 86_400:
            assert head
            assert head.seen_at == self.lists[-1][0]
            assert head.total == len(self.lists[-1][1])
        elif head is None:
            self.lists = []                 # it has ended

    def teardown(self) -> None:
        self.cloud.close()
        self.deployment.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[type[Small]]:
    Small.folder = tmp_path
    yield Small


def test_against_a_plain_model_of_the_inventory(small: type[Small]) -> None:
    run_state_machine_as_test(small, settings=settings(max_examples=40, stateful_step_count=40,
                                                       suppress_health_check=list(HealthCheck)))


@pytest.mark.slow
@settings(max_examples=30)
@given(fleets=st.lists(st.sets(st.integers(0, 9), max_size=10), min_size=2, max_size=5), dice=st.randoms())
def test_windows_and_wholes_in_any_mix_lose_nobody(app: App, fleets: list[set[int]], dice: random.Random) -> None:
    """Only a whole list may say that somebody is gone."""
    app.account("qcloud", {"secret_id": "AKIDtest", "secret_key": app.clouds["qcloud"].keys["AKIDtest"]},
                  app.clouds["qcloud"].url)   # type: ignore[attr-defined]
    app.clouds["qcloud"].rates = {}       # type: ignore[attr-defined]
    app.deployment.transport.pace = lambda *_: None            # type: ignore[method-assign,assignment]
    began = app.clock()
    for numbers in fleets:
        set_fleet(app, [machine(n) for n in sorted(numbers)])
        for _ in range(dice.randrange(1, 3)):
            first = dice.randrange(1, 12)
            window = dice.choice([WHOLE, Window(first, first + dice.randrange(12))])
            many_sources.list_servers(app.deployment, SOURCE, window)
        app.clock.forward(10)
    many_sources.list_servers(app.deployment, SOURCE)
    listed = changes.list_changes(lookup.Lookup(app.deployment, lookup.ANY_AGE).plan(SOURCE), began)
    assert not {server.id for server in listed.vanished} & {ident(n) for n in fleets[-1]}
    assert {server.id for server in listed.vanished} <= {ident(n) for numbers in fleets for n in numbers}
