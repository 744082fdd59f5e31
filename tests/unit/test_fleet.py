"""Several sources in one answer: which, in which order, what of each, and what if one cannot be heard."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cloud import sender as sender_module
from chalicelib.errors import PartyError, TwocloudError
from chalicelib.fleet import lookup, many_sources, query
from chalicelib.http import api, formats
from chalicelib.model import Server, Source
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import GZ, US, App
from tests.http.test_serve import error

ALL = "party=all&tenant_id=123&region=all"
SOURCES = [("aws", "eu-west-1", 7), ("aws", "us-east-1", 12), ("qcloud", "ap-guangzhou", 25),
           ("qcloud", "ap-shanghai", 9)]
REGIONS = {"aws": ("us-east-1", "eu-west-1"), "qcloud": ("ap-shanghai", "ap-guangzhou")}


def put(app: App, party: str, regions: tuple[str, ...] = (), tenant: str = "123") -> None:
    cloud = app.clouds[party]
    (key, secret), = cloud.keys.items()     # type: ignore[attr-defined]
    names = {"qcloud": ("secret_id", "secret_key"), "aws": ("access_key_id", "secret_access_key")}[party]
    made = accounts.check(tenant, parties.load(party), dict(zip(names, (key, secret), strict=True)), project=None,
                          regions=regions,
                          deep=False, endpoint=cloud.url, local=True)
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)


@pytest.fixture
def fleet(served: App) -> App:
    """53 servers in four sources."""
    served.deployment.transport.jitter = lambda: 0.0
    served.clouds["qcloud"].fleets["ap-shanghai"] = Fleet(9, "sh")               # type: ignore[attr-defined]
    served.clouds["aws"].fleets["eu-west-1"] = Fleet(7, "eu")                    # type: ignore[attr-defined]
    for party, regions in REGIONS.items():
        put(served, party, regions)
    return served


def calls(app: App) -> int:
    return sum(cloud.count() for cloud in app.clouds.values())


def answer(app: App, text: str, seconds: float = 25.0) -> many_sources.Inventory:
    """Without HTTP: an operator's question."""
    read = query.parse([tuple(pair.split("=")) for pair in text.split("&")])    # type: ignore[misc]
    freshness = api.freshness_of(read, "", app.deployment.settings)
    return many_sources.answer(lookup.Lookup(app.deployment, freshness, time.monotonic() + seconds, query=read))


def settle(app: App) -> None:
    """What an answer did not wait for, because it had failed already, has come to its end."""
    while list(app.deployment.store.list("lease")):
        time.sleep(0.02)


def servers(inventory: many_sources.Inventory) -> list[Server]:
    return [server for part in inventory.parts if part.answer for server in part.answer.servers]


# ---------------------------------------------------------------- which, and in which order

@pytest.mark.parametrize("pairs", [
    "party=all&region=all", "party=qcloud,aws&region=all", "party=aws,qcloud,aws&region=us-east-1,gz,sh,eu-west-1",
    "party=all&region=sh,ap-guangzhou,gz,eu-west-1,us-east-1"])
def test_the_whole_is_the_join_of_its_sources(fleet: App, pairs: str) -> None:
    single = [fleet.get(f"party={party}&tenant_id=123&region={region}&view=full").json()["vm_servers"]
              for party, region, _ in SOURCES]
    response = fleet.get(f"{pairs}&tenant_id=123")
    body = response.json()
    assert list(body) == ["code", "msg", "vm_servers", "complete", "sources"]
    assert body["code"] == 200
    assert body["msg"] == ""
    assert body["vm_servers"] == [row for rows in single for row in rows]
    assert body["complete"] is True
    assert body["sources"] == [{"party": party, "region": region, "state": "ok", "count": count, "age": 0, "error": "",
                                "msg": "", "tenant_id": "123", "account": "default"}
                               for party, region, count in SOURCES]
    assert response.headers["X-Total-Count"] == "53"
    assert "Link" not in response.headers
    assert "Age" not in response.headers
    assert fleet.get(f"{pairs}&tenant_id=123").content == response.content
    again = fleet.get(f"{pairs}&tenant_id=123", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


def test_one_party_in_many_regions_and_the_other_way_round(fleet: App) -> None:
    body = fleet.get("party=qcloud&tenant_id=123&region=all").json()
    assert [(row["region"], row["count"]) for row in body["sources"]] == [("ap-guangzhou", 25), ("ap-shanghai", 9)]
    body = fleet.get("party=qcloud&tenant_id=123&region=gz,sh&view=basic").json()
    assert len(body["vm_servers"]) == 34
    assert len(body["vm_servers"][0]) == 10
    body = fleet.get("party=qcloud,aws&tenant_id=123&region=gz").json()          # at aws there is no such name
    assert [row["party"] for row in body["sources"]] == ["qcloud"]


def test_pages_join_over_all_sources(fleet: App) -> None:
    whole = fleet.get(ALL).json()["vm_servers"]
    for size, more in ((10, ""), (7, "&max_age=999"), (53, ""), (100, "")):
        rows: list[Any] = []
        pairs: str | None = f"{ALL}&f=1&t={size}{more}"
        while pairs:
            page = fleet.get(pairs)
            assert page.headers["X-Total-Count"] == "53"
            rows += page.json()["vm_servers"]
            pairs = page.links["next"]["url"].partition("?")[2] if "next" in page.links else None
        assert rows == whole


@settings(max_examples=25)
@given(sizes=st.lists(st.sampled_from([0, 1, 2, 5, 9]), min_size=4, max_size=4), first=st.integers(1, 30),
       length=st.integers(1, 30) | st.none(),
       kept=st.lists(st.booleans(), min_size=4, max_size=4), chosen=st.sampled_from(["", "&status=ACTIVE", "&name=e"]))
def test_windows_over_the_whole(fleet: App, sizes: list[int], first: int, length: int | None, kept: list[bool],
                                chosen: str) -> None:
    """Whatever is kept and whatever must be asked: f to t of the join, and the total of all."""
    fleet.clock.forward(1000)
    for (party, region, _), size in zip(SOURCES, sizes, strict=True):
        fleet.clouds[party].fleets[region] = Fleet(size, f"{region}{size}")      # type: ignore[attr-defined]
        fleet.clouds[party]._xml = {}       # type: ignore[attr-defined]
    whole = servers(answer(fleet, ALL + chosen))
    fleet.clock.forward(1000)
    for (party, region, _), young in zip(SOURCES, kept, strict=True):
        if young:
            answer(fleet, f"party={party}&tenant_id=123&region={region}")
    last = "" if length is None else f"&t={first + length - 1}"
    before = calls(fleet)
    response = answer(fleet, f"{ALL}{chosen}&f={first}{last}&max_age=10")
    assert servers(response) == whole[first - 1:None if length is None else first + length - 1]
    assert response.total == len(whole)
    count = calls(fleet) - before
    assert count >= 4 - sum(kept)
    assert (count == 0) == all(kept)
    for part, (_, _, _), young in zip(response.parts, SOURCES, kept, strict=True):
        assert part.answer
        assert part.answer.kept == young
        assert (part.count is not None)


@pytest.mark.parametrize("chosen", ["status=ACTIVE", "name=WEB", "name=%E5%90%8D", "ip=10.0.0.3",
                                    "status=SHUTOFF&name=e"])
def test_filters_work_on_everything(fleet: App, chosen: str) -> None:
    single = [fleet.get(f"party={party}&tenant_id=123&region={region}&view=full&{chosen}").json()["vm_servers"]
              for party, region, _ in SOURCES]
    joined = [row for rows in single for row in rows]
    for more in ("", "&max_age=999"):
        response = fleet.get(f"{ALL}&{chosen}{more}")
        assert response.json()["vm_servers"] == joined
        assert response.headers["X-Total-Count"] == str(len(joined))
        assert [row["count"] for row in response.json()["sources"]] == [len(rows) for rows in single]
        assert fleet.get(f"{ALL}&{chosen}{more}&f=2&t=3").json()["vm_servers"] == joined[1:3]


def test_what_the_window_does_not_touch_is_not_read(fleet: App, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.get(ALL)
    fleet.clock.forward(5)
    store, read, before = type(fleet.deployment.store), list[str](), calls(fleet)
    get_many = store.get_many

    def recorded(self: Any, places: Any) -> Any:
        read.extend(key for kind, key in places if kind == "chunk")
        return get_many(self, places)

    monkeypatch.setattr(store, "get_many", recorded)
    for window, touched in (("f=1&t=7", {"eu-west-1"}), ("f=7&t=8", {"eu-west-1", "us-east-1"}),
                            ("f=20&t=20", {"ap-guangzhou"}), ("f=45", {"ap-shanghai"}), ("f=54", set()),
                            ("f=54&t=99", set()), ("t=53", {r for _, r, _ in SOURCES})):
        read.clear()
        response = fleet.get(f"{ALL}&{window}&max_age=60")
        assert {key.split("/")[2] for key in read} == touched, window
        assert response.headers["X-Total-Count"] == "53"
        assert response.headers["Age"] == "5"
        assert response.headers["Cache-Status"] == "twocloud; hit"
        assert [(row["count"], row["age"]) for row in response.json()["sources"]] == [(7, 5), (12, 5), (25, 5), (9, 5)]
    assert calls(fleet) == before


# ---------------------------------------------------------------- if one cannot be heard

def test_one_party_fails_and_nothing_of_it_is_kept(fleet: App) -> None:
    fleet.clouds["aws"].fail("503")
    for more in ("", "&on_error=stale", "&on_error=fail", "&f=1&t=5", "&f=40"):
        error(fleet.get(ALL + more), 503, "party_unavailable")
        settle(fleet)
    response = fleet.get(f"{ALL}&on_error=partial")
    body = response.json()
    assert response.status_code == 200
    assert body["complete"] is False
    assert len(body["vm_servers"]) == 34
    assert [(row["state"], row["count"], row["age"], row["error"]) for row in body["sources"]] == [
        ("failed", None, None, "party_unavailable")] * 2 + [("ok", 25, 0, ""), ("ok", 9, 0, "")]
    assert body["msg"].startswith("aws eu-west-1: missing from this answer. The party cannot be reached")
    assert "aws us-east-1: missing from" in body["msg"]
    assert "X-Total-Count" not in response.headers
    assert "Age" not in response.headers
    assert "Link" not in fleet.get(f"{ALL}&on_error=partial&f=1&t=5").headers


def test_one_party_fails_and_its_lists_are_kept(fleet: App) -> None:
    good = fleet.get(ALL).json()
    fleet.clouds["aws"].fail("503")
    fleet.clock.forward(77)
    error(fleet.get(f"{ALL}&on_error=fail"), 503, "party_unavailable")
    settle(fleet)
    for more in ("", "&on_error=stale", "&on_error=partial"):
        response = fleet.get(ALL + more)
        body = response.json()
        assert [row["instance_id"] for row in body["vm_servers"]] == [row["instance_id"] for row in good["vm_servers"]]
        assert body["complete"] is True
        assert response.headers["X-Total-Count"] == "53"
        assert [(row["state"], row["count"], row["age"], row["error"]) for row in body["sources"]] == [
            ("stale", 7, 77, "party_unavailable"), ("stale", 12, 77, "party_unavailable"), ("ok", 25, 0, ""),
            ("ok", 9, 0, "")]
        assert response.headers["Age"] == "77"
        assert response.headers["Cache-Status"] == "twocloud; hit; detail=party_unavailable"
        assert body["msg"].startswith("aws eu-west-1: this is a stale snapshot, 77 s old. ")
        assert {row["seen_at"] for row in body["vm_servers"][:19]} == {"2026-09-21 14:13:20"}
        assert {row["seen_at"] for row in body["vm_servers"][19:]} == {"2026-09-21 14:14:37"}


def test_whatever_fails_nothing_is_lost_without_a_word(fleet: App) -> None:
    """P1 over many sources: each one's rows are all there, or its failure is named, or the answer is an error."""
    dice, sizes = random.Random(3), {(party, region): count for party, region, count in SOURCES}
    for _ in range(40):
        for cloud in fleet.clouds.values():
            cloud.forget()
            if dice.random() < 0.7:
                cloud.fail(dice.choice(["503", "403", "html", "cut body", "500"]), None,
                           tuple(dice.sample(range(1, 9), dice.randrange(1, 7))))
        fleet.clock.forward(400)            # breakers end, lists of refused credentials do not last
        on_error = dice.choice(["stale", "fail", "partial"])
        response = fleet.get(f"{ALL}&on_error={on_error}")
        if response.status_code != 200:
            assert "vm_servers" not in response.text
            assert on_error != "partial"
            continue
        body = response.json()
        for row in body["sources"]:
            rows = [s for s in body["vm_servers"] if (s["party"], s["region"]) == (row["party"], row["region"])]
            if row["state"] == "failed":
                assert not rows
                assert body["complete"] is False
                assert row["error"]
                assert row["count"] is None
            else:
                assert len(rows) == row["count"] == sizes[row["party"], row["region"]]
                assert (row["state"] == "stale") == bool(row["error"]) == bool(row["age"])
        assert [(row["party"], row["region"]) for row in body["sources"]] == [(party, region)
                                                                              for party, region, _ in SOURCES]
        assert body["complete"] == all(row["state"] != "failed" for row in body["sources"])


@pytest.mark.sample(2)
@pytest.mark.parametrize("named", [True, False])
def test_one_cloud_hangs_and_the_answer_comes_and_says_so(fleet: App, monkeypatch: pytest.MonkeyPatch,
                                                          named: bool) -> None:
    """Whether the account names its regions or the party would have to be asked for them first."""
    monkeypatch.setattr(sender_module, "CALL_SECONDS", 1.5)
    if not named:
        put(fleet, "aws")
    fleet.clouds["aws"].fail("hang")
    started = time.monotonic()
    response = fleet.get(f"{ALL}&on_error=partial")
    assert time.monotonic() - started < 20
    body = response.json()
    assert response.status_code == 200
    assert body["complete"] is False
    assert len(body["vm_servers"]) == 34
    assert {(row["party"], row["state"], row["error"])
            for row in body["sources"]} == {("aws", "failed", "party_timeout"), ("qcloud", "ok", "")}
    error(fleet.get(ALL), 504, "party_timeout")
    fleet.clouds["aws"].forget()
    settle(fleet)
    assert fleet.get(ALL).json()["complete"] is True
    fleet.clouds["aws"].fail("hang")
    fleet.clock.forward(10)
    stale = fleet.get(ALL)
    rows = [row for row in stale.json()["sources"] if row["party"] == "aws"]
    assert {(row["state"], row["age"]) for row in rows} == {("stale", 10)}
    assert stale.json()["complete"] is True
    assert sum(row["count"] for row in rows) == 19


def test_all_of_it_keeps_the_deadline(fleet: App) -> None:
    """Everything hangs, at the call for regions and at every list: the answer is there within its time."""
    put(fleet, "aws")
    put(fleet, "qcloud")
    for cloud in fleet.clouds.values():
        cloud.fail("hang")
    started = time.monotonic()
    with pytest.raises(PartyError):
        answer(fleet, ALL, 6.0)
    assert answer(fleet, f"{ALL}&on_error=partial", 6.0).complete is False
    assert time.monotonic() - started < 12


@pytest.mark.slow
def test_a_party_that_does_not_tell_its_regions_does_not_keep_the_others_from_it(fleet: App) -> None:
    put(fleet, "aws")
    put(fleet, "qcloud")
    fleet.clouds["aws"].fail("hang")
    response = answer(fleet, f"{ALL}&on_error=partial", 10.0)
    silent = response.parts[0]
    assert (silent.source.party, silent.source.region, silent.state) == ("aws", "all", "failed")
    assert [part.state for part in response.parts[1:]] == ["ok"] * 9
    assert len(servers(response)) == 34


# ---------------------------------------------------------------- regions that the party tells

def test_regions_are_asked_for_once_an_hour(fleet: App) -> None:
    put(fleet, "aws")
    aws = fleet.clouds["aws"]
    for _ in range(3):
        body = fleet.get("party=aws&tenant_id=123&region=all").json()
        assert [row["region"] for row in body["sources"]] == sorted(
            ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1", "ap-northeast-1"])
        assert [row["count"] for row in body["sources"]] == [0, 0, 0, 7, 12, 0]
        fleet.clock.forward(1200)
    assert aws.count("DescribeRegions") == 1
    fleet.clock.forward(1)
    fleet.get("party=aws&tenant_id=123&region=all")
    assert aws.count("DescribeRegions") == 2
    put(fleet, "aws")                       # another account: what was told to the old one does not count
    fleet.get("party=aws&tenant_id=123&region=all")
    assert aws.count("DescribeRegions") == 3


def test_many_callers_ask_for_regions_once(fleet: App) -> None:
    put(fleet, "aws")
    fleet.clouds["aws"].latency = 0.2
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: answer(fleet, "party=aws&tenant_id=123&region=all&max_age=99"), range(20)))
    assert {fleet.total for fleet in answers} == {19}
    assert fleet.clouds["aws"].count("DescribeRegions") == 1


def test_regions_that_cannot_be_asked_for(fleet: App) -> None:
    """The party's last answer is accepted for a while; without it the party has failed, and says so."""
    put(fleet, "aws")
    every = "party=aws,qcloud&tenant_id=123&region=all"
    fleet.clouds["aws"].fail("503", "DescribeRegions")
    error(fleet.get(every), 503, "party_unavailable")
    body = fleet.get(f"{every}&on_error=partial").json()
    assert body["sources"][0] == {"party": "aws", "region": "all", "state": "failed", "count": None, "age": None,
                                  "error": "party_unavailable", "msg": body["sources"][0]["msg"], "tenant_id": "123",
                                  "account": "default"}
    assert body["complete"] is False
    assert len(body["vm_servers"]) == 34
    fleet.clouds["aws"].forget()
    fleet.clock.forward(60)
    assert fleet.get(every).json()["complete"] is True
    fleet.clouds["aws"].fail("503", "DescribeRegions")
    fleet.clock.forward(7200)
    body = fleet.get(every).json()
    assert body["complete"] is True
    assert len(body["sources"]) == 8
    assert len(body["vm_servers"]) == 53
    error(fleet.get(f"{every}&on_error=fail"), 503, "party_unavailable")


# ---------------------------------------------------------------- names of regions

def test_a_region_that_belongs_to_the_other_party_is_left_out(fleet: App) -> None:
    for pairs in ("party=aws,qcloud&region=us-east-1,gz", "party=all&region=us-east-1,gz"):
        body = fleet.get(f"{pairs}&tenant_id=123").json()
        assert [(row["party"], row["region"]) for row in body["sources"]] == [("aws", "us-east-1"),
                                                                              ("qcloud", "ap-guangzhou")]
    # its form would fit both, only one knows it
    body = fleet.get("party=aws,qcloud&tenant_id=123&region=na-siliconvalley,us-east-1").json()
    assert [(row["party"], row["region"]) for row in body["sources"]] == [("aws", "us-east-1"),
                                                                          ("qcloud", "na-siliconvalley")]


@pytest.mark.parametrize("pairs", [
    "party=aws,qcloud&region=us-east-1,na-nowhere", "party=all&region=gz,na-nowhere",
    "party=qcloud&region=gz,ap-nowhere", "party=qcloud&region=gz,??",
    "party=aws&region=gz,sh", "party=aws,qcloud&region=nowhere", "party=all&region=nowhere",
    "party=all&region=na-nowhere"])
def test_a_region_that_nobody_knows_is_an_error(fleet: App, pairs: str) -> None:
    """A typo is never left out without a word."""
    error(fleet.get(f"{pairs}&tenant_id=123"), 400, "invalid_parameter", "region")
    partial = fleet.get(f"{pairs}&tenant_id=123&on_error=partial")
    if partial.status_code == 200:
        failed = [row for row in partial.json()["sources"] if row["state"] == "failed"]
        assert partial.json()["complete"] is False
        assert failed
        assert {row["error"] for row in failed} == {"invalid_parameter"}


# ---------------------------------------------------------------- who may see what

def test_all_is_what_the_token_covers(fleet: App) -> None:
    ann = fleet.user("bea")
    for limits, expected in ((("parties", ("aws",)), SOURCES[:2]), (("regions", ("gz", "us-east-1")), SOURCES[1:3]),
                             (("regions", ("ap-shanghai",)), SOURCES[3:])):
        token = fleet.issue(ann, **{limits[0]: limits[1]})
        for pairs in ("party=all&region=all", *(["party=all&region=gz,sh,us-east-1,eu-west-1"] if limits[0] == "regions"
                                                else [])):
            body = fleet.get(f"{pairs}&tenant_id=123", token=token).json()
            assert [(row["party"], row["region"], row["count"]) for row in body["sources"]] == expected
            assert {row["party"] for row in body["vm_servers"]} == {party for party, _, _ in expected}


def same(answers: list[Any]) -> tuple[int, str]:
    """The one status and the one body of them all, but for their request ids."""
    texts = {(a.status_code, a.text.replace(a.headers["X-Request-Id"], "")) for a in answers}
    assert len(texts) == 1, texts
    return next(iter(texts))


def test_foreign_and_missing_look_alike(fleet: App) -> None:
    put(fleet, "aws", ("us-east-1",), tenant="7")
    narrow = fleet.issue(fleet.user("cid"), parties=("qcloud",), regions=("gz",))
    for pairs in ("party=all&region=all", "party=all&region=gz", "party=aws,qcloud&region=all",
                  "party=aws&region=us-east-1,eu-west-1",
                  "party=all&region=all&max_age=99&on_error=partial",
                  "party=all&region=all&changed_since=2026-09-21T14:00:00Z"):
        assert same([fleet.get(f"{pairs}&tenant_id={tenant}") for tenant in ("7", "8", "999", "123x")])[0] == 403
        assert same([fleet.get(f"{pairs}&tenant_id={tenant}", token=narrow) for tenant in ("7", "8")])[0] == 403
    # named beyond the token, whether or not there is an account or a list
    fleet.get(ALL)
    assert same([fleet.get(f"{pairs}&tenant_id=123", token=narrow) for pairs in (
        "party=aws,qcloud&region=all", "party=qcloud&region=gz,sh", "party=qcloud&region=gz,ap-beijing",
        "party=aliyun,qcloud&region=all",
        "party=aws&region=us-east-1,eu-west-1", "party=qcloud&region=gz,sh&max_age=99",
        "party=qcloud&region=gz,sh&on_error=partial")])[0] == 403
    assert fleet.get("party=qcloud&region=all&tenant_id=123", token=narrow).json()["sources"][0]["count"] == 25


def test_an_account_that_is_missing(fleet: App) -> None:
    wide = fleet.issue(fleet.user("dan", tenants=("*",)))
    for pairs in ("party=aliyun,azure&tenant_id=123&region=all", "party=aliyun&tenant_id=123&region=cn-hangzhou",
                  "party=aliyun&tenant_id=123,7&region=all",
                  "party=all&tenant_id=8&region=all", "party=all&tenant_id=8&region=gz",
                  "party=qcloud&tenant_id=8&region=gz,sh"):
        error(fleet.get(pairs, token=wide), 404, "account_not_found")
    for pairs in ("party=aliyun,qcloud&tenant_id=123&region=all",               # what is missing is left out
                  "party=aliyun,qcloud&tenant_id=123&region=gz,cn-hangzhou"):
        answer = fleet.get(pairs, token=wide)
        assert answer.status_code == 200, answer.text
        assert {source["party"] for source in answer.json()["sources"]} == {"qcloud"}


def test_checks_come_in_their_order(fleet: App) -> None:
    narrow = fleet.issue(fleet.user("eli"), parties=("qcloud",))
    error(fleet.get("party=all&tenant_id=8&region=all&on_error=maybe", token="x"), 401, "unauthorized")
    error(fleet.get("party=all&tenant_id=8&region=all&on_error=maybe"), 400, "invalid_parameter", "on_error")
    error(fleet.get("party=aws,qcloud&tenant_id=8&region=nowhere"), 400, "invalid_parameter", "region")
    error(fleet.get("party=all&tenant_id=8&region=all&changed_since=2020-01-01T00:00:00Z"), 400, "invalid_parameter",
          "changed_since")
    error(fleet.get("party=aws,aliyun&tenant_id=123&region=us-east-1", token=narrow), 403, "forbidden")
    error(fleet.get(f"{GZ}&on_error=partial"), 400, "invalid_parameter", "on_error")
    error(fleet.get(f"{US.replace('us-east-1', 'us-east-1,us-east-1')}&on_error=partial"), 400, "invalid_parameter",
          "on_error")


# ---------------------------------------------------------------- more than can be asked

@pytest.fixture
def wide(fleet: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """One server in each of as many regions as a test wants."""
    names = [f"ap-r{n:03}" for n in range(170)]
    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", tuple(names))
    fleet.clouds["qcloud"].fleets = {name: Fleet(1, name) for name in names}     # type: ignore[attr-defined]
    yield fleet


EVERYWHERE = "party=qcloud&tenant_id=123&region=all"


def test_more_sources_than_can_be_asked_at_once(wide: App) -> None:
    """64 are queried, those whose snapshots are oldest; the others come from snapshots, and say so."""
    cloud = wide.clouds["qcloud"]
    put(wide, "qcloud", tuple(f"ap-r{n:03}" for n in range(100)))
    assert answer(wide, EVERYWHERE).total == 100
    assert cloud.count() == 100
    wide.clock.forward(10)
    first = answer(wide, EVERYWHERE)
    assert cloud.count() == 164
    assert first.complete
    assert first.total == 100
    assert len(servers(first)) == 100
    assert [(part.state, part.age) for part in first.parts].count(("ok", 0)) == 64
    spared = [part for part in first.parts if part.state == "stale"]
    assert len(spared) == 36
    assert {(part.age, part.error.code if part.error else "") for part in spared} == {(10, "party_timeout")}
    assert "Too many sources" in formats.message(first)
    wide.clock.forward(10)
    second = answer(wide, f"{EVERYWHERE}&f=3&t=60")
    # now it is their turn
    assert {part.source for part in second.parts if part.state == "ok"} >= {part.source for part in spared}
    assert len(servers(second)) == 58
    assert second.total == 100
    with pytest.raises(PartyError, match="Too many sources"):
        answer(wide, f"{EVERYWHERE}&on_error=fail")
    calls = cloud.count()
    assert {part.state for part in answer(wide, f"{EVERYWHERE}&max_age=99").parts} == {"ok"}
    assert cloud.count() == calls
    wide.clock.forward(86_401)
    with pytest.raises(PartyError, match="Too many sources"):           # what is kept is too old
        answer(wide, EVERYWHERE)
    partial = answer(wide, f"{EVERYWHERE}&on_error=partial")
    assert [part.state for part in partial.parts].count("failed") == 0 or partial.complete is False


@pytest.mark.slow
def test_more_new_sources_than_can_be_asked_at_once(wide: App) -> None:
    """Nothing is kept: 160 are asked, the rest fail by name, and are asked first the next time."""
    put(wide, "qcloud", tuple(f"ap-r{n:03}" for n in range(170)))
    with pytest.raises(PartyError, match="Too many sources"):
        answer(wide, EVERYWHERE)
    wide.clock.forward(5)
    again = answer(wide, EVERYWHERE)
    assert again.complete
    assert again.total == 170
    assert [part.state for part in again.parts].count("ok") == 64


def test_a_source_that_breaks_is_our_fault(fleet: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the party's: no partial answer hides it."""
    def broken(*_: object) -> None:
        raise KeyError("gone")

    party = parties.load("aws")
    monkeypatch.setattr("chalicelib.parties.load", lambda name,
                        real=parties.load: structs.replace(party, list_servers=broken)
                        if name == "aws" else real(name))
    error(fleet.get(f"{ALL}&on_error=partial"), 500, "internal")
    assert fleet.get(GZ).status_code == 200


def test_threads_and_descriptors_do_not_pile_up(fleet: App) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for _ in range(3):
        fleet.get(ALL)
    time.sleep(0.5)
    before = held()
    for n in range(40):
        assert fleet.get(ALL if n % 2 else f"{ALL}&max_age=999").status_code == 200
    until = time.monotonic() + 10
    while max(now - then for now, then in zip(held(), before, strict=True)) > 12 and time.monotonic() < until:
        time.sleep(0.1)
    assert max(now - then for now, then in zip(held(), before, strict=True)) <= 12


def test_the_source_of_a_record_is_its_own(fleet: App) -> None:
    for row in fleet.get(ALL).json()["vm_servers"]:
        assert (row["party"], row["region"]) in {(party, region) for party, region, _ in SOURCES}
        assert row["tenant_id"] == "123"
        assert row["instance_id"].startswith({"aws": "i-", "qcloud": "ins-"}[row["party"]])
    with pytest.raises(TwocloudError):
        many_sources.list_servers(fleet.deployment, Source("123", "qcloud", "ap-nowhere"))
