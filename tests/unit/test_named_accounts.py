"""Several tenants with several accounts: what each token opens, whatever its request says; keys that never meet.

The rights are worked out a second time here, by brute force over every source of a small world (`Oracle`).
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.access.tokens import Caller, Token
from chalicelib.access.users import User
from chalicelib.fleet import known_members, known_regions, many_sources
from chalicelib.fleet.lookup import places_of
from chalicelib.fleet.many_sources import Deployment
from chalicelib.http import api
from chalicelib.http.api import HttpRequest, HttpResponse
from chalicelib.model import IDENTIFIER, MEMBER_ID, Server, Source
from chalicelib.storage import dynamodb, snapshots
from tests.canaries import secret, watch
from tests.fixtures import START, App, Clock, settings_in
from tests.unit.test_scale import Counting

REGIONS = {"qcloud": {"gz": "ap-guangzhou", "sh": "ap-shanghai", "ap-shanghai": "ap-shanghai"},
           "hetzner": {"fsn1": "fsn1", "nbg1": "nbg1"}}        # names of regions; none can be the other party's
CODES = {party: tuple(dict.fromkeys(names.values())) for party, names in REGIONS.items()}
KEYS = {"qcloud": {"secret_id": "AKID", "secret_key": secret("world")}, "hetzner": {"token": secret("world")}}
WORLD = {                                   # (tenant, party, account) -> the regions that the account names
    ("7", "qcloud", "default"): ("ap-guangzhou",),
    ("007", "qcloud", "default"): ("ap-guangzhou", "ap-shanghai"),
    ("007", "qcloud", "b"): ("ap-shanghai",),
    ("007", "hetzner", "default"): ("fsn1", "nbg1"),
    ("a", "qcloud", "b"): ("ap-guangzhou", "ap-shanghai"),
    ("a", "qcloud", "B"): ("ap-guangzhou",),
    ("a", "qcloud", "a.b-c_d"): ("ap-shanghai",),
    ("A", "hetzner", "b"): ("nbg1",),
    ("A", "hetzner", "default1"): ("fsn1",),
    ("a.b", "qcloud", "default"): ("ap-guangzhou",),
    ("a-b", "hetzner", "b"): ("fsn1", "nbg1"),
}
TENANTS = ("7", "007", "a", "A", "a.b", "a-b", "0", "none", "default")         # the last three have no account
NAMES = ("default", "b", "B", "a.b-c_d", "default1", "none", "b:1", "default:1")


@dataclass
class World:
    deployment: Deployment
    served: str = ""

    def ask(self, caller: Caller, query: str, path: str = "/twocloud/servers") -> HttpResponse:
        """As a server answers, to a request with this id."""
        return api.answer(lambda: self.deployment, path, HttpRequest(
            "GET", path, parse_qsl(query, keep_blank_values=True), {}, b"", "r", time.monotonic() + 25, caller=caller))


def build(deployment: Deployment, clock: Clock) -> None:
    for (tenant, party, name), regions in WORLD.items():
        row = accounts.put(deployment.store, deployment.sealer(), accounts.check(
            tenant, parties.load(party), KEYS[party], project=None, regions=regions, deep=False, endpoint=None,
            local=False, name=name), clock())
        for code in CODES[party]:           # also regions that it does not name were listed once
            source = Source(tenant, party, code, name)
            snapshots.save(deployment.store, source, row.revision, [Server(id="/".join(source.order), name=name)],
                           clock(), history=9999)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    clock = Clock()
    deployment = many_sources.open_deployment(settings_in(tmp_path_factory.mktemp("world")), clock)
    build(deployment, clock)
    yield World(deployment)
    deployment.close()


def caller_of(user: Sequence[tuple[str, ...]], token: Sequence[tuple[str, ...] | None]) -> Caller:
    return Caller(Token(token_id="0123456789abcdef", user="ann", uid="u", expires_at=int(START) + 999,
                        tenants=token[0], parties=token[1], regions=token[2]),
                  User(name="ann", uid="u", tenants=user[0], parties=user[1], regions=user[2]))


# ---------------------------------------------------------------- the oracle

class Refused(Exception):
    """With the status."""


@dataclass
class Oracle:
    """What a caller gets, by trying every source: the ids in their order, or the status of the refusal."""

    user: Sequence[tuple[str, ...]]
    token: Sequence[tuple[str, ...] | None]

    def opens(self, tenant: str, party: str, code: str) -> bool:
        def one(limits: Sequence[tuple[str, ...] | None], *, inherit: bool) -> bool:
            tenants, names, regions = limits
            right = (tenants is None and inherit) or (tenants is not None and ("*" in tenants or tenant in tenants))
            return (right and (not names or party in names)
                    and (not regions or code in {REGIONS[party].get(region, region) for region in regions}))
        return one(self.user, inherit=False) and one(self.token, inherit=True)

    def open_at(self, tenant: str | None, party: str | None) -> bool:
        """Whether the token covers this tenant and this party, as far as one is named."""
        return all((tenant is None or (limits[0] is None or "*" in limits[0] or tenant in limits[0]))
                   and (party is None or not limits[1] or party in limits[1]) for limits in (self.user, self.token))

    def answer(self, query: dict[str, str]) -> list[str]:
        words = {name: None if query.get(name, "all") == "all" else list(dict.fromkeys(query[name].split(",")))
                 for name in ("tenant_id", "party", "region", "account")}
        tenants, names, regions, called = words.values()
        for name in ("tenant_id", "party", "region"):
            if name not in query:
                raise Refused(400)
        for name, value in query.items():
            form = r"[A-Za-z0-9._-]{1,64}" + (r"(:[A-Za-z0-9._:-]{1,128})?" if name == "account" else "")
            if value != "all" and ("all" in value.split(",") or not all(
                    re.fullmatch(form, word) for word in value.split(","))):
                raise Refused(400)
        if names is not None and not {*names} <= REGIONS.keys():
            raise Refused(400)
        if names and regions and any(not any(region in REGIONS[p] for p in names) for region in regions):
            raise Refused(400)
        if not all(self.open_at(t, p) for t in tenants or [None] for p in names or [None]):
            raise Refused(403)
        alone = all(words is not None and len(words) == 1 for words in (tenants, names))
        single = alone and regions is not None and len(regions) == 1 and (
            "account" not in query or (called is not None and len(called) == 1))
        if single and not self.opens(tenants[0], names[0], REGIONS[names[0]][regions[0]]):      # type: ignore[index]
            raise Refused(403)
        mine = tenants or [tenant for tenant in ("?", *TENANTS) if self.open_at(tenant, None)]
        if names and regions and mine and not all(
                any(self.opens(mine[0], p, REGIONS[p][region]) for p in names if region in REGIONS[p])
                for region in regions):
            raise Refused(403)
        rows = [it for it in WORLD if (tenants is None or it[0] in tenants) and (names is None or it[1] in names)
                and self.open_at(it[0], it[1])]
        if names is None and regions and rows and any(
                not any(region in REGIONS[p] for _, p, _ in rows) for region in regions):
            raise Refused(400)
        known = {it[2] for it in rows}
        if called and ((alone and not {*called} <= known) or not {*called} & known):
            raise Refused(404)
        meant = [(t, p, n, code) for t, p, n in rows if called is None or n in called
                 for code in (WORLD[t, p, n] if regions is None else dict.fromkeys(
                     REGIONS[p][region] for region in regions if region in REGIONS[p]))]
        covered = [it for it in meant if self.opens(it[0], it[1], it[3])]
        if names is not None and regions is not None and covered != meant:
            raise Refused(403)
        if not covered:
            raise Refused(403 if meant else 404)
        return sorted(covered)              # type: ignore[return-value]


# ---------------------------------------------------------------- the matrix

def lists(words: Sequence[str], bad: Sequence[str]) -> st.SearchStrategy[str]:
    some = st.lists(st.sampled_from(words), min_size=1, max_size=3).map(",".join)
    return st.one_of(some, st.just("all"), st.sampled_from(words), some, st.just("all"), st.sampled_from(bad))


HOSTILE = ("", ",", "all,a", "a,all", "a/b", "a@b", "../007", "a,", ",a", "a b", "a\u0000", "*", "a%2Cb", "\u0661",
           "a\n", "7" * 65, "ALL,", "a;b", "a,a/b", "007\u200b", "\uff17")
QUERIES = st.fixed_dictionaries(
    {"tenant_id": lists(TENANTS, HOSTILE), "party": lists(tuple(REGIONS), ("nocloud", *HOSTILE[:6])),
     "region": lists(("gz", "sh", "ap-shanghai", "fsn1", "nbg1"), HOSTILE[:6])},
    optional={"account": lists(NAMES, (*HOSTILE, "b:", ":b", "b:1:2/3", "x@y", "b:x@y"))})
SOME = st.lists(st.sampled_from(TENANTS), max_size=4).map(tuple)
PARTIES = st.sampled_from([(), (), ("qcloud",), ("hetzner",), ("qcloud", "hetzner")])
LIMITED = st.sampled_from([(), (), ("gz",), ("ap-shanghai",), ("gz", "fsn1"), ("nbg1",), ("sh", "gz", "fsn1", "nbg1")])
USERS = st.tuples(st.one_of(SOME, st.just(("*",))), PARTIES, LIMITED)
TOKENS = st.tuples(st.one_of(st.none(), SOME, st.just(("*",))), st.one_of(st.none(), PARTIES),
                   st.one_of(st.none(), LIMITED))
PATIENT = settings(max_examples=300)


def as_sent(query: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(value, safe=',')}" for name, value in query.items())


@PATIENT
@given(USERS, TOKENS, QUERIES, st.booleans())
@example((("*",), (), ()), (None, None, None), {"tenant_id": "all", "party": "all", "region": "all"}, False)
@example((("a", "A"), (), ()), (("a",), None, ("sh",)), {"tenant_id": "all", "party": "all", "region": "all"}, False)
@example((("a", "007"), (), ()), (None, None, None),
         {"tenant_id": "a,007", "party": "qcloud", "region": "gz", "account": "b,none"}, True)
@example((("a", "007"), (), ("sh",)), (None, None, None),
         {"tenant_id": "a,007", "party": "qcloud", "region": "gz", "account": "none"}, False)
@example((("7",), (), ()), (None, None, None),
         {"tenant_id": "7", "party": "qcloud,hetzner", "region": "gz,fsn1"}, False)
@example((("7",), (), ()), (None, None, None), {"tenant_id": "7", "party": "qcloud,hetzner", "region": "fsn1"}, False)
def test_every_token_gets_what_its_rights_open_and_no_more(
        world: World, user: Any, token: Any, query: dict[str, str], encoded: bool) -> None:
    caller = caller_of(user, token)
    sent = as_sent(query).replace(",", "%2C") if encoded else as_sent(query)
    response = world.ask(caller, f"{sent}&max_age=600")
    body = json.loads(response.body)
    try:
        expected = Oracle(user, token).answer(query)
    except Refused as refused:
        assert response.status == refused.args[0], (body, query)
        assert "vm_servers" not in body
        return
    assert response.status == 200, (body, expected)
    assert [row["instance_id"] for row in body["vm_servers"]] == ["/".join(it) for it in expected]
    if "sources" in body:
        assert [(it["tenant_id"], it["party"], it["account"], it["region"]) for it in body["sources"]] == expected
        assert body["complete"]
    else:
        assert len(expected) == 1


@PATIENT
@given(USERS, TOKENS)
def test_me_names_the_accounts_of_which_a_query_for_all_lists_something(world: World, user: Any, token: Any) -> None:
    caller = caller_of(user, token)
    body = json.loads(world.ask(caller, "", "/twocloud/me").body)
    shown = [(it["tenant_id"], it["party"], it["account"]) for it in body["accounts"]]
    assert shown == sorted(it for it in WORLD if any(Oracle(user, token).opens(it[0], it[1], code)
                                                     for code in WORLD[it]))
    assert body["tenants"] == sorted({it[0] for it in shown})
    for it in body["accounts"]:
        key = it["tenant_id"], it["party"], it["account"]
        assert it["regions"] == [code for code in WORLD[key] if Oracle(user, token).opens(key[0], key[1], code)]


@pytest.mark.parametrize("query", [
    "tenant_id=007&tenant_id=a", "tenant_id=a&tenant_id=a", "tenant_id=007&TENANT_ID=a", "tenant_id=007&tenant=a",
    "tenant_id[]=007", "tenant_id=007&account=b&account=B", "tenant_id=007%00", "tenant_id=%30%30%37%2F",
    "tenant_id=007&region=gz", "tenant_id=007&accounts=b", "tenant_id=007&token=tc_x", "tenant_id=*",
    "tenant_id=%ef%bc%97", "tenant_id=007%0a", "tenant_id=" + ",".join(f"t{n}" for n in range(101))])
def test_ways_to_smuggle_are_400(world: World, query: str) -> None:
    response = world.ask(caller_of((("*",), (), ()), (None, None, None)), f"{query}&party=qcloud&region=gz&max_age=600")
    assert response.status == 400, response.body


# ---------------------------------------------------------------- foreign is as good as missing

FORMS = ("party=qcloud&tenant_id={}&region=gz", "party=all&tenant_id={}&region=all",
         "party=all&tenant_id=007,{}&region=gz", "party=qcloud&tenant_id={},007&region=all&on_error=partial",
         "party=qcloud&tenant_id={}&region=gz&account=b",
         "party=qcloud,hetzner&tenant_id={}&region=gz,fsn1&account=b,none", "party=hetzner&tenant_id={}&region=gz",
         "party=qcloud&tenant_id={}&region=gz&format=csv", "party=qcloud&tenant_id={}&region=gz&list=0123")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["/twocloud/servers", "/twocloud/changes"])
def test_a_foreign_tenant_and_a_missing_one_are_the_same_bytes_and_the_same_reads(
        world: World, form: str, path: str) -> None:
    store: Any = Counting(world.deployment.store)
    counted = World(replace(world.deployment, store=store))
    if path == "/twocloud/changes":
        form = re.sub("&(on_error|list)=[a-z0-9]+", "", form) + "&since=2026-09-20T00:00:00Z"
    answers = set[tuple[object, ...]]()
    for tenant in ("a", "A", "7", "a.b", "none", "0", "default", "x" * 64):
        store.operations.clear()
        query = form.format(tenant) + ("&max_age=600" if path == "/twocloud/servers" else "")
        answer = counted.ask(caller_of((("007",), (), ()), (None, None, None)), query, path)
        answers.add((answer.status, answer.body, json.dumps(answer.headers), tuple(store.operations)))
    assert len(answers) == 1, answers
    assert next(iter(answers))[0] in (400, 403)


# ---------------------------------------------------------------- a tenant that goes while its list is made

@pytest.mark.sample(4)
@pytest.mark.parametrize("query", [
    "tenant_id=all&party=all&region=all&on_error=partial", "tenant_id=a,007&party=qcloud&region=sh&on_error=partial",
    "tenant_id=a&party=qcloud&region=gz&account=b", "tenant_id=a&party=all&region=all&on_error=partial"])
def test_a_tenant_that_is_removed_while_it_is_listed(tmp_path: Path, query: str) -> None:
    """The answer is as before or as after, and nothing of the tenant comes back."""
    caller = caller_of((("*",), (), ()), (None, None, None))
    for nth in range(12):
        clock = Clock()
        deployment = many_sources.open_deployment(settings_in(tmp_path / f"{nth}"), clock)
        build(deployment, clock)
        before = World(deployment).ask(caller, f"{query}&max_age=600")
        deployment.noted.clear()
        deployment.listed.clear()
        store = deployment.store
        countdown = [nth]

        class Removing:
            def __getattr__(self, name: str, store: Any = store, countdown: list[int] = countdown) -> Any:
                if name in ("get", "get_many", "list", "put", "write", "delete"):
                    if countdown[0] == 0:
                        accounts.forget_tenant(store, "a")
                    countdown[0] -= 1
                return getattr(store, name)

        removing: Any = Removing()
        during = World(replace(deployment, store=removing)).ask(caller, f"{query}&max_age=600")
        done = countdown[0] < 0
        if not done:
            accounts.forget_tenant(store, "a")
        after = World(deployment).ask(caller, f"{query}&max_age=600")

        def ids(answer: HttpResponse) -> set[str]:
            assert answer.status in (200, 404, 503), answer.body        # 503: the party, which is not there
            return {row["instance_id"] for row in json.loads(answer.body).get("vm_servers", ())}

        assert ids(after) <= ids(during) <= ids(before), (nth, during.body)
        with store.moment() as there:
            assert {it.kind for it in there.walk() if it.key.startswith("a/")} <= {
                "interest", "list"}, nth        # which end by themselves
        deployment.close()
        if not done:
            assert nth > 2
            return
    raise AssertionError("never done")


# ---------------------------------------------------------------- keys

WORD = st.one_of(st.text("ab.-_", min_size=1, max_size=3), st.from_regex(IDENTIFIER, fullmatch=True))
MEMBER = st.one_of(st.text("ab.:-", min_size=1, max_size=3), st.from_regex(MEMBER_ID, fullmatch=True))
ACCOUNT = st.one_of(st.just("default"), WORD, st.builds("{}:{}".format, st.one_of(st.just("default"), WORD), MEMBER))
REGION = st.one_of(WORD, st.sampled_from([known_regions.EVERY, known_regions.UNKNOWN]))
SOURCES = st.builds(Source, WORD, st.sampled_from(("aws", "a", "b", "qcloud")), REGION, ACCOUNT)


@settings(max_examples=1500)
@given(SOURCES, SOURCES)
@example(Source("a", "aws", "x", "b"), Source("a", "aws", "x"))
@example(Source("a", "aws", "x", "b:c"), Source("a", "aws", "x", "b:c:d"))
@example(Source("a.b", "aws", "x"), Source("a", "aws", "x"))
def test_keys_of_different_sources_differ_and_no_prefix_reaches_another(one: Source, other: Source) -> None:
    assert snapshots.source_of_key(snapshots.key_of(one)) == one
    assert snapshots.owner_of_key(accounts.place_of(one.tenant_id, one.party, one.account)[1]) == (
        one.tenant_id, one.party, one.account.partition(":")[0])
    mine, theirs = snapshots.key_of(one), snapshots.key_of(other)
    assert (mine == theirs) == (one == other)
    account, owner = (one.tenant_id, one.party, one.account), (one.tenant_id, one.party, one.account.partition(":")[0])
    foreign = (other.tenant_id, other.party, other.account)
    behind = (*foreign[:2], foreign[2].partition(":")[0])
    assert (accounts.place_of(*account) == accounts.place_of(*foreign)) == (owner == behind)
    assert (known_members.place_of(*account) == known_members.place_of(*foreign)) == (owner == behind)
    assert (snapshots.account_key(*account) == snapshots.account_key(*foreign)) == (account == foreign)
    assert theirs.startswith(f"{one.tenant_id}/") == (one.tenant_id == other.tenant_id)
    assert theirs.startswith(f"{snapshots.account_key(*account)}/") == (account == foreign)
    assert f"{theirs}/x".startswith(f"{mine}/") == (one == other)
    shared = {place for place in places_of(one) if place in places_of(other)}
    if owner != behind:
        assert not shared
    for kind in ("chunk", "change", "snapshot", "breaker"):     # a listing by prefix looks where the rows are
        for key in (mine, f"{mine}/0123/00000"):
            put = dynamodb._partitions(kind, key)[0]
            for prefix in (f"{one.tenant_id}/", f"{snapshots.account_key(*account)}/", mine, f"{mine}/"):
                if key.startswith(prefix):
                    assert put in dynamodb._partitions(kind, prefix)


class Rows:
    """The least of a store that forgetting needs."""

    def __init__(self, rows: set[tuple[str, str]]) -> None:
        self.rows = rows

    def list(self, kind: str, prefix: str = "", start: str = "") -> list[tuple[str, None]]:
        return [(key, None) for of, key in sorted(self.rows) if of == kind and key.startswith(prefix)]

    def delete(self, kind: str, *keys: str) -> None:
        self.rows -= {(kind, key) for key in keys}


@pytest.mark.slow
@settings(max_examples=500)
@given(st.lists(SOURCES, min_size=1, max_size=8, unique=True), st.integers(0, 7))
@example([Source("a", "aws", "x", "b:c"), Source("a", "aws", "x", "b:c:d")], 0)
@example([Source("a", "aws", "x"), Source("a", "aws", "x", "default:c"), Source("a", "aws", "x", "b")], 0)
def test_an_account_that_goes_takes_nothing_of_another(sources: list[Source], nth: int) -> None:
    gone = sources[nth % len(sources)]
    rows: Any = Rows({(kind, f"{snapshots.key_of(source)}{more}") for source in sources
                      for kind, more in (("snapshot", ""), ("chunk", "/0/0"), ("change", "/0/0/0"), ("breaker", ""))})

    def owned(source: Source) -> bool:
        same = (source.tenant_id, source.party) == (gone.tenant_id, gone.party)
        return same and (source.account == gone.account or (
            ":" not in gone.account and source.account.startswith(f"{gone.account}:")))

    keys = {(kind, key) for kind, key in rows.rows
            if not owned(next(it for it in sources if f"{key}/".startswith(f"{snapshots.key_of(it)}/")))}
    snapshots.forget_account(rows, gone.tenant_id, gone.party, gone.account)
    assert rows.rows == keys
    snapshots.forget_tenant(rows, gone.tenant_id)
    assert rows.rows == {(kind, key) for kind, key in keys if not key.startswith(f"{gone.tenant_id}/")}


# ---------------------------------------------------------------- one account, as before

def test_accounts_of_others_change_no_byte_of_one_accounts_answer(served: App) -> None:
    """Nor do named accounts at another party of the same tenant."""
    queries = ["party=qcloud&tenant_id=9&region=gz", *(f"party=qcloud&tenant_id=123&region=gz{more}" for more in (
        "", "&f=1&t=5&view=full", "&format=csv", "&format=ndjson", "&format=prometheus", "&format=ansible"))]

    def answers() -> list[tuple[int, object]]:
        return [(it.status_code, it.content if it.ok else it.json()["msg"]) for it in map(served.get, queries)]

    before = answers()
    for party, tenant, name in (("qcloud", "12", "b"), ("qcloud", "1234", "default"), ("aws", "123", "b"),
                                ("qcloud", "9", "b")):
        keys = {"qcloud": KEYS["qcloud"], "aws": {"access_key_id": "A", "secret_access_key": secret("other")}}[party]
        served.account(party, keys, served.clouds[party].url, tenant=tenant, name=name)
    assert answers() == before
    assert [status for status, _ in before] == [403, *[200] * 6]


# ---------------------------------------------------------------- what many tenants cost

@pytest.mark.parametrize("given_tenants", ["*", "each", "some"])
def test_two_hundred_tenants_are_a_handful_of_queries(deployment: Deployment, clock: Clock, given_tenants: str) -> None:
    names = [f"t{n:03}" for n in range(200)]
    for name in names:
        row = accounts.put(deployment.store, deployment.sealer(), accounts.check(
            name, parties.load("qcloud"), KEYS["qcloud"], project=None, regions=("gz",), deep=False, endpoint=None,
            local=False, name="default" if name < "t100" else "b"), clock())
        source = Source(name, "qcloud", "ap-guangzhou", row.account)
        snapshots.save(deployment.store, source, row.revision, [Server(id=name, name=name)], clock(), history=9999)
    mine = {"*": ("*",), "each": tuple(names), "some": tuple(names[::2])}[given_tenants]
    users.add(deployment.store, User(name="ann", uid="u", tenants=mine))
    text, _ = tokens.issue(deployment.store, User(name="ann", uid="u", tenants=mine), tokens.Limits(), 999, clock())
    store: Any = Counting(deployment.store)
    counted = replace(deployment, store=store)

    def ask(query: str, path: str = "/twocloud/servers") -> dict[str, Any]:
        store.operations.clear()
        answer = api.answer(lambda: counted, path, HttpRequest(
            "GET", path, parse_qsl(query), {"authorization": f"Bearer {watch(text)}"}, b"", "r",
            time.monotonic() + 25))
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    expected = names if given_tenants != "some" else names[::2]
    for query in ("tenant_id=all&party=all&region=all", "tenant_id=all&party=qcloud&region=gz"):
        for _ in range(2):                  # the first time writes down that they are read
            body = ask(f"{query}&max_age=600&f=1&t=50")
            assert [row["instance_id"] for row in body["vm_servers"]] == expected[:50]
            assert len(body["sources"]) == len(expected)
        assert len(store.operations) <= 10, store.operations
    if given_tenants != "*":
        body = ask(f"tenant_id={','.join(expected[:100])}&party=all&region=all&max_age=600")
        assert [row["tenant_id"] for row in body["vm_servers"]] == expected[:100]
        assert len(store.operations) <= 10, store.operations
    assert len(ask("", "/twocloud/me")["accounts"]) == len(expected)
    assert len(store.operations) <= 6, store.operations


@settings(max_examples=60)
@given(st.sets(st.text("ab.-", min_size=1, max_size=3), max_size=40), st.sets(st.text("ab.-", min_size=1, max_size=3)),
       st.integers(0, 3))
def test_many_tenants_rows_are_those_of_each(there: set[str], wanted: set[str], most: int) -> None:
    rows = {(kind, f"{tenant}/qcloud{more}") for tenant in there for kind, more in (("account", ""), ("named", "@b"))}
    assume(wanted)

    class Listed:
        def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[tuple[str, None]]:
            return ((key, None) for of, key in sorted(rows, key=lambda it: it[1].encode())
                    if of == kind and key.startswith(prefix) and key >= start)

    store: Any = Listed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "_TENANTS", 2)
        patch.setattr(snapshots, "_ROWS_EACH", most)
        assert accounts.rows_of(store, wanted).keys() == {
            place for place in rows if place[1].partition("/")[0] in wanted}


@settings(max_examples=60)
@given(st.sets(st.text("ab/", min_size=1, max_size=4), max_size=60),
       st.sets(st.text("ab/", min_size=1, max_size=4), min_size=1), st.integers(0, 3))
@example(there={"b"}, wanted={"b", "b/"}, most=0)
def test_many_rows_are_those_of_their_keys_and_few_others_are_read(there: set[str], wanted: set[str],
                                                                   most: int) -> None:
    read, fetched = list[str](), list[str]()

    class Listed:
        def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[tuple[str, str]]:
            for key in sorted(there, key=str.encode):
                if key.startswith(prefix) and key >= start:
                    read.append(key)
                    yield key, f"row of {key}"

        def get_many(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
            fetched.extend(key for _, key in places)
            return {(kind, key): f"row of {key}" for kind, key in places if key in there}

    store: Any = Listed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "_BETWEEN", most)
        assert snapshots.rows_at(store, "snapshot", wanted) == {key: f"row of {key}" for key in there & wanted}
    assert len(read) <= most * len(wanted) + 1
    assert not {*fetched} & {*read[:-1]}    # no row is read twice, but for the one that was too much
