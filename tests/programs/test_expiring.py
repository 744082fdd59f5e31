"""`twocloud servers --expires-within`: which servers end soon, in any zone, from the store and from a server."""

import csv
import dataclasses
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine

from chalicelib.cli.expiring import Expiring
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet, Machine, Machines
from tests.fixtures import App
from tests.programs.test_cli import Command, cloud, credentials, twocloud  # noqa: F401
from tests.unit.test_changes import set_fleet

WHERE = ("servers", "--party", "qcloud", "--tenant", "123", "--region", "gz")
POOL = Fleet(12)
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def ending_in(number: int, time_left: timedelta) -> Machine:
    """A prepaid machine: those whose number leaves 1 when it is divided by 4."""
    machine = POOL[number]
    assert machine.ends
    return dataclasses.replace(machine, created=machine.created + (datetime.now(UTC) + time_left - machine.ends))


def fleet() -> list[Machine]:
    """Seven that do not end, one that has ended, one that ends in 10 days and one in 40."""
    ending = {1: 40, 5: 10, 9: -2}
    return [*(POOL[n] for n in (0, 2, 3, 4, 6, 7, 8)),
            *(ending_in(number, timedelta(days=days)) for number, days in ending.items())]


def names(*numbers: int) -> list[str]:
    return [f"ins-{POOL[n].key}" for n in numbers]


def row_of(cloud: Qcloud, number: int) -> dict[str, Any]:         # noqa: F811
    listed = cloud.listed("DescribeInstances", {}, cloud.fleets["ap-guangzhou"], "ap-guangzhou")["InstanceSet"]
    return next(row for row in listed if row["InstanceId"] in names(number))


@pytest.fixture
def stored(twocloud: Command, cloud: Qcloud) -> Command:         # noqa: F811
    cloud.fleets["ap-guangzhou"] = Machines(fleet())
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    return twocloud


def test_the_soonest_first(stored: Command) -> None:
    body = stored.json(*WHERE, "--expires-within", "30d")
    assert [row["instance_id"] for row in body["vm_servers"]] == names(9, 5)
    assert list(body) == ["code", "msg", "vm_servers"]
    assert all(row["charge_type"] == "prepaid" and row["expires_at"] for row in body["vm_servers"])
    assert stored.err == ""                                     # each server says how it is paid for
    body = stored.json(*WHERE, "--expires-within", "60d")
    assert [row["instance_id"] for row in body["vm_servers"]] == names(9, 5, 1)
    head, *lines = stored(*WHERE, "--expires-within", "30d").splitlines()
    assert head.split()[:4] == ["NAME", "ID", "EXPIRES", "STATUS"]
    assert [line.split()[1] for line in lines] == names(9, 5)
    rows = list(csv.DictReader(io.StringIO(stored(*WHERE, "--expires-within", "30d", "-o", "csv"))))
    assert [row["instance_id"] for row in rows] == names(9, 5)
    lines = stored(*WHERE, "--expires-within", "60d", "-o", "ndjson", "--columns", "id", "--sort", "expires:desc")
    assert [json.loads(line) for line in lines.splitlines()] == [{"instance_id": key} for key in names(1, 5, 9)]


def test_what_does_not_go_together(stored: Command) -> None:
    for arguments in (("-o", "prometheus"), ("-o", "ansible"), ("--view", "basic"), ("--from", "2"), ("--to", "9")):
        stored(*WHERE, "--expires-within", "30d", *arguments, code=2)
        assert "--expires-within" in stored.err
    for bad in ("30", "d", "-1d", "30 d", "１d"):
        stored(*WHERE, "--expires-within", bad, code=2)


def test_servers_that_may_end_are_counted(stored: Command, cloud: Qcloud) -> None:              # noqa: F811
    cloud.rows = {5: {**row_of(cloud, 5), "ExpiredTime": None},
                  2: {**row_of(cloud, 2), "InstanceChargeType": "CDHPAID"}}
    body = stored.json(*WHERE, "--expires-within", "30d")
    assert [row["instance_id"] for row in body["vm_servers"]] == names(9)
    assert "2 more servers may end too" in stored.err


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("over", ["store", "http"])
def test_the_zone_of_the_deployment(twocloud: Command, cloud: Qcloud, served: App, zone: str, over: str,       # noqa: F811
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour before the limit and an hour behind it, where a zone is up to 14 hours from UTC. No answer names it."""
    with time_machine.travel(served.clock()):
        machines = [ending_in(1, timedelta(days=30, hours=-1)), ending_in(5, timedelta(days=30, hours=1)), POOL[2]]
        if over == "store":
            monkeypatch.setenv("TWOCLOUD_TIMEZONE", zone)
            cloud.fleets["ap-guangzhou"] = Machines(machines)
            twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
            where = WHERE
        else:
            monkeypatch.setenv("TWOCLOUD_TOKEN", served.token)
            served.change_settings(timezone=ZoneInfo(zone))
            set_fleet(served, machines)
            where = (*WHERE, "--url", served.url)
        for more in ((), ("--max-age", "600")):
            body = twocloud.json(*where, "--expires-within", "30d", *more)
            assert [row["instance_id"] for row in body["vm_servers"]] == names(1)


# ---------------------------------------------------------------- the zone, from the answer alone

def row(region: str, seen_at: str, expires_at: str | None, charge_type: str | None = "prepaid") -> dict[str, Any]:
    return {"tenant_id": "1", "party": "qcloud", "account": "default", "region": region, "seen_at": seen_at,
            "expires_at": expires_at, "charge_type": charge_type}


def source(region: str, age: int | None) -> dict[str, Any]:
    return {"tenant_id": "1", "party": "qcloud", "account": "default", "region": region, "age": age}


def test_sources_of_any_age_show_the_zone() -> None:
    """12:00 UTC is 20:00 in Shanghai; one list is an hour old, and it took 20 seconds until the answer was here."""
    rows = [row("gz", "2026-11-29 19:59:40", "2026-12-29 19:30:00"),
            row("sh", "2026-11-29 18:59:40", "2026-12-29 20:30:00")]
    ending, warning = Expiring(30 * 86_400).filter(rows, [source("gz", 0), source("sh", 3600)], NOW)
    assert ending == rows[:1]
    assert warning == ""


def test_the_age_of_one_source_is_in_its_header() -> None:
    expiring = Expiring(30 * 86_400, ages=[7200])
    assert expiring.filter([row("gz", "2026-11-29 18:00:00", "2026-12-29 19:30:00")], (), NOW)[0]
    assert not expiring.filter([row("gz", "2026-11-29 18:00:00", "2026-12-29 20:30:00")], (), NOW)[0]


@pytest.mark.parametrize("seen_at", ["2020-01-01 00:00:00", "2030-01-01 00:00:00", None])
def test_a_clock_that_is_wrong_is_no_zone(seen_at: Any) -> None:
    """Then the times are read as UTC."""
    rows = [row("gz", seen_at, "2026-12-29 11:30:00"), row("gz", seen_at, "2026-12-29 12:30:00")]
    assert Expiring(30 * 86_400).filter(rows, (), NOW)[0] == rows[:1]


def test_who_may_end_without_saying_so() -> None:
    rows = [row("gz", "2026-11-29 12:00:00", None, charge) for charge in ("prepaid", None, "postpaid", "spot")]
    ending, warning = Expiring(60).filter(rows, (), NOW)
    assert ending == []
    assert warning.startswith("2 more servers may end too")
    assert Expiring(60).filter(rows[:1], (), NOW)[1].startswith("1 more server may end too")
    assert Expiring(60).filter([], (), NOW) == ([], "")
