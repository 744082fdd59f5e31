"""One odd value costs that value, not the list: at every party, every leaf of one row, every kind of oddness.

For one party with every leaf:
`SWEEP=all .venv/bin/python -m pytest -m slow -n 0 tests/unit/test_odd_answers.py -k scaleway`.

The whole-record cases of the parties are played with one leaf changed. Then either the list comes: every row, the
others whole, the changed one different only by what is null, left out or another text. Or it is party_malformed,
if that leaf is strict: its struct's field has no default or is Strict, see chalicelib/cloud/decoding.py, or `may_fail`
of its cases names it. Never anything else, and each format can write what comes.
"""

import copy
import functools
import importlib
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec import inspect

from chalicelib import parties
from chalicelib.cloud import cache
from chalicelib.errors import TwocloudError
from chalicelib.fleet.many_sources import Answer, Inventory, SourceResult
from chalicelib.fleet.query import parse
from chalicelib.http import formats
from chalicelib.model import Listing, Source, Window
from tests.unit.test_parties import UNSAID, WHAT, Recorded, account_of, records

SAMPLE = 20                                 # (leaf, change) pairs for one party
LARGER_SAMPLE = 0 if os.environ.get("SWEEP") == "all" else 60
MISSING = object()
CHANGES: dict[str, Any] = {
    "null": None, "missing": MISSING, "a text": "odd", "a number as text": "as text", "x.0": "as float",
    "a fraction": 1.5,
    "negative": -7, "huge": 1e308, "beyond 64 bits": 10 ** 30, "a list with null": [None], "true": True,
    "an object": {"odd": {}},
}
XML_CHANGES: dict[str, Any] = {"missing": MISSING, "empty": "", "a text": "odd", "x.0": "as float", "a fraction": "1.5",
                               "negative": "-7",
                               "huge": "1" + "0" * 30, "a control character": "odd&#x7;",
                               "a raw control character": "odd\x07"}
WHAT_IS_STRICT = re.compile(
    r"^(id|uuid|instanceId|region\w*|zone\w*|project\w*|\w*token|\w*marker|\w*total\w*|\w*count)$", re.IGNORECASE)


# ---------------------------------------------------------------- leaves

Path = tuple[str | int, ...]
Attempt = tuple[dict[str, Any], int, Path, Any, str, Callable[[], dict[str, Any]]]


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Everything below the answer that has a name or a place; lists and objects too."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value[:2]):
            yield from leaves(inner, (*path, place))


def changed(answer: Any, path: Path, change: Any) -> Any:
    """A copy of the answer with the leaf changed."""
    copied = copy.deepcopy(answer)
    *above, last = path
    inner = copied
    for step in above:
        inner = inner[step]
    value = inner[last]
    if change is MISSING:
        del inner[last]
    elif change == "as text":
        inner[last] = str(value)
    elif change == "as float":
        inner[last] = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 3.0
    else:
        inner[last] = change
    return copied


def shown(path: Path) -> str:
    return ".".join(map(str, path))


# ---------------------------------------------------------------- what the structs say

@functools.cache
def read_by(module: str) -> frozenset[tuple[str, bool]]:
    """(name in the answer, strict) of each field of each struct in an adapter's module."""
    paths: set[tuple[str, bool]] = set()
    declares = {getattr(it, "__module__", "") for it in vars(importlib.import_module(module)).values()} & {
        "chalicelib.cloud.client"}
    shared = ["chalicelib.cloud.answers"] if declares else []
    for name in (module, *shared):
        for kind in vars(importlib.import_module(name)).values():
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct:
                for field in inspect.type_info(kind).fields:
                    marked = isinstance(field.type, inspect.Metadata) and "strict" in (field.type.extra or {})
                    paths.add((field.encode_name, field.required or marked))
    return frozenset(paths)


def is_strict(name: str, path: Path) -> bool:
    """A field without a default somewhere is read by this name, or it is the container of one, or what all parties hold
    strict."""
    named = [step for step in path if isinstance(step, str)]
    last = named[-1] if named else ""
    if (last, True) in read_by(f"chalicelib.parties.{name}") or WHAT_IS_STRICT.match(last):
        return True
    return any(re.search(pattern, shown(path)) for pattern in WHAT[name].get("may_fail", {}))


# ---------------------------------------------------------------- playing

def playable(name: str) -> list[dict[str, Any]]:
    """The cases that give two servers or one, without calls whose order matters."""
    cases = [case for case in WHAT[name]["cases"] if case.get("servers") and len(case["servers"]) < 12
             and not any(exchange.get("once") or not (
                 "json" in exchange["answer"] or exchange["answer"]["text"][0].startswith("<"))
                         for exchange in case["exchanges"] if name != "aws")]
    cases = [case for case in cases if replays(name, case)]
    chosen = sorted(cases, key=lambda case: -len(json.dumps(case)))[:3]
    return sorted([*chosen, *[case for case in cases if len(case["servers"]) > 1][:2]], key=lambda case: case["name"])


def replays(name: str, case: dict[str, Any]) -> bool:
    """Unchanged it gives its servers; one that needs its exchanges one by one does not."""
    module = importlib.import_module(f"chalicelib.parties.{name}")
    with pytest.MonkeyPatch.context() as patched:
        for constant, value in case.get("constants", {}).items():
            patched.setattr(module, constant, value)
        try:
            return play(name, case, case["exchanges"]) == [{**UNSAID, **record} for record in case["servers"]]
        except (AssertionError, TwocloudError):
            return False


def words_in(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


class Played(Recorded):
    """A listing asks for less, or again, where a value is odd: what no exchange answers is answered like its operation,
    as the exchange whose request has most words in common with this one."""

    def __call__(self, operation: str, sign: Any) -> Any:
        try:
            return super().__call__(operation, sign)
        except AssertionError:
            others = [exchange for case in WHAT[self.party.name]["cases"] for exchange in case["exchanges"]]
            alike = [exchange for exchange in [*self.exchanges, *others]
                     if exchange["operation"] == operation and exchange["answer"]["status"] < 300]
            if not alike:
                raise
            request = sign()
            words = words_in(request.url + request.body.decode())
            nearest = max(alike, key=lambda exchange: len(words & words_in(json.dumps(exchange["asked"]))))
            free = {name: value for name, value in nearest.items() if name not in ("path", "host", "once")}
            alone = Recorded(self.party, [{**free, "asked": Anything()}])
            return alone(operation, sign)


class Anything(dict[str, Any]):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None     # type: ignore[assignment]


def play(name: str, case: dict[str, Any], exchanges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The servers, written in each format. Raises TwocloudError."""
    cache.forget()
    source = Source("123", name, case.get("region", WHAT[name]["region"]))
    party = parties.load(name)
    listing = parties.list_servers(source, account_of(name, **case.get("account", {})),
                                   Window(*case.get("window", [1, None])),
                                   Played(party, exchanges))
    write(source, listing)
    return records(listing.servers)


def write(source: Source, listing: Listing) -> None:
    """Each format takes what was listed."""
    answer = Answer(source, listing.servers, listing.total, datetime(2026, 9, 21, tzinfo=UTC).timestamp())
    for form in ("json", "csv", "ndjson", "prometheus", "ansible"):
        query = parse([("party", source.party), ("tenant_id", "123"), ("region", source.region), ("format", form),
                       ("view", "full")])
        assert formats.write(Inventory([SourceResult(source, answer)], answer.total), query,
                             ZoneInfo("Asia/Shanghai")).body if form != "json" else (
            formats.list_json(formats.body(Inventory([SourceResult(source, answer)], answer.total), query,
                                           ZoneInfo("Asia/Shanghai"))))


def wrong(before: dict[str, Any], after: dict[str, Any], was: Any, what: str) -> str:
    """The number that became another one though the leaf says none; "" if none did.

    A leaf of text may be changed to another text: a volume of another machine, a type of another size. Numbers may be
    others then, and where a fraction is a number in its own right. A list that is null or missing may be empty.
    """
    if isinstance(was, str | None) and what not in ("a list with null", "an object", "true"):
        return ""
    if what in ("null", "missing") and not isinstance(was, int | float):
        return ""
    return "; ".join(f"{field}: {before[field]} became {after[field]}" for field in ("cpu", "memory_mib", "disk_gib")
                     if after[field] not in (None, before[field]) and what != "a fraction")


@pytest.mark.sample(3)
@pytest.mark.parametrize("sample", [SAMPLE, pytest.param(LARGER_SAMPLE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", parties.names())
def test_one_odd_value_costs_that_value(name: str, sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"chalicelib.parties.{name}")
    tried = list(attempts(name))
    random.Random(name).shuffle(tried)
    tried = tried[:sample or None]
    problems: list[str] = []
    for case, number, path, was, what, make in tried:
        with monkeypatch.context() as patched:
            for constant, value in case.get("constants", {}).items():
                patched.setattr(module, constant, value)
            exchanges = [*case["exchanges"]]
            exchanges[number] = {**exchanges[number], "answer": make()}
            if problem := outcome(name, case, exchanges, path, was, what):
                problems.append(f"{case['name']}: {exchanges[number]['operation']} {shown(path)} {what}: {problem}")
    report = f"{len(problems)} of {len(tried)}\n" + "\n".join(sorted(problems))
    assert tried or (name == "aws" and not problems), report
    assert not problems, report


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", parties.names())
@pytest.mark.parametrize("written", ["{}/24", "{}/32", " {} "])
def test_an_address_is_read_however_it_is_written(name: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the length of its network, as of an interface, or with blanks around it: it is the same address."""
    module = importlib.import_module(f"chalicelib.parties.{name}")
    fields = ("lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6")
    tried = 0
    for case in [case for case in WHAT[name]["cases"] if case.get("servers") and replays(name, case)]:
        with monkeypatch.context() as patched:
            for constant, value in case.get("constants", {}).items():
                patched.setattr(module, constant, value)
            every = {ip for server in case["servers"] for field in fields for ip in server[field]}
            requests = " ".join(json.dumps([exchange["asked"], exchange.get("path")]) for exchange in case["exchanges"])
            texts = {ip: written.format(ip) for ip in every if ip not in requests and not ip.endswith((".0", "::"))}
            exchanges = [{**exchange, "answer": written_as(exchange["answer"], texts)}
                         for exchange in case["exchanges"]]
            if not texts or exchanges == case["exchanges"]:
                continue
            tried += 1
            shown_as = [[server[field] for field in fields] for server in case["servers"]]
            servers = play(name, case, exchanges)
            assert [[server[field] for field in fields] for server in servers] == shown_as, case["name"]
    assert tried


def written_as(value: Any, texts: dict[str, str]) -> Any:
    """A part of an answer with these texts in place of those, also in the texts of an XML."""
    if isinstance(value, dict):
        return {key: written_as(inner, texts) for key, inner in value.items()}
    if isinstance(value, list):
        return [written_as(inner, texts) for inner in value]
    if isinstance(value, str) and value.lstrip().startswith("<"):
        return re.sub(r">([0-9a-f.:]+)<", lambda text: f">{texts.get(text[1], text[1])}<", value)
    return texts.get(value, value) if isinstance(value, str) else value


def attempts(name: str) -> Iterator[Attempt]:
    """(case, number of the exchange, leaf, its value, what is done to it, what makes the changed answer)"""
    for case in playable(name):
        for number, exchange in enumerate(case["exchanges"]):
            answer = exchange["answer"]
            if exchange["operation"] in ("Login", "AssumeRole") or answer["status"] >= 300:
                continue
            if "json" not in answer:
                yield from xml_attempts(case, number, "\n".join(answer["text"]), answer)
                continue
            for path in leaves(answer["json"]):
                if any(isinstance(step, str) and (step, strict) in read_by(f"chalicelib.parties.{name}")
                       for step in path[-2:] for strict in (True, False)):
                    for what, change in CHANGES.items():
                        if change is not MISSING or isinstance(path[-1], str):
                            yield (case, number, path, at(answer["json"], path), what,
                                   functools.partial(with_change, answer, path, change))


def with_change(answer: dict[str, Any], path: Path, change: Any) -> dict[str, Any]:
    return {**answer, "json": changed(answer["json"], path, change)}


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def as_number(text: str) -> Any:
    return int(text) if text.isdigit() else text


ELEMENT = re.compile(r"<(\w+)>([^<]*)</\1>")


def xml_attempts(case: dict[str, Any], number: int, text: str, answer: dict[str, Any],
                 ) -> Iterator[Attempt]:
    for element in ELEMENT.finditer(text):
        for what, change in XML_CHANGES.items():
            inner = f"{element[2]}.0" if change == "as float" else change
            new = "" if change is MISSING else f"<{element[1]}>{inner}</{element[1]}>"
            changed_text = text[:element.start()] + new + text[element.end():]
            yield (case, number, (element[1],), as_number(element[2]), what,
                   functools.partial(dict, answer, text=[changed_text]))


def outcome(name: str, case: dict[str, Any], exchanges: list[dict[str, Any]], path: Path, was: Any, what: str) -> str:
    """What is wrong with what comes; "" if nothing is."""
    container = isinstance(was, list | dict) and len(path) < 3 and not any(isinstance(step, int) for step in path)
    strict = container or is_strict(name, path)
    try:
        records = play(name, case, exchanges)
    except TwocloudError as error:
        return "" if strict and error.code in ("party_malformed", "invalid_parameter") else error.code
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:150]
    whole = {server["id"]: server for server in case["servers"]}
    if len(records) != len(whole):
        return "" if strict else f"{len(records)} of {len(whole)} servers"
    if strict:                              # another id, another region: another text is another machine
        return ""
    others = [server for server in records if server != whole.get(server["id"])]
    if any(server["id"] not in whole for server in others):
        return "another id"
    return "; ".join(filter(None, (wrong(whole[server["id"]], server, was, what) for server in others)))
