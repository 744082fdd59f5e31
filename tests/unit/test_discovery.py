"""An organisation behind one account, at every party that has such: who is found, who is opened, and P1 for both.

The simulators that have organisations are found by name. `make test` meets each fault at some of them, at one of the
calls of a discovery, `make test-all` each fault at each call.
"""

import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import pytest

from chalicelib import parties, simulators
from chalicelib.access import accounts
from chalicelib.cloud import cache, rate_limit
from chalicelib.cloud.sender import Transport
from chalicelib.errors import InvalidParameter, PartyDenied, PartyError
from chalicelib.fleet import known_members, schedule
from chalicelib.model import WHOLE, Account, Discovery, Listing, Member, Send, Source
from chalicelib.simulators.cloud import Branch
from chalicelib.simulators.faults import FAULTS, LATE, PASSING
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Simulator
from chalicelib.storage import snapshots
from chalicelib.storage.store import Row
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT

CLOUDS = {name: cloud for name, cloud in simulators.clouds().items() if cloud.organise}
T = TypeVar("T")
UNITS = {"products": "", "shop": "products", "attic": ""}


def branches(region: str, more: int = 0) -> list[Branch]:
    """The door, one at the top, two at the top of a unit and one below it, one closed, one locked, and `more`."""
    def fleet(name: str, size: int) -> dict[str, Fleet]:
        return {region: Fleet(size, name)}

    return [Branch(name="door", fleets=fleet("door", 4)), Branch(name="top", fleets=fleet("top", 3)),
            Branch(name="payments", fleets=fleet("payments", 5), unit="products"),
            Branch(name="empty", fleets={}, unit="products"),
            Branch(name="basket", fleets=fleet("basket", 2), unit="shop"),
            Branch(name="old", fleets=fleet("old", 7), unit="attic", closed=True),
            Branch(name="locked", fleets=fleet("locked", 6), locked=True),
            *(Branch(name=f"more-{n}", fleets=fleet(f"more-{n}", 1), unit="attic") for n in range(more))]


class Organisation:
    """A simulated one, and the account that is the door to it."""

    def __init__(self, party: str, stack: ExitStack, more: int = 0) -> None:
        cloud = CLOUDS[party]
        assert cloud.organise
        self.party, self.region = party, cloud.region
        self.branches = branches(cloud.region, more)
        made, credentials = cloud.organise(self.branches, canaries.secret(party), units=UNITS, limited=False)
        self.cloud: Simulator = stack.enter_context(made)
        self.transport = Transport()
        stack.callback(self.transport.close)
        checked = accounts.check("123", parties.load(party), credentials, project=None, regions=(), deep=False,
                                 endpoint=self.cloud.url, local=True)
        self.account = replace(checked, revision="r", discovery=Discovery())

    def ask(self, account: Account, ask: Callable[[Send], T], seconds: float = 25.0) -> T:
        with closing(self.transport.sender(parties.load(self.party), account, self.region,
                                           time.monotonic() + seconds)) as send:
            return ask(send)

    def discover(self, seconds: float = 25.0, **how: Any) -> list[Member]:
        account = replace(self.account, discovery=Discovery(**how))
        return self.ask(account, lambda send: parties.discover(account, send), seconds)

    def behind(self, member: Member) -> Account:
        return replace(self.account, name=f"default:{member.id}", member=member)

    def servers(self, member: Member) -> Listing:
        account = self.behind(member)
        source = Source("123", self.party, self.region, account.name)
        return self.ask(account, lambda send: parties.list_servers(source, account, WHOLE, send))

    def regions(self, member: Member) -> list[str]:
        account = self.behind(member)
        return [region.code for region in self.ask(account, lambda send: parties.list_regions(account, send))]

    def forget(self) -> None:
        """What a failed discovery left under way has ended, and neither side remembers it."""
        for thread in threading.enumerate():
            if thread.name.startswith("twocloud"):
                thread.join()
        time.sleep(0.02)                    # what had been sent by then has arrived
        cache.forget()
        self.cloud.forget()

    def named(self, name: str) -> Member:
        return next(member for member in self.discover() if member.name == name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)


@pytest.fixture
def organisation(request: pytest.FixtureRequest, stack: ExitStack) -> Organisation:
    return Organisation(request.param, stack)


every_party = pytest.mark.parametrize("organisation", CLOUDS, indirect=True)


def names(members: Sequence[Member]) -> set[str]:
    return {member.name for member in members}


def test_every_party_that_discovers_has_an_organisation_to_discover() -> None:
    assert set(CLOUDS) == {name for name in parties.names() if parties.load(name).discover}


@pytest.mark.parametrize("odd", ["../x", "a/b", "a b", "x\n", "", "é", "\x1b[2J", "x" * 200])
def test_a_row_of_members_with_an_id_that_no_party_lists_is_as_good_as_none(odd: str) -> None:
    def row(key: str) -> Row:
        members = known_members.Members(revision="r", at=1.0, members=(known_members.Kept(id=key),))
        return Row(zlib.compress(msgspec.msgpack.encode(members)), 1)

    assert known_members.members_in(row(odd), "r") is None
    assert known_members.members_in(row("a:b-1"), "r") is not None


# ---------------------------------------------------------------- who is found

@every_party
def test_all_members_are_found_and_the_closed_ones_say_so(organisation: Organisation) -> None:
    members = organisation.discover()
    assert [member.id for member in members] == sorted({member.id for member in members})
    ids = organisation.cloud.ids
    assert {member.id for member in members} == set(ids.values()) - (
        {ids["locked"]} if organisation.party in UNSEEN else set())
    assert all(ids[member.name] == member.id for member in members if not member.door)
    assert {member.name for member in members if member.closed} == {"old"}
    assert {member.id for member in members if member.door} == {ids["door"]}
    assert organisation.discover() == members


UNSEEN = ("azure", "gcp", "openstack")      # who may not open a member does not see it there


@pytest.mark.parametrize("party", CLOUDS)
def test_a_discovery_reads_all_pages(party: str, stack: ExitStack) -> None:
    organisation = Organisation(party, stack, more=250)
    assert {f"more-{n}" for n in range(250)} <= names(organisation.discover())


@every_party
def test_a_discovery_below_a_unit(organisation: Organisation) -> None:
    below = {name: key for name, key in organisation.cloud.units.items() if name}
    nested = set() if organisation.party == "openstack" else {"basket"}         # a parent without a role is not seen
    assert names(organisation.discover(below=below["products"])) == {"payments", "empty", *nested}
    assert names(organisation.discover(below=below["shop"])) == {"basket"}
    assert [member.closed != "" for member in organisation.discover(below=below["attic"])] == [True]


@every_party
def test_a_unit_that_is_not_there_is_an_error(organisation: Organisation) -> None:
    key = organisation.cloud.units["shop"]
    with pytest.raises(PartyError):
        organisation.discover(below=key[:-1] + ("0" if key[-1] != "0" else "1"))


def test_a_party_without_organisations_says_so() -> None:
    with pytest.raises(InvalidParameter, match="no organisations"):
        parties.discover(Account(tenant_id="1", party="vultr", credentials={"token": "t"}), lambda *_: pytest.fail())


# ---------------------------------------------------------------- who is opened

@every_party
def test_each_member_lists_its_own_servers(organisation: Organisation) -> None:
    for member in organisation.discover():
        branch = next(branch for branch in organisation.branches if organisation.cloud.ids[branch.name] == member.id)
        if branch.closed or branch.locked:
            continue
        fleet = branch.fleets.get(organisation.region, Fleet(0))
        listing = organisation.servers(member)
        assert listing.total == len(fleet)
        assert {server.name for server in listing.servers} == {fleet[n].name for n in range(len(fleet))}
        assert {server.lan_ipv4[0] for server in listing.servers} == {fleet[n].lan[0] for n in range(len(fleet))}
        assert organisation.region in organisation.regions(member)


@every_party
def test_a_member_that_cannot_be_opened_is_denied_and_no_other_is(organisation: Organisation) -> None:
    members = organisation.discover()
    hidden = Member(id=organisation.cloud.ids["locked"], name="locked")
    for member in (hidden, *(member for member in members if member.closed)):
        with pytest.raises(PartyDenied):
            organisation.servers(member)
        with pytest.raises(PartyDenied):
            organisation.regions(member)
    assert organisation.servers(organisation.named("payments")).total == 5


@every_party
def test_logins_are_kept_and_never_shared_between_members(organisation: Organisation) -> None:
    """Where one login opens all, there is one; where each member needs a session, each has its own, once."""
    payments, basket = organisation.named("payments"), organisation.named("basket")
    for _ in range(3):
        assert organisation.servers(payments).total == 5
        assert organisation.servers(basket).total == 2
    logins = Counter(call.operation for call in organisation.cloud.calls)
    assert (logins["Login"], logins["AssumeRole"], logins["GetToken"]) == LOGINS[organisation.party]


LOGINS = {"aws": (0, 2, 0), "aliyun": (0, 2, 0), "azure": (1, 0, 0), "gcp": (0, 0, 0), "openstack": (1, 0, 2)}


@pytest.mark.parametrize("party", CLOUDS)
def test_rates_that_count_for_the_credentials_are_shared_by_the_members(
        party: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    adapter, door = parties.load(party), Account(tenant_id="1", party=party, credentials={"k": "v"},
                                                 discovery=Discovery())
    one, other = (replace(door, member=Member(id=key)) for key in "ab")
    rates = rate_limit.RateLimits()
    assert adapter.shared_limits <= adapter.limits.keys()
    for operation in adapter.limits:
        pair = [rates.limiter(adapter, account, region, operation) for account, region in ((one, "r"), (other, "s"))]
        assert (pair[0] is pair[1]) == (operation in adapter.shared_limits), operation
        assert (pair[0] is rates.limiter(adapter, door, "r", operation)) == (operation in adapter.shared_limits)


@every_party
def test_a_door_is_checked_by_its_discovery(organisation: Organisation) -> None:
    account = organisation.account
    source = Source("123", organisation.party, organisation.region)
    organisation.ask(account, lambda send: parties.check(source, account, send))
    operations = {call.operation for call in organisation.cloud.calls}
    organisation.forget()
    organisation.discover()
    assert operations == {call.operation for call in organisation.cloud.calls}
    organisation.forget()
    organisation.ask(account, lambda send: parties.check(source, organisation.behind(organisation.named("top")), send))


@pytest.mark.sample(4)
@pytest.mark.parametrize("fault", [fault for fault, (_, word) in FAULTS.items() if word and fault not in LATE])
@pytest.mark.parametrize(("party", "operation"), [("aws", "AssumeRole"), ("aliyun", "AssumeRole"),
                                                  ("openstack", "GetToken"), ("openstack", "Login")])
def test_every_fault_while_a_member_is_opened(stages: dict[str, Organisation], party: str, operation: str,
                                              fault: str) -> None:
    """The fault's error, never an empty list; OpenStack's 401 is explained by the list of projects."""
    organisation = stages[party]
    organisation.forget()
    member = organisation.named("top")
    organisation.forget()
    organisation.cloud.fail(fault, operation)
    with pytest.raises(PartyError) as failed:
        organisation.servers(member)
    assert failed.value.code == FAULTS[fault][1]


@every_party
def test_one_query_lists_every_member(organisation: Organisation, served: App) -> None:
    """Over HTTP: open members are sources, the closed one is none, the locked one fails alone."""
    deployment, ids = served.deployment, organisation.cloud.ids
    door = replace(organisation.account, tenant_id="777", regions=(organisation.region,))
    accounts.put(deployment.store, deployment.sealer(), door, served.clock())
    token = served.issue(served.user("bob", ("777",)))
    answer = served.get(f"party={organisation.party}&tenant_id=777&region=all&on_error=partial", token).json()
    states = {source["account"].partition(":")[2]: (source["state"], source["count"]) for source in answer["sources"]}
    expected = {ids[name]: ("ok", size) for name, size in (
        ("door", 4), ("top", 3), ("payments", 5), ("empty", 0), ("basket", 2))}
    if organisation.party not in UNSEEN:
        expected[ids["locked"]] = ("failed", None)
    assert states == expected
    assert len(answer["vm_servers"]) == 14


@every_party
def test_a_member_that_is_named_is_looked_up_and_a_closed_one_is_no_source(
        organisation: Organisation, served: App) -> None:
    deployment, ids, region = served.deployment, organisation.cloud.ids, organisation.region
    door = replace(organisation.account, tenant_id="777", regions=(region,))
    accounts.put(deployment.store, deployment.sealer(), door, served.clock())
    token = served.issue(served.user("bob", ("777",)))

    def ask(member: str) -> tuple[int, str, int]:
        organisation.cloud.calls.clear()
        query = f"party={organisation.party}&tenant_id=777&region={region}&account=default:{member}"
        body = served.get(query, token).json()
        return body["code"], body.get("error", ""), len(body.get("vm_servers", ()))

    assert ask(ids["payments"]) == (200, "", 5)                 # although nobody has looked the members up yet
    assert ask(ids["old"]) == (404, "account_not_found", 0)
    assert organisation.cloud.calls == []
    assert ask("none") == (404, "account_not_found", 0)
    assert organisation.cloud.calls == []


@every_party
def test_the_schedule_looks_members_up_once_an_hour(organisation: Organisation, app: App) -> None:
    """Also where nobody queries: new members are listed, and readers of snapshots alone see them."""
    deployment, clock = app.deployment, app.clock
    door = replace(organisation.account, tenant_id="777", regions=(organisation.region,))
    accounts.put(deployment.store, deployment.sealer(), door, clock())

    def listed() -> set[str]:
        return {source.account.partition(":")[2] for source, _ in snapshots.heads(deployment.store, "777")}

    first = schedule.survey(deployment)
    assert [(door.account, door.region) for door in first.doors] == [("default", "all")]
    results = [result for result in schedule.run(deployment, first.messages) if result.source.tenant_id == "777"]
    assert [(result.total, result.error) for result in results] == [
        (5 if organisation.party in UNSEEN else 6, None)]       # members, the locked one too where it is seen
    assert listed() == set()
    second = schedule.survey(deployment)
    assert second.doors == []
    for message, _ in schedule.messages(deployment, waiting=[it for it in second.messages if it.tenant_id == "777"]):
        schedule.work_on(deployment, schedule.read(schedule.write(message)))
    assert listed() == {organisation.cloud.ids[name] for name in ("door", "top", "payments", "empty", "basket")}
    clock.forward(3601)
    assert [door.account for door in schedule.survey(deployment).doors] == ["default"]
    organisation.cloud.fail("503")
    failed = list(schedule.run(deployment, schedule.survey(deployment).doors))
    assert [result.error and result.error.code for result in failed] == ["party_unavailable"]
    assert schedule.survey(deployment).doors == []              # and the party is left alone for an hour
    accounts.remove(deployment.store, "777", organisation.party)
    assert [result.error for result in schedule.run(deployment, first.doors)] == [None]


# ---------------------------------------------------------------- P1: a discovery is all or nothing

@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Organisation]]:
    with ExitStack() as stack:
        yield {party: Organisation(party, stack, more=150) for party in CLOUDS}


def below_of(organisation: Organisation, narrowed: bool) -> dict[str, str]:
    return {"below": organisation.cloud.units["products"]} if narrowed else {}


_counted: dict[tuple[str, bool], Counter[str]] = {}


def places_of(organisation: Organisation, narrowed: bool) -> list[tuple[str, int]]:
    """The first and the last call of each operation of a discovery by a cold process. Of two discoveries the shorter
    one counts: a call that a failed one gave up may still arrive during the next."""
    def calls() -> Counter[str]:
        organisation.forget()
        organisation.discover(**below_of(organisation, narrowed))
        return Counter(call.operation for call in organisation.cloud.calls)

    key = organisation.party, narrowed
    if key not in _counted:
        _counted[key] = min(calls(), calls(), key=Counter.total)
    return [(operation, nth) for operation, made in _counted[key].items() for nth in sorted({1, made})]


def meets(organisation: Organisation, narrowed: bool, fault: str, operation: str, nth: int) -> None:
    """The fault's error, never a shorter list; one retry at most."""
    organisation.forget()
    organisation.cloud.fail(fault, operation, tuple(range(nth, nth + 50)))
    started = time.monotonic()
    if FAULTS[fault][1] is None:
        assert organisation.discover(**below_of(organisation, narrowed))
        return
    if [operation, fault] in WHAT[organisation.party].get("absent", []):        # that is how an empty page looks there
        with suppress(PartyDenied):
            organisation.discover(**below_of(organisation, narrowed))
        return
    with pytest.raises(PartyError) as failed:
        organisation.discover(0.8 if fault in LATE else 25.0, **below_of(organisation, narrowed))
    assert failed.value.code == FAULTS[fault][1], (operation, nth, failed.value)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("party", "narrowed", "fault"), [
    (party, narrowed, fault) for number, party in enumerate(CLOUDS) for narrowed in (False, True)
    for place, fault in enumerate(FAULTS) if (2 * number + narrowed + place) % 4 == 0])
def test_every_fault_at_one_call(stages: dict[str, Organisation], party: str, narrowed: bool, fault: str) -> None:
    places = places_of(stages[party], narrowed)
    meets(stages[party], narrowed, fault, *places[list(FAULTS).index(fault) % len(places)])


@pytest.mark.slow
@pytest.mark.parametrize("narrowed", [False, True], ids=["all", "below"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("party", CLOUDS)
def test_every_fault_at_every_call(stages: dict[str, Organisation], party: str, fault: str, narrowed: bool) -> None:
    for operation, nth in places_of(stages[party], narrowed):
        meets(stages[party], narrowed, fault, operation, nth)


@pytest.mark.sample(3)
@pytest.mark.parametrize("party", CLOUDS)
def test_a_single_fault_that_passes_is_not_seen(stages: dict[str, Organisation], party: str) -> None:
    organisation = stages[party]
    places = places_of(organisation, False)
    organisation.forget()
    whole = organisation.discover()
    for number in range(max(len(PASSING), len(places))):
        operation, nth = places[number % len(places)]
        organisation.forget()
        organisation.cloud.fail(PASSING[number % len(PASSING)], operation, (nth,))
        assert organisation.discover() == whole, operation


@pytest.mark.parametrize("party", CLOUDS)
def test_a_refusal_is_never_asked_again(stages: dict[str, Organisation], party: str) -> None:
    organisation = stages[party]
    for operation, _ in places_of(organisation, False):
        if [operation, "403"] in WHAT[party].get("absent", []):
            continue
        organisation.forget()
        organisation.cloud.fail("403", operation)
        with pytest.raises(PartyDenied):
            organisation.discover()
        assert organisation.cloud.count(operation) == 1, operation
