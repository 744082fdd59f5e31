"""What a case of the contract is, and what all of them share."""

import json
import re
from collections.abc import Callable
from typing import Any

from chalicelib.http import api
from tests.targets import Answer, Target, basic

TEN = ["instance_name", "instance_id", "cpu_num", "mem_size", "disk_size", "lan_ip_set", "wan_ip_set", "status",
       "create_at", "update_at"]
MORE = ["party", "tenant_id", "region", "zone", "project_id", "instance_type", "party_status", "lan_ipv6_set",
        "wan_ipv6_set", "tags", "seen_at", "account", "image_id", "image_name", "os", "vpc_id", "subnet_id",
        "security_group_set", "key_name", "charge_type", "expires_at", "host_id", "console_url"]


CASES: dict[str, Callable[[Target], None]] = {}


def case(sentence: str) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    def keep(check: Callable[[Target], None]) -> Callable[[Target], None]:
        assert sentence not in CASES
        CASES[sentence] = check
        return check

    return keep


def error(answer: Answer, status: int, word: str, parameter: str | None = None) -> str:
    assert answer.status == status, f"{answer.status} {answer.body[:200]!r} instead of {status} {word}"
    body = answer.json
    assert body["error"] == word, f"{body['error']} instead of {word}"
    assert parameter is None or body["parameter"] == parameter, f"{body['parameter']} instead of {parameter}"
    if status == 401:
        shown = answer.headers.get("www-authenticate")
        assert shown == api.CHALLENGE, f"WWW-Authenticate is {shown}"
    assert ("retry-after" in answer.headers) == (status in (429,
                                                            503)), f"Retry-After is {answer.headers.get('retry-after')}"
    assert status not in (429, 503) or re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    return body["msg"]


def good(answer: Answer, rows: int | None = None) -> Any:
    assert answer.status == 200, f"{answer.status} {answer.body[:200]!r}"
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert list(body)[:3] == ["code", "msg", "vm_servers"]
    assert body["code"] == 200
    assert rows is None or len(body["vm_servers"]) == rows, f"{len(body['vm_servers'])} servers"
    return body


def gz(tenant: str, more: str = "") -> str:
    return f"party=qcloud&tenant_id={tenant}&region=gz{more}"


def new_tenant(target: Target, *of: str) -> tuple[str, str]:
    """A tenant, and a token for it."""
    tenant = target.tenant(*of)
    return tenant, target.token(tenant)


def post(target: Target, name: str, body: object = None, password: str = "password", **headers: str) -> Answer:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content_Type": "application/json"} if body is not None else {}
    return target.ask("", None, "POST", "/twocloud/tokens", raw,
                      **{"Authorization": basic(name, password), **sent, **headers})
