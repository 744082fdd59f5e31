"""Access: 401, 403, and what changes on the next request."""

import base64
import time

import msgspec

from chalicelib.access import users
from tests.http.contract.cases import case, error, good, gz, new_tenant
from tests.targets import Target, basic


@case("a token is shown in many ways")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    for header in (basic(token), basic(token, ""), basic(token, "a:b"), f"Bearer {token}", f"bearer {token}",
                   f"BEARER   {token}", basic(token).replace("Basic", "bASIC")):
        good(target.ask(gz(tenant, "&t=1"), Authorization=header), 1)


@case("every bad credential gets one 401")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    user = target.user(tenant)
    expired = target.issue(user, born=time.time() - 7200)
    changed = token[:-1] + ("0" if token[-1] != "0" else "1")
    known = basic(token, "")[6:]
    ids = set()
    for header in (None, "", "Basic", "Basic ", "Bearer", "Digest abc", token, f"Token {token}", basic(changed),
                   basic("tc_" + "0" * 36), basic(""), basic(f" {token}"),
                   basic(token.upper()), basic(expired), basic(user.name), f"Bearer {token}x",
                   f"Bearer {token} {token}", f"Bearer {'a' * 5000}",
                   f"Basic !{known}", f"Basic {known.rstrip('=')}!",
                   f"Basic {base64.b64encode(token.encode()).decode()}", f"{basic(token)}, {basic(token)}",
                   "Basic \xff\xfe"):
        answer = target.ask(gz(tenant), **({} if header is None else {"Authorization": header}))
        try:
            error(answer, 401, "unauthorized")
        except AssertionError as wrong:
            raise AssertionError(f"{(header or '')[:12]}…: {wrong}") from wrong
        ids.add(answer.body.replace(answer.headers["x-request-id"].encode(), b""))
    assert len(ids) == 1, "not one body for all"


@case("base64 is read strictly")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for password in ("", "x", "xx"):
        right = basic(token, password)
        at = len(right.rstrip("=")) - 1
        if right.endswith("="):
            error(target.ask(gz(tenant), Authorization=right[:at] + alphabet[alphabet.index(right[at]) + 1]
                             + right[at + 1:]), 401, "unauthorized")


@case("401 before 400 before 403 before 404")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    empty = target.user("bare")
    error(target.ask("f=0"), 401, "unauthorized")
    error(target.ask(gz("foreign", "&f=0"), token), 400, "invalid_parameter", "f")
    error(target.ask(gz("foreign"), token), 403, "forbidden")
    error(target.ask(gz("bare"), target.issue(empty)), 404, "account_not_found")
    error(target.ask(f"party=aws&tenant_id={tenant}&region=us-east-1", token), 404, "account_not_found")


@case("what a token does not cover is one 403, whether or not it exists")
def _(target: Target) -> None:
    tenant, foreign = target.tenant("qcloud", "aws"), target.tenant()
    token = target.token(tenant, parties=("qcloud",), regions=("ap-guangzhou",))
    ids = set()
    for query in (gz(foreign), gz("nobody"), gz(f"0{tenant}"), gz(tenant.upper()),
                  f"party=aws&tenant_id={tenant}&region=us-east-1",
                  f"party=qcloud&tenant_id={tenant}&region=ap-shanghai",
                  f"party=qcloud,aws&tenant_id={tenant}&region=all",
                  f"party=qcloud&tenant_id={tenant}&region=gz,ap-shanghai"):
        answer = target.ask(query, token)
        error(answer, 403, "forbidden")
        ids.add(answer.body.replace(answer.headers["x-request-id"].encode(), b""))
    assert len(ids) == 1
    good(target.ask(gz(tenant), token), 25)                     # the limit covers the region under all its names
    assert {row["region"] for row in good(target.ask(f"party=all&tenant_id={tenant}&region=all", token),
                                          25)["vm_servers"]} == {"ap-guangzhou"}


@case("a user without tenants opens none")
def _(target: Target) -> None:
    error(target.ask(gz(target.tenant()), target.token()), 403, "forbidden")


@case("narrowing acts on the next request")
def _(target: Target) -> None:
    tenant = target.tenant()
    user = target.user(tenant)
    token = target.issue(user)
    good(target.ask(gz(tenant), token))
    users.change(target.deployment.store, user.name, lambda it: msgspec.structs.replace(it, tenants=()))
    error(target.ask(gz(tenant), token), 403, "forbidden")


@case("a disabled user's token is refused on the next request")
def _(target: Target) -> None:
    tenant = target.tenant()
    user = target.user(tenant)
    token = target.issue(user)
    good(target.ask(gz(tenant), token))
    users.change(target.deployment.store, user.name, lambda it: msgspec.structs.replace(it, disabled=True))
    error(target.ask(gz(tenant), token), 401, "unauthorized")


@case("a token that expires is refused on the next request")
def _(target: Target) -> None:
    tenant = target.tenant()
    token = target.issue(target.user(tenant), born=time.time() - 57, lifetime=60)
    good(target.ask(gz(tenant, "&t=1"), token))
    time.sleep(4)
    error(target.ask(gz(tenant, "&t=1"), token), 401, "unauthorized")
