"""Listing a source: filters, limits of time, faults in the calls that only some accounts make (test_faults has the
others)."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.cloud import cache, rate_limit
from chalicelib.cloud import sender as sender_module
from chalicelib.errors import AccountNotFound, PartyDenied, PartyError, PartyTimeout, TwocloudError, UnknownRegion
from chalicelib.fleet import check, many_sources
from chalicelib.fleet.many_sources import Filter
from chalicelib.model import WHOLE, Keys, Window
from chalicelib.parties import aws
from chalicelib.parties.aws.simulator import Aws
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.faults import FAULTS, LATE, UNSEEN, Answer
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Plan, Simulator
from tests.fixtures import App, Clock, aws_keys, qcloud_keys, settings_in

# party, deep, operation, which of its calls (a listing makes so many of each)
CALLS = [("qcloud", True, "DescribeDisks", 1), ("qcloud", True, "DescribeNetworkInterfaces", 2),
         ("aws", True, "AssumeRole", 1)]
REGION = {"qcloud": "ap-guangzhou", "aws": "us-east-1"}
SIZE = 250                                  # three pages of a hundred


class Stage(App):
    def listing(self, party: str, seconds: float = 25.0, **more: object) -> many_sources.Answer:
        return many_sources.list_servers(self.deployment, many_sources.source_of("123", party, REGION[party]),
                                      deadline=time.monotonic() + seconds, **more)      # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """250 servers at each, on three pages; one stage for all faults."""
    clock = Clock()
    with ExitStack() as stack:
        deployment = many_sources.open_deployment(settings_in(tmp_path_factory.mktemp("stage")), clock)
        stack.callback(deployment.close)
        deployment.transport.jitter = lambda: 0.0
        made = Stage(deployment, clock)
        made.qcloud_keys, made.aws_keys = qcloud_keys(), aws_keys()             # type: ignore[attr-defined]
        made.clouds["qcloud"] = stack.enter_context(Qcloud(
            {made.qcloud_keys["secret_id"]: made.qcloud_keys["secret_key"]}, {"ap-guangzhou": Fleet(SIZE)},
            limited=False))  # type: ignore[attr-defined]
        made.clouds["aws"] = stack.enter_context(Aws(
            {made.aws_keys["access_key_id"]: made.aws_keys["secret_access_key"]}, {"us-east-1": Fleet(SIZE)},
            limited=False,  # type: ignore[attr-defined]
            roles={"arn:aws:iam::1:role/r": ""}))
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of listings in a row: the documented rates have tests of their own, and a page holds a hundred."""
    monkeypatch.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)
    monkeypatch.setattr(aws, "_PAGE", 100)


def prepare(stage: Stage, party: str, special: bool, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    cloud = stage.clouds[party]
    cloud.forget()
    if party == "qcloud":
        stage.account("qcloud", stage.qcloud_keys, cloud.url, deep=special)      # type: ignore[attr-defined]
    elif special:
        stage.account("aws", {"role_arn": "arn:aws:iam::1:role/r"}, cloud.url)
        keys = stage.aws_keys               # type: ignore[attr-defined]
        monkeypatch.setattr("chalicelib.access.accounts.own_identity",
                            lambda: Keys(keys["access_key_id"], keys["secret_access_key"]))
    else:
        stage.account("aws", stage.aws_keys, cloud.url)                          # type: ignore[attr-defined]
    return cloud


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", [
    pytest.param(fault, marks=pytest.mark.slow if fault in UNSEEN or fault in LATE[1:] else ()) for fault in FAULTS])
@pytest.mark.parametrize(("party", "special", "operation", "nth"), CALLS, ids=[f"{p}-{o}-{n}" for p, _, o, n in CALLS])
def test_every_fault_at_every_call(stage: Stage, monkeypatch: pytest.MonkeyPatch, party: str, special: bool,
                                   operation: str, nth: int, fault: str) -> None:
    """The answer is the fault's error, never a list; within the time; with one retry at most."""
    cloud = prepare(stage, party, special, monkeypatch)
    nths = tuple(range(nth, nth + 50))      # from the n-th on, so that a retry meets it too
    cloud.fail(fault, operation, nths)
    started = time.monotonic()
    seconds = 3.5 if fault in LATE else 25.0
    if FAULTS[fault][1] is None:
        assert stage.listing(party, seconds).total == SIZE
        return
    with pytest.raises(PartyError) as failed:
        stage.listing(party, seconds)
    assert failed.value.code == FAULTS[fault][1], failed.value
    assert time.monotonic() - started < 20
    assert cloud.count(operation) <= 7      # three calls, at most listed again, and one retry


@pytest.mark.parametrize(("party", "special", "operation", "nth"), CALLS, ids=[f"{p}-{o}-{n}" for p, _, o, n in CALLS])
def test_a_single_fault_that_passes_is_not_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch, party: str,
                                                special: bool,
                                                operation: str, nth: int) -> None:
    for fault in ("500", "reset", "429", "503"):
        cloud = prepare(stage, party, special, monkeypatch)
        cache.forget()
        cloud.fail(fault, operation, (nth,))
        assert stage.listing(party).total == SIZE


@settings(max_examples=40)
@given(faults=st.lists(st.tuples(st.sampled_from(
    sorted(set(FAULTS) - set(LATE) - {"bomb", "endless chunks", "endless line", "429 for six hours"})),
                                 st.integers(1, 9)), max_size=4), size=st.integers(0, 600),
    party=st.sampled_from(["qcloud", "aws"]))
def test_whatever_fails_the_list_is_whole_or_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch,
                                                      faults: list[tuple[str, int]],
                                                      size: int, party: str) -> None:
    cloud = prepare(stage, party, False, monkeypatch)
    before = cloud.fleets[REGION[party]]    # type: ignore[attr-defined]
    cloud.fleets[REGION[party]] = Fleet(size)                                    # type: ignore[attr-defined]
    try:
        for fault, nth in faults:
            cloud.fail(fault, None, (nth,))
        try:
            listing = stage.listing(party)
        except TwocloudError:
            assert faults
        else:
            assert len(listing.servers) == len({s.id for s in listing.servers}) == listing.total == size
    finally:
        cloud.fleets[REGION[party]] = before                                     # type: ignore[attr-defined]


def test_a_refusal_is_never_asked_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for party in ("qcloud", "aws"):
        cloud = prepare(stage, party, False, monkeypatch)
        cloud.fail("403")
        with pytest.raises(PartyDenied):
            stage.listing(party)
        # aws: instances and volumes side by side
        assert 1 <= cloud.count() <= (1 if party == "qcloud" else 2)


def test_the_budget_holds_over_many_slow_calls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is within its share, but all together are not: the request's own deadline ends it."""
    cloud = prepare(stage, "aws", False, monkeypatch)
    cloud.latency = 1.2
    started = time.monotonic()
    try:
        with pytest.raises(PartyTimeout):
            stage.listing("aws", 5.0)
    finally:
        cloud.latency = 0.0
    assert time.monotonic() - started < 9


def test_a_call_gets_its_share_and_not_all_of_the_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "CALL_SECONDS", 0.5)
    prepare(stage, "qcloud", False, monkeypatch).fail("hang")
    started = time.monotonic()
    with pytest.raises(PartyTimeout):
        stage.listing("qcloud", 25.0)
    assert time.monotonic() - started < 8


def test_threads_end_soon_after_a_failure(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page fails while others hang: the hanging calls are ended, not left for ten seconds."""
    cloud = prepare(stage, "qcloud", False, monkeypatch)
    cloud.fail("hang", None, (2,))
    cloud.fail("403", None, (2,))           # its second call is the third of all
    with pytest.raises(PartyDenied):
        stage.listing("qcloud")
    until = time.monotonic() + 6
    while any(t.name.startswith("twocloud_") for t in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.05)
    assert time.monotonic() < until


# ---------------------------------------------------------------- windows and filters

@pytest.mark.parametrize("party", ["qcloud", "aws"])
def test_windows_of_a_filtered_list(stage: Stage, monkeypatch: pytest.MonkeyPatch, party: str) -> None:
    prepare(stage, party, False, monkeypatch)
    whole = stage.listing(party).servers
    dice = random.Random(7)
    for _ in range(8):
        wanted = Filter(statuses=dice.choice([None, frozenset(["ACTIVE"]), frozenset(["SHUTOFF"])]),
                        name=dice.choice([None, "WEB", "-1"]))
        first = dice.randrange(1, 60)
        window = Window(first, dice.choice([None, first + dice.randrange(40)]))
        kept = [s for s in whole if wanted.keeps(s)]
        listing = stage.listing(party, window=window, wanted=wanted)
        assert listing.servers == kept[first - 1:window.last]
        assert listing.total == (len(kept) if wanted else len(whole))


def test_an_address_is_found_in_any_of_the_sets(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(stage, "qcloud", False, monkeypatch)
    one = next(s for s in stage.listing("qcloud").servers if len(s.lan_ipv4) > 1 and s.wan_ipv4)
    for ip in (*one.lan_ipv4, *one.wan_ipv4):
        assert one in stage.listing("qcloud", wanted=Filter(ip=ip)).servers
    assert stage.listing("qcloud", window=WHOLE, wanted=Filter(ip=one.lan_ipv4[0][:-1])).servers != [one]


def test_deep_gives_more_and_the_default_stays_one_call(app: App, stack: ExitStack) -> None:
    keys = qcloud_keys()
    cloud = stack.enter_context(Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(250)},
                                       attached=True))
    source = many_sources.source_of("123", "qcloud", "gz")
    app.account("qcloud", keys, cloud.url)
    plain = many_sources.list_servers(app.deployment, source, Window(11, 20)).servers
    assert cloud.count() == 1
    app.account("qcloud", keys, cloud.url, deep=True)
    deep = many_sources.list_servers(app.deployment, source, Window(11, 20)).servers
    assert cloud.count("DescribeDisks") == cloud.count("DescribeNetworkInterfaces") == 1
    for one, more in zip(plain, deep, strict=True):
        assert more.disk_gib == (one.disk_gib or 0) + 30
        assert more.lan_ipv4[:len(one.lan_ipv4)] == one.lan_ipv4
        assert len(more.lan_ipv4) == len(one.lan_ipv4) + 1
    whole = many_sources.list_servers(app.deployment, source)
    assert whole.total == 250
    assert cloud.count("DescribeDisks") >= 4


# ---------------------------------------------------------------- account check

@pytest.mark.parametrize(("change", "words"), [
    ("key", "wrong key"), ("id", "wrong key"), ("clock", "clock"), ("right", "missing right"), (None, None)])
@pytest.mark.parametrize("party", ["qcloud", "aws"])
def test_check_says_in_words_what_is_wrong(app: App, stack: ExitStack, tmp_path: Path, party: str, change: str | None,
                                           words: str | None) -> None:
    cloud = app.clouds[party]
    names = {"qcloud": ("secret_id", "secret_key"), "aws": ("access_key_id", "secret_access_key")}[party]
    key_id, secret = next(iter(cloud.keys.items()))                              # type: ignore[attr-defined]
    if change == "key":
        app.account(party, {names[0]: key_id, names[1]: "wrong"}, cloud.url)
    elif change == "id":
        app.account(party, {names[0]: "AKIDother", names[1]: secret}, cloud.url)
    elif change == "clock":
        cloud.late = 1000                   # type: ignore[attr-defined]
    elif change == "right":
        body = (b'{"Response": {"Error": {"Code": "UnauthorizedOperation", "Message": "x"}, "RequestId": "x"}}'
                if party == "qcloud"
                else b"<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>")
        cloud.plans.append(Plan(answer=Answer(200 if party == "qcloud" else 403, {}, body)))
    if words is None:
        assert check.check_account(app.deployment, "123", party) == REGION[party]
        assert cloud.count() == 1
        return
    with pytest.raises(PartyDenied, match=words):
        check.check_account(app.deployment, "123", party)


def test_check_knows_a_wrong_region(app: App) -> None:
    # aws says "wrong key" where one must opt in
    for party, region in (("qcloud", "ap-nowhere"), ("aws", "ap-east-1")):
        with pytest.raises(UnknownRegion, match="region"):
            check.check_account(app.deployment, "123", party, region)
    with pytest.raises(UnknownRegion):
        check.check_account(app.deployment, "123", "aws", "gz")
    with pytest.raises(AccountNotFound):
        check.check_account(app.deployment, "7", "aws")
