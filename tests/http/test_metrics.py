"""`GET /twocloud/metrics`: what Prometheus is given of each source that a token opens, and of this process."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from chalicelib import __version__, parties
from chalicelib.access import accounts, tokens, users
from chalicelib.fleet import known_regions, known_sources, schedule
from chalicelib.http import api, formats, metrics
from chalicelib.model import Member, Region, Server, Source, Status
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import snapshots
from tests.fixtures import GZ, US, App
from tests.http.test_me import REGIONS, TOKENS, USERS, discovered, put, revision

METRICS = "/twocloud/metrics"
Values = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def values(text: str) -> Values:
    """(name, labels) -> value; each only once."""
    samples = [sample for family in read_plain(text) for sample in family.samples]
    by_labels = {(it.name, frozenset(it.labels.items())): it.value for it in samples}
    assert len(by_labels) == len(samples)
    return by_labels


def scrape(app: App, token: str | None = None) -> Values:
    answer = app.get("", token, path=METRICS)
    assert answer.status_code == 200, answer.text
    return values(answer.text)


def of(samples: Values, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
    """The values with these labels, by their other labels."""
    wanted = frozenset(labels.items())
    return {others - wanted: value for (own, others), value in samples.items() if own == name and wanted <= others}


def one(samples: Values, name: str, **labels: str) -> float | None:
    matching = list(of(samples, name, **labels).values())
    assert len(matching) < 2, matching
    return matching[0] if matching else None


def sources(samples: Values, name: str = "twocloud_source_up") -> set[tuple[str, str, str, str]]:
    return {tuple(dict(labels)[it] for it in metrics.SOURCE) for labels in of(samples, name)}    # type: ignore[misc]


def keep(app: App, source: Source, *servers: Server, age: float = 0.0) -> None:
    """A snapshot, as a refresh leaves it."""
    own = revision(app, source.tenant_id, source.party, source.account.partition(":")[0])
    snapshots.save(app.deployment.store, source, own, servers, app.clock() - age, history=86_400)


GZ_LABELS = {"tenant_id": "123", "party": "qcloud", "account": "default", "region": "ap-guangzhou"}


# ---------------------------------------------------------------- the sources

def test_a_source_from_before_its_first_listing_to_its_recovery(served: App) -> None:
    never = {"tenant_id": "123", "party": "qcloud", "account": "default", "region": "all"}
    samples = scrape(served)
    assert one(samples, "twocloud_source_up", **never) == 0       # put, and nobody has read it
    assert of(samples, "twocloud_servers") == of(samples, "twocloud_source_age_seconds") == {}
    assert not any(cloud.calls for cloud in served.clouds.values())

    served.get(GZ)
    served.clock.forward(60)
    calls = served.clouds["qcloud"].count()
    samples = scrape(served)
    assert one(samples, "twocloud_source_up", **never) is None
    assert one(samples, "twocloud_source_up", **GZ_LABELS) == 1
    assert one(samples, "twocloud_source_age_seconds", **GZ_LABELS) == 60
    assert one(samples, "twocloud_source_refresh_interval_seconds", **GZ_LABELS) == schedule.READ_EVERY
    rows = served.get(f"{GZ}&max_age=9999").json()["vm_servers"]
    by_status = of(samples, "twocloud_servers", **GZ_LABELS)
    assert {dict(labels)["status"]: value for labels, value in by_status.items()} == {
        status: sum(row["status"] == status for row in rows) for status in {row["status"] for row in rows}}

    served.clouds["qcloud"].fail("html")
    for _ in range(8):
        served.get(GZ)
    calls = served.clouds["qcloud"].count()
    samples = scrape(served)
    assert one(samples, "twocloud_source_up", **GZ_LABELS) == 0
    assert one(samples, "twocloud_source_last_error", **GZ_LABELS, error="party_malformed") == 1
    assert one(samples, "twocloud_source_breaker_open", **GZ_LABELS) == 1
    assert sum(of(samples, "twocloud_servers", **GZ_LABELS).values()) == 25       # the snapshot is still there

    served.clock.forward(5 * 3600)                              # nobody has tried since: it is no better
    samples = scrape(served)
    assert one(samples, "twocloud_source_up", **GZ_LABELS) == 0
    assert one(samples, "twocloud_source_last_error", **GZ_LABELS, error="party_malformed") == 1
    assert one(samples, "twocloud_source_breaker_open", **GZ_LABELS) == 0
    assert one(samples, "twocloud_source_refresh_interval_seconds", **GZ_LABELS) == schedule.IDLE_EVERY
    assert served.clouds["qcloud"].count() == calls

    served.clouds["qcloud"].plans.clear()
    served.get(GZ)
    samples = scrape(served)
    assert one(samples, "twocloud_source_up", **GZ_LABELS) == 1
    assert of(samples, "twocloud_source_last_error", **GZ_LABELS) == {}


def test_an_empty_source_has_servers_all_the_same(served: App) -> None:
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Fleet(0)                       # type: ignore[attr-defined]
    served.get(GZ)
    assert of(scrape(served), "twocloud_servers", **GZ_LABELS) == {frozenset({("status", "ACTIVE")}): 0}


def test_servers_that_end_soon(served: App) -> None:
    """To the hour, at the time of the scrape; also those that have ended and are still listed; as long as the snapshot
    lives."""
    def at(days: float) -> datetime:
        return datetime.fromtimestamp(served.clock() + days * 86_400, UTC)

    keep(served, Source("123", "qcloud", "ap-guangzhou"), *(
        Server(id=f"i{number}", name="", expires_at=end) for number, end in enumerate(
            [None, at(-9), at(-0.1), at(0.1), at(6.9), at(7.1), at(29.9), at(30.1), at(59.9), at(61), at(900)])))

    def expiring() -> list[float | None]:
        samples = scrape(served)
        return [one(samples, "twocloud_servers_expiring", **GZ_LABELS, days=days) for days in ("7", "30")]

    assert expiring() == [4, 6]
    served.clock.forward(0.2 * 86_400)
    assert expiring() == [5, 7]
    served.clock.forward(29.75 * 86_400)
    served.token = served.issue(served.user("bob"))
    assert expiring() == [7, 8]
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Fleet(3)                       # type: ignore[attr-defined]
    served.get(GZ)
    assert expiring() == [0, 0]


def test_counts_of_ten_thousand_ends_fit_the_head(served: App) -> None:
    servers = [Server(id=f"i{n}", name="", expires_at=datetime.fromtimestamp(served.clock() + n * 600, UTC))
               for n in range(10_000)]
    keep(served, Source("123", "qcloud", "ap-guangzhou"), *servers)
    row = served.deployment.store.get("snapshot", "123/qcloud/ap-guangzhou")
    assert row
    assert len(row.value) < 12_000
    week = sum(1 for n in range(10_000) if n * 600 < 7 * 86_400)
    assert one(scrape(served), "twocloud_servers_expiring", **GZ_LABELS, days="7") == pytest.approx(week, abs=6)


def test_regions_that_an_account_names_are_sources_before_they_are_listed(served: App) -> None:
    put(served, "7", "qcloud", "prod", ("ap-guangzhou", "ap-shanghai"))
    token = served.issue(served.user("bob", ("7",)))
    assert sources(scrape(served, token)) == {("7", "qcloud", "prod", region)
                                              for region in ("ap-guangzhou", "ap-shanghai")}
    keep(served, Source("7", "qcloud", "ap-beijing", "prod"))   # read by name, though the account does not name it
    assert ("7", "qcloud", "prod", "ap-beijing") in sources(scrape(served, token))
    put(served, "7", "qcloud", "prod", ("ap-guangzhou",))       # another account of the name: nothing of the old one
    samples = scrape(served, token)
    assert sources(samples) == {("7", "qcloud", "prod", "ap-guangzhou")}
    assert one(samples, "twocloud_source_up", tenant_id="7") == 0


def test_a_snapshot_of_another_account_counts_as_none(served: App) -> None:
    put(served, "7", "qcloud", "prod", ("ap-guangzhou",))
    snapshots.save(served.deployment.store, Source("7", "qcloud", "ap-guangzhou", "prod"), "another", [],
                   served.clock(), history=1)
    samples = scrape(served, served.issue(served.user("bob", ("7",))))
    assert one(samples, "twocloud_source_up", tenant_id="7") == 0
    assert of(samples, "twocloud_source_age_seconds") == {}


def test_a_party_that_does_not_list_its_regions(served: App) -> None:
    """The failure is that of region `all`, for an hour; an account that names its regions does not need them."""
    served.clouds["qcloud"].fail("401")
    served.get("party=qcloud&tenant_id=123&region=all")
    served.clouds["qcloud"].plans.clear()
    served.get(GZ)
    samples = scrape(served)
    assert one(samples, "twocloud_source_up", **GZ_LABELS) == 1
    every = {**GZ_LABELS, "region": "all"}
    assert one(samples, "twocloud_source_up", **every) == 0
    assert len(of(samples, "twocloud_source_last_error", **every)) == 1
    served.clock.forward(3601)
    assert one(scrape(served), "twocloud_source_up", **every) is None


def test_doors_and_their_members(served: App) -> None:
    put(served, "7", "aws", "org", ("us-east-1",), discover=True)
    token = served.issue(served.user("bob", ("7",)))
    assert sources(scrape(served, token)) == {("7", "aws", "org", "all")}           # nobody has looked behind it
    discovered(served, "7", "aws", "org", Member(id="111111111111"), Member(id="222222222222", closed="SUSPENDED"))
    assert sources(scrape(served, token)) == {("7", "aws", "org:111111111111", "us-east-1")}
    keep(served, Source("7", "aws", "us-east-1", "org:111111111111"))
    assert one(scrape(served, token), "twocloud_source_up", account="org:111111111111") == 1


def test_an_account_whose_row_is_damaged(served: App) -> None:
    served.deployment.store.put("account", "7/qcloud", b"{")
    samples = scrape(served, served.issue(served.user("bob", ("7",))))
    assert one(samples, "twocloud_source_up", tenant_id="7", region="all") == 0
    assert one(samples, "twocloud_source_last_error", tenant_id="7", region="all", error="internal") == 1


def test_a_failure_that_another_version_wrote_is_one_of_ours(served: App) -> None:
    """No text of the store becomes a label's value."""
    served.get(GZ)
    served.deployment.store.put("breaker", "123/qcloud/ap-guangzhou", msgspec.msgpack.encode(
        {"word": "party_of_the_future", "text": "<secret>", "at": served.clock(),
         "revision": revision(served, "123", "qcloud")}))
    answer = served.get("", path=METRICS).text
    assert one(values(answer), "twocloud_source_last_error", **GZ_LABELS, error="party_error") == 1
    assert "future" not in answer
    assert "<secret>" not in answer


HOSTILE = ["a b", 'q"q', "back\\slash", "{x=\"1\"}", "名", "\u202egnp", "tab\there", "x" * 500, "# EOF", "a,b"]


def test_hostile_names_of_regions(served: App) -> None:
    """A datacenter of vSphere has any name. Each is read again as it was; none makes a line of its own."""
    put(served, "7", "qcloud", "default", ("ap-guangzhou",))
    names = [*HOSTILE, "line\nbreak", "\\n"]
    for name in names:
        keep(served, Source("7", "qcloud", name))
    token = served.issue(served.user("bob", ("7",)))
    assert {it[3] for it in sources(scrape(served, token))} == {*names, "ap-guangzhou"}
    text = served.get("", token, path=METRICS, headers={"Accept": "application/openmetrics-text"}).text
    families = {family.name: family for family in read_openmetrics(text)}
    assert {sample.labels["region"] for sample in families["twocloud_source_up"].samples} == {*names, "ap-guangzhou"}


# ---------------------------------------------------------------- what a scrape reads

@contextmanager
def reads(app: App, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The kinds of rows that are read or listed."""
    kinds, store = list[str](), app.deployment.store
    get, get_many, listing = store.get, store.get_many, store.list

    def noted(kind: str) -> str:
        kinds.append(kind)
        return kind

    with patch.context() as patched:
        patched.setattr(store, "get", lambda kind, key: get(noted(kind), key))
        patched.setattr(store, "get_many", lambda places: get_many([(noted(kind), key) for kind, key in places]))
        patched.setattr(store, "list", lambda kind, *more: listing(noted(kind), *more))
        yield kinds


def without_counts(app: App, key: str) -> None:
    """The head as version 0.1.0 wrote it."""
    row = app.deployment.store.get("snapshot", key)
    assert row
    head = msgspec.msgpack.decode(row.value)
    assert head.pop("counts")
    app.deployment.store.put("snapshot", key, msgspec.msgpack.encode(head))


def test_a_scrape_reads_no_snapshot(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    served.get(GZ)
    served.get(US)
    with reads(served, monkeypatch) as kinds:
        scrape(served)
    assert sorted(kinds) == ["account", "breaker", "health", "interest", "named", "snapshot", "token", "user"]


def test_a_snapshot_of_an_older_version_is_read_once(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    served.get(GZ)
    expected = of(scrape(served), "twocloud_servers", **GZ_LABELS)
    without_counts(served, "123/qcloud/ap-guangzhou")
    for chunks in (1, 0):
        with reads(served, monkeypatch) as kinds:
            samples = scrape(served)
        assert of(samples, "twocloud_servers", **GZ_LABELS) == expected
        assert of(samples, "twocloud_servers_expiring", **GZ_LABELS) == {}         # it could not say when one ends
        assert kinds.count("chunk") == chunks
    served.clock.forward(60)
    served.get(GZ)                          # an unchanged list: its head has counts from now on
    head = snapshots.find(served.deployment.store, Source("123", "qcloud", "ap-guangzhou"),
                          revision(served, "123", "qcloud"))
    assert head
    assert head.counts
    assert sum(head.counts.by_status.values()) == 25


def test_a_snapshot_of_an_older_version_whose_rows_are_gone(served: App) -> None:
    served.get(GZ)
    without_counts(served, "123/qcloud/ap-guangzhou")
    store = served.deployment.store
    store.delete("chunk", *[key for key, _ in store.list("chunk", "123/qcloud/ap-guangzhou/")])
    samples = scrape(served)
    assert of(samples, "twocloud_servers", **GZ_LABELS) == {}     # not 0: it is not known
    assert one(samples, "twocloud_source_up", **GZ_LABELS) == 1


def test_too_many_old_snapshots_for_one_scrape(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    served.get(GZ)
    without_counts(served, "123/qcloud/ap-guangzhou")
    monkeypatch.setattr(known_sources, "_ROOM", 26.0)           # no time is left
    assert of(scrape(served), "twocloud_servers", **GZ_LABELS) == {}


@pytest.mark.slow
def test_a_thousand_sources(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = tuple(f"ap-far{n}" for n in range(1000))
    put(served, "7", "qcloud", "default", regions)
    for region in regions:
        keep(served, Source("7", "qcloud", region), Server(id="i", name="", status=Status.ACTIVE))
    token = served.issue(served.user("bob", ("7",)))
    with reads(served, monkeypatch) as kinds:
        samples = scrape(served, token)
    assert len(kinds) == 8
    assert len(sources(samples)) == 1000
    assert sum(of(samples, "twocloud_servers").values()) == 1000


def test_more_than_one_answer_holds_is_413(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    served.get(GZ)
    monkeypatch.setattr(formats.fits, "__defaults__", (100,))
    answer = served.get("", path=METRICS)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


# ---------------------------------------------------------------- who sees what

@pytest.mark.slow
def test_it_shows_what_servers_answers(served: App) -> None:
    """Of every user and token: a source is there if and only if a list of it is not 403."""
    put(served, "7", "qcloud", "default", REGIONS["qcloud"])
    put(served, "7", "qcloud", "prod", REGIONS["qcloud"])
    put(served, "7", "aws", "default", REGIONS["aws"])
    put(served, "8", "aws", "default", REGIONS["aws"])
    store, compared = served.deployment.store, set[bool]()
    every = [Source(row.tenant_id, row.party, region, row.account) for row in accounts.every(store)
             if row.tenant_id != "123" for region in REGIONS[row.party]]
    for source in every:
        keep(served, source)
    for number, limits in enumerate(USERS):
        user = served.user(f"user-{number}", **limits)
        for narrow in TOKENS:
            users.change(store, user.name, lambda it: msgspec.structs.replace(it, tenants=("*",), parties=(),
                                                                              regions=()))
            token = served.issue(users.find(store, user.name), **narrow)                # type: ignore[arg-type]
            users.change(store, user.name, lambda it, limits=limits: msgspec.structs.replace(it, **limits))
            shown = {it for it in sources(scrape(served, token)) if it[0] != "123"}
            opened = {(it.tenant_id, it.party, it.account, it.region) for it in every if served.get(
                f"party={it.party}&tenant_id={it.tenant_id}&account={it.account}&region={it.region}&max_age=99",
                token).status_code != 403}
            assert shown == opened, (limits, narrow)
            compared.add(bool(shown))
    assert compared == {True, False}


def test_a_limit_of_regions_hides_those_that_are_not_covered(served: App) -> None:
    """Also where the account names none: no region is invented from the token's limits."""
    put(served, "7", "qcloud")
    for region in ("ap-guangzhou", "ap-shanghai"):
        keep(served, Source("7", "qcloud", region))
    known_regions.keep(served.deployment.store, "7/qcloud", revision(served, "7", "qcloud"),
                       [Region(code="ap-guangzhou"), Region(code="ap-shanghai")], served.clock())
    user = served.user("bob", ("7",))
    assert {it[3] for it in sources(scrape(served, served.issue(user, regions=("gz",))))} == {"ap-guangzhou"}
    assert sources(scrape(served, served.issue(user, regions=("us-east-1",)))) == set()


def test_a_limit_of_regions_tells_nothing_of_the_other_regions(served: App) -> None:
    """Of an account that names none: the same bytes before and after a region is listed that the token does not
    cover. Of the limits, only those that the party has for certain are sources."""
    put(served, "7", "qcloud")
    put(served, "7", "aws")
    token = served.issue(served.user("bob", ("7",), regions=("gz", "us-east-1", "sa-saopaulo-99")))
    answers = list[bytes]()
    for region in ("ap-shanghai", "ap-beijing", None):
        families = served.get("", token, path=METRICS).content.partition(b"# HELP twocloud_build")[0]
        answers.append(families)
        if region:
            keep(served, Source("7", "qcloud", region))
    assert len(set(answers)) == 1
    assert sources(values(answers[0].decode())) == {("7", "qcloud", "default", "ap-guangzhou"),
                                                    ("7", "aws", "default", "us-east-1")}


def test_foreign_and_missing_tenants_cannot_be_told_apart(served: App) -> None:
    tokens_ = [served.issue(served.user("bob", ("8",))), served.issue(served.user("eve", ()))]
    before = [scrape(served, token).keys() for token in tokens_]
    put(served, "9", "aws")
    served.get(GZ)
    assert [scrape(served, token).keys() for token in tokens_] == [
        it | {key for key in now if key[0].startswith("twocloud_http_")}
        for it, now in zip(before, (scrape(served, token).keys() for token in tokens_), strict=True)]


@pytest.mark.parametrize("lost", ["revoked", "expired", "disabled", "removed"])
def test_a_token_without_access_is_401(served: App, lost: str) -> None:
    store = served.deployment.store
    scrape(served)
    if lost == "revoked":
        tokens.revoke_all(store, "ann")
    elif lost == "expired":
        served.clock.forward(86_400)
    elif lost == "disabled":
        users.change(store, "ann", lambda user: msgspec.structs.replace(user, disabled=True))
    else:
        store.delete("user", "ann")
    gone, unknown = served.get("", path=METRICS), served.get("", "tc_unknown", path=METRICS)
    assert gone.status_code == unknown.status_code == 401
    assert {**gone.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}


# ---------------------------------------------------------------- this process

def test_requests_are_counted_by_path_and_status(served: App) -> None:
    served.get(GZ)
    served.get(GZ, method="HEAD")
    served.get("x=1")
    served.get(GZ, "tc_unknown")
    served.get("", token="", path="/twocloud/servers/")
    for path in ("/", "/wp-login.php", "/twocloud/servers/1", "/twocloud/%73ervers", "/twocloud/nothing\"{}"):
        served.get("", token="", path=path)
    served.get("", path="/twocloud/health", method="BREW")
    wide = served.issue(served.user("eve", ("*",)))
    requests = {(dict(labels)["route"], dict(labels)["code"]): value
                for labels, value in of(scrape(served, wide), "twocloud_http_requests_total").items()}
    assert requests == {("/twocloud/servers", "200"): 2, ("/twocloud/servers", "400"): 1,
                        ("/twocloud/servers", "401"): 3, ("/twocloud/health", "405"): 1, ("other", "404"): 3,
                        ("other", "302"): 1}
    samples = scrape(served, wide)
    assert one(samples, "twocloud_http_requests_total", route=METRICS, code="200") == 1
    assert one(samples, "twocloud_http_request_duration_seconds_count") == 12
    assert one(samples, "twocloud_http_request_duration_seconds_bucket", le="+Inf") == 12


def test_a_request_that_cannot_be_read_is_counted(served: App) -> None:
    import socket

    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
        assert b" 400 " in connection.recv(4096)
    wide = served.issue(served.user("eve", ("*",)))
    assert one(scrape(served, wide), "twocloud_http_requests_total", route="other", code="400") == 1


def test_calls_are_counted_by_party_and_outcome(served: App) -> None:
    served.get(GZ)
    served.clouds["aws"].fail("503")
    served.get(US)
    wide = served.issue(served.user("eve", ("*",)))
    samples, cloud = scrape(served, wide), served.clouds
    assert one(samples, "twocloud_party_calls_total", party="qcloud", outcome="ok") == cloud["qcloud"].count()
    outcomes = {dict(labels)["outcome"]: count
                for labels, count in of(samples, "twocloud_party_calls_total", party="aws").items()}
    assert outcomes.keys() - {"cancelled"} == {"party_unavailable"}
    assert 0 < outcomes["party_unavailable"] <= cloud["aws"].count()    # one that was cancelled may not reach it
    assert one(samples, "twocloud_party_call_duration_seconds_count", party="aws") == sum(outcomes.values())
    assert 0 < (one(samples, "twocloud_party_call_duration_seconds_sum", party="qcloud") or 0) < 60


def test_regions_that_strangers_invent_make_no_label_and_no_entry(served: App) -> None:
    before = sources(scrape(served))
    for n in range(5):
        served.get(f"party=qcloud&tenant_id=123&region=ap-nowhere{n}")
        served.get(f"party=qcloud&tenant_id=404&region=ap-nowhere{n}")
    assert {it[3] for it in sources(scrape(served))} <= {it[3] for it in before} | {"all"}
    served.get("", path=METRICS)
    counters = served.deployment.transport.observe.__self__     # type: ignore[union-attr]
    assert {region for _, _, region in counters._own.calls} <= {"", parties.load("qcloud").default_region}


def test_a_token_sees_the_counters_of_what_it_covers(served: App) -> None:
    """Another tenant's traffic shows in no number of a token that does not open everything."""
    served.get(GZ)
    served.get(US)
    bob, mine = served.issue(served.user("bob", ("7",))), served.issue(served.user("me", ("123",), regions=("gz",)))
    limited = served.issue(served.user("all", ("*",)), parties=("aws",))
    assert of(scrape(served, bob), "twocloud_party_calls_total") == {}
    assert one(scrape(served, bob), "twocloud_http_request_duration_seconds_count") == 1        # its own before
    assert {dict(it)["party"] for it in of(scrape(served, mine), "twocloud_party_calls_total")} == {"qcloud"}
    assert {dict(it)["party"] for it in of(scrape(served, limited), "twocloud_party_calls_total")} == {"aws"}
    assert of(scrape(served, limited), "twocloud_http_requests_total", route="/twocloud/servers") == {}
    ann = of(scrape(served), "twocloud_http_requests_total", route="/twocloud/servers")
    assert ann == {frozenset({("code", "200")}): 2}


def test_elsewhere_than_in_serve_there_are_no_counters(served: App) -> None:
    """In Lambda each run of a function would count for itself."""
    answer = api.answer(lambda: served.deployment, METRICS, api.HttpRequest(
        "GET", METRICS, [], {"authorization": f"Bearer {served.token}"}, b"", "r", time.monotonic() + 25))
    assert answer.status == 200
    text = answer.body.decode()
    assert "twocloud_source_up" in text
    assert "twocloud_http" not in text
    assert "twocloud_party" not in text


def test_the_service_and_its_schedule(served: App) -> None:
    samples = scrape(served)
    assert one(samples, "twocloud_build_info", version=__version__) == 1
    assert of(samples, "twocloud_schedule_age_seconds") == of(samples, "twocloud_schedule_late") == {}
    schedule.finish(served.deployment, schedule.survey(served.deployment), 300)
    served.clock.forward(41)
    samples = scrape(served)
    assert (one(samples, "twocloud_schedule_age_seconds"), one(samples, "twocloud_schedule_late")) == (41, 0)
    served.clock.forward(900)
    assert one(scrape(served), "twocloud_schedule_late") == 1


# ---------------------------------------------------------------- the form

def test_headers_and_methods(served: App) -> None:
    served.get(GZ)
    answer, head = served.get("", path=METRICS), served.get("", path=METRICS, method="HEAD")
    assert answer.headers["Content-Type"] == head.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == head.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Authorization, Accept-Encoding"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "ETag" not in answer.headers
    assert (head.status_code, head.content) == (200, b"")
    plain = served.get("", path=METRICS, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        refused = served.get("", token="", path=METRICS, method=method)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    for query in ("tenant_id=123", "name[]=up", "x=1", "token=x"):
        refused = served.get(query, path=METRICS)
        assert refused.status_code == 400
        assert refused.json()["parameter"] == query.partition("=")[0]
    assert served.get("x=1", token="", path=METRICS).status_code == 401         # before 400
    bearer = served.get("", token="", path=METRICS, headers={"Authorization": f"Bearer {served.token}"})
    assert sources(values(bearer.text)) == sources(values(answer.text))


PROMETHEUS_2 = ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
PROMETHEUS_3 = ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
                "text/plain;version=0.0.4;q=0.3,*/*;q=0.2")


@pytest.mark.parametrize(("accept", "openmetrics"), [
    ("", False), ("*/*", False), ("text/plain", False), ("text/html", False), (PROMETHEUS_2, True),
    (PROMETHEUS_3, True), ("application/openmetrics-text", True), ("Application/OpenMetrics-Text; Version=1.0.0", True),
    ("application/openmetrics-text; version=99.0.0", False), ("application/openmetrics-text; version=0.0.1", False),
    ("application/openmetrics-text;q=0", False), ("application/openmetrics-text;q=0.3, text/plain;q=0.5", False),
    ("application/openmetrics-text;q=x", False), (";;,,;=", False), ("application/openmetrics-text;q=nan", False)])
def test_the_format_is_negotiated_as_prometheus_does(served: App, accept: str, openmetrics: bool) -> None:
    served.get(GZ)
    answer = served.get("", path=METRICS, headers={"Accept": accept})
    assert answer.status_code == 200
    assert (answer.headers["Content-Type"] == metrics.OPENMETRICS) == openmetrics
    assert answer.text.endswith("# EOF\n") == openmetrics
    if openmetrics:
        assert len(list(read_openmetrics(answer.text))) >= 6
    else:
        assert answer.headers["Content-Type"] == metrics.PLAIN
        assert sources(values(answer.text))


def test_the_schedules_reading_of_an_unread_source(served: App) -> None:
    """A scrape is no reading: sources that only Prometheus sees are refreshed as rarely as those that nobody reads."""
    put(served, "7", "qcloud", "default", ("ap-guangzhou",))
    token = served.issue(served.user("bob", ("7",)))
    for _ in range(2):
        assert one(scrape(served, token), "twocloud_source_refresh_interval_seconds") == schedule.REST_EVERY
    assert [key for key, _ in served.deployment.store.list("interest", "7/")] == []


def test_no_secret_is_in_it(served: App) -> None:
    served.get(GZ)
    text = served.get("", path=METRICS).text
    for secret in (served.token, "AKIDtest", "127.0.0.1", "ins-", revision(served, "123", "qcloud"), "ann"):
        assert secret not in text

