"""Parts of one list: what an X-List-Id names, how long it stays readable, and who may read it (P2, P3, P8)."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.model import Server, Source
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import lists, snapshots
from chalicelib.storage.store import Store
from tests.fixtures import GZ, START, US, App, Clock, aws_keys
from tests.http.test_serve import error

SOURCE = Source("123", "qcloud", "ap-guangzhou")
ALL = "party=all&tenant_id=123&region=gz,us-east-1"


def change(app: App, servers: int, region: str = "ap-guangzhou") -> None:
    """Another fleet at the cloud, and another list kept of it."""
    cloud: Any = app.clouds["qcloud"]
    cloud.fleets[region] = Fleet(servers)
    app.clock.forward(1)
    assert app.get(GZ).json()["code"] == 200


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["instance_id"] for row in answer.json()["vm_servers"]]


def calls(app: App) -> int:
    return sum(cloud.count() for cloud in app.clouds.values())


def link(answer: Any, rel: str = "next") -> str | None:
    match = re.search(rf'<([^>]*)>; rel="{rel}"', answer.headers.get("Link", ""))
    return urlsplit(match[1]).query if match else None


def walk(app: App, query: str | None, between: Iterator[Any] = iter(())) -> list[str]:
    """Every page, as `Link` leads, with something done between two of them."""
    names: list[str] = []
    while query:
        answer = app.get(query)
        names += ids(answer)
        next(between, None)
        query = link(answer)
    return names


# ---------------------------------------------------------------- one source

def test_a_list_keeps_its_id_while_it_stays_the_same(served: App) -> None:
    first = served.get(GZ).headers["X-List-Id"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", first)
    served.clock.forward(60)
    assert served.get(GZ).headers["X-List-Id"] == first         # listed again, and nothing had changed
    assert served.get(f"{GZ}&max_age=60&t=3").headers["X-List-Id"] == first
    served.clock.forward(1)
    change(served, 24)
    assert served.get(f"{GZ}&max_age=60").headers["X-List-Id"] != first


def test_only_a_list_that_is_kept_has_an_id(served: App) -> None:
    page = served.get(f"{GZ}&f=1&t=10")
    assert "X-List-Id" not in page.headers
    assert "list" not in parse_qs(link(page) or "")
    assert "X-List-Id" in served.get(f"{GZ}&f=1&t=25").headers  # which was the whole
    served.clouds["qcloud"].fail("500")
    assert "X-List-Id" in served.get(GZ).headers                # a stale snapshot
    assert "X-List-Id" not in served.get(f"{GZ}&on_error=fail").headers


def test_pages_are_of_one_list_however_the_fleet_changes(served: App) -> None:
    whole = ids(served.get(GZ))

    def changes() -> Iterator[None]:
        for servers in (24, 3, 40, 25, 0):
            change(served, servers)
            yield

    assert walk(served, f"{GZ}&f=1&t=4&max_age=60", changes()) == whole


def test_no_party_is_queried_whatever_is_asked_beside_it(served: App) -> None:
    name = served.get(GZ).headers["X-List-Id"]
    whole = ids(served.get(GZ))
    change(served, 7)
    before = calls(served)
    served.clouds["qcloud"].fail("500")
    for more in ("", "&max_age=0", "&max_age=1", "&on_error=fail", "&on_error=stale"):
        assert ids(served.get(f"{GZ}&list={name}{more}")) == whole
        assert ids(served.get(f"{GZ}&list={name}&f=11&t=20{more}")) == whole[10:20]
    assert ids(served.get(f"{GZ}&list={name}", headers={"Cache-Control": "no-cache"})) == whole
    assert calls(served) == before


def test_it_is_readable_for_ten_minutes_after_another_took_its_place(served: App) -> None:
    name = served.get(GZ).headers["X-List-Id"]
    served.clock.forward(50_000)                                # however long it was the last one
    change(served, 7)
    for _ in range(60):
        served.clock.forward(10)
        assert len(ids(served.get(f"{GZ}&list={name}"))) == 25
    served.clock.forward(400)
    change(served, 8)
    assert "Start again" in error(served.get(f"{GZ}&list={name}"), 409, "list_changed")
    assert len(ids(served.get(GZ))) == 8


def test_a_list_at_the_end_of_its_life_is_readable_for_ten_minutes_too(store: Store, clock: Clock) -> None:
    month = 30 * 86_400
    servers = [Server(id=str(n), name="") for n in range(900)]
    old = snapshots.save(store, SOURCE, "r", servers, clock(), history=9)
    assert old
    clock.forward(month - 5)
    head = snapshots.save(store, SOURCE, "r", servers[1:], clock(), history=9)
    clock.forward(600)
    assert head
    named = snapshots.named(head, old.generation)
    assert named
    assert snapshots.read(store, SOURCE, named) == servers


def test_its_answers_are_snapshots_with_their_age(served: App) -> None:
    first = served.get(GZ)
    name = first.headers["X-List-Id"]
    served.clock.forward(20)
    change(served, 7)
    served.clock.forward(9)
    part = served.get(f"{GZ}&list={name}")
    assert part.content == first.content
    assert (part.headers["Age"], part.headers["Cache-Status"]) == ("30", "twocloud; hit")
    assert part.headers["X-Total-Count"] == "25"
    assert part.headers["ETag"] == first.headers["ETag"]
    assert part.headers["X-List-Id"] == name
    assert served.get(f"{GZ}&list={name}", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    head = served.get(f"{GZ}&list={name}", method="HEAD")
    assert {**head.headers, **part.headers} == {**part.headers, "X-Request-Id": part.headers["X-Request-Id"],
                                                **{name: head.headers[name] for name in head.headers
                                                   if name in ("Date", "X-Request-Id")},
                                                **{name: part.headers[name] for name in ("Date", "X-Request-Id")}}
    assert head.content == b""


def test_links_lead_through_the_same_list_both_ways(served: App) -> None:
    name = served.get(GZ).headers["X-List-Id"]
    page = served.get(f"{GZ}&f=11&t=20&max_age=60")
    for rel in ("next", "prev"):
        assert parse_qs(link(page, rel) or "")["list"] == [name]
    change(served, 2)
    beyond = served.get(f"{GZ}&f=11&t=20&list={name}&max_age=60")
    assert len(ids(beyond)) == 10
    assert parse_qs(link(beyond, "prev") or "")["list"] == [name]
    assert "Link" not in served.get(f"{GZ}&list={name}").headers        # never without a range


def test_filters_views_and_formats_are_of_that_list(served: App) -> None:
    whole = served.get(f"{GZ}&view=full")
    name = whole.headers["X-List-Id"]
    rows = whole.json()["vm_servers"]
    change(served, 2)
    for status in {row["status"] for row in rows}:
        wanted = [row["instance_id"] for row in rows if row["status"] == status]
        part = served.get(f"{GZ}&list={name}&status={status}&t=2")
        assert ids(part) == wanted[:2]
        assert part.headers["X-Total-Count"] == str(len(wanted))
    table: list[str] = []
    for first in range(1, 26, 7):
        part = served.get(f"{GZ}&list={name}&format=csv&f={first}&t={first + 6}")
        assert part.headers["X-List-Id"] == name
        table += [row["instance_id"] for row in csv.DictReader(io.StringIO(part.text))]
    lines = "".join(served.get(f"{GZ}&list={name}&format=ndjson&view=full&f={first}&t={first + 8}").text
                    for first in range(1, 26, 9))
    assert table == [row["instance_id"] for row in rows]
    assert [{**json.loads(line), "seen_at": ""} for line in lines.splitlines()] == [
        {**row, "seen_at": ""} for row in rows]
    for form in ("prometheus", "ansible"):
        assert served.get(f"{GZ}&list={name}&format={form}").headers["X-List-Id"] == name


def test_changes_are_those_that_led_to_that_list(served: App) -> None:
    served.get(GZ)
    served.clock.forward(10)
    change(served, 27)
    since = "2026-09-21T14:13:21Z"
    first = served.get(f"{GZ}&changed_since={since}")
    name = first.headers["X-List-Id"]
    assert len(ids(first)) == 2
    change(served, 20)
    assert len(served.get(f"{GZ}&changed_since={since}").json()["vanished"]) == 7
    part = served.get(f"{GZ}&changed_since={since}&list={name}")
    assert part.content == first.content
    assert walk(served, f"{GZ}&changed_since={since}&list={name}&f=1&t=1") == ids(first)


def test_the_time_of_an_update_stays_that_of_the_list(served: App) -> None:
    """`update_at` is a mark where the cloud has no time of its own, and another list has other marks."""
    cloud: Any = served.clouds["aws"]
    served.get(US)
    served.clock.forward(60)
    cloud.fleets["us-east-1"] = Fleet(12, "us")
    served.get(US)
    first = served.get(f"{US}&max_age=60")
    served.clock.forward(60)
    cloud.fleets["us-east-1"] = Fleet(12, "other")
    served.get(US)
    assert served.get(f"{US}&list={first.headers['X-List-Id']}").content == first.content


# ---------------------------------------------------------------- whose it is

def test_an_id_that_is_not_this_querys_is_refused(served: App) -> None:
    served.account("aws", aws_keys(), served.clouds["aws"].url, tenant="7")
    name, several = served.get(GZ).headers["X-List-Id"], served.get(ALL).headers["X-List-Id"]
    before = calls(served)
    for query in (f"{GZ}&list=x", f"{GZ}&list={'a' * 64}", f"{GZ}&list={several}", f"{US}&list={name}",
                  f"{GZ.replace('gz', 'ap-shanghai')}&list={name}", f"{ALL}&list={name}", f"{ALL}&list=x",
                  f"party=qcloud,aws&tenant_id=123&region=gz,us-east-1&list={several}",
                  f"party=all&tenant_id=123&region=gz&list={several}"):
        assert error(served.get(query), 409, "list_changed")
    assert calls(served) == before
    assert len(ids(served.get(f"party=all&tenant_id=123&region=us-east-1,gz&list={several}"))) == 37    # the same query
    stranger = served.issue(served.user("zed", tenants=("7",)))
    error(served.get(f"{GZ}&list={name}", token=stranger), 403, "forbidden")
    error(served.get(f"{ALL}&list={several}", token=stranger), 403, "forbidden")
    for query in ("party=all&tenant_id=7&region=us-east-1", US.replace("123", "7")):
        for other in (name, several):
            assert served.get(f"{query}&list={other}", token=stranger).status_code == 409
    error(served.get(f"{GZ.replace('123', '9')}&list={name}", token=served.issue(served.user("kim", tenants=("9",)))),
          404, "account_not_found")


@pytest.mark.parametrize("value", ["", "a" * 65, "a.b", "a%2Fb", "%C3%A9", "a%0A", "a+b", "a,b", "%ff"])
def test_an_id_has_a_form(served: App, value: str) -> None:
    for query in (GZ, ALL):
        assert served.get(f"{query}&list={value}").json()["parameter"] == "list"
    assert served.get(f"{GZ}&list=a&list=a").json()["parameter"] == "list"
    error(served.get(f"{GZ}&list={value}", token="tc_" + "0" * 36), 401, "unauthorized")


def test_it_ends_with_the_account(served: App) -> None:
    queries = (GZ, ALL)
    names = [served.get(query).headers["X-List-Id"] for query in queries]
    cloud: Any = served.clouds["qcloud"]
    served.account("qcloud", {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}, cloud.url)
    for query, name in zip(queries, names, strict=True):
        error(served.get(f"{query}&list={name}"), 409, "list_changed")
        served.get(query)
        error(served.get(f"{query}&list={name}"), 409, "list_changed")
    name = served.get(ALL).headers["X-List-Id"]
    accounts.remove(served.deployment.store, "123", "aws")
    assert served.get(f"{ALL}&list={name}").status_code in (404, 409)
    assert list(served.deployment.store.list("list")) == []


# `all` means one party fewer, which has no region of that name
_CLOSED = ("invalid_parameter", "forbidden", "list_changed")


def test_narrowed_rights_act_at_once(served: App) -> None:
    store = served.deployment.store
    name, one = served.get(ALL).headers["X-List-Id"], served.get(GZ).headers["X-List-Id"]
    narrow = served.issue(users.find(store, "ann") or served.user(), parties=("aws",))
    error(served.get(f"{GZ}&list={one}", token=narrow), 403, "forbidden")
    assert served.get(f"{ALL}&list={name}", token=narrow).json()["error"] in _CLOSED
    assert served.get(f"{ALL}&list={name}").status_code == 200
    users.change(store, "ann", lambda user: msgspec.structs.replace(user, parties=("aws",)))
    assert served.get(f"{ALL}&list={name}").json()["error"] in _CLOSED
    error(served.get(f"{GZ}&list={one}"), 403, "forbidden")
    tokens.revoke(store, tokens.identify_token(store, f"Bearer {served.token}").token_id)
    error(served.get(f"{ALL}&list={name}"), 401, "unauthorized")


# ---------------------------------------------------------------- several sources

def test_pages_of_several_sources_are_of_one_list(served: App) -> None:
    whole = served.get(ALL)
    assert len(ids(whole)) == 37

    def changes() -> Iterator[None]:
        cloud: Any = served.clouds["aws"]
        for servers in (24, 3, 40, 25, 0):
            cloud.fleets["us-east-1"] = Fleet(servers, "us")
            change(served, servers + 1)
            served.get(US)
            yield

    assert walk(served, f"{ALL}&f=1&t=5&max_age=60", changes()) == ids(whole)
    name = whole.headers["X-List-Id"]
    served.clock.forward(590)
    part = served.get(f"{ALL}&list={name}&max_age=0")
    assert [(row["party"], row["state"], row["count"], row["error"]) for row in part.json()["sources"]] == [
        ("aws", "ok", 12, ""), ("qcloud", "ok", 25, "")]
    assert ids(part) == ids(whole)
    assert int(part.headers["Age"]) > 590
    served.clock.forward(320)
    change(served, 9)
    error(served.get(f"{ALL}&list={name}"), 409, "list_changed")


def test_the_same_lists_have_one_id_and_are_written_down_once(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    put = lists.write

    def noting(store: Store, tenants: list[str], list_id: str, *more: Any) -> bool:
        written.append(list_id)
        return put(store, tenants, list_id, *more)

    monkeypatch.setattr(lists, "write", noting)
    names = [served.get(f"{ALL}{more}").headers["X-List-Id"]
             for more in ("", "&max_age=60", "&max_age=60&f=1&t=3", "&max_age=60&f=4", "&max_age=60&format=csv",
                          "&max_age=60&name=web", "")]
    assert len(set(names)) == 1
    assert written == names[:1]
    change(served, 9)
    assert served.get(f"{ALL}&max_age=60").headers["X-List-Id"] != names[0]
    assert len(written) == 2
    served.clock.forward(50_000)
    served.get(f"{ALL}&max_age=99999")
    assert len(written) == 3                                    # again, before the row ends


def test_a_new_source_is_in_no_older_list(served: App) -> None:
    here, query = served.deployment, "party=all&tenant_id=8&region=all"
    token = served.issue(served.user("kim", tenants=("8",)))

    def add(party: str, region: str, names: tuple[str, str]) -> None:
        cloud: Any = served.clouds[party]
        keys = dict(zip(names, next(iter(cloud.keys.items())), strict=True))
        made = accounts.check("8", parties.load(party), keys, project=None, regions=(region,), deep=False,
                              endpoint=cloud.url, local=True)
        accounts.put(here.store, here.sealer(), made, START)

    add("qcloud", "ap-guangzhou", ("secret_id", "secret_key"))
    first = served.get(query, token=token)
    assert len(ids(first)) == 25
    add("aws", "us-east-1", ("access_key_id", "secret_access_key"))
    assert len(ids(served.get(query, token=token))) == 37
    before = calls(served)
    part = served.get(f"{query}&list={first.headers['X-List-Id']}", token=token)
    assert ids(part) == ids(first)
    assert [row["region"] for row in part.json()["sources"]] == ["ap-guangzhou"]
    assert calls(served) == before


def test_accounts_and_tenants_are_parts_of_one_list(served: App) -> None:
    """One party and one region, but two accounts; and two tenants."""
    here, cloud = served.deployment, served.clouds["qcloud"]
    keys: Any = cloud
    secret_id, secret_key = next(iter(keys.keys.items()))
    single = served.get(GZ).headers["X-List-Id"]
    for tenant, name in (("123", "second"), ("8", "default")):
        made = accounts.check(tenant, parties.load("qcloud"), {"secret_id": secret_id, "secret_key": secret_key},
                              project=None, regions=("gz",), deep=False, endpoint=cloud.url, local=True, name=name)
        accounts.put(here.store, here.sealer(), made, START)
    token = served.issue(served.user("kim", tenants=("123", "8")))
    error(served.get(f"{GZ}&list={single}"), 409, "list_changed")               # which was of one account
    assert len(ids(served.get(f"{GZ}&account=default&list={single}"))) == 25
    for query, count in ((GZ, 50), ("party=qcloud&tenant_id=8,123&region=gz", 75)):
        whole = served.get(query, token=token)
        name = whole.headers["X-List-Id"]
        assert len(ids(whole)) == count
        change(served, 3)
        served.get(query, token=token)
        joined = [one for first in range(1, count, 20)
                  for one in ids(served.get(f"{query}&list={name}&f={first}&t={first + 19}", token=token))]
        assert joined == ids(whole)
        error(served.get(f"{query.replace('8,123', '8')}&account=all&list={name}", token=token), 409, "list_changed")
        keys.fleets["ap-guangzhou"] = Fleet(25)
    error(served.get(f"party=qcloud&tenant_id=8,123&region=gz&list={name}"), 403, "forbidden")
    own = f"{GZ.replace('gz', 'gz,ap-shanghai')}&account=second"
    mine = served.get(own).headers["X-List-Id"]
    accounts.remove(here.store, "123", "qcloud")                # the other account: this list stays
    assert len(ids(served.get(f"{own}&list={mine}"))) == 275
    here.store.delete("list", f"123/{mine}")                    # whoever did that
    error(served.get(f"{own}&list={mine}"), 409, "list_changed")
    assert served.get(f"{own}&max_age=60").headers["X-List-Id"] == mine
    assert len(ids(served.get(f"{own}&list={mine}"))) == 275
    accounts.remove(here.store, "123", "qcloud", "second")
    error(served.get(f"party=qcloud&tenant_id=8,123&region=gz&list={name}", token=token), 409, "list_changed")


def test_a_list_with_a_gap_has_no_id(served: App) -> None:
    served.clouds["aws"].fail("500")
    gap = served.get(f"{ALL}&on_error=partial&f=1&t=5")
    assert not gap.json()["complete"]
    assert not {"X-List-Id", "Link"} & set(gap.headers)
    served.clouds["aws"].forget()


def test_an_id_that_cannot_be_written_down_is_not_given(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> bool:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(lists, "write", broken)
        assert "X-List-Id" not in served.get(ALL).headers
    assert "X-List-Id" in served.get(ALL).headers


# ---------------------------------------------------------------- how much is kept

@pytest.mark.sample(2)
def test_a_fleet_that_never_rests_fills_no_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list whose id was given stays readable; beyond the bound, lists have no id."""
    monkeypatch.setattr(snapshots, "_MOST_KEPT", 5)
    ages: dict[str, int] = {}
    for n in range(40):
        head = snapshots.save(store, SOURCE, "r", [Server(id=str(n), name="")], START + n * 60, history=9)
        assert head
        if head.list_id:
            ages[head.list_id] = n
        for name, since in ages.items():
            if n - since <= 10:
                named = snapshots.named(head, name)
                assert named
                assert snapshots.read(store, SOURCE, named)[0].id == str(since)
        assert len(list(store.list("chunk"))) <= 7
    assert len(ages) > 10


def test_marks_and_chunks_of_a_list_go_together(store: Store) -> None:
    """Nothing of a list that is not readable any more is left."""
    servers = [Server(id=str(n), name="a") for n in range(900)]
    for n in range(6):
        head = snapshots.save(store, SOURCE, "r", [msgspec.structs.replace(servers[0], name=f"b{n}"), *servers[1:]],
                              START + n * 1000, history=9)
        assert head
        names = {key.split("/")[3] for key, _ in store.list("chunk")}
        assert names == {head.generation, *(kept.generation for kept in head.kept)}
        assert len(names) <= 2
    snapshots.forget_account(store, "123", "qcloud")
    assert list(store.list("chunk")) == []


def test_an_accounts_rows_go_from_lists_of_several_tenants_too(store: Store) -> None:
    of = {"123": [("123/qcloud/a", "x")], "7": [("7/aws/b", "y")]}
    for tenants in (["123"], ["7"], ["123", "7"], ["all"]):
        parts = [part for tenant in (["123", "7"] if "all" in tenants else tenants) for part in of[tenant]]
        assert lists.write(store, tenants, f"id{len(tenants)}{tenants[0]}", parts, START)
    snapshots.forget_account(store, "123", "qcloud")
    assert [key for key, _ in store.list("list")] == ["7/id17"]
    assert lists.read(store.get("list", "7/id17")) == of["7"]
