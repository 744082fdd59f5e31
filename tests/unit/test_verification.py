"""Two lists of one source, compared: what differs, what only moved, and what is the same in another form."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from chalicelib.fleet.verification import Comparison, compare, is_same
from chalicelib.model import Server

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ONE = Server(id="a", name="web", cpu=2, lan_ipv4=("10.0.0.1", "10.0.0.2"), party_status="RUNNING", created_at=NOW)
TWO = Server(id="b", name="db", party_status="STOPPED")
RECORD = {"name": "web", "cpu": 2, "lan_ipv4": ["10.0.0.1", "10.0.0.2"], "party_status": "RUNNING", "created_at": NOW}
OTHER = {"name": "db", "party_status": "STOPPED"}


def changed(server: Server, **fields: Any) -> Server:
    return msgspec.structs.replace(server, **fields)


def differences(comparison: Comparison) -> list[tuple[str, str]]:
    return [(it.id, it.name) for it in comparison.differences]


def test_the_same_lists_agree_and_every_field_is_counted() -> None:
    comparison = compare([ONE, TWO], {"b": OTHER, "a": RECORD})
    assert comparison.agrees
    assert (comparison.ours, comparison.theirs, comparison.both, comparison.moved) == (2, 2, 2, 0)
    assert {name: (it.compared, it.equal) for name, it in comparison.fields.items()} == {
        "name": (2, 2), "party_status": (2, 2), "cpu": (1, 1), "lan_ipv4": (1, 1), "created_at": (1, 1)}


@pytest.mark.parametrize(("name", "value"), [
    ("name", "Web"), ("cpu", None), ("cpu", 4), ("lan_ipv4", ["10.0.0.2", "10.0.0.1"]), ("lan_ipv4", []),
    ("lan_ipv4", {"10.0.0.1"}), ("party_status", "running"), ("created_at", None),
    ("created_at", NOW + timedelta(seconds=1))])
def test_a_field_that_differs_is_a_difference(name: str, value: object) -> None:
    comparison = compare([ONE], {"a": {**RECORD, name: value}})
    assert differences(comparison) == [("a", name)]
    assert (comparison.fields[name].compared, comparison.fields[name].equal) == (1, 0)


def test_a_server_of_one_side_alone_is_a_difference() -> None:
    comparison = compare([ONE], {"b": OTHER})
    assert differences(comparison) == [("a", ""), ("b", "")]
    assert (comparison.only_ours, comparison.only_theirs, comparison.both) == (1, 1, 0)
    assert not compare([], {"b": OTHER}).agrees
    assert not compare([ONE], {}).agrees


def test_what_moved_between_our_two_lists_is_no_difference() -> None:
    """A server that came or went, and a field that changed: theirs is from between."""
    comparison = compare([ONE], {"a": RECORD}, [ONE, TWO])
    assert comparison.agrees
    assert comparison.moved == 1
    assert compare([ONE, TWO], {"a": RECORD}, [ONE]).moved == 1
    stopping = compare([ONE], {"a": {**RECORD, "party_status": "STOPPING"}}, [changed(ONE, party_status="STOPPED")])
    assert stopping.agrees
    assert stopping.moved == 1
    assert stopping.fields["party_status"].compared == 0


def test_what_did_not_move_stays_a_difference() -> None:
    comparison = compare([ONE], {"a": {**RECORD, "cpu": 4, "party_status": "STOPPED"}},
                         [changed(ONE, party_status="STOPPED")])
    assert differences(comparison) == [("a", "cpu")]


@pytest.mark.parametrize(("ours", "theirs", "same"), [
    (("a", "b"), {"b", "a"}, True), (("a",), {"b"}, False), ((), set(), True), (None, set(), True),
    (None, {"a"}, False), (("a", "b"), ["a", "b"], True), (None, [], False),
    (NOW, NOW + timedelta(milliseconds=900), True), (NOW, NOW.astimezone(), True), (NOW, None, False),
    ({"k": "v"}, {"k": "v"}, True), (1024, 1024.0, True)])
def test_forms_of_the_same_value(ours: object, theirs: object, same: bool) -> None:
    assert is_same(ours, theirs) is same
