"""`GET /twocloud/me`: what a token opens, no more and no less than `GET /twocloud/servers` answers with it."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.fleet import known_members, known_regions
from chalicelib.http import formats, openapi
from chalicelib.model import Discovery, Member, Region
from chalicelib.storage import snapshots
from tests import canaries
from tests.fixtures import App, aws_keys, qcloud_keys

ME = "/twocloud/me"
KEYS = ["code", "msg", "user", "token_id", "expires_at", "tenants", "parties", "regions", "accounts"]
BODY = {"$ref": "#/components/schemas/MeBody", "components": json.loads(openapi.document())["components"]}


def put(app: App, tenant: str, party: str, name: str = "default", regions: tuple[str, ...] = (),
        discover: bool = False) -> None:
    """An account whose endpoint answers nothing: `me` queries no party."""
    made = accounts.check(tenant, parties.load(party), {"qcloud": qcloud_keys, "aws": aws_keys}[party](), project=None,
                          regions=regions, deep=False, endpoint="http://127.0.0.1:9", local=True, name=name,
                          discovery=Discovery() if discover else None)
    store = app.deployment.store
    accounts.put(store, app.deployment.sealer(), made, app.clock(), replace=True)


def revision(app: App, tenant: str, party: str, name: str = "default") -> str:
    (row,) = (row for row in accounts.every(app.deployment.store)
              if (row.tenant_id, row.party, row.account) == (tenant, party, name))
    return row.revision


def discovered(app: App, tenant: str, party: str, name: str, *behind: Member) -> None:
    """What a look-up by the schedule leaves in the store."""
    members, _ = known_members.after(None, behind, revision(app, tenant, party, name), app.clock())
    known_members.keep(app.deployment.store, known_members.place_of(tenant, party, name), members)


def me(app: App, token: str | None = None) -> Any:
    answer = app.get("", token, path=ME)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    jsonschema.validate(body, BODY)
    assert list(body) == KEYS
    return body


def short(body: Any) -> list[tuple[str, str, str, list[str] | None]]:
    return [(it["tenant_id"], it["party"], it["account"], it["regions"]) for it in body["accounts"]]


# ---------------------------------------------------------------- the form

def test_the_tenants_and_accounts_of_a_token(served: App) -> None:
    body = me(served)
    (token,) = tokens.every(served.deployment.store)
    assert {**body, "accounts": []} == {
        "code": 200, "msg": "", "user": "ann", "token_id": token.token_id, "expires_at": "2026-09-22T14:13:20Z",
        "tenants": ["123"], "parties": None, "regions": None, "accounts": []}
    assert body["accounts"] == [
        {"tenant_id": "123", "party": party, "account": "default", "regions": None, "discovered_by": None}
        for party in ("aws", "qcloud")]
    assert not any(cloud.calls for cloud in served.clouds.values())


def test_headers_and_methods(served: App) -> None:
    answer, head = served.get("", path=ME), served.get("", path=ME, method="HEAD")
    assert answer.headers["Content-Type"] == head.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Vary"] == "Authorization, Accept-Encoding"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"] != head.headers["X-Request-Id"]
    assert (head.status_code, head.content) == (200, b"")
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        refused = served.get("", token="", path=ME, method=method)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    for query in ("tenant_id=123", "x=1", "token=x"):
        refused = served.get(query, path=ME)
        assert (refused.status_code, refused.json()["parameter"]) == (400, query.partition("=")[0])
    assert served.get("x=1", token="", path=ME).status_code == 401              # before 400
    bearer = served.get("", token="", path=ME, headers={"Authorization": f"Bearer {served.token}"})
    assert bearer.content == answer.content


def test_no_secret_is_in_it(served: App) -> None:
    put(served, "123", "aws", "door", discover=True)
    discovered(served, "123", "aws", "door", Member(id="111111111111", name="payments"))
    text = served.get("", path=ME).text
    for secret in (served.token, qcloud_keys()["secret_key"], aws_keys()["secret_access_key"], "AKIATEST", "AKIDtest",
                   "127.0.0.1", revision(served, "123", "aws", "door"), *canaries.known):
        assert secret not in text


# ---------------------------------------------------------------- who has lost access

@pytest.mark.parametrize("lost", ["revoked", "expired", "disabled", "removed", "put again"])
def test_a_token_without_access_is_401(served: App, lost: str) -> None:
    store = served.deployment.store
    assert me(served)["tenants"] == ["123"]
    if lost == "revoked":
        tokens.revoke_all(store, "ann")
    elif lost == "expired":
        served.clock.forward(86_400)
    elif lost == "disabled":
        users.change(store, "ann", lambda user: msgspec.structs.replace(user, disabled=True))
    else:
        store.delete("user", "ann")
    if lost == "put again":                 # another user of the same name
        served.user("ann", ("123",))
    gone, unknown = served.get("", path=ME), served.get("", "tc_unknown", path=ME)
    assert gone.status_code == unknown.status_code == 401
    assert {**gone.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert gone.headers["WWW-Authenticate"] == unknown.headers["WWW-Authenticate"]


def test_a_password_is_no_token(served: App) -> None:
    served.user("bob", password="pw")
    assert served.session.get(f"{served.url}{ME}", auth=("bob", "pw"), timeout=9).status_code == 401


def test_narrowing_acts_on_the_next_request(served: App) -> None:
    put(served, "7", "aws")
    token = served.issue(served.user("bob", ("7", "123")))
    assert me(served, token)["tenants"] == ["123", "7"]
    users.change(served.deployment.store, "bob", lambda user: msgspec.structs.replace(user, tenants=("7",)))
    assert me(served, token)["tenants"] == ["7"]
    users.change(served.deployment.store, "bob", lambda user: msgspec.structs.replace(user, parties=("qcloud",)))
    assert (me(served, token)["tenants"], me(served, token)["parties"]) == ([], ["qcloud"])


# ---------------------------------------------------------------- what it covers

def test_foreign_and_missing_tenants_cannot_be_told_apart(served: App) -> None:
    """A token for a tenant without accounts gets the same answer whether others have any; so does one without
    tenants."""
    bare, none = served.issue(served.user("bob", ("7",))), served.issue(served.user("eve", ()))
    before = [{**me(served, token), "token_id": ""} for token in (bare, none)]
    put(served, "8", "aws")
    assert [{**me(served, token), "token_id": ""} for token in (bare, none)] == before
    assert [(body["tenants"], body["accounts"]) for body in before] == [([], []), ([], [])]
    put(served, "7", "aws")
    assert me(served, bare)["tenants"] == ["7"]
    assert me(served, none)["tenants"] == []


def test_every_tenant_and_every_account_in_order(served: App) -> None:
    for tenant, party, name in (("7", "qcloud", "b"), ("7", "qcloud", "a"), ("7", "aws", "z"),
                                ("07", "aws", "default")):
        put(served, tenant, party, name)
    body = me(served, served.issue(served.user("eve", ("*",))))
    assert body["tenants"] == ["07", "123", "7"]
    assert [it[:3] for it in short(body)] == [
        ("07", "aws", "default"), ("123", "aws", "default"), ("123", "qcloud", "default"), ("7", "aws", "z"),
        ("7", "qcloud", "a"), ("7", "qcloud", "b")]
    narrowed = me(served, served.issue(users.find(served.deployment.store, "eve"),      # type: ignore[arg-type]
                                       tenants=("7", "gone"), parties=("qcloud",)))
    assert (narrowed["tenants"], narrowed["parties"]) == (["7"], ["qcloud"])
    assert [it[2] for it in short(narrowed)] == ["a", "b"]


def test_a_limit_of_regions_narrows_accounts_that_name_regions_and_those_that_name_none(served: App) -> None:
    put(served, "7", "qcloud", "names", ("gz", "ap-shanghai"))
    put(served, "7", "qcloud", "none")
    put(served, "7", "aws", "elsewhere", ("us-east-1",))
    user = served.user("bob", ("7",), regions=("ap-guangzhou", "us-east-1"))
    assert short(me(served, served.issue(user))) == [
        ("7", "aws", "elsewhere", ["us-east-1"]), ("7", "qcloud", "names", ["ap-guangzhou"]),
        ("7", "qcloud", "none", ["ap-guangzhou", "us-east-1"])]
    body = me(served, served.issue(user, regions=("gz",)))      # an alias of a region that the user covers
    assert body["regions"] == ["gz"]
    assert short(body) == [("7", "qcloud", "names", ["ap-guangzhou"]), ("7", "qcloud", "none", ["ap-guangzhou"])]
    known_regions.keep(served.deployment.store, snapshots.account_key("7", "qcloud", "none"),
                       revision(served, "7", "qcloud", "none"),
                       [Region(code="ap-guangzhou"), Region(code="ap-shanghai")], served.clock())
    assert ("7", "qcloud", "none", ["ap-guangzhou"]) in short(me(served, served.issue(user)))
    nowhere = me(served, served.issue(served.user("eve", ("7",), regions=("no region",))))
    assert (nowhere["tenants"], nowhere["regions"]) == ([], ["no region"])


def test_members_behind_a_door(served: App) -> None:
    put(served, "7", "aws", "org", ("us-east-1", "eu-west-1"), discover=True)
    token = served.issue(served.user("bob", ("7",)))
    door = {"tenant_id": "7", "party": "aws", "account": "org", "regions": ["us-east-1", "eu-west-1"],
            "discovered_by": None}
    assert me(served, token)["accounts"] == [door]              # nobody has looked yet
    discovered(served, "7", "aws", "org", Member(id="222222222222", name="shop"), Member(id="111111111111"),
               Member(id="333333333333", closed="SUSPENDED"))
    members = [{**door, "account": f"org:{id_}", "discovered_by": "org"} for id_ in ("111111111111", "222222222222")]
    assert me(served, token)["accounts"] == [door, *members]
    limited = me(served, served.issue(users.find(served.deployment.store, "bob"),       # type: ignore[arg-type]
                                      regions=("eu-west-1",)))
    assert limited["accounts"] == [{**it, "regions": ["eu-west-1"]} for it in (door, *members)]
    assert me(served, served.issue(served.user("eve", ("8",))))["accounts"] == []
    put(served, "7", "aws", "org", ("us-east-1", "eu-west-1"), discover=True)           # the old look-up is another's
    assert me(served, token)["accounts"] == [door]


REGIONS = {"qcloud": ("ap-guangzhou", "ap-shanghai"), "aws": ("us-east-1", "eu-west-1")}
USERS: list[dict[str, tuple[str, ...]]] = [
    {"tenants": tenants, "parties": party, "regions": regions}
    for tenants in (("7",), ("7", "8"), ("*",), ()) for party in ((), ("qcloud",))
    for regions in ((), ("gz",), ("us-east-1", "ap-shanghai"))]
TOKENS: list[dict[str, tuple[str, ...]]] = [{}, {"tenants": ("8",)}, {"parties": ("aws",)},
                                            {"regions": ("gz", "eu-west-1")}]


@pytest.mark.slow
def test_it_says_what_servers_answers(served: App) -> None:
    """Of every user and token: a region that `me` names is answered, and what it does not name is 403."""
    put(served, "7", "qcloud")
    put(served, "7", "qcloud", "prod", REGIONS["qcloud"])
    put(served, "7", "aws")
    put(served, "8", "aws", "default", REGIONS["aws"])
    store, compared = served.deployment.store, set[bool]()
    sources = [(row.tenant_id, row.party, row.account, region) for row in accounts.every(store)
               if row.tenant_id != "123" for region in REGIONS[row.party]]
    for number, limits in enumerate(USERS):
        user = served.user(f"user-{number}", **limits)
        wide = served.issue(user)
        for narrow in TOKENS:
            if narrow:
                users.change(store, user.name, lambda it: msgspec.structs.replace(it, tenants=("*",), parties=(),
                                                                                  regions=()))
                token = served.issue(users.find(store, user.name), **narrow)            # type: ignore[arg-type]
                users.change(store, user.name, lambda it, limits=limits: msgspec.structs.replace(it, **limits))
            else:
                token = wide
            body = me(served, token)
            opened = {(*it[:3], region) for it in short(body)
                      for region in (REGIONS[it[1]] if it[3] is None else it[3])}
            for tenant, party, account, region in sources:
                answer = served.get(f"party={party}&tenant_id={tenant}&account={account}&region={region}", token,
                                    headers={"Cache-Control": "only-if-cached"})
                assert answer.status_code in (403, 504)
                compared.add(answer.status_code == 403)
                assert ((tenant, party, account, region) in opened) == (answer.status_code != 403), (limits, narrow)
            whole = served.get("party=all&tenant_id=all&region=all&on_error=partial", token,
                               headers={"Cache-Control": "only-if-cached"})
            assert not body["tenants"] or whole.status_code not in (403, 404), (limits, narrow)
    assert compared == {True, False}


def test_more_accounts_than_one_answer_holds_is_413(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    length = len(served.get("", path=ME).content)
    monkeypatch.setattr(formats.fits, "__defaults__", (length,))
    answer = served.get("", path=ME)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert "2 accounts" in answer.json()["msg"]
