"""A token for a password, and its end."""

import re

from tests import canaries
from tests.http.contract.cases import case, error, good, gz, new_tenant, post
from tests.targets import Target, basic


@case("a password gives a token")
def _(target: Target) -> None:
    tenant = target.tenant()
    user = target.user(tenant)
    answer = post(target, user.name)
    assert answer.status == 200, f"{answer.status} {answer.body!r}"
    assert answer.headers["cache-control"] == "no-store", f"{answer.status} {answer.body!r}"
    body = answer.json
    token = canaries.watch(body["token"])
    assert list(body) == ["code", "msg", "token", "token_id", "duration", "expires_at"]
    assert (body["code"], body["msg"], body["duration"]) == (200, "", 600)
    assert re.fullmatch(r"tc_[0-9A-Za-z]{36}", token)
    assert body["expires_at"]
    good(target.ask(gz(tenant), token), 25)


@case("a token may be narrower than its user, never wider")
def _(target: Target) -> None:
    tenant = target.tenant("qcloud", "aws")
    user = target.user(tenant, "other", parties=("qcloud",))
    narrow = post(target, user.name, {"duration": 60, "tenants": [tenant], "parties": ["qcloud"],
                                      "regions": ["ap-shanghai"]})
    assert narrow.status == 200
    assert narrow.json["duration"] == 60
    token = canaries.watch(narrow.json["token"])
    error(target.ask(gz(tenant), token), 403, "forbidden")
    good(target.ask(f"party=qcloud&tenant_id={tenant}&region=ap-shanghai", token), 7)
    for wider in ({"tenants": ["foreign"]}, {"tenants": ["*"]}, {"parties": ["aws"]}):
        answer = post(target, user.name, wider)
        assert answer.status in (400, 403), f"{wider}: {answer.status}"
        assert wider == {"tenants": ["*"]} or error(answer, 403, "forbidden")


@case("the body of a request for a token has its form")
def _(target: Target) -> None:
    user = target.user("123")
    for parameter, body in (("x", {"x": 1}), ("duration", {"duration": 59}), ("duration", {"duration": 43_201}),
                            ("duration", {"duration": "60"}),
                            ("duration", {"duration": True}), ("tenants", {"tenants": []}),
                            ("tenants", {"tenants": "123"}), ("tenants", {"tenants": [1]}),
                            ("parties", {"parties": ["nobody"]}), ("body", b"{"), ("body", []), ("body", b"\xff"),
                            ("body", b"[" * 5000), ("body", 1)):
        try:
            error(post(target, user.name, body), 400, "invalid_parameter", parameter)
        except AssertionError as wrong:
            raise AssertionError(f"{str(body)[:30]}: {wrong}") from wrong
    error(post(target, user.name, {"tenants": ["x" * 64] * 400}), 413, "too_large")
    error(target.ask("x=1", None, "POST", "/twocloud/tokens", b"", Authorization=basic(user.name)), 400,
          "invalid_parameter", "x")


@case("a token is no way to a token, nor a password to a list")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    error(post(target, token), 401, "unauthorized")
    error(post(target, "x", Authorization=f"Bearer {token}"), 401, "unauthorized")
    error(target.ask(gz(tenant), Authorization=basic(target.user(tenant).name)), 401, "unauthorized")
    error(post(target, target.user(tenant).name, password="wrong"), 401, "unauthorized")
    error(target.ask("", None, "POST", "/twocloud/tokens", b""), 401, "unauthorized")


@case("after five wrong passwords in a minute the next try is 429")
def _(target: Target) -> None:
    user = target.user("123")
    for _ in range(5):
        error(post(target, user.name, password="wrong"), 401, "unauthorized")
    error(post(target, user.name), 429, "rate_limited")
    error(post(target, user.name, password="wrong"), 429, "rate_limited")


@case("a token revokes itself")
def _(target: Target) -> None:
    token = target.token()
    answer = target.ask("", token, "DELETE", "/twocloud/tokens")
    assert (answer.status, answer.body) == (204, b""), f"{answer.status} {answer.body!r}"


@case("a revoked token is refused on the next request")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    good(target.ask(gz(tenant), token), 25)
    assert target.ask("", token, "DELETE", "/twocloud/tokens").status == 204
    error(target.ask(gz(tenant), token), 401, "unauthorized")


@case("the status and body of a revoked token's 401 hold")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    good(target.ask(gz(tenant), token), 25)
    assert target.ask("", token, "DELETE", "/twocloud/tokens").status == 204
    gone, unknown = target.ask(gz(tenant), token), target.ask(gz(tenant), "tc_unknown")
    assert gone.status == unknown.status == 401
    assert {**gone.json, "request_id": ""} == {**unknown.json, "request_id": ""}
