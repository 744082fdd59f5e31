"""The nouns: statuses, times, addresses, endpoints."""

import ipaddress
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.model import Account, Keys, Server, Status, addresses, bounded, parse_time


def test_the_contracts_words() -> None:
    assert list(Status) == ["BUILD", "ACTIVE", "REBOOT", "HARD_REBOOT", "STARTING", "STOPPING", "SHUTOFF", "SUSPENDED",
                            "PAUSED", "RESCUE", "MIGRATING", "RESIZE", "VERIFY_RESIZE", "REBUILD", "SHELVED",
                            "SHELVED_OFFLOADED", "SOFT_DELETED", "DELETED", "ERROR", "UNKNOWN"]


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_a_time_in_any_offset(naive: datetime, minutes: int) -> None:
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_time(time.isoformat()) == time
    assert parse_time(naive.replace(microsecond=0).isoformat() + "Z") == naive.replace(microsecond=0, tzinfo=UTC)


@given(st.text() | st.none())
def test_what_is_no_time_is_none(text: str | None) -> None:
    parsed = parse_time(text)
    assert parsed is None or parsed.tzinfo is UTC


def test_times_as_parties_write_them() -> None:
    for text in ("2022-09-14T02:09:47Z", "2022-09-14T02:09:47+00:00", "2022-09-14T10:09:47+08:00",
                 "2022-09-14T02:09:47.000Z",
                 "2022-09-14 02:09:47"):
        assert parse_time(text) == datetime(2022, 9, 14, 2, 9, 47, tzinfo=UTC)
    assert parse_time("2017-12-10T04:04Z") == datetime(2017, 12, 10, 4, 4, tzinfo=UTC)
    for written in ("2017-12-10t04:04:05z", " 2017-12-10T04:04:05Z ", "2017-12-10 04:04:05z"):
        assert parse_time(written) == datetime(2017, 12, 10, 4, 4, 5, tzinfo=UTC)
    for text in ("", None, "0000-00-00T00:00:00Z", "2022-13-01T00:00:00Z", "soon", "1663121387",
                 "2022-09-14T02:09:47X"):
        assert parse_time(text) is None


@given(st.lists(st.ip_addresses() | st.text(max_size=20) | st.none()))
def test_addresses_are_sorted_out(texts: list) -> None:
    ipv4, ipv6 = addresses(*(None if a is None else str(a) for a in texts))
    given_v4 = [str(a) for a in texts if isinstance(a, ipaddress.IPv4Address)]
    given_v6 = [str(a) for a in texts if isinstance(a, ipaddress.IPv6Address)]
    assert list(dict.fromkeys(given_v4)) == [a for a in ipv4 if a in given_v4]
    assert list(dict.fromkeys(given_v6)) == [a for a in ipv6 if a in given_v6]
    for address in ipv4:
        ipaddress.IPv4Address(address)
    for address in ipv6:
        assert str(ipaddress.IPv6Address(address)) == address


def test_what_is_no_address() -> None:
    assert addresses("256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4\n", "1.2.3.4,5.6.7.8", "a:b", "::g", "１.2.3.4",
                     "localhost") == ((), ())
    assert addresses("2001:DB8:0:0::1", "2001:db8::1") == ((), ("2001:db8::1",))
    assert addresses("10.0.0.0/24", "2001:db8::/64", "1.2.3.4/33", "1.2.3.4/", "/24", "1.2.3.4/24/24") == ((), ())
    assert addresses("10.0.0.5/24", " 192.0.2.1/32", "10.0.0.0/31", "2001:db8::1/64") == (
        ("10.0.0.5", "192.0.2.1", "10.0.0.0"), ("2001:db8::1",))


def test_an_endpoint_stands_in_for_every_host_and_keeps_the_path() -> None:
    account = Account(tenant_id="1", party="p", credentials={}, endpoint="http://127.0.0.1:99")
    assert account.url("https://cvm.example.com:8443/v1/x?y=1") == "http://127.0.0.1:99/v1/x?y=1"
    assert Account(tenant_id="1", party="p", credentials={}).url("https://a/b") == "https://a/b"


def test_nothing_secret_is_shown() -> None:
    assert "s3cret" not in repr(Account(tenant_id="1", party="p", credentials={"k": "s3cret"}))
    assert "s3cret" not in repr(Keys("id", "s3cret", "s3cret"))


@pytest.mark.parametrize("field", ["cpu", "memory_mib", "disk_gib"])
def test_a_number_that_no_machine_has_is_unknown(field: str) -> None:
    good = Server(id="i", name="n", cpu=1, memory_mib=2, disk_gib=3)
    assert bounded(good) is good
    for odd in (-1, 10 ** 12, 10 ** 30, 1.5, float("nan"), float("inf"), 1e308, "8"):
        assert bounded(msgspec.structs.replace(good, **{field: odd})) == msgspec.structs.replace(good, **{field: None})
    for edge in (0, 10 ** 6):
        assert getattr(bounded(msgspec.structs.replace(good, **{field: edge})), field) == edge


def test_times_out_of_range_are_unknown_and_texts_stay_whole() -> None:
    odd = Server(id="i", name="n" * 10 ** 6, zone="z" * 5000, tags={"k": "v" * 5000}, instance_type=5,      # type: ignore[arg-type]
                 created_at=datetime(1, 1, 1, tzinfo=UTC), updated_at=datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
    server = bounded(odd)
    assert (server.name, server.zone, server.tags, server.instance_type) == (odd.name, odd.zone, odd.tags, "")
    assert server.created_at is None
    assert server.updated_at is None
