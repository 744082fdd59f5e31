"""Names of regions: to whom each is sent, what is remembered of it, and what made-up names cost (P7)."""

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from urllib.parse import unquote

import msgspec
import pytest
from msgspec import structs

from chalicelib import parties, simulators
from chalicelib.access import accounts
from chalicelib.cloud import cache, paging
from chalicelib.cloud.calls import CallStats
from chalicelib.cloud.client import Client
from chalicelib.cloud.party import Party
from chalicelib.cloud.sender import Sender
from chalicelib.errors import Forbidden, PartyDenied, PartyMalformed, PartyUnavailable, TwocloudError, UnknownRegion
from chalicelib.fleet import (
    check,
    circuit_breaker,
    interest,
    known_regions,
    many_sources,
    one_source,
    query,
    regions,
    schedule,
)
from chalicelib.fleet.lookup import Lookup
from chalicelib.http import formats
from chalicelib.model import IDENTIFIER, Account, Listing, Region, Request, Response, Server, Sign, Source, Window
from chalicelib.parties.qcloud import simulator
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Call
from chalicelib.storage import snapshots
from tests import ROOT, canaries
from tests.fixtures import App, Clock, settings_in
from tests.http.test_serve import error
from tests.unit.test_fleet import answer, put
from tests.unit.test_parties import WHAT

CLOUDS = simulators.clouds()
DEFAULTS = {name: parties.load(name).default_region for name in parties.names()}
ACCOUNT = Account(tenant_id="1", party="x", credentials={"key": "k"})
ABROAD = "party=qcloud,aws&tenant_id=123&region=gz,us-east-1"


def names_region(call: Call, region: str) -> bool:
    """Whether a call that arrived names this region, wherever it stands."""
    word = re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(region)}(?![A-Za-z0-9_-])")
    return any(word.search(unquote(text)) for text in (
        call.path, call.query, call.body.decode("utf-8", "replace"),
        *(value for name, value in call.headers.items() if name != "host")))


def sources(inventory: many_sources.Inventory) -> list[tuple[str, str]]:
    return [(part.source.party, part.source.region) for part in inventory.parts]


def kinds(app: App) -> Counter[str]:
    """The rows that callers could make by naming regions."""
    return Counter(kind for kind in ("breaker", "lease", "interest", "regions", "snapshot")
                   for _ in app.deployment.store.list(kind))


@pytest.fixture
def two(app: App) -> App:
    app.deployment.transport.jitter = lambda: 0.0
    return app


# ---------------------------------------------------------------- every party with every other one

class Lists:
    """Every party's list of regions, in place of the real ones: the default region and one that all share."""

    def __init__(self) -> None:
        self.calls = Counter[str]()

    def load(self, name: str, real=parties.load):                                # type: ignore[no-untyped-def]
        party = real(name)

        def list_regions(client: Client) -> list[Region]:
            self.calls[name] += 1
            return [Region(party.default_region), Region("closed-1", open=False)]

        return structs.replace(party, list_regions=list_regions)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Tenant 123 has an account at every party."""
    from tests.unit.test_parties import account_of  # reads all cases

    clock = Clock()
    deployment = many_sources.open_deployment(settings_in(tmp_path_factory.mktemp("everywhere")), clock)
    for name in parties.names():
        accounts.put(deployment.store, deployment.sealer(), account_of(name), clock())
    yield App(deployment, clock)
    deployment.close()


def test_every_pair_of_parties_and_their_default_regions(everywhere: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names fit the other's form: each goes to its own party, and a list of regions is requested once."""
    lists = Lists()
    monkeypatch.setattr(parties, "load", lists.load)
    fitting = 0
    for _ in range(2):
        for one, other in itertools.combinations(parties.names(), 2):
            named = f"party={one},{other}&tenant_id=123&region={DEFAULTS[one]},{DEFAULTS[other]}"
            parsed = query.parse([tuple(pair.split("=")) for pair in named.split("&")])           # type: ignore[misc]
            plans, failed = regions.sources(Lookup(everywhere.deployment), parsed)
            assert not failed
            own = {(one, DEFAULTS[one]), (other, DEFAULTS[other])}
            own |= {(name, code) for name in (one, other) for region in (DEFAULTS[one], DEFAULTS[other])
                    # bj is Baidu's region and an alias at Tencent
                    if (code := parties.load(name).aliases.get(region))}
            assert {(source.party, source.region) for source in plans} == own, named
            fitting += any(regions.means(DEFAULTS[a], Source("123", b, DEFAULTS[a]))
                           for a, b in ((one, other), (other, one))
                           if DEFAULTS[a] != DEFAULTS[b] and _fits(b, DEFAULTS[a]))
    assert fitting > 300
    assert set(lists.calls.values()) == {1}


NEW = "Zz_new-Region-9-of-a-form-that-no-party-has-yet"


class Newer:
    """Every party has two regions more than its own: one of an unforeseen form, and one like it that is closed."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        from tests.unit.test_parties import account_of  # reads all cases

        self.app, self.lists, self.listed = app, Counter[str](), list[tuple[str, str]]()
        self.failure: TwocloudError | None = None
        for name in names:
            account = replace(account_of(name), tenant_id="456", regions=())
            accounts.put(app.deployment.store, app.deployment.sealer(), account, app.clock())
        monkeypatch.setattr(parties, "load", self.load)

    def load(self, name: str, real=parties.load):                                # type: ignore[no-untyped-def]
        party = real(name)

        def list_regions(_: Client) -> list[Region]:
            self.lists[name] += 1
            if self.failure:
                raise self.failure
            return [Region(party.default_region), *([] if name == "baidu" else [Region(NEW)]),
                    Region(f"{NEW}-too", open=False)]

        def list_servers(client: Client, _: Window) -> Listing:
            self.listed.append((name, client.region))
            return Listing([], 0)

        return structs.replace(party, list_regions=list_regions, list_servers=list_servers, list_many=None, check=None,
                               unknown_region_is_empty=False, region_in_host=False)

    def ask(self, text: str) -> list[tuple[str, str, str]]:
        return [(part.source.party, part.source.region, part.state) for part in answer(self.app, text).parts]


@pytest.mark.parametrize("name", [name for name in parties.names() if name != "baidu"])
def test_a_listed_region_of_an_unforeseen_form(app: App, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A party names its next region as it likes. `all` lists it, and after that so do its name and each refresh;
    beside parties that do not have it, it is the only one that is sent the name."""
    newer, usual = Newer(app, monkeypatch, name, "baidu"), parties.load(name).default_region
    assert not _fits(name, NEW) or parties.load(name).region_form == IDENTIFIER
    one = f"party={name}&tenant_id=456"
    assert newer.ask(f"{one}&region=all") == sorted([(name, NEW, "ok"), (name, usual, "ok")])
    assert newer.ask(f"{one}&region={NEW}") == [(name, NEW, "ok")]
    assert newer.ask(f"{one}&region={usual},{NEW}") == sorted([(name, NEW, "ok"), (name, usual, "ok")])
    for several in ("all", f"{name},baidu"):
        assert newer.ask(f"party={several}&tenant_id=456&region={NEW}") == [(name, NEW, "ok")]
        assert newer.ask(f"party={several}&tenant_id=456&region={NEW},bj") == sorted(
            [(name, NEW, "ok"), ("baidu", "bj", "ok"), *([(name, code, "ok")] if (
                code := parties.load(name).aliases.get("bj")) else [])])
    source = Source("456", name, NEW)
    assert [(done.source, done.error) for done in schedule.run(app.deployment, [source])] == [(source, None)]
    assert newer.lists[name] <= 2
    assert check.check_account(app.deployment, "456", name, NEW) == NEW


@pytest.mark.parametrize("name", parties.names())
def test_a_name_of_an_unforeseen_form_that_the_party_does_not_list(app: App, monkeypatch: pytest.MonkeyPatch,
                                                                   name: str) -> None:
    """It is sent nowhere, and asks the party nothing: its last list, if there is one, says that there is none."""
    newer, other = Newer(app, monkeypatch, name), f"{NEW}-9"
    if parties.load(name).region_form == IDENTIFIER:
        return
    for text in (other, NEW, f"{NEW}-too", "a.b"):
        for party in (name, f"{name},baidu"):
            with pytest.raises(UnknownRegion):
                newer.ask(f"party={party}&tenant_id=456&region={text}")
    assert not newer.lists
    newer.ask(f"party={name}&tenant_id=456&region=all")
    newer.listed.clear()
    for text in (other, "a.b"):
        with pytest.raises(UnknownRegion):
            newer.ask(f"party={name}&tenant_id=456&region={text}")
    assert newer.lists[name] == 1
    with pytest.raises(UnknownRegion):
        newer.ask(f"party={name}&tenant_id=456&region={NEW}-too")
    with pytest.raises(UnknownRegion):
        check.check_account(app.deployment, "456", name, other)
    assert not newer.listed


def test_a_name_in_one_partys_form_costs_the_others_no_list(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they have one of that name, their last list tells."""
    newer, code = Newer(app, monkeypatch, *parties.names()), "eu-west-101"
    assert ("huaweicloud", code, "ok") in newer.ask(f"party=all&tenant_id=456&region={code}")
    assert {*newer.lists} == {name for name in parties.names() if _fits(name, code)} < {*parties.names()}


@pytest.mark.parametrize("name", [name for name in parties.names() if name != "baidu"])
def test_rights_for_a_region_of_an_unforeseen_form(app: App, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A token's limit covers it by its name; what it does not cover is 403."""
    from tests.unit.test_named_accounts import caller_of

    newer = Newer(app, monkeypatch, name)

    def asked(party: str, region: str, limit: str) -> list[tuple[str, str]]:
        parsed = query.parse([("party", party), ("tenant_id", "456"), ("region", region)])
        caller = caller_of([("456",), (), (limit,)], [None, None, None])
        plans, _ = many_sources.plan(Lookup(app.deployment, query=parsed, caller=caller))
        return [(plan.source.party, plan.source.region) for plan in plans]

    newer.ask(f"party={name}&tenant_id=456&region=all")
    for party in (name, f"{name},baidu", "all"):
        for region in (NEW, "all"):
            assert asked(party, region, NEW) == [(name, NEW)]
        with pytest.raises(Forbidden):
            asked(party, NEW, "gx")
        for limit in (NEW, "gx"):
            if parties.load(name).region_form != IDENTIFIER:
                with pytest.raises(UnknownRegion):
                    asked(party, f"{NEW},{NEW}-9", limit)
    for region in (NEW, f"{NEW},{NEW}-9"):
        with pytest.raises(UnknownRegion):  # and no account, of which nothing is told
            asked("baidu", region, "gx")
    assert newer.lists[name] == 1


HOSTILE = ("evil.example/", "evil.example?", "evil.example#", "x@evil.example/", "evil.example:443/", "evil.example\\",
           "../x", "%2e%2e", "[::1]", "a\r\nX: y", "\x00", "evil。example", "℀", "all", "?", "", "x" * 300)


@pytest.mark.parametrize("name", parties.names())
def test_a_listed_region_chooses_no_host(app: App, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nor a path. The list is a party's, and lies in a row of the store that no seal covers."""
    from tests.unit.test_parties import account_of  # reads all cases

    called: list[str] = []

    def refuse(self: Sender, request: Request) -> Response:
        called.append(request.url)
        raise PartyMalformed

    monkeypatch.setattr(Sender, "_exchange", refuse)
    store, codes = app.deployment.store, tuple(code for code in HOSTILE if not _fits(name, code))
    row = accounts.put(store, app.deployment.sealer(), replace(account_of(name), tenant_id="456"), app.clock())
    known_regions.keep(store, f"456/{name}", row.revision, map(Region, codes), app.clock())
    response = answer(app, f"party={name}&tenant_id=456&region=all&on_error=partial")
    assert {(part.source.region, part.state) for part in response.parts} == {(code, "failed") for code in codes}
    done = schedule.run(app.deployment, [Source("456", name, code) for code in codes])
    assert not any(it.total for it in done)
    assert called == []


def _fits(party: str, region: str) -> bool:
    """Whether the name has the form of the party's regions."""
    known = parties.load(party)
    return known.expects(known.aliases.get(region, region))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Three servers at every party that has a simulator, in its default region."""
    clock = Clock()
    with ExitStack() as stack:
        deployment = many_sources.open_deployment(settings_in(tmp_path_factory.mktemp("world")), clock)
        stack.callback(deployment.close)
        deployment.transport.jitter = lambda: 0.0
        made = App(deployment, clock)
        for name, entry in CLOUDS.items():
            cloud, credentials = entry.start({entry.region: Fleet(3, name)}, canaries.secret(name), limited=False)
            made.clouds[name] = stack.enter_context(cloud)
            made.account(name, credentials, cloud.url)
        yield made


def test_all_parties_with_all_their_regions_at_once(world: App) -> None:
    """One request, whose names fit many forms: each party is asked about its own regions only."""
    cache.forget()
    regions_named = sorted({entry.region for entry in CLOUDS.values()})
    path = f"party=all&tenant_id=123&region={','.join(regions_named)}"
    first = answer(world, f"{path}&on_error=partial", 60.0)
    own = {(name, entry.region) for name, entry in CLOUDS.items()}
    assert own <= {(part.source.party, part.source.region) for part in first.parts if part.state == "ok"}
    for name, region in sources(first):     # beside the default regions only those that the party lists too
        row = known_regions.listed(world.deployment.store, f"123/{name}",
                                   accounts.find(world.deployment.store, "123", name).revision)
        assert (name, region) in own or (row and region in row.codes) or region in parties.load(
            name).aliases.values(), (name, region)
    for name, cloud in world.clouds.items():
        mine = {region for party, region in sources(first) if party == name}
        foreign = [region for region in regions_named if region not in mine and len(region) > 3]
        assert not [(call.operation, region) for call in cloud.calls for region in foreign
                    if names_region(call, region)], name


@pytest.mark.parametrize("foreseen", [True, False])
@pytest.mark.parametrize("name", CLOUDS)
def test_an_unknown_region_of_every_party(world: App, name: str, stack: ExitStack, foreseen: bool) -> None:
    """A name that it does not have, in its form or in another: 400, and within the hour nobody asks again."""
    party, cloud, tenant = parties.load(name), world.clouds[name], "123"
    made_up = next((word for word in ("zz-nowhere-9", "zz-nowhere9", "zz-zzz9", "zz-zzz", "nowhere9", "zzz9", "zzz",
                                      "zzzz", "f" * 32, "Nowhere") if _fits(name, word) == foreseen), None)
    if made_up is None:
        assert party.region_form == IDENTIFIER or (foreseen and re.fullmatch(r"[a-z|-]+", party.region_form))
        return
    cloud.forget()
    cache.forget()
    if WHAT[name].get("one_endpoint"):      # the simulator cannot tell which region is listed
        cloud, credentials = CLOUDS[name].start({CLOUDS[name].region: Fleet(0)}, canaries.secret(name), limited=False)
        stack.enter_context(cloud)
        world.account(name, credentials, cloud.url, tenant="empty")
        tenant = "empty"
    for _ in range(3):
        with pytest.raises(UnknownRegion):
            many_sources.list_servers(world.deployment, Source(tenant, name, made_up))
    assert len(cloud.calls) <= 6
    assert cloud.calls or (name, foreseen) == ("jdcloud", False)                 # whose list is a table of ours
    stats = CallStats()                     # its own: calls that were given up before may still arrive at the cloud
    with pytest.raises(UnknownRegion):
        many_sources.list_servers(world.deployment, Source(tenant, name, made_up), Window(1, 5), stats=stats)
    assert stats.calls == 0


@pytest.mark.parametrize("name", [name for name in CLOUDS if parties.load(name).region_in_host])
def test_a_region_without_a_host(world: App, name: str) -> None:
    """Its name cannot be looked up: 400 if the party does not list it, and what happened if it does, or tells nothing.
    """
    party, cloud = parties.load(name), world.clouds[name]
    cloud.forget()
    account = accounts.load(world.deployment.store, world.deployment.sealer, "123", name, local=True)
    there = world.deployment.transport.sender(party, account, party.default_region, time.monotonic() + 20)
    text = parties.list_regions(account, there)

    for region, deaf, status, failure in (("zz-nowhere-9", False, None, UnknownRegion),
                                          (text[-1].code, False, None, PartyUnavailable),
                                          ("zz-nowhere-9", True, None, PartyUnavailable),
                                          ("zz-nowhere-9", False, 503, PartyUnavailable)):
        def send(operation: str, sign: Sign, deaf: bool = deaf, status: int | None = status) -> Response:
            if "Regions" in operation and not deaf:
                return there(operation, sign)
            raise PartyUnavailable(http_status=status)

        with pytest.raises(failure):
            parties.list_servers(Source("123", name, region), account, Window(1, 1), send)


@pytest.mark.parametrize("name", parties.names())
def test_a_region_that_the_party_lists_and_does_not_know(app: App, monkeypatch: pytest.MonkeyPatch,
                                                         name: str) -> None:
    """Whoever asked for all regions named none that could be wrong: it is the party's error, and says which region."""
    from tests.unit.test_parties import account_of

    def load(party: str, real=parties.load):                                     # type: ignore[no-untyped-def]
        def list_servers(client: Client, _window: Window) -> Listing:
            if client.region == "not-there-9":
                raise UnknownRegion("No such region.")
            return Listing([], 0)

        return structs.replace(real(party), list_servers=list_servers, list_many=None, list_regions=lambda _: [
            Region(real(party).default_region), Region("not-there-9")])

    accounts.put(app.deployment.store, app.deployment.sealer(), replace(account_of(name), tenant_id="456"),
                 app.clock())
    monkeypatch.setattr(parties, "load", load)
    every = f"party={name}&tenant_id=456&region=all"
    with pytest.raises(PartyMalformed, match=rf"^{name} not-there-9: No such region\. It is among `all` because"):
        answer(app, every)
    partial = answer(app, f"{every}&on_error=partial")
    assert {(part.source.region, part.error and part.error.code) for part in partial.parts} == {
        (load(name).default_region, None), ("not-there-9", "party_malformed")}


@pytest.mark.parametrize(("tenants", "title"), [
    ("123,456", "456 qcloud spare ap-guangzhou"), ("456,789", "qcloud spare ap-guangzhou")])
def test_an_error_and_a_partial_answer_name_a_source_alike(app: App, tenants: str, title: str) -> None:
    """With its tenant if the answer's sources are of several, however many the query names."""
    app.account("qcloud", {"secret_id": "AKIDgone", "secret_key": canaries.secret("gone")},
                app.clouds["qcloud"].url, tenant="456", name="spare")
    query = f"party=qcloud&tenant_id={tenants}&region=gz"
    with pytest.raises(PartyDenied, match=f"^{title}: "):
        answer(app, query)
    assert formats.message(answer(app, f"{query}&on_error=partial")).startswith(f"{title}: missing from this answer. ")


# ---------------------------------------------------------------- servers in a region that the party does not list

def lists_everything(name: str) -> bool:
    """Whether the party lists the servers of all regions at once, so that they tell where else some are."""
    source = (ROOT / f"chalicelib/parties/{name}/__init__.py").read_text()
    return "elsewhere" in source


EVERYTHING = [name for name in parties.names() if lists_everything(name)]


class Unlisted(Newer):
    """Every party lists the servers of two regions at once, one of which is not in its list of regions."""

    def load(self, name: str, real=parties.load):                                # type: ignore[no-untyped-def]
        party, there = real(name), {real(name).default_region: 2, NEW: 3, **getattr(self, "more", {})}

        def list_regions(_: Client) -> list[Region]:
            self.lists[name] += 1
            self.app.clock.forward(0.01)            # a call takes time
            return [Region(party.default_region)]

        def list_servers(client: Client, window: Window) -> Listing:
            self.listed.append((name, client.region))
            made = [Server(id=f"{client.region}-{n}", name="") for n in range(there.get(client.region, 0))]
            return Listing(paging.cut(made, window), len(made), frozenset(
                code for code, count in there.items() if count and code != client.region))

        return structs.replace(party, list_regions=list_regions, list_servers=list_servers, list_many=None,
                               region_in_host=False)


@pytest.mark.parametrize("name", EVERYTHING)
def test_servers_in_a_region_that_the_party_does_not_list(app: App, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`all` holds them in the first answer and in each one after it, also from snapshots, with one call for each
    region; when the last is gone, so is the region."""
    unlisted, usual = Unlisted(app, monkeypatch, name), parties.load(name).default_region
    every, both = f"party={name}&tenant_id=456&region=all", sorted([(name, usual, 2), (name, NEW, 3)])

    def counted(text: str) -> list[tuple[str, str, int | None]]:
        return [(part.source.party, part.source.region, part.count) for part in answer(app, text).parts]

    assert counted(every) == both
    assert sorted(unlisted.listed) == sorted((name, region) for _, region, _ in both)
    for text in (every, f"{every}&max_age=600", f"{every}&on_error=partial", f"party=all&tenant_id=456&region={NEW}",
                 f"party={name}&tenant_id=456&region={NEW}"):
        assert counted(text) == (both if "all" in text.rpartition("region=")[2] else [(name, NEW, 3)])
    app.clock.forward(3700)                 # its list of regions is requested again, and lacks it again
    assert counted(f"{every}&f=4&t=5") == both
    assert unlisted.lists[name] == 2
    page = answer(app, f"{every}&f=1&t=5")
    assert page.total == 5
    monkeypatch.setattr(unlisted, "more", {NEW: 0}, raising=False)
    for _ in range(2):
        with suppress(PartyMalformed):      # it was listed for the servers that it had
            counted(every)
    assert counted(every) == [(name, usual, 2)]


def test_callers_that_share_a_listing_get_those_servers_too(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listed, and whoever waited for it."""
    unlisted = Unlisted(app, monkeypatch, "hetzner")
    load = parties.load

    def slow(name: str) -> Party:
        party = load(name)

        def list_servers(client: Client, window: Window) -> Listing:
            time.sleep(0.2)                 # so that the others come meanwhile
            return party.list_servers(client, window)

        return structs.replace(party, list_servers=list_servers)

    monkeypatch.setattr(parties, "load", slow)
    with ThreadPoolExecutor(8) as pool:
        every = [*pool.map(lambda _: answer(app, "party=hetzner&tenant_id=456&region=all").total, range(8))]
    assert every == [5] * 8
    assert len(unlisted.listed) < 16


@pytest.mark.parametrize("name", EVERYTHING)
def test_only_a_token_that_covers_the_region_sees_its_servers(app: App, monkeypatch: pytest.MonkeyPatch,
                                                              name: str) -> None:
    from tests.unit.test_named_accounts import caller_of

    unlisted, usual = Unlisted(app, monkeypatch, name), parties.load(name).default_region
    for limit, expected in (((usual,), [usual]), ((NEW, usual), sorted([NEW, usual]))):
        parsed = query.parse([("party", name), ("tenant_id", "456"), ("region", "all")])
        caller = caller_of([("456",), (), limit], [None, None, None])
        response = many_sources.answer(Lookup(app.deployment, query=parsed, caller=caller))
        assert [part.source.region for part in response.parts] == expected
    assert unlisted.lists[name] == 1


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name in CLOUDS])
def test_the_adapter_tells_where_else_servers_are(app: App, name: str) -> None:
    """From the simulator's answers: two servers in one of its regions, three in another."""
    entry = CLOUDS[name]
    other = next((code for code in parties.load(name).region_names() if code != entry.region), "ams")
    cloud, credentials = entry.start({entry.region: Fleet(2), other: Fleet(3, "b")}, canaries.secret(name),
                                     limited=False)
    cache.forget()
    with cloud:
        account = Account(tenant_id="1", party=name, credentials=credentials, endpoint=cloud.url)
        for region, count, others in ((entry.region, 2, {other}), (other, 3, {entry.region})):
            sender = app.deployment.transport.sender(parties.load(name), account, region, time.monotonic() + 20)
            listing = parties.list_servers(Source("1", name, region), account, Window(1, None), sender)
            assert (listing.total, listing.elsewhere) == (count, others)


# ---------------------------------------------------------------- which of a party's regions are open to an account

# party -> where its list of regions stands in the answer, a row but for its state, the key of the state, and the words
# that say that the account can have no servers there. That no new ones can be made, or that the region is down, is
# another thing: servers are there, and `all` must not lose them.
OPEN: dict[str, tuple[tuple[str, ...], dict[str, str], str, tuple[object, ...], tuple[object, ...]]] = {
    "azure": (("value",), {"name": "R"}, "metadata", ({"regionType": "Logical"},), ({"regionType": "Physical"},)),
    "ctyun": (("returnObj", "regionList"), {"regionID": "R"}, "openapiAvailable", (False,), (True,)),
    "digitalocean": (("regions",), {"slug": "R"}, "available", (), (True, False)),
    "gcp": (("items",), {"name": "R"}, "status", (), ("UP", "DOWN")),
    "gridscale": (("locations",), {"iata": "R"}, "active", (), (True, False)),
    "ibm": (("regions",), {"name": "R"}, "status", (), ("unavailable", "available")),
    "lighthouse": (("Response", "RegionSet"), {"Region": "R"}, "RegionState", (), ("UNAVAILABLE", "AVAILABLE")),
    "oci": ((), {"regionName": "R"}, "status", ("IN_PROGRESS",), ("READY",)),
    "qcloud": (("Response", "RegionSet"), {"Region": "R"}, "RegionState", (), ("UNAVAILABLE", "AVAILABLE")),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_region_is_left_out_only_by_a_word_that_says_so(name: str) -> None:
    """Not by one that is missing, odd or new: a region that `all` does not list looks like one without servers."""
    from tests.unit.test_parties import account_of

    place, row, key, closed, opened = OPEN[name]

    def listed(state: object) -> list[tuple[str, bool]]:
        rows: object = [{**row, key: state}]
        if name == "gridscale":
            rows = {"uuid": {**row, key: state}}
        for word in reversed(place):
            rows = {word: rows}
        login = {"access_token": "t", "expires_in": 3600, "kind": "compute#regionList", "statusCode": 800,
                 "meta": {"total": 1}}
        body = msgspec.json.encode({**login, **rows} if isinstance(rows, dict) else rows)

        def send(_operation: str, sign: Sign) -> Response:
            sign()
            return Response(200, {}, body)

        return [(region.code, region.open) for region in parties.list_regions(account_of(name), send)]

    assert all(("R", True) not in listed(word) for word in closed)
    assert all(listed(word) == [("R", True)] for word in (*opened, None, "A_NEW_WORD", 7, [], {}))


@pytest.mark.parametrize("name", parties.names())
def test_a_region_that_may_be_closed_is_asked(app: App, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """"unavailable" may be down or closed, and only the region itself can tell: `all` lists its servers, names its
    failure, and leaves it out if it is none; within the hour it is not asked again."""
    from tests.unit.test_parties import account_of

    usual, listed, failure = parties.load(name).default_region, Counter[str](), list[TwocloudError]()

    def load(party: str, real=parties.load):                                     # type: ignore[no-untyped-def]
        def list_servers(client: Client, _window: Window) -> Listing:
            listed[client.region] += 1
            if client.region == NEW and failure:
                raise failure[0]
            return Listing([Server(id=client.region, name="")], 1)

        return structs.replace(real(party), list_servers=list_servers, list_many=None, region_in_host=False,
                               list_regions=lambda _: [Region(usual), Region(NEW, doubtful=True)])

    accounts.put(app.deployment.store, app.deployment.sealer(), replace(account_of(name), tenant_id="456", regions=()),
                 app.clock())
    monkeypatch.setattr(parties, "load", load)
    every = f"party={name}&tenant_id=456&region=all"

    def states(text: str) -> dict[str, str]:
        return {part.source.region: part.state for part in answer(app, text).parts}

    failure.append(UnknownRegion("none"))
    for _ in range(3):
        assert states(every) == {usual: "ok"}
    assert listed == {usual: 3, NEW: 1}
    with pytest.raises(UnknownRegion):
        states(f"party={name}&tenant_id=456&region={NEW}")
    app.clock.forward(3700)
    failure[0] = PartyUnavailable()
    with pytest.raises(PartyUnavailable):
        states(every)
    assert states(f"{every}&on_error=partial") == {usual: "ok", NEW: "failed"}
    failure.clear()
    app.clock.forward(600)
    assert states(every) == {usual: "ok", NEW: "ok"}


@pytest.mark.parametrize("name", parties.names())
def test_a_list_of_regions_that_became_shorter_hides_no_servers(app: App, monkeypatch: pytest.MonkeyPatch,
                                                                name: str) -> None:
    """It may be cut short: the region itself is asked, and left out only if it says that it is none, once no snapshot
    may serve any more."""
    from tests.unit.test_parties import account_of

    usual, codes, there = parties.load(name).default_region, [parties.load(name).default_region, NEW], [True]

    def load(party: str, real=parties.load):                                     # type: ignore[no-untyped-def]
        def list_servers(client: Client, _window: Window) -> Listing:
            if client.region == NEW and not there:
                raise UnknownRegion("none")
            return Listing([Server(id=client.region, name="")], 1)

        return structs.replace(real(party), list_servers=list_servers, list_many=None, region_in_host=False,
                               list_regions=lambda _: [Region(code) for code in codes])

    accounts.put(app.deployment.store, app.deployment.sealer(), replace(account_of(name), tenant_id="456", regions=()),
                 app.clock())
    monkeypatch.setattr(parties, "load", load)

    def states() -> dict[str, str]:
        return {part.source.region: part.state for part in answer(app, f"party={name}&tenant_id=456&region=all").parts}

    assert states() == {usual: "ok", NEW: "ok"}
    codes.remove(NEW)
    for _ in range(2):
        app.clock.forward(3700)
        assert states() == {usual: "ok", NEW: "ok"}
    there.clear()
    assert states() == {usual: "ok", NEW: "stale"}
    app.clock.forward(86_500)
    for _ in range(2):
        assert states() == {usual: "ok"}


@pytest.mark.parametrize(("name", "word"), [("ibm", "unavailable"), ("lighthouse", "UNAVAILABLE"),
                                            ("qcloud", "UNAVAILABLE")])
def test_which_regions_may_be_closed(name: str, word: str) -> None:
    from tests.unit.test_parties import account_of

    place, row, key, *_ = OPEN[name]
    rows: object = [{**row, key: word}, {**row, key: word.lower().removeprefix("un").upper()}]
    for part in reversed(place):
        rows = {part: rows}
    body = msgspec.json.encode({"access_token": "t", "expires_in": 3600, **rows})           # type: ignore[dict-item]

    def send(_operation: str, sign: Sign) -> Response:
        sign()
        return Response(200, {}, body)

    assert [region.doubtful for region in parties.list_regions(account_of(name), send)] == [True, False]


# ---------------------------------------------------------------- two parties

def test_two_sources_not_four(two: App) -> None:
    qcloud, aws = two.clouds["qcloud"], two.clouds["aws"]
    for _ in range(5):
        assert sources(answer(two, ABROAD)) == [("aws", "us-east-1"), ("qcloud", "ap-guangzhou")]
        assert sources(answer(two, f"{ABROAD}&max_age=60")) == [("aws", "us-east-1"), ("qcloud", "ap-guangzhou")]
    assert qcloud.count("DescribeRegions") == 1
    assert aws.count("DescribeRegions") == 0
    assert not [call for call in qcloud.calls if names_region(call, "us-east-1")]
    assert not [call for call in aws.calls if names_region(call, "ap-guangzhou")]


def test_explain_says_where_a_name_was_left_out(two: App) -> None:
    parsed = query.parse([tuple(pair.split("=")) for pair in ABROAD.split("&")])  # type: ignore[misc]
    made = Lookup(two.deployment)
    plans, _ = regions.sources(made, parsed)
    assert regions.left_out(made, parsed, plans) == [("us-east-1", "qcloud")]


def test_many_callers_request_a_list_of_regions_once(two: App) -> None:
    for cloud in two.clouds.values():
        cloud.latency = 0.2
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: answer(two, f"{ABROAD}&max_age=60"), range(50)))
    assert {fleet.total for fleet in answers} == {37}
    assert two.clouds["qcloud"].count("DescribeRegions") == 1
    assert two.clouds["qcloud"].count("DescribeInstances") == 1
    assert two.clouds["aws"].count("DescribeInstances") == 1


def test_a_region_that_both_have_is_asked_of_both(two: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("qcloud", "aws"):
        monkeypatch.setattr(f"chalicelib.parties.{module}.simulator.REGIONS",
                            ("ap-guangzhou", "us-east-1", "eu-north-1"))
    for cloud in two.clouds.values():
        cloud.fleets["eu-north-1"] = Fleet(4, "north")                           # type: ignore[attr-defined]
    response = answer(two, "party=qcloud,aws&tenant_id=123&region=eu-north-1,gz")
    assert sources(response) == [("aws", "eu-north-1"), ("qcloud", "ap-guangzhou"), ("qcloud", "eu-north-1")]
    assert response.total == 33


def test_a_region_that_is_new_is_reached(two: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """One party: at once. A name that another party has: once the list is five minutes old. Of what the account names:
    at once."""
    from chalicelib.parties.qcloud.simulator import REGIONS

    answer(two, ABROAD)
    two.clouds["qcloud"].fleets |= {"ap-new": Fleet(2, "new"), "us-east-1": Fleet(5, "us")}      # type: ignore[attr-defined]
    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", (*REGIONS, "ap-new", "us-east-1"))
    assert answer(two, "party=qcloud&tenant_id=123&region=ap-new").total == 2
    assert answer(two, "party=qcloud,aws&tenant_id=123&region=ap-new,us-east-1").total == 14
    two.clock.forward(301)
    assert answer(two, "party=qcloud,aws&tenant_id=123&region=ap-new,us-east-1").total == 19
    assert two.clouds["qcloud"].count("DescribeRegions") == 2


def test_a_name_that_no_list_holds_is_left_to_the_parties(two: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that the list does not name is found all the same; one that nobody has is an error."""
    two.clouds["qcloud"].fleets["ap-secret-1"] = Fleet(3, "secret")              # type: ignore[attr-defined]
    real = simulator.REGIONS

    class Hidden(tuple[str, ...]):
        def __contains__(self, name: object) -> bool:
            return name == "ap-secret-1" or super().__contains__(name)

    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", Hidden(real))
    assert answer(two, "party=qcloud,aws&tenant_id=123&region=ap-secret-1,us-east-1").total == 15
    with pytest.raises(UnknownRegion):
        answer(two, "party=qcloud,aws&tenant_id=123&region=ap-secret-2,us-east-1")


@pytest.mark.parametrize("fault", ["403", "503", "html"])
def test_a_list_of_regions_that_cannot_be_had(two: App, fault: str) -> None:
    """The name is sent to the party too, which refuses it: nothing is lost, nothing is asked again within the hour."""
    qcloud = two.clouds["qcloud"]
    qcloud.fail(fault, "DescribeRegions")
    for _ in range(4):
        assert sources(answer(two, ABROAD)) == [("aws", "us-east-1"), ("qcloud", "ap-guangzhou")]
    assert qcloud.count("DescribeRegions") <= 2
    assert len([call for call in qcloud.calls if names_region(call, "us-east-1")]) == 1
    qcloud.forget()
    two.clock.forward(301)
    answer(two, ABROAD)
    assert qcloud.count("DescribeRegions") == 1


def test_a_party_that_is_down_is_never_left_out_without_a_word(two: App) -> None:
    """Nothing is known of its regions yet, and it cannot be asked: the name could be one of its regions."""
    two.clouds["qcloud"].fail("503")
    with pytest.raises(PartyUnavailable):
        answer(two, "party=qcloud,aws&tenant_id=123&region=us-east-1")
    partial = answer(two, "party=qcloud,aws&tenant_id=123&region=us-east-1&on_error=partial")
    assert not partial.complete
    assert [part.state for part in partial.parts] == ["ok", "failed"]


def test_what_a_party_listed_last_serves_while_it_is_down(two: App) -> None:
    answer(two, ABROAD)
    two.clouds["qcloud"].fail("503")
    two.clock.forward(7200)
    response = answer(two, ABROAD)
    assert sources(response) == [("aws", "us-east-1"), ("qcloud", "ap-guangzhou")]
    assert [part.state for part in response.parts] == ["ok", "stale"]
    assert response.total == 37


def test_rights_come_before_regions(served: App) -> None:
    """What is named must be covered, whatever the parties have; no party is asked before that is clear."""
    narrow = served.issue(served.user("cid"), regions=("gz",))
    error(served.get(ABROAD, token=narrow), 403, "forbidden")
    error(served.get(ABROAD.replace("=123", "=8")), 403, "forbidden")
    wide = served.issue(served.user("dan", tenants=("*",)))
    error(served.get(ABROAD.replace("=123", "=8"), token=wide), 404, "account_not_found")
    assert not served.clouds["qcloud"].calls
    assert not served.clouds["aws"].calls


# ---------------------------------------------------------------- what is remembered of a name

NOWHERE = Source("123", "qcloud", "ap-nowhere")


def refused(app: App, source: Source = NOWHERE) -> str:
    with pytest.raises(UnknownRegion) as failed:
        many_sources.list_servers(app.deployment, source)
    return failed.value.text


def test_no_such_region_is_believed_for_an_hour(two: App, monkeypatch: pytest.MonkeyPatch) -> None:
    from chalicelib.parties.qcloud.simulator import REGIONS

    cloud = two.clouds["qcloud"]
    first = refused(two)
    two.clock.forward(3599)
    assert refused(two) == first
    assert cloud.count() == 1
    cloud.fleets["ap-nowhere"] = Fleet(2)                                        # type: ignore[attr-defined]
    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", (*REGIONS, "ap-nowhere"))
    two.clock.forward(1)
    assert many_sources.list_servers(two.deployment, NOWHERE).total == 2


@pytest.mark.parametrize("how", ["the party's list names it", "another account is put"])
def test_what_ends_it_earlier(two: App, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    from chalicelib.parties.qcloud.simulator import REGIONS

    refused(two)
    two.clouds["qcloud"].fleets["ap-nowhere"] = Fleet(2)                         # type: ignore[attr-defined]
    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", (*REGIONS, "ap-nowhere"))
    refused(two)
    if how == "another account is put":
        put(two, "qcloud")
    else:
        answer(two, "party=qcloud&tenant_id=123&region=all")
    assert many_sources.list_servers(two.deployment, NOWHERE).total == 2


def test_a_region_that_is_not_enabled_says_so(two: App) -> None:
    """Amazon answers "wrong key" there; its list of regions tells. The same is said by `account check`."""
    closed, aws = Source("123", "aws", "af-south-1"), two.clouds["aws"]
    first = refused(two, closed)
    assert "af-south-1" in first
    assert "not enabled" in first
    count = aws.count()
    assert refused(two, closed) == first
    assert aws.count() == count
    with pytest.raises(UnknownRegion, match="not enabled"):
        check.check_account(two.deployment, "123", "aws", "af-south-1")
    with pytest.raises(UnknownRegion, match="lists no region"):
        check.check_account(two.deployment, "123", "aws", "ap-nowhere-1")
    response = answer(two, "party=qcloud,aws&tenant_id=123&region=gz,af-south-1&on_error=partial")
    assert [(part.source.region, part.state) for part in response.parts] == [("af-south-1", "failed"),
                                                                             ("ap-guangzhou", "ok")]


def test_a_wrong_key_stays_a_wrong_key(two: App) -> None:
    """Wherever it is used; the list of regions is tried once, and not again for each region."""
    two.clouds["aws"].keys.clear()          # type: ignore[attr-defined]
    for region in ("us-east-1", "eu-west-1", "af-south-1", "sa-east-1"):
        with pytest.raises(PartyDenied):
            many_sources.list_servers(two.deployment, Source("123", "aws", region))
    assert two.clouds["aws"].count("DescribeRegions") == 1


def test_the_schedule_knows_only_regions_that_answered(two: App) -> None:
    refused(two)
    two.clouds["qcloud"].fail("503")
    with pytest.raises(PartyUnavailable):
        many_sources.list_servers(two.deployment, Source("123", "qcloud", "ap-nobody"))
    assert not schedule.known(two.deployment)
    two.clouds["qcloud"].forget()
    two.clock.forward(60)
    many_sources.list_servers(two.deployment, Source("123", "qcloud", "ap-singapore"), Window(1, 2))
    assert [source.region for source in schedule.known(two.deployment)] == ["ap-singapore"]


# ---------------------------------------------------------------- made-up names (P7)

def within_the_rate(app: App, calls: int = 40, seconds: float = 1.0) -> bool:
    """Whether no more calls arrived than the party allows, over the whole time and, as a busy machine bunches them,
    with some room in each second. Without one limit for all names it was six times as many."""
    at = sorted(call.at for cloud in app.clouds.values() for call in cloud.calls)
    busiest = max((sum(start <= other < start + seconds for other in at) for start in at), default=0)
    return 0 < len(at) <= calls * ((at[-1] - at[0]) / seconds + 1) and busiest <= 1.5 * calls


@pytest.mark.sample(5)
@pytest.mark.parametrize("on_error", ["stale", "fail", "partial"])
def test_made_up_names_keep_the_documented_rate(two: App, on_error: str) -> None:
    """Eight requests with 32 names each: no more in any second than the party allows, and next to no rows."""
    def ask(n: int) -> None:
        names = ",".join(f"ap-x{n}y{k}" for k in range(32))
        try:
            answer(two, f"party=qcloud,aws&tenant_id=123&region={names}&on_error={on_error}", 6.0)
        except TwocloudError:
            assert on_error != "partial"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    for thread in threading.enumerate():
        if thread.name.startswith("twocloud"):
            thread.join(10)
    assert within_the_rate(two)
    assert kinds(two)["breaker"] <= 1
    assert kinds(two)["interest"] == 0
    assert kinds(two)["regions"] <= 3
    assert len(two.deployment.transport.rates._limiters) <= 4
    assert len(two.deployment.begun) <= 3
    assert not two.deployment.noted


def test_a_party_that_fails_under_made_up_names(two: App) -> None:
    """They share one breaker, so that not each of them asks; the regions that the party has are not touched by it."""
    cloud = two.clouds["qcloud"]
    cloud.fail("503")
    for n in range(40):
        with pytest.raises(PartyUnavailable):
            many_sources.list_servers(two.deployment, Source("123", "qcloud", f"ap-x{n}"))
    assert cloud.count() <= 2 * 8
    assert kinds(two)["breaker"] == 1
    cloud.forget()
    assert many_sources.list_servers(two.deployment, Source("123", "qcloud", "ap-guangzhou")).total == 25


def test_one_name_is_not_told_of_anothers_failure(two: App) -> None:
    """Side by side: a good region that was never listed, between names that the party refuses."""
    cloud = two.clouds["qcloud"]
    cloud.latency = 0.1
    cloud.fleets["ap-singapore"] = Fleet(6)                                      # type: ignore[attr-defined]
    failures: dict[str, object] = {}

    def ask(region: str) -> None:
        try:
            failures[region] = many_sources.list_servers(two.deployment, Source("123", "qcloud", region)).total
        except UnknownRegion:
            failures[region] = "unknown"

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, ["ap-singapore", *(f"ap-x{n}" for n in range(11))]))
    assert failures.pop("ap-singapore") == 6
    assert set(failures.values()) == {"unknown"}


@pytest.mark.slow
def test_ten_thousand_names_leave_nothing_behind(two: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the party refuses them or fails: a bounded row each account, and bounded memory."""
    failures = itertools.cycle([UnknownRegion("none"), PartyUnavailable("down")])

    def list_servers(*_: object) -> None:
        raise next(failures)

    party = parties.load("qcloud")
    monkeypatch.setattr(parties, "load", lambda name,
                        real=parties.load: structs.replace(party, list_servers=list_servers)
                        if name == "qcloud" else real(name))
    monkeypatch.setattr(circuit_breaker, "_FAILURES", 10 ** 9)
    monkeypatch.setattr(one_source, "_LIVE_LISTINGS", 10 ** 9)
    for n in range(1500):
        with pytest.raises(TwocloudError):
            many_sources.list_servers(two.deployment, Source("123", "qcloud", f"ap-x{n}"))
    rows = dict(kinds(two))
    assert rows == {"breaker": 1, "regions": 1}
    row = two.deployment.store.get("regions", "123/qcloud/?")
    assert row
    assert len(row.value) < 16_000
    assert not two.deployment.noted
    assert len(two.deployment.begun) == 1
    snapshots.forget_account(two.deployment.store, "123", "qcloud")
    assert not kinds(two)


def test_what_a_process_remembers_of_sources_is_bounded(two: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over is forgotten before more is remembered."""
    monkeypatch.setattr(interest, "_REMEMBERED", 50)
    monkeypatch.setattr(one_source, "_REMEMBERED", 50)
    for n in range(400):
        interest.note_reading(two.deployment, Source(f"t{n}", "qcloud", "gz"))
        two.clock.forward(20)
    assert len(two.deployment.noted) <= 50
    assert "t399/qcloud/gz" in two.deployment.noted
    two.deployment.begun.update({f"t{n}/qcloud/gz": [time.monotonic() - 61] for n in range(400)})
    many_sources.list_servers(two.deployment, Source("123", "qcloud", "ap-guangzhou"))
    assert list(two.deployment.begun) == ["123/qcloud/ap-guangzhou"]


@pytest.mark.slow
def test_what_a_process_remembers_of_catalogues_is_bounded() -> None:
    """Adapters keep some by region, which callers choose, and names that a party did not know."""
    for n in range(cache._CATALOGUES + 100):
        cache.cached_lookup(ACCOUNT, ("azure", f"region-{n}"), ["a", "b"], lambda names: {"a": 1})
        cache.cached_lookup(ACCOUNT, ("empty", f"region-{n}"), [], lambda names: {})
        cache.cached_lookup(ACCOUNT, "one", ["a"], lambda names: {"a": 1})
    assert len(cache._catalogues) <= cache._CATALOGUES == 512
    assert cache.cached_lookup(ACCOUNT, "one", ["a"], lambda names: 1 / 0) == {"a": 1}
    for n in range(cache._NAMES + 100):
        cache.cached_lookup(ACCOUNT, "projects", [f"region-{n}"], lambda names: {})
    assert len(cache._catalogues[ACCOUNT.origin, "projects"].unknown) <= cache._NAMES == 4096


def test_turns_to_log_in_are_not_kept() -> None:
    for n in range(100):
        account = Account(tenant_id="1", party="x", credentials={"key": str(n)}, revision="r")
        with pytest.raises(PartyDenied):
            cache.with_session(account, "s", _refuse, str)
    assert not cache._turns
    assert not cache._logins


def _refuse() -> tuple[float, str]:
    raise PartyDenied()
