"""Every party by its data: tests/parties/<party>.json holds what it is asked, what it answers, and what that becomes.

A case: `account` (project, deep), `region`, `window`, `constants` of the adapter's module, `exchanges` in any order
(each may be asked again), and either `servers` with `total`, compared whole, or the word of the `error`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from chalicelib import parties
from chalicelib.errors import TwocloudError, Verdict
from chalicelib.model import Account, Party, Request, Response, Server, Sign, Source, Window
from chalicelib.transport import failure_in

DATA = Path(__file__).parent / "parties"
WHAT = {path.stem: json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))}
CASES = [(name, case) for name, what in WHAT.items() for case in what["cases"]]


def asked_in(request: Request) -> dict[str, Any]:
    """What a request asks for, without the words that only say which operation it is."""
    if request.body.startswith(b"{"):
        return json.loads(request.body)
    return {k: v for k, v in parse_qsl(request.body.decode(), keep_blank_values=True) if k not in ("Action", "Version")}


class Recorded:
    """`send`, answering from the exchanges of a case."""

    def __init__(self, party: Party, exchanges: list[Mapping[str, Any]]) -> None:
        self.party = party
        self.exchanges = exchanges
        self.used: set[int] = set()

    def __call__(self, operation: str, sign: Sign) -> Response:
        request = sign()
        asked = asked_in(request)
        for number, exchange in enumerate(self.exchanges):
            if exchange["operation"] == operation and exchange["asked"] == asked:
                assert "host" not in exchange or urlsplit(request.url).netloc == exchange["host"]
                self.used.add(number)
                answer = exchange["answer"]
                body = "\n".join(answer["text"]) if "text" in answer else json.dumps(answer["json"])
                response = Response(answer["status"], answer.get("headers", {}), body.encode())
                if failure := failure_in(self.party, response):
                    raise failure
                return response
        raise AssertionError(f"{operation} {asked} is in no exchange of this case")


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}: {case['name']}" for name, case in CASES])
def test_case(name: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    what, party = WHAT[name], parties.load(name)
    module = __import__(f"chalicelib.parties.{name}", fromlist=[name])
    for constant, value in case.get("constants", {}).items():
        monkeypatch.setattr(module, constant, value)
    if hasattr(module, "_known_types"):
        monkeypatch.setattr(module, "_known_types", {})
    account = Account(tenant_id="123", party=name, credentials=what["credentials"], **case.get("account", {}))
    source = Source("123", name, case.get("region", what["region"]))
    send = Recorded(party, case["exchanges"])
    if "error" in case:
        with pytest.raises(TwocloudError) as failed:
            party.list_servers(source, account, Window(*case.get("window", [1, None])), send)
        assert failed.value.word == case["error"]
        assert "not for callers" not in failed.value.text
        return
    listing = party.list_servers(source, account, Window(*case.get("window", [1, None])), send)
    assert msgspec.json.decode(msgspec.json.encode(listing.servers)) == case["servers"]
    assert listing.total == case["total"]
    assert send.used == set(range(len(case["exchanges"])))


def test_the_files_are_written_in_whole_records() -> None:
    fields = set(Server.__struct_fields__)
    for name, case in CASES:
        for server in case.get("servers", []):
            assert set(server) == fields, (name, case["name"])


# ---------------------------------------------------------------- what every party must have

@pytest.mark.parametrize("name", parties.names())
def test_what_every_party_must_have(name: str) -> None:
    assert name in WHAT, f"tests/parties/{name}.json is missing"
    cases = {case["name"] for case in WHAT[name]["cases"]}
    for needed in ("second page", "no servers", "every state", "missing", "unknown shape", "refused with"):
        assert any(needed in case for case in cases), f"{name} has no case with {needed!r}"
    words = {case.get("error") for case in WHAT[name]["cases"]}
    assert {"party_denied", "party_throttled", "party_malformed", "party_error", "invalid_parameter"} <= words


@pytest.mark.parametrize("name", parties.names())
def test_the_descriptor(name: str) -> None:
    party = parties.load(name)
    assert party.name == name and party.title and party.reference.startswith("https://")
    assert party.credentials and all(form for form in party.credentials)
    assert party.region(party.default_region) == party.default_region
    for alias, code in party.aliases.items():
        assert party.region(alias) == party.region(code) == code and code not in party.aliases
    assert party.limits and all(limit.calls > 0 and limit.seconds > 0 for limit in party.limits.values())
    assert all(isinstance(verdict, Verdict) for verdict in party.errors.values())
    assert bool(party.project) == bool(party.project_form)
    for hostile in ("evil.com/", "x@evil.com/", "a.b", "", "a b", "-a", "a-", "gz\n", "a" * 64, "é", "..", "a/b", "*", "A" * 9):
        with pytest.raises(TwocloudError):
            party.region(hostile)


@pytest.mark.parametrize("name", parties.names())
def test_twocloud_can_only_read(name: str) -> None:
    """P15: the rights that it asks for can change nothing."""
    party = parties.load(name)
    for permission in party.permissions + party.deep_permissions:
        assert re.fullmatch(r"[a-z0-9]+:(Describe|List|Get)[A-Za-z]+", permission), permission
    called = set(re.findall(r'"((?:[A-Z][a-z]+)+)"', Path(DATA.parent.parent / f"chalicelib/parties/{name}.py").read_text()))
    stated = {permission.split(":")[1] for permission in party.permissions + party.deep_permissions}
    verbs = {word for word in called if re.match(r"(Run|Create|Delete|Modify|Start|Stop|Reboot|Terminate|Attach|Detach|"
                                                 r"Put|Update|Set|Allocate|Associate|Release)[A-Z]", word)}
    assert verbs == set()
    assert {word for word in called if word.startswith("Describe") and not word.endswith("Response")} - {"DescribeRegions"} <= stated


def test_an_unknown_party() -> None:
    for name in ("nocloud", "__init__", "../qcloud", "Qcloud", ""):
        with pytest.raises(TwocloudError, match="Unknown party"):
            parties.load(name)


def test_a_foreign_project_is_never_shown_by_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the project does not depend on the window."""
    case = next(c for c in WHAT["qcloud"]["cases"] if c["name"] == "the party ignores the project filter")
    party = parties.load("qcloud")
    exchange = case["exchanges"][0]
    one = {**exchange, "asked": {**exchange["asked"], "Limit": 1}}
    account = Account(tenant_id="1", party="qcloud", credentials=WHAT["qcloud"]["credentials"], project="7")
    with pytest.raises(TwocloudError, match="another project"):
        party.list_servers(Source("1", "qcloud", "ap-guangzhou"), account, Window(1, 1), Recorded(party, [one]))
    assert replace(account, project=None).project is None
