"""Tokens: their form, who shows them, what they open (P2), and that every loss of access acts at once (P3)."""

import base64
import itertools
import string
import timeit
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.access.tokens import Caller, Limits, Token
from chalicelib.access.users import User
from chalicelib.errors import Forbidden, Unauthorized
from chalicelib.fleet.many_sources import Deployment
from chalicelib.model import Source
from tests.canaries import watch
from tests.fixtures import GZ, App, Clock

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def by_the_book(body: str) -> str:
    """The contract's words, done with other means than the program's."""
    number, digits = zlib.crc32(body.encode()), []
    while number:
        digits.append(BASE62[number % 62])
        number //= 62
    return "".join(reversed(digits)).rjust(6, "0")


# ---------------------------------------------------------------- form

def test_a_tokens_form(deployment: Deployment, clock: Clock) -> None:
    user = User(name="ann", uid="1", tenants=("123",))
    users.add(deployment.store, user)
    issued = set()
    for _ in range(200):
        text, row = tokens.issue(deployment.store, user, Limits(), 60, clock())
        watch(text)
        assert len(text) == 39
        assert text[:3] == "tc_"
        assert set(text[3:]) <= set(BASE62)
        assert text[33:] == by_the_book(text[:33])
        assert tokens.well_formed(text)
        assert len(row.token_id) == 16
        assert row.token_id not in text
        issued.add(text)
    assert len(issued) == 200


@given(st.text(alphabet=BASE62, min_size=30, max_size=30))
def test_the_checksum_is_the_contracts(random: str) -> None:
    assert tokens.well_formed(f"tc_{random}{by_the_book('tc_' + random)}")


@given(st.text(alphabet=BASE62, min_size=30, max_size=30), st.integers(0, 38), st.sampled_from(BASE62 + "_é -\n"))
def test_a_typo_is_seen(random: str, at: int, other: str) -> None:
    good = f"tc_{random}{by_the_book('tc_' + random)}"
    bad = good[:at] + other + good[at + 1:]
    assert tokens.well_formed(bad) == (bad == good)


def test_a_typo_costs_no_read_of_the_store(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    real = app.deployment.store.get
    monkeypatch.setattr(app.deployment.store, "get", lambda kind, key: reads.append(kind) or real(kind, key))
    bad = app.token[:-1] + ("0" if app.token[-1] != "0" else "1")
    with pytest.raises(Unauthorized):
        tokens.identify(app.deployment.store, f"Bearer {bad}", app.clock())
    assert reads == []


def test_only_the_hash_is_kept(app: App) -> None:
    rows = list(app.deployment.store.list("token"))
    assert len(rows) == 1
    assert app.token.encode() not in rows[0][1].value
    assert app.token not in rows[0][0]


@given(st.text())
def test_any_header_is_read_or_refused(header: str) -> None:
    for text in (header, f"Basic {header}", f"Bearer {header}",
                 "Basic " + base64.b64encode(header.encode("utf-8", "surrogatepass")).decode()):
        try:
            login = tokens.read_header(text)
        except Unauthorized:
            continue
        assert isinstance(login.name, str)


# ---------------------------------------------------------------- what a token opens (P2)

TENANTS = ("123", "007", "7")
REGIONS = {"qcloud": ("ap-guangzhou", "ap-shanghai"), "aws": ("us-east-1", "eu-west-1")}
USERS = [((), (), ()), (("*",), (), ()), (("123",), (), ()), (("123", "007"), ("qcloud",), ()),
         (("*",), ("aws",), ()), (("*",), (), ("gz",)), (("123",), (), ("ap-guangzhou", "us-east-1"))]
LIMITS = [(None, None, None), (("123",), None, None), (("007",), ("qcloud",), None), (("*",), None, ("gz",)),
          (None, ("aws",), ("us-east-1",)), (None, None, ("ap-guangzhou",)),
          (("7",), ("aws", "qcloud"), ("eu-west-1",))]


def expected(user: tuple, limits: tuple, source: Source) -> bool:
    """The contract's sentence, written out: what both the token and its user cover, nothing else."""
    def covers(tenants: tuple, names: tuple, regions: tuple) -> bool:
        aliases = {alias for alias, code in parties.load(source.party).aliases.items() if code == source.region}
        return (("*" in tenants or source.tenant_id in tenants) and (not names or source.party in names)
                and (not regions or bool(({source.region} | aliases) & set(regions))))

    of_token = [limits[0] if limits[0] is not None else user[0], limits[1] or (), limits[2] or ()]
    return covers(*user) and covers(*of_token)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("limits", LIMITS)
def test_the_matrix(user: tuple, limits: tuple) -> None:
    caller = Caller(Token(token_id="t", user="u", uid="1", tenants=limits[0], parties=limits[1], regions=limits[2]),
                    User(name="u", uid="1", tenants=user[0], parties=user[1], regions=user[2]))
    for tenant, party in itertools.product(TENANTS, REGIONS):
        for region in REGIONS[party]:
            source = Source(tenant, party, region)
            assert tokens.allows(caller, source) == expected(user, limits, source), source


def test_a_right_costs_the_same_however_many_tenants_there_are() -> None:
    """A query for all tenants asks for each of them."""
    names = tuple(f"t{n}" for n in range(100_000))
    token = Token(token_id="t", user="u", uid="1")
    seconds = {}
    for count in (10, len(names)):
        caller = Caller(token, User(name="u", uid="1", tenants=names[:count]))
        source = Source(names[count - 1], "qcloud", "ap-guangzhou")
        assert tokens.allows(caller, source)
        seconds[count] = min(timeit.repeat(lambda caller=caller, source=source: (
            tokens.allows(caller, source), tokens.opens(caller, source.tenant_id)), number=100, repeat=5))
    assert seconds[len(names)] < 20 * seconds[10], seconds


def test_the_matrix_over_http(served: App) -> None:
    """Every way to name something else than the token covers, asked for real: 403, and never another's list."""
    bob = served.issue(served.user("bob", tenants=("7",)))
    narrow = served.issue(served.user("eve", tenants=("123",)), parties=("aws",), regions=("us-east-1",))
    etag = served.get(GZ).headers["ETag"]
    calls = len(served.clouds["qcloud"].calls)
    for token in (bob, narrow):
        for query, headers, body in (
            (GZ, {}, None), (GZ, {"If-None-Match": etag}, None), (GZ, {"If-None-Match": "*"}, None),
            (GZ, {"X-Tenant-Id": "7", "X-HTTP-Method-Override": "GET"}, None),
            (GZ, {"X-Forwarded-For": "127.0.0.1", "X-Original-URL": f"/twocloud/servers?{US7}"}, None),
            (GZ, {}, US7), (f"{GZ}&max_age=9999", {}, None),
            ("party=qcloud&tenant_id=123&region=ap-guangzhou", {}, None),
            ("party=qcloud&tenant_id=7,123&region=gz", {}, None), ("party=qcloud&tenant_id=123,8&region=gz", {}, None),
        ):
            answer = served.get(query, token=token, headers=headers, data=body)
            assert answer.status_code == 403
            assert "vm_servers" not in answer.text
            assert "ETag" not in answer.headers
        for query in (f"{GZ}&tenant_id=7", f"tenant_id=7&{GZ}", f"{GZ}&tenant_id[]=7", f"{GZ}&Tenant_id=7",
                      f"{GZ};tenant_id=7",
                      f"{GZ}&token={token[:5]}", "party=qcloud&tenant_id=7%20&region=gz",
                      "party=qcloud&tenant_id=*&region=gz",
                      "party=qcloud&tenant_id=7,all&region=gz", "party=qcloud&tenant_id=123%00&region=gz"):
            answer = served.get(query, token=token)
            assert answer.status_code == 400
            assert "vm_servers" not in answer.text
        assert served.get(GZ, token=token, method="HEAD").status_code == 403
    assert len(served.clouds["qcloud"].calls) == calls
    assert served.get("party=aws&tenant_id=123&region=us-east-1", token=narrow).status_code == 200
    assert served.get("party=aws&tenant_id=123&region=eu-west-1", token=narrow).status_code == 403


US7 = "party=aws&tenant_id=7&region=us-east-1"


@pytest.mark.parametrize(("user", "limits", "narrower"), [
    ((("123",), (), ()), Limits(("123",)), True), ((("123",), (), ()), Limits(("124",)), False),
    ((("123",), (), ()), Limits(("*",)), False), ((("*",), (), ()), Limits(("*",)), True),
    ((("*",), (), ()), Limits(("x",)), True),
    (((), (), ()), Limits(("123",)), False), ((("*",), ("aws",), ()), Limits(None, ("qcloud",)), False),
    ((("*",), ("aws",), ()), Limits(None, ("aws",)), True),
    ((("*",), (), ("gz",)), Limits(None, None, ("ap-guangzhou",)), True),
    ((("*",), (), ("ap-guangzhou",)), Limits(None, None, ("gz",)), True),
    ((("*",), (), ("gz",)), Limits(None, None, ("sh",)), False),
    ((("*",), (), ("gz",)), Limits(None, None, ("gz", "sh")), False),
])
def test_a_token_is_never_wider_than_its_user(deployment: Deployment, clock: Clock, user: tuple, limits: Limits,
                                              narrower: bool) -> None:
    made = User(name="u", uid="1", tenants=user[0], parties=user[1], regions=user[2])
    if narrower:
        watch(tokens.issue(deployment.store, made, limits, 60, clock())[0])
    else:
        with pytest.raises(Forbidden):
            tokens.issue(deployment.store, made, limits, 60, clock())


# ---------------------------------------------------------------- loss of access acts on the next request (P3)

def _set(app: App, **changes: object) -> None:
    users.change(app.deployment.store, "ann", lambda user: msgspec.structs.replace(user, **changes))


def _id(app: App) -> str:
    return tokens.every(app.deployment.store)[0].token_id


def _remove_and_add_again(app: App) -> None:
    users.remove(app.deployment.store, "ann")
    app.user("ann")


def _rotate(app: App, grace: int) -> None:
    rotated = tokens.rotate(app.deployment.store, _id(app), grace, app.clock())
    assert rotated
    watch(rotated[0])


def _forget_tenant(app: App) -> None:
    accounts.remove(app.deployment.store, "123", "qcloud")
    _set(app, tenants=())
    tokens.forget_tenant(app.deployment.store, "123")


LOSSES: dict[str, tuple[Callable[[App], object], int]] = {
    "token revoked": (lambda h: tokens.revoke(h.deployment.store, _id(h)), 401),
    "token revoked over http": (lambda h: h.get("", path="/twocloud/tokens", method="DELETE"), 401),
    "token rotated without grace": (lambda h: _rotate(h, 0), 401),
    "token rotated, grace over": (lambda h: (_rotate(h, 60), h.clock.forward(60)), 401),
    "token expired": (lambda h: h.clock.forward(86_400), 401),
    "user disabled": (lambda h: _set(h, disabled=True), 401),
    "user removed": (lambda h: users.remove(h.deployment.store, "ann"), 401),
    "user removed and added again": (_remove_and_add_again, 401),
    "all tokens of the user revoked": (lambda h: tokens.revoke_all(h.deployment.store, "ann"), 401),
    "tenant taken from the user": (lambda h: _set(h, tenants=("7",)), 403),
    "all tenants taken from the user": (lambda h: _set(h, tenants=()), 403),
    "party taken from the user": (lambda h: _set(h, parties=("aws",)), 403),
    "region taken from the user": (lambda h: _set(h, regions=("ap-shanghai",)), 403),
    "tenant removed": (_forget_tenant, 403),
    "account removed": (lambda h: accounts.remove(h.deployment.store, "123", "qcloud"), 404),
}


@pytest.mark.parametrize("cause", LOSSES)
def test_every_loss_of_access_acts_on_the_next_request(served: App, cause: str) -> None:
    for _ in range(3):                      # every cache is warm
        assert served.get(GZ).status_code == 200
    lose, status = LOSSES[cause]
    lose(served)
    assert served.get(GZ).status_code == status


def test_nothing_is_lost_a_second_too_early(served: App) -> None:
    served.clock.forward(86_399)
    assert served.get(GZ).status_code == 200
    served.clock.forward(1)
    assert served.get(GZ).status_code == 401


def test_the_old_token_lives_through_the_grace(served: App) -> None:
    old = tokens.every(served.deployment.store)[0]
    rotated = tokens.rotate(served.deployment.store, old.token_id, 600, served.clock())
    assert rotated
    new = watch(rotated[0])
    assert (rotated[1].user, rotated[1].tenants, rotated[1].expires_at) == (old.user, old.tenants, old.expires_at)
    served.clock.forward(599)
    assert served.get(GZ).status_code == served.get(GZ, token=new).status_code == 200
    served.clock.forward(1)
    assert served.get(GZ).status_code == 401
    assert served.get(GZ, token=new).status_code == 200


def test_a_grace_does_not_make_a_token_live_longer(served: App) -> None:
    served.clock.forward(86_395)
    _rotate(served, 600)
    served.clock.forward(5)
    assert served.get(GZ).status_code == 401


def test_a_tenant_that_is_removed_leaves_the_other_tenants_of_a_token(served: App) -> None:
    both = served.issue(served.user("bob", tenants=("*",)), tenants=("123", "7"))
    alone = served.issue(served.user("eve", tenants=("*",)), tenants=("7",))
    tokens.forget_tenant(served.deployment.store, "7")
    assert served.get(GZ, token=both).status_code == 200
    assert served.get(US7, token=both).status_code == 403
    assert served.get(US7, token=alone).status_code == 401


# ---------------------------------------------------------------- over HTTP

def test_authenticate_and_get_a_new_token(served: App) -> None:
    served.user("bob", tenants=("123", "7"), password="pass:word")
    answer = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", "pass:word"), timeout=9)
    body = answer.json()
    watch(body["token"])
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert list(body) == ["code", "msg", "token", "token_id", "duration", "expires_at"]
    assert (body["code"], body["msg"], body["duration"], body["expires_at"]) == (200, "", 600, "2026-09-21T14:23:20Z")
    assert served.get(GZ, token=body["token"]).status_code == 200
    served.clock.forward(600)
    assert served.get(GZ, token=body["token"]).status_code == 401


def test_a_narrower_token(served: App) -> None:
    served.user("bob", tenants=("123", "7"), password="pw")

    def post(body: object) -> tuple[int, dict]:
        answer = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", "pw"), json=body, timeout=9)
        if "token" in answer.json():
            watch(answer.json()["token"])
        return answer.status_code, answer.json()

    status, made = post({"duration": 60, "tenants": ["7"], "parties": ["qcloud"], "regions": ["gz"]})
    assert status == 200
    assert served.get(GZ, token=made["token"]).status_code == 403
    assert served.get("party=qcloud&tenant_id=7&region=gz", token=made["token"]).status_code == 404
    for body, status, parameter in (
        ({"tenants": ["123", "8"]}, 403, None), ({"tenants": ["*"]}, 403, None), ({"duration": 59}, 400, "duration"),
        ({"duration": 43201}, 400, "duration"), ({"duration": "600"}, 400, "duration"),
        ({"duration": 600.5}, 400, "duration"), ({"duration": 1e300}, 400, "duration"),
        ({"duration": True}, 400, "duration"), ({"duration": None}, 400, "duration"), ({"tenants": []}, 400, "tenants"),
        ({"tenants": "123"}, 400, "tenants"), ({"tenants": [123]}, 400, "tenants"), ({"tenants": None}, 400, "tenants"),
        ({"parties": ["nocloud"]}, 400, "parties"), ({"regions": ["a/b"]}, 400, "regions"),
        ({"color": 1}, 400, "color"),
        ([], 400, "body"), ("x", 400, "body"),
    ):
        narrower, answer = post(body)
        assert (narrower, answer.get("parameter")) == (status, parameter), body
    for twice, parameter in ((b'{"duration": 60, "duration": 600}', "duration"),
                             (b'{"tenants": ["7"], "parties": ["qcloud"], "\\u0074enants": ["123"]}', "tenants"),
                             (b'{"<script>": 1, "<script>": 2}', "?")):
        refused = served.session.post(f"{served.url}/twocloud/tokens", data=twice, auth=("bob", "pw"), timeout=9,
                                      headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["parameter"]) == (400, parameter)


def test_a_token_cannot_be_used_to_get_a_token(served: App) -> None:
    for auth in ((served.token, ""), (served.token, "password")):
        assert served.session.post(f"{served.url}/twocloud/tokens", auth=auth, timeout=9).status_code == 401
    bearer = {"Authorization": f"Bearer {served.token}"}
    assert served.session.post(f"{served.url}/twocloud/tokens", headers=bearer, timeout=9).status_code == 401


def test_a_password_opens_nothing_but_tokens(served: App) -> None:
    served.user("bob", password="pw")
    for path in ("/twocloud/servers", "/twocloud/parties"):
        assert served.session.get(f"{served.url}{path}", auth=("bob", "pw"), timeout=9).status_code == 401
    assert served.session.delete(f"{served.url}/twocloud/tokens", auth=("bob", "pw"), timeout=9).status_code == 401


def test_wrong_passwords_are_limited_over_http(served: App) -> None:
    served.user("bob", password="right")

    def post(password: str) -> tuple[int, str | None]:
        answer = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", password), timeout=9)
        if answer.status_code == 200:
            watch(answer.json()["token"])
        return answer.status_code, answer.headers.get("Retry-After")

    assert [post("wrong")[0] for _ in range(5)] == [401] * 5
    status, wait = post("right")
    assert status == 429
    assert wait
    assert 1 <= int(wait) <= 61
    served.clock.forward(int(wait))
    assert post("right")[0] == 200


def test_bodies_that_are_no_json(served: App) -> None:
    served.user("bob", password="pw")
    for data, kind, parameter in ((b"{", "application/json", "body"), (b"\xff", "application/json", "body"),
                                  (b'{"duration": NaN}', "application/json", "duration"),
                                  (b'{"tenants": ["\\ud800"]}', "application/json", "tenants"),
                                  (b"[" * 5000, "application/json", "body"),
                                  (b"duration=600", "text/plain", "Content-Type"),
                                  (b"duration=600", "application/x-www-form-urlencoded", "Content-Type")):
        answer = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", "pw"), data=data,
                                     headers={"Content-Type": kind}, timeout=9)
        assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):            # `curl -d` says so of everything
        taken = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", "pw"), data=b'{"duration": 60}',
                                    headers={"Content-Type": kind}, timeout=9)
        assert (taken.status_code, taken.json()["duration"]) == (200, 60)
        watch(taken.json()["token"])
    wide = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", "pw"), json={"tenants": ["*"]}, timeout=9)
    assert (wide.status_code, wide.json()["error"]) == (403, "forbidden")
    large = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", "pw"), data=b" " * 9 + b"x" * 20_000,
                                headers={"Content-Type": "application/json"}, timeout=9)
    assert (large.status_code, large.json()["error"]) == (413, "too_large")


def test_revoking_oneself(served: App) -> None:
    answer = served.get("", path="/twocloud/tokens", method="DELETE")
    assert (answer.status_code, answer.content) == (204, b"")
    assert served.get("", path="/twocloud/tokens", method="DELETE").status_code == 401
