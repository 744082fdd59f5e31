"""An account's row that somebody damaged in the store: a clear error, and the way out that it names works."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib import cli
from chalicelib.access import accounts
from chalicelib.cli import output
from chalicelib.errors import Internal
from chalicelib.fleet import schedule
from chalicelib.model import Source
from chalicelib.storage.store import Place, Row, Store
from tests.canaries import secret
from tests.fixtures import App

KEYS = {"secret_id": "AKIDdamaged", "secret_key": secret("damaged")}
PLACE = ["123", "qcloud"]


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("TWOCLOUD_STORE", "TWOCLOUD_KEY"):
        monkeypatch.delenv(name, raising=False)
    output.deployment.cache_clear()
    put()
    yield
    output.deployment.cache_clear()


def put(*more: str) -> None:
    Path("keys.json").write_bytes(msgspec.json.encode(KEYS))
    assert cli.main(["account", "put", *PLACE, "--credentials-file", "keys.json", *more]) == 0
    Path("keys.json").unlink()


def damage(how: str, field: str = "", value: Any = None) -> None:
    with closing(sqlite3.connect(".twocloud/twocloud.db")) as thief:
        (text,), = thief.execute("SELECT value FROM entry WHERE kind = 'account'").fetchall()
        row = msgspec.json.encode({**msgspec.json.decode(text), field: value})
        made = {"garbage": b"\xff{", "no UTF-8": b'{"tenant_id": "\xff"}', "empty": b"", "list": b"[]"}.get(how, row)
        thief.execute("UPDATE entry SET value = ? WHERE kind = 'account'", (made,))
        thief.commit()


@pytest.mark.parametrize("way_out", ["replace", "remove"])
@pytest.mark.parametrize("how", [("garbage",), ("no UTF-8",), ("empty",), ("list",), *(
    ("field", name, value) for name, value in (
        ("tenant_id", "9"), ("party", "aws"), ("sealed", 5), ("revision", 7), ("deep", None), ("regions", "gz"),
        ("endpoint", 1), ("created_at", "x"), ("bound", 2)))], ids=str)
def test_a_damaged_row_names_itself_and_can_be_put_again_or_removed(how: tuple[Any, ...], way_out: str,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    damage(*how)
    for line in (["list"], ["show", *PLACE], ["check", *PLACE], ["reseal"]):
        capsys.readouterr()
        assert cli.main(["account", *line]) == 5
        shown = capsys.readouterr().err
        assert "Account row 123/qcloud in the store" in shown, shown
        assert "--replace" in shown, shown
    if way_out == "replace":
        put("--replace")
        assert cli.main(["account", "list"]) == 0
    else:
        assert cli.main(["account", "remove", *PLACE]) == 0
        assert cli.main(["account", "remove", *PLACE]) == 4


def test_the_schedule_goes_on_for_all_other_accounts() -> None:
    damage("field", "regions", 5)
    Path("keys.json").write_bytes(msgspec.json.encode(KEYS))
    assert cli.main(["account", "put", "456", "qcloud", "--region", "ap-beijing", "--credentials-file",
                     "keys.json"]) == 0
    Path("keys.json").unlink()
    with pytest.raises(Internal):
        accounts.every(output.deployment().store)
    assert list(schedule.known(output.deployment())) == [Source("456", "qcloud", "ap-beijing")]


# ---------------------------------------------------------------- one damaged account among others

GARBAGE, FOREIGN = b'{"tenant_id": "\xff"}', ("account", "123/qcloud")
DEFAULT, NAMED = ("account", "456/qcloud"), ("named", "456/qcloud@prod")
HIDDEN = "Internal error. Retry; if it persists, report the request id."


def row_at(store: Store, place: Place) -> Row:
    row = store.get(*place)
    assert row
    return row


def change(place: Place, **fields: Any) -> Callable[[Store], None]:
    return lambda store: store.put(*place, msgspec.json.encode(
        msgspec.json.decode(row_at(store, place).value) | fields))


# how the row is damaged, and the account's name and party
UNREADABLE: dict[str, tuple[Callable[[Store], None], str, str]] = {
    "default": (lambda store: store.put(*DEFAULT, GARBAGE), "default", "qcloud"),
    "named": (lambda store: store.put(*NAMED, GARBAGE), "prod", "qcloud"),
    "another tenant's": (lambda store: store.put(*NAMED, row_at(store, FOREIGN).value), "prod", "qcloud"),
    "the default one's": (lambda store: store.put(*NAMED, row_at(store, DEFAULT).value), "prod", "qcloud"),
    "of a party of a later version": (lambda store: store.put("named", "456/newcloud@prod", msgspec.json.encode(
        msgspec.json.decode(row_at(store, NAMED).value) | {"party": "newcloud"})), "prod", "newcloud"),
}
TAMPERED = {"project": change(NAMED, project="1234"), "regions": change(NAMED, regions=["ap-guangzhou", "ap-shanghai"]),
            "endpoint": change(NAMED, endpoint="https://evil.example")}
ALL, LIST = "party=all&tenant_id=all&region=all", "party=all&tenant_id=all&region=gz"
SINCE = "tenant_id=all&since=2026-09-20T00:00:00Z"


def add(app: App, name: str) -> None:
    """Another account of tenant 456, with the credentials of tenant 123."""
    here = app.deployment
    keys = accounts.load(here.store, here.sealer, "123", "qcloud", local=True).credentials
    app.account("qcloud", keys, app.clouds["qcloud"].url, tenant="456", name=name)


@pytest.fixture
def tenants(served: App) -> App:
    """Tenant 123, and 456 with two accounts at qcloud."""
    add(served, "default")
    add(served, "prod")
    return served


@pytest.fixture(params=[("*",), ("123", "456")], ids=str)
def wide(tenants: App, request: pytest.FixtureRequest) -> str:
    return tenants.issue(tenants.user("both", request.param))


def refused(tenants: App, token: str, query: str) -> None:
    answer = tenants.get(query, token)
    body = answer.json()
    assert answer.status_code == 500, body
    assert (body["error"], body["msg"]) == ("internal", HIDDEN)
    assert "vm_servers" not in body


@pytest.mark.sample(4)
@pytest.mark.parametrize("how", UNREADABLE)
def test_a_damaged_row_is_a_failed_source_of_those_who_may_see_it(tenants: App, wide: str, how: str) -> None:
    damage, account, party = UNREADABLE[how]
    paths = [("/twocloud/servers", f"{ALL}&max_age=600"), ("/twocloud/servers", "party=all&tenant_id=123&region=gz"),
             ("/twocloud/changes", SINCE), ("/twocloud/me", "")]
    assert tenants.get(f"{ALL}&max_age=600", wide).status_code == 200
    before = [tenants.get(query, path=path).content for path, query in paths]
    damage(tenants.deployment.store)
    assert [tenants.get(query, path=path).content for path, query in paths] == before   # for tenant 123 nothing changes

    queries = [ALL, f"{ALL}&max_age=600", f"{ALL}&account=all", "party=all&tenant_id=123,456&region=all"]
    if party == "qcloud":
        queries += [query.replace("region=all", "region=gz") for query in queries]
    for query in queries:
        refused(tenants, wide, query)
        refused(tenants, wide, f"{query}&on_error=fail")
        body = tenants.get(f"{query}&on_error=partial", wide).json()
        assert body["complete"] is False
        assert [source for source in body["sources"] if source["state"] == "failed"] == [
            {"party": party, "region": "all", "state": "failed", "count": None, "age": None, "error": "internal",
             "msg": HIDDEN, "tenant_id": "456", "account": account}]
        accounts_shown = {(row["tenant_id"], row["account"]) for row in body["vm_servers"]}
        assert accounts_shown == {("123", "default"), ("456", "default"), ("456", "prod")} - (
            {("456", account)} if party == "qcloud" else set())

    body = tenants.get("", wide, path="/twocloud/me").json()
    assert {"tenant_id": "456", "party": party, "account": account, "regions": None,
            "discovered_by": None} in body["accounts"]
    assert body["tenants"] == ["123", "456"]
    assert tenants.get(SINCE, wide, path="/twocloud/changes").status_code == 200


@pytest.mark.sample(3)
@pytest.mark.parametrize("how", TAMPERED)
def test_settings_that_are_not_those_sealed_fail_their_source_alone(tenants: App, wide: str, how: str) -> None:
    before = tenants.get(LIST).content
    TAMPERED[how](tenants.deployment.store)
    assert tenants.get(LIST).content == before
    refused(tenants, wide, LIST)
    refused(tenants, wide, "party=qcloud&tenant_id=456&region=gz&account=prod")
    for query in (LIST, ALL, "party=qcloud&tenant_id=456&region=gz,sh"):
        body = tenants.get(f"{query}&on_error=partial", wide).json()
        assert {(it["tenant_id"], it["account"], it["error"]) for it in body["sources"] if it["state"] == "failed"} == {
            ("456", "prod", "internal")}
        assert {row["account"] for row in body["vm_servers"]} == {"default"}
    assert tenants.get("party=qcloud&tenant_id=456&region=gz&account=default", wide).status_code == 200
    assert tenants.get("", wide, path="/twocloud/me").status_code == 200


def test_one_damaged_account_of_two_leaves_the_other(tenants: App, wide: str) -> None:
    tenants.deployment.store.put(*NAMED, GARBAGE)
    query = "party=qcloud&tenant_id=456&region=gz"
    refused(tenants, wide, query)
    body = tenants.get(f"{query}&on_error=partial", wide).json()
    assert [(it["account"], it["state"]) for it in body["sources"]] == [("default", "ok"), ("prod", "failed")]
    assert tenants.get(f"{query}&account=default", wide).json()["vm_servers"]
    refused(tenants, wide, f"{query}&account=prod")
    for account in ("other", "prod2", "default:x"):
        assert tenants.get(f"{query}&account={account}", wide).status_code == 404
    assert tenants.get("party=qcloud&tenant_id=123,456&region=gz&account=prod&on_error=partial", wide).json()[
        "complete"] is False


def test_a_limit_to_other_regions_decides_before_the_damage(tenants: App) -> None:
    tenants.deployment.store.put(*NAMED, GARBAGE)
    tenants.deployment.store.delete(*DEFAULT)
    narrow = tenants.issue(tenants.user("narrow", ("456",), regions=("sh",)))
    for query, status in (("party=qcloud&region=gz", 403), ("party=all&region=gz", 403),
                          ("party=qcloud&region=sh", 500), ("party=all&region=all", 500),
                          ("party=aws&region=us-east-1", 403), ("party=all&region=us-east-1", 403)):
        assert tenants.get(f"tenant_id=456&{query}", narrow).status_code == status, query
    far = tenants.issue(tenants.user("far", ("456",), regions=("fsn1",)))
    assert tenants.get("", narrow, path="/twocloud/me").json()["accounts"] == [
        {"tenant_id": "456", "party": "qcloud", "account": "prod", "regions": ["ap-shanghai"], "discovered_by": None}]
    assert tenants.get("", far, path="/twocloud/me").json()["accounts"] == []


@pytest.mark.parametrize("value", [GARBAGE, b"[5]", b'["default","prod","prod","gone"]'], ids=str)
def test_names_that_are_damaged_are_read_from_the_accounts_themselves(tenants: App, wide: str, value: bytes) -> None:
    query = "party=qcloud&tenant_id=456&region=gz"
    before = tenants.get(query, wide).content
    store = tenants.deployment.store
    store.put("names", "456/qcloud", value)
    assert tenants.get(query, wide).content == before
    add(tenants, "more")
    assert {*json.loads(row_at(store, ("names", "456/qcloud")).value)} >= {"more", "prod"}
    assert {it["account"] for it in tenants.get(query, wide).json()["sources"]} == {"default", "more", "prod"}
    for name in ("more", "prod"):
        accounts.remove(store, "456", "qcloud", name)
    assert "sources" not in tenants.get(query, wide).json()


def test_an_operator_is_told_which_row_it_is_and_doctor_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    put("--account", "prod")
    with closing(sqlite3.connect(".twocloud/twocloud.db")) as thief:
        thief.execute("UPDATE entry SET value = x'00' WHERE kind = 'named'")
        thief.commit()
    for more in (["--account", "prod"], []):
        capsys.readouterr()
        assert cli.main(["servers", "--tenant", "123", "--party", "qcloud", "--region", "gz", "--max-age", "60",
                         *more]) == 5
        assert "Account row 123/qcloud@prod" in capsys.readouterr().err
    assert cli.main(["doctor", "--offline", "-o", "json"]) == 1
    checks = {it["check"]: (it["state"], it["text"]) for it in json.loads(capsys.readouterr().out)}
    assert checks["123 qcloud --account prod"][0] == "fail"
    assert "123/qcloud@prod" in checks["123 qcloud --account prod"][1]
    assert checks["seals"][0] == "ok"
