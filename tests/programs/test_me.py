"""The command `twocloud me`: from a server what its token opens, from the store everything."""

import json
from pathlib import Path

import pytest

from chalicelib.access import tokens
from chalicelib.simulators.faults import Answer
from tests.fixtures import App
from tests.programs.test_contexts import Other, token
from tests.programs.test_terminal import run_here as run

KEYS = ["code", "msg", "user", "token_id", "expires_at", "tenants", "parties", "regions", "accounts"]
BODY = {"code": 200, "msg": "", "user": "ann", "token_id": "0" * 16, "expires_at": None, "tenants": ["123"],
        "parties": None, "regions": None, "accounts": []}


def test_the_json_of_a_server_is_the_apis_answer(served: App, tmp_path: Path) -> None:
    done = run(tmp_path, "me", "-o", "json", TWOCLOUD_URL=served.url, TWOCLOUD_TOKEN=served.token)
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode() == served.get("", path="/twocloud/me").content + b"\n"


def test_the_table_names_the_limits_and_the_accounts(served: App, tmp_path: Path) -> None:
    limited = served.issue(served.user("bob", ("123", "7"), parties=("qcloud",), regions=("gz",)))
    done = run(tmp_path, "me", "--url", served.url, TWOCLOUD_TOKEN=limited)
    assert done.returncode == 0, done.stderr
    facts, _, accounts = done.stdout.partition("\n\n")
    assert dict(line.split(None, 1) for line in facts.splitlines()) == {
        "user": "bob", "token_id": next(it.token_id for it in tokens.every(served.deployment.store, "bob")),
        "expires_at": "2026-09-22T14:13:20Z", "tenants": "123", "parties": "qcloud", "regions": "gz"}
    assert [line.split() for line in accounts.splitlines()] == [
        ["TENANT_ID", "PARTY", "ACCOUNT", "REGIONS", "DISCOVERED_BY"],
        ["123", "qcloud", "default", "ap-guangzhou", "-"]]
    assert limited not in done.stdout + done.stderr


def test_the_store_needs_no_token_and_shows_everything(app: App, tmp_path: Path) -> None:
    here = {"TWOCLOUD_STORE": app.deployment.settings.store, "TWOCLOUD_KEY": app.deployment.settings.key}
    done = run(tmp_path, "me", "-o", "json", **here)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert list(body) == KEYS
    assert {**body, "accounts": []} == {**BODY, "user": None, "token_id": None}
    assert [(it["party"], it["regions"]) for it in body["accounts"]] == [("aws", None), ("qcloud", None)]
    rows = run(tmp_path, "me", **here).stdout.splitlines()
    assert rows[-1].split() == ["123", "qcloud", "default", "all", "-"]
    assert not any(cloud.calls for cloud in app.clouds.values())


def test_an_empty_store_has_no_table(tmp_path: Path) -> None:
    done = run(tmp_path, "me")
    assert done.returncode == 0, done.stderr
    assert "tenants" in done.stdout
    assert "ACCOUNT" not in done.stdout


def test_exit_codes(served: App, tmp_path: Path) -> None:
    refused = run(tmp_path, "me", "--url", served.url, TWOCLOUD_TOKEN=token("a"))
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "not valid" in refused.stderr
    assert run(tmp_path, "me", "--url", served.url).returncode == 2             # no token
    assert run(tmp_path, "me", "--url", "http://127.0.0.1:9", TWOCLOUD_TOKEN=served.token).returncode == 3
    assert run(tmp_path, "me", "-o", "csv").returncode == 2


@pytest.mark.parametrize(("body", "code", "words"), [
    ({**BODY, "tenants": "123"}, 3, "not a twocloud server"),
    ({**BODY, "accounts": [{"tenant_id": "123"}]}, 3, "not a twocloud server"),
    ({name: value for name, value in BODY.items() if name != "parties"}, 3, "not a twocloud server"),
    ({"code": 404, "msg": "x", "error": "not_found", "request_id": "r"}, 4, "older than this command"),
    ({"code": 500, "msg": "x", "error": "internal", "request_id": "r"}, 5, "request id r"),
    (BODY, 0, "")], ids=["tenants", "accounts", "a field is missing", "older", "internal", "good"])
def test_answers_of_other_servers(tmp_path: Path, body: dict[str, object], code: int, words: str) -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": "r"}
    with Other(Answer(int(str(body["code"])), headers, json.dumps(body).encode())) as other:
        done = run(tmp_path, "me", "--url", other.url, TWOCLOUD_TOKEN=token("b"))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert (done.stdout != "") == (code == 0)
