"""Query string -> Query: the table's rules, and that nothing else ever comes out of it."""

import ipaddress
import re
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import parties
from chalicelib.errors import InvalidParameter
from chalicelib.fleet import query
from chalicelib.fleet.query import PARAMETERS, Choice, Number, Query, Text, parse
from chalicelib.model import Status, Window

GOOD = [("party", "qcloud"), ("tenant_id", "123"), ("region", "gz")]


def test_the_seeds_query() -> None:
    parsed = parse([*GOOD, ("f", "1"), ("t", "10")])
    assert (parsed.parties, parsed.tenants, parsed.regions, parsed.accounts, parsed.window,
            parsed.ranged) == (("qcloud",), ("123",), ("gz",), None, Window(1, 10), True)
    assert not parsed.several
    assert (parsed.format, parsed.view, parsed.statuses, parsed.name, parsed.ip, parsed.max_age, parsed.on_error) == (
        "json", "basic", None, None, None, None, "stale")
    assert not parse(GOOD).ranged
    assert parse(GOOD).window == Window(1, None)


def test_tenants_are_compared_exactly() -> None:
    for tenant in ("007", "7", "a.b-c_D", "x" * 64, "..", "-"):
        assert parse([("party", "qcloud"), ("tenant_id", tenant), ("region", "gz")]).tenants == (tenant,)


@pytest.mark.parametrize(("text", "address"), [
    ("10.0.0.1", "10.0.0.1"), ("2001:DB8::1", "2001:db8::1"), ("2001:db8:0:0:0:0:0:1", "2001:db8::1"), ("::1", "::1")])
def test_addresses_have_one_spelling(text: str, address: str) -> None:
    assert parse([*GOOD, ("ip", text)]).ip == address


values = st.text(max_size=12) | st.sampled_from(["1", "10", "qcloud", "gz", "full", "ACTIVE", "０１", "1e3", "\x00",
                                                 "\ufffd", "::1"])
names = st.sampled_from([p.name for p in PARAMETERS]
                        + ["token", "password", "F", "x", "", "f\x00"]) | st.text(max_size=6)


@given(st.lists(st.tuples(names, values), max_size=8), st.booleans())
def test_any_pairs_are_a_query_or_one_named_refusal(pairs: list[tuple[str, str]], complete: bool) -> None:
    if complete:
        pairs = [*GOOD, *pairs]
    try:
        parsed = parse(pairs)
    except InvalidParameter as refused:
        assert re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,32}|\?", refused.parameter)
        assert refused.text.isprintable()
        return
    keys = [name for name, _ in pairs]
    assert len(keys) == len(set(keys))
    assert set(keys) <= {p.name for p in PARAMETERS}
    parameters = dict(pairs)
    assert parsed.window.first == int(parameters.get("f", "1"))
    assert str(parsed.window.first) == parameters.get("f", "1")
    assert parsed.window.last is None or (str(parsed.window.last) == parameters["t"]
                                          and parsed.window.last >= parsed.window.first)
    assert set(parsed.tenants or ["all"]) == set(parameters["tenant_id"].split(","))
    assert parsed.statuses is None or parsed.statuses <= {*Status}
    if parsed.ip:
        assert ipaddress.ip_address(parsed.ip) == ipaddress.ip_address(parameters["ip"])


@given(st.text(max_size=9))
def test_numbers_are_plain_digits(text: str) -> None:
    try:
        number = Number(0).read(text)
    except ValueError:
        assert not re.fullmatch(r"(0|[1-9][0-9]{0,6})", text, re.ASCII)
    else:
        assert str(number) == text


def test_a_secret_in_the_query_is_all_that_is_said() -> None:
    for pairs in ([("f", "0"), ("token", "tc_secret"), ("color", "red")], [("color", "red"), ("password", "secret")]):
        with pytest.raises(InvalidParameter) as refused:
            parse(pairs)
        assert refused.value.parameter in ("token", "password")
        assert "secret" not in refused.value.text


def test_too_many_parameters_are_not_even_read() -> None:
    with pytest.raises(InvalidParameter):
        parse([(f"x{n}", "") for n in range(100_000)])


@given(st.builds(lambda first, size, view, name, status: [
    *GOOD, ("f", str(first)), ("t", str(first + size)), ("view", view), ("name", name), ("status", status)],
    st.integers(1, 99), st.integers(0, 99), st.sampled_from(["basic", "full"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffd"), min_size=1, max_size=20),
                 st.sampled_from(list(Status))))
def test_a_link_asks_for_the_same(pairs: list[tuple[str, str]]) -> None:
    parsed = parse(pairs)
    again = parse(parse_qsl(query.link(parsed, Window(3, 4)), keep_blank_values=True))
    assert again == Query(**{**{f: getattr(parsed, f) for f in parsed.__slots__}, "window": Window(3, 4)})     # type: ignore[arg-type]


def test_every_party_and_every_region_of_a_cloud_fit_in_a_list() -> None:
    """Azure has more than sixty."""
    names = parties.names()
    parsed = parse([("party", ",".join(names)), ("tenant_id", "123"), ("region", ",".join(f"r{n}" for n in range(70)))])
    assert parsed.parties == tuple(names)
    assert len(parsed.regions or ()) == 70


def test_formats() -> None:
    parsed = parse([*GOOD, ("format", "prometheus"), ("port", "65535"), ("address", "wan")])
    assert (parsed.format, parsed.port, parsed.address, parsed.view) == ("prometheus", 65535, "wan", "basic")
    assert (parse(GOOD).port, parse(GOOD).address) == (None, "lan")
    for chosen in query.FORMATS:            # what goes with each of them
        assert parse([*GOOD, ("format", chosen), ("view", "full"), ("status", "ACTIVE"), ("on_error", "fail"),
                      ("max_age", "9")]).format == chosen
    assert parse([*GOOD, ("format", "csv"), ("t", "9")]).window == parse([*GOOD, ("format", "ndjson"),
                                                                          ("t", "9")]).window == Window(1, 9)


@pytest.mark.parametrize(("pairs", "parameter"), [
    ("format=csv&port=1", "port"), ("port=1", "port"), ("format=ansible&address=wan", "address"),
    ("format=prometheus&f=1", "f"),
    ("format=ansible&t=9", "t"), ("format=csv&changed_since=2026-09-20T00:00:00Z", "format"),
    ("format=ndjson&region=all&on_error=partial", "on_error"),
    ("format=ansible&region=all&on_error=partial", "on_error")])
def test_what_a_format_cannot_say_is_refused(pairs: str, parameter: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse(list({**dict(GOOD), **dict(parse_qsl(pairs))}.items()))
    assert refused.value.parameter == parameter


def test_the_document_says_what_the_parser_takes() -> None:
    """Each form's schema and its reader agree on samples at their edges."""
    for parameter in PARAMETERS:
        schema, form = parameter.form.schema(), parameter.form
        if isinstance(form, Choice):
            assert schema["enum"] == list(form.words)
            assert all(form.read(word) == word for word in form.words)
        elif isinstance(form, Number):
            for number in (schema["minimum"], schema["maximum"]):
                assert form.read(str(number)) == number
            with pytest.raises(ValueError, match="whole number"):
                form.read(str(int(str(schema["maximum"])) + 1))
        elif isinstance(form, Text):
            pattern = str(schema["pattern"])
            assert pattern.startswith("^")
            assert pattern.endswith("$")
            for text in ("abc", "a" * 64, "a" * 65, "a" * 128, "a" * 129, "a b", "\x00", "é", "\x7f", "\x85", "\ufffd",
                         "a\n"):
                try:
                    form.read(text)
                    taken = True
                except ValueError:
                    taken = False
                assert taken == bool(re.fullmatch(pattern[1:-1], text)), (parameter.name, text)
    assert Choice(("a",)).read("a") == "a"


@pytest.mark.parametrize("body", [None, 1, [], "x", {"x": 1}, {"duration": 59}, {"duration": 1e3 + 0.5},
                                  {"duration": 10**30},
                                  {"tenants": {}}, {"tenants": ["a"] * 101}, {"tenants": [["a"]]},
                                  {"parties": ["QCLOUD"]}])
def test_bodies_that_are_refused(body: object) -> None:
    with pytest.raises(InvalidParameter):
        query.body_limits(body)


def test_bodies_that_are_taken() -> None:
    assert query.body_limits({}) == query.body_limits({"duration": 600.0}) == (600, None, None, None)
    assert query.body_limits({"duration": 43200, "tenants": ["b", "a", "b"], "parties": ["aws"],
                              "regions": ["gz"]}) == (
        43200, ("b", "a"), ("aws",), ("gz",))
    assert query.body_limits({"tenants": ["*"]})[1] == ("*",)


@pytest.mark.parametrize(("text", "time"), [
    ("2026-11-23T08:00:00Z", 1795420800), ("2026-11-23t08:00:00z", 1795420800),
    ("2026-11-23T16:00:00+08:00", 1795420800),
    ("2026-11-23T08:00:00-00:00", 1795420800), ("2026-11-23T08:00:00.5Z", 1795420800.5),
    ("2026-11-23T08:00:00.123456789Z", 1795420800.123456789),                   # Go's and `date --rfc-3339=ns`
    ("2016-12-31T23:59:60Z", 1483228800), ("2017-01-01T07:59:60.5+08:00", 1483228800.5)])
def test_every_time_of_rfc_3339(text: str, time: float) -> None:
    assert parse([*GOOD, ("changed_since", text)]).changed_since == pytest.approx(time, abs=1e-6)


@pytest.mark.parametrize("text", [
    "2026-11-23", "2026-11-23T08:00Z", "2026-11-23T08:00:00", "2026-11-23T08:00:00.Z", "2026-11-23T08:00:00,5Z",
    "20261123T080000Z",
    "2026-02-30T08:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23T08:00:60Z", "2026-11-23T08:00:61Z",
    "2026-11-23T08:00:00+0800",
    "2026-11-23T08:00:00 08:00", "1795420800", "2026-W48-1T08:00:00Z", "２０26-11-23T08:00:00Z",
    "2026-11-23T08:00:00.1\n5Z"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse([*GOOD, ("changed_since", text)])
    assert refused.value.parameter == "changed_since"
