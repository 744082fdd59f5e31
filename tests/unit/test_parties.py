"""Every party by its data: chalicelib/parties/<party>/cases.json holds what it is asked, what it answers, and what that
becomes.

A case: `account` (project, deep), `credentials` if not the file's, `region`, `window`, `constants` of the adapter's
module, `exchanges` in any order (each may be asked again, except one that is marked `once`), and either `servers` with
`total`, compared whole, or the word of the `error` and what its text `says` and `never` says. An exchange:
`operation`, `asked` (the query's and the body's words), optionally `host`, `path` and `method`, and the `answer`. A
file's `unasked` names words that differ from call to call or only sign. `discovery` (below, role) makes the account a
door to others, `member` one of these. A record leaves out those fields of `UNSAID` that are null.

A party with organisations has `discoveries` too: cases of the same form that end in `members`, in the order of their
ids, or in an error.

The file also says what the tests of all parties must know of this one:

    accounts       sets of fields by which an account can be put here; they may only grow
    policies       how many policies keys.md holds, the second for --deep
    named_beside   rights that keys.md names for another end
    causes         cause of a refusal, a name in errors.py -> the party's documented words
    free_text      [status, body, cause]
    may_fail       leaf of an answer, a pattern -> why an odd value there may fail the list
    least_page     the fewest rows that its pages can hold
    call_for_each  a listing makes calls for each server
    sorts_itself   the simulator's fleet must be in the party's order
    absent         [operation, fault] that is no fault: a feature that the account may not have, or a call whose answer
                   does not matter ("*": any fault)
    absent_once    [operation, fault] that is none at one of its calls, which may be the last: the simulator has a place
                   without servers
    sites          other sites of the cloud: all cases are played there too, with `credentials`, settings of the
                   `account` and texts put `instead` of the usual ones; all calls go to hosts in the site's `domains`;
                   records are `without` these fields there
    one_endpoint   the simulator cannot tell for which region it is asked
    silent_when_off   only a machine that runs has addresses
    public_only       the party knows no private addresses
    creation_is_a_date   it states no hour
"""

import ast
import importlib
import json
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import msgspec
import pytest

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cloud import cache
from chalicelib.cloud.client import Client
from chalicelib.cloud.failures import failure_in
from chalicelib.cloud.party import Party
from chalicelib.errors import Meaning, PartyFailed, TwocloudError
from chalicelib.model import (
    GRADES,
    IDENTIFIER,
    Account,
    Discovery,
    Member,
    Request,
    Response,
    Server,
    Sign,
    Source,
    Window,
)
from tests import ROOT


class Files(dict[str, Any]):
    """By the name of the party, what its cases.json holds."""

    def __missing__(self, name: str) -> Any:
        pytest.fail(f"chalicelib/parties/{name}/cases.json is missing; CONTRIBUTING.md says what has to be in it")


WHAT = Files({path.parent.name: json.loads(path.read_text())
              for path in sorted((ROOT / "chalicelib/parties").glob("*/cases.json"))})
DISCOVERIES = [(name, case) for name, what in WHAT.items() for case in what.get("discoveries", ())]
SITES = [(name, site) for name, what in WHAT.items() for site in what.get("sites", ())]
UNSAID = dict.fromkeys(("image_id", "image_name", "os", "vpc_id", "subnet_id", "security_groups", "key_name",
                        "charge_type", "expires_at", "host_id", "console_url"))     # a record without one says null
CASES = [(name, case) for name, what in WHAT.items() for case in what["cases"]]


def asked_in(request: Request, unasked: list[str]) -> dict[str, Any]:
    """What a request asks for, without the words that only say which operation it is."""
    fields: dict[str, Any] = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
    if request.body.startswith(b"<"):
        fields |= texts_in(request.body)
    else:
        fields |= json.loads(request.body) if request.body.startswith(b"{") else dict(
            parse_qsl(request.body.decode(), keep_blank_values=True))
    return {name: value for name, value in fields.items() if name not in ("Action", "Version", *unasked)}


def texts_in(body: bytes) -> dict[str, str]:
    """The texts of an XML request by their elements' names; several of one name in a row."""
    by_name: dict[str, list[str]] = {}
    for element in ElementTree.fromstring(body).iter():
        if not len(element):
            by_name.setdefault(element.tag.rpartition("}")[2], []).append(element.text or "")
    return {name: " ".join(texts) for name, texts in by_name.items()}


class Recorded:
    """`send`, answering from the exchanges of a case. `domains`: of the hosts that may be called; none: any."""

    def __init__(self, party: Party, exchanges: list[Mapping[str, Any]], domains: Sequence[str] = ()) -> None:
        self.party = party
        self.domains = domains
        self.exchanges = exchanges
        self.used: set[int] = set()

    def __call__(self, operation: str, sign: Sign) -> Response:
        request = sign()
        # P15
        assert re.fullmatch(r"(Describe|List|Get|Query|Search)\w+|Login|Logout|AssumeRole", operation), operation
        assert request.method in ("GET", "POST")
        assert request.url.startswith("https://")
        there, parameters = urlsplit(request.url), asked_in(request, WHAT[self.party.name].get("unasked", []))
        assert not self.domains or any(f".{there.netloc}".endswith(f".{domain}") for domain in self.domains), there
        for number, exchange in enumerate(self.exchanges):
            if exchange["operation"] == operation and exchange["asked"] == parameters and not (
                    exchange.get("once") and number in self.used) and exchange.get("path", there.path) == there.path:
                assert "host" not in exchange or there.netloc == exchange["host"]
                assert exchange.get("method", request.method) == request.method
                self.used.add(number)
                answer = exchange["answer"]
                body = "\n".join(answer["text"]) if "text" in answer else json.dumps(answer["json"])
                response = Response(answer["status"], answer.get("headers", {}), body.encode(),
                                    reason=answer.get("reason", ""))
                if failure := failure_in(self.party, response):
                    raise failure
                return response
        raise AssertionError(f"{operation} {there.path} {parameters} is in no exchange of this case")


def account_of(name: str, credentials: Mapping[str, Any] | None = None, **more: Any) -> Account:
    """An account with the file's or other credentials, which must have the form that operators are held to."""
    return accounts.check("123", parties.load(name), credentials or WHAT[name]["credentials"], local=False,
                          **{"project": None, "regions": (), "deep": False, "endpoint": None, **more})


def account_in(name: str, case: Mapping[str, Any]) -> Account:
    """The account of a case."""
    account = account_of(name, case.get("credentials"), **case.get("account", {}))
    discovery, member = (made(**case[key]) if key in case else None
                         for key, made in (("discovery", Discovery), ("member", Member)))
    return replace(account, discovery=discovery, member=member)


@contextmanager
def refused_as(case: Mapping[str, Any]) -> Generator[None]:
    """The block ends in the case's error, which says what it must and nothing of what the party wrote."""
    with pytest.raises(TwocloudError) as failed:
        yield
    assert failed.value.code == case["error"]
    assert "not for callers" not in failed.value.text
    assert all(words in failed.value.text for words in case.get("says", ())), failed.value.text
    assert not any(words in failed.value.text for words in case.get("never", ())), failed.value.text


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}: {case['name']}" for name, case in CASES])
def test_case(name: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    play(name, case, monkeypatch)


def play(name: str, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, domains: Sequence[str] = ()) -> None:
    what, party = WHAT[name], parties.load(name)
    module = importlib.import_module(f"chalicelib.parties.{name}")
    for constant, value in case.get("constants", {}).items():
        monkeypatch.setattr(module, constant, value)
    account = account_in(name, case)
    source = Source("123", name, case.get("region", what["region"]))
    send = Recorded(party, case["exchanges"], domains)
    if "error" in case:
        with refused_as(case):
            parties.list_servers(source, account, Window(*case.get("window", [1, None])), send)
        for thread in threading.enumerate():                    # what ran beside the failure teaches no later case
            if thread.name.startswith("twocloud_"):
                thread.join(10)
        return
    listing = parties.list_servers(source, account, Window(*case.get("window", [1, None])), send)
    assert records(listing.servers) == [{**UNSAID, **record} for record in case["servers"]]
    assert listing.total == case["total"]
    assert send.used == set(range(len(case["exchanges"])))


def records(servers: Sequence[Server]) -> list[dict[str, Any]]:
    """Servers as cases hold them, with every field."""
    return msgspec.json.decode(msgspec.json.encode([msgspec.structs.asdict(server) for server in servers]))


def at_site(name: str, case: Mapping[str, Any], site: Mapping[str, Any]) -> dict[str, Any]:
    """The case as it is at another site of the cloud."""
    credentials = dict(case.get("credentials", WHAT[name]["credentials"]))
    for field, value in site.get("credentials", {}).items():
        credentials[field] = {**credentials[field], **value} if isinstance(value, dict) else value
    text = json.dumps({"region": WHAT[name]["region"], **case, "credentials": credentials,
                       "account": {**case.get("account", {}), **site.get("account", {})}})
    for usual, instead in site["instead"].items():
        text = text.replace(usual, instead)
    moved: dict[str, Any] = json.loads(text)
    for record in moved.get("servers", ()):
        for field in site.get("without", ()):
            record.pop(field, None)
    return moved


@pytest.mark.parametrize(("name", "site"), SITES, ids=[f"{name}: {site['name']}" for name, site in SITES])
def test_every_case_at_every_site(name: str, site: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No call leaves the domains of the site."""
    played = 0
    for case in (*WHAT[name]["cases"], *WHAT[name].get("discoveries", ())):
        if case["exchanges"] and case.get("region", WHAT[name]["region"]) in site["instead"]:
            with monkeypatch.context() as patch:
                cache.forget()
                (play_discovery if case in WHAT[name].get("discoveries", ()) else play)(
                    name, at_site(name, case, site), patch, site["domains"])
            played += 1
    assert played > 20


@pytest.mark.parametrize(("name", "site"), SITES, ids=[f"{name}: {site['name']}" for name, site in SITES])
def test_an_account_without_regions_is_asked_at_its_own_site(name: str, site: dict[str, Any]) -> None:
    party, hosts = parties.load(name), set[str]()
    account = account_in(name, at_site(name, {}, site))

    def send(operation: str, sign: Sign) -> Response:
        hosts.add(urlsplit(sign().url).netloc)
        raise PartyFailed()

    region = (*account.regions, party.home(account))[0]
    assert party.region(region) == region
    calls = [lambda: parties.list_regions(account, send),
             lambda: parties.check(Source("123", name, region), account, send),
             *([lambda: parties.discover(replace(account, discovery=Discovery()), send)] if party.discover else ())]
    for call in calls:
        cache.forget()
        with pytest.raises(PartyFailed):
            call()
    assert hosts
    assert all(any(f".{host}".endswith(f".{domain}") for domain in site["domains"]) for host in hosts), hosts


@pytest.mark.parametrize(("name", "case"), DISCOVERIES, ids=[f"{name}: {case['name']}" for name, case in DISCOVERIES])
def test_a_discovery(name: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    play_discovery(name, case, monkeypatch)


def play_discovery(name: str, case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch,
                   domains: Sequence[str] = ()) -> None:
    for constant, value in case.get("constants", {}).items():
        monkeypatch.setattr(importlib.import_module(f"chalicelib.parties.{name}"), constant, value)
    account = replace(account_in(name, {"discovery": {}, **case}),
                      regions=(case.get("region", WHAT[name]["region"]),))
    send = Recorded(parties.load(name), case["exchanges"], domains)
    if "error" in case:
        with refused_as(case):
            parties.discover(account, send)
        return
    assert [msgspec.structs.asdict(member) for member in parties.discover(account, send)] == case["members"]
    assert send.used == set(range(len(case["exchanges"])))


@pytest.mark.parametrize("name", [name for name in parties.names() if parties.load(name).discover])
def test_what_every_party_with_organisations_must_have(name: str) -> None:
    party, cases = parties.load(name), {case["name"] for case in WHAT[name]["discoveries"]}
    for needed in ("every state", "unknown shape", "refused with", *(["below"] if party.below else ())):
        assert any(needed in case for case in cases), f"{name} has no discovery with {needed!r}"
    assert bool(party.below) == bool(party.below_form)
    assert bool(party.role) == bool(party.role_form)
    assert re.fullmatch(party.role_form, party.role)
    for hostile in ("", "a b", "x\n", "é", "a?b", "a#b", "*", "'x'", "x:y", "../x"):
        assert not re.fullmatch(party.below_form or "x{9}", hostile, re.ASCII), hostile
        assert hostile == "../x" or not re.fullmatch(party.role_form or "x{9}", hostile, re.ASCII), hostile


def test_the_files_are_written_in_whole_records() -> None:
    fields = set(Server.__struct_fields__)
    for name, case in CASES:
        for server in case.get("servers", []):
            assert fields - UNSAID.keys() <= set(server) <= fields, (name, case["name"])
            assert not [field for field in UNSAID if server.get(field, "") is None], (name, case["name"])


@pytest.mark.parametrize("name", parties.names())
def test_the_cases_show_every_field_that_the_adapter_fills(name: str) -> None:
    """docs/parties.md says from them which party fills which field."""
    tree = ast.parse((ROOT / "chalicelib/parties" / name / "__init__.py").read_text())
    filled = {keyword.arg for call in ast.walk(tree) if isinstance(call, ast.Call) and (
        getattr(call.func, "attr", getattr(call.func, "id", "")) == "Server") for keyword in call.keywords}
    shown = {field for party, case in CASES if party == name for server in case.get("servers", ()) for field in server}
    assert filled & UNSAID.keys() <= shown


# ---------------------------------------------------------------- what every party must have

@pytest.mark.parametrize("name", parties.names())
def test_a_folder_holds_all_of_a_cloud(name: str) -> None:
    """One that is bridged needs no simulator: Libcloud's own answers are played to it."""
    needed = ["__init__.py", "cases.json", f"test_{name}.py", "notes.md", "keys.md"]
    needed += [] if parties.load(name).grade == "bridged" else ["simulator.py"]
    folder = ROOT / "chalicelib/parties" / name
    missing = [file for file in needed if not (folder / file).exists()]
    assert not missing, f"chalicelib/parties/{name} lacks {', '.join(missing)}; see \"Add a cloud\" in CONTRIBUTING.md"


@pytest.mark.parametrize("name", parties.names())
def test_what_every_party_must_have(name: str) -> None:
    cases = {case["name"] for case in WHAT[name]["cases"]}
    for needed in ("second page", "no servers", "every state", "missing", "unknown shape", "refused with"):
        assert any(needed in case for case in cases), f"{name} has no case with {needed!r}"
    words = {case.get("error") for case in WHAT[name]["cases"]}
    needed_words = {"party_denied", "party_throttled", "party_malformed", "party_error", "invalid_parameter"}
    assert needed_words <= words, f"{name} has no case that ends in {', '.join(sorted(needed_words - words))}"


@pytest.mark.parametrize("name", parties.names())
def test_the_descriptor(name: str) -> None:
    party = parties.load(name)
    assert party.name == name
    assert party.title
    assert party.reference.startswith("https://")
    assert party.credentials
    assert all(form for form in party.credentials)
    assert party.region(party.default_region) == party.default_region
    for alias, code in party.aliases.items():
        assert party.region(alias) == party.region(code) == code
        assert code not in party.aliases
    assert party.limits
    assert all(limit.calls > 0 and limit.seconds > 0 for limit in party.limits.values())
    assert all(isinstance(meaning, Meaning) for meaning in party.errors.values())
    assert bool(party.project) == bool(party.project_form)
    assert party.grade in GRADES
    assert party.grade == WHAT[name]["grade"]
    hostile = ["evil.com/", "x@evil.com/", "", "a b", "gz\n", "é", "a/b", "*", "a?b", "a#b", "a%2e", "a:1"]
    if party.region_form != IDENTIFIER:
        hostile += ["a.b", "-a", "a-", "a" * 64, "..", "."]
    for region in hostile:
        with pytest.raises(TwocloudError):
            party.region(region)


@pytest.mark.parametrize("name", parties.names())
def test_twocloud_can_only_read(name: str) -> None:
    """P15: the rights that it asks for can change nothing, and it asks for those that its calls need."""
    party = parties.load(name)
    stated = party.permissions + party.deep_permissions + party.discover_permissions
    assert party.permissions
    for permission in stated:
        if permission == "sts:AssumeRole" and permission in party.discover_permissions:
            continue                        # of the one role that reads, in the members of an organisation
        assert re.search(r"describe|list|get|read|view|audit|inspect", permission, re.IGNORECASE), permission
        assert not re.search(r"creat|updat|delet|writ|(?<!com)put|modif|start|stop|boot|run|attach(?!ment)|admin|owner|"
                             r"full|edit|(?<!resource)manag|set|"
                             r"\*", permission, re.IGNORECASE), permission
    cases = (*WHAT[name]["cases"], *WHAT[name].get("discoveries", ()))
    called = {exchange["operation"] for case in cases for exchange in case["exchanges"]}
    if any("describe" in permission.lower() for permission in stated):
        known = {re.split(r"[:.]", permission)[-1].lower() for permission in stated}
        assert {word.lower() for word in called if word.startswith("Describe")} - {"describeregions"} <= known


@pytest.mark.parametrize("name", [name for name, what in WHAT.items() if "accounts" in what])
def test_accounts_are_put_by_the_fields_that_are_promised(name: str) -> None:
    """They may only grow."""
    for fields in WHAT[name]["accounts"]:
        made = accounts.check("123", parties.load(name), fields, project=None, regions=(), deep=False, endpoint=None,
                              local=False)
        assert made.credentials == fields


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
        party.list_servers(Client(Source("1", "qcloud", "ap-guangzhou"), account, Recorded(party, [one])), Window(1, 1))
    assert replace(account, project=None).project is None
