"""doctor and explain: each fault that an operator meets is named, with what to do; nothing is changed."""

import importlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from tests.canaries import secret
from tests.fixtures import App
from tests.logs import heard
from tests.programs.test_contexts import CONFIG, add, token
from tests.programs.test_terminal import GZ, cloud, folder
from tests.programs.test_terminal import run_here as run

__all__ = ["cloud", "folder"]               # fixtures
explaining = importlib.import_module("chalicelib.cli.explain")     # its package names the command so


def doctor(folder: Path, *arguments: str, code: int, **environment: str) -> dict[str, dict[str, Any]]:
    done = run(folder, "doctor", "-o", "json", *arguments, **environment)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done
    assert "canary" not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    for row in report:
        assert row["state"] == "ok" or row["todo"] or row["check"] in ("accounts", "clock", "contexts", "seals",
                                                                       "connection", "snapshots"), row
    worst = {"ok": 0, "warn": 1, "fail": 2}
    by_name: dict[str, dict[str, Any]] = {}
    for row in report:
        if row["check"] not in by_name or worst[row["state"]] > worst[by_name[row["check"]]["state"]]:
            by_name[row["check"]] = row
    return by_name


def test_a_healthy_machine(folder: Path, cloud: Qcloud) -> None:
    run(folder, "user", "add", "ann", "--tenant", "123")
    run(folder, "servers", *GZ)
    calls = cloud.count()
    checks = doctor(folder, code=0)
    assert {name: row["state"] for name, row in checks.items()} == {
        "program": "ok", "settings": "ok", "local": "warn", "contexts": "ok", "disk": "ok", "key": "ok", "store": "ok",
        "users": "ok",
        "seals": "ok", "123 qcloud": "ok", "clock": "ok", "snapshots": "ok"}
    assert cloud.count() == calls + 1
    assert "-> Unset it" in run(folder, "doctor").stdout
    assert cloud.count() == calls + 2
    assert doctor(folder, "--offline", code=0)["accounts"]["text"] == "1, not checked (--offline)"
    assert cloud.count() == calls + 2


def test_nothing_is_made(tmp_path: Path) -> None:
    checks = doctor(tmp_path, code=0)
    assert (checks["store"]["state"], checks["key"]["state"]) == ("warn", "warn")
    assert list(tmp_path.iterdir()) == []
    for name, value in (("TWOCLOUD_STORE", "mysql://x"), ("TWOCLOUD_TIMEZONE", "Mars"), ("TWOCLOUD_MAX_AGE", "-1")):
        assert name in doctor(tmp_path, code=1, **{name: value})["settings"]["text"]


def test_files_that_others_may_read(folder: Path) -> None:
    for name in ("twocloud.db", "key"):
        path = folder / ".twocloud" / name
        path.chmod(0o644)
        checks = doctor(folder, "--offline", code=1)
        assert checks["store" if name.endswith("db") else "key"]["todo"] == f"chmod 600 .twocloud/{name}"
        path.chmod(0o600)
    assert doctor(folder, "--offline", code=0)


def test_keys_that_do_not_open(folder: Path) -> None:
    key = folder / ".twocloud/key"
    kept = key.read_bytes()
    key.write_bytes(b"A" * 43 + b"=\n")
    checks = doctor(folder, code=1)
    assert checks["123 qcloud"]["state"] == "fail"
    assert "another key" in checks["123 qcloud"]["text"]
    assert "account put --replace 123 qcloud" in checks["123 qcloud"]["todo"]
    key.write_bytes(b"short")
    assert "does not hold a key" in doctor(folder, code=1)["seals"]["text"]
    key.unlink()
    assert "their key does not exist" in doctor(folder, code=1)["seals"]["text"]
    assert not key.exists()
    key.write_bytes(kept)
    key.chmod(0o600)
    assert doctor(folder, code=0)["seals"]["state"] == "ok"


def test_accounts_that_do_not_work(folder: Path, cloud: Qcloud) -> None:
    right = cloud.keys["AKIDterm"]
    cloud.keys["AKIDterm"] = "another"
    checks = doctor(folder, code=1)
    assert "wrong key" in checks["123 qcloud"]["text"]
    assert "account check 123 qcloud" in checks["123 qcloud"]["todo"]
    assert checks["clock"]["state"] == "ok"
    cloud.keys["AKIDterm"], cloud.late = right, 900.0
    checks = doctor(folder, code=1)
    assert "clock" in checks["123 qcloud"]["text"]
    assert checks["clock"]["state"] == "fail"
    assert "behind" in checks["clock"]["text"]
    assert "NTP" in checks["clock"]["todo"]
    cloud.late = -900.0
    assert "ahead" in doctor(folder, code=1)["clock"]["text"]
    cloud.late = 0.0
    with Qcloud({"AKIDterm": right}, {"ap-guangzhou": Fleet(1)}) as other:
        keys = json.dumps({"secret_id": "AKIDterm", "secret_key": right})
        assert run(folder, "account", "put", "7", "qcloud", "--endpoint", other.url, stdin=keys).returncode == 0
    checks = doctor(folder, code=1)          # one that is switched off beside one that is well
    assert (checks["7 qcloud"]["state"], checks["123 qcloud"]["state"]) == ("fail", "ok")
    assert "cannot be reached" in checks["7 qcloud"]["text"]
    plain = doctor(folder, code=1, TWOCLOUD_LOCAL="0")
    assert "TWOCLOUD_LOCAL=1" in plain["123 qcloud"]["text"]


def test_stores_that_are_broken(folder: Path) -> None:
    path = folder / ".twocloud/twocloud.db"
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA user_version = 9")
    assert "schema version 9" in doctor(folder, code=1)["store"]["text"]
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA user_version = 1")
        store.execute("DROP TABLE entry")
    assert "no such table" in doctor(folder, code=1)["store"]["text"]
    for file in path.parent.glob("twocloud.db*"):
        file.unlink()
    path.write_bytes(b"not a database at all, " * 400)
    path.chmod(0o600)
    assert doctor(folder, code=1)["store"]["state"] == "fail"
    assert path.read_bytes().startswith(b"not a database")
    if os.getuid():                         # root may write anywhere
        path.chmod(0o400)
        assert "not writable" in doctor(folder, code=1)["store"]["text"]


def test_a_server_from_outside(served: App, tmp_path: Path) -> None:
    add(tmp_path, "here", served.url, served.token)
    checks = doctor(tmp_path, code=0)
    assert {name: row["state"] for name, row in checks.items()} == {
        "program": "ok", "server": "ok", "connection": "ok", "health": "ok", "clock": "ok", "token": "ok"}
    assert "context here" in checks["server"]["text"]
    assert served.token not in json.dumps(checks)
    assert doctor(tmp_path, "--url", served.url, code=0)["token"]["state"] == "warn"
    wrong = doctor(tmp_path, "--url", served.url, code=1, TWOCLOUD_TOKEN=token("n"))
    assert wrong["token"]["state"] == "fail"
    assert "request id" in wrong["token"]["text"]
    assert "token issue" in wrong["token"]["todo"]
    assert "connection refused" in doctor(tmp_path, "--url", "http://127.0.0.1:9", code=1)["connection"]["text"]
    assert "connection" not in doctor(tmp_path, "--url", "http://127.0.0.1:9", "--offline", code=0)
    (tmp_path / CONFIG).unlink()


# ---------------------------------------------------------------- explain

def explain(folder: Path, *arguments: str, code: int = 0, **environment: str) -> Any:
    done = run(folder, "explain", *arguments, "-o", "json", **environment)
    assert done.returncode == code, done
    return json.loads(done.stdout)


def test_explain_tells_party_and_snapshot_apart(folder: Path, cloud: Qcloud) -> None:
    report = explain(folder, *GZ)
    (source,), (call,) = report["sources"], report["calls"]
    assert (source["state"], source["from"], source["count"], source["calls"]) == ("ok", "party", 12, 1)
    assert "max_age is 0" in source["why"] or "there is no snapshot" in source["why"]
    assert (call["operation"], call["status"], call["error"]) == ("DescribeInstances", 200, None)
    assert call["milliseconds"] > 0
    assert source["permissions"] == ["cvm:DescribeInstances"]
    assert report["milliseconds"] >= report["party_milliseconds"] > 0
    calls = cloud.count()
    report = explain(folder, *GZ, "--max-age", "600")
    assert report["calls"] == []
    assert report["sources"][0]["from"] == "snapshot"
    assert "max_age allows 600 s" in report["sources"][0]["why"]
    assert cloud.count() == calls
    several = explain(folder, "--party", "qcloud", "--tenant", "123", "--region", "gz,sh", "--max-age", "600")
    assert [(row["region"], row["from"]) for row in several["sources"]] == [("ap-guangzhou", "snapshot"),
                                                                            ("ap-shanghai", "party")]
    assert {call["region"] for call in several["calls"]} == {"ap-shanghai"}
    drawn = run(folder, "explain", *GZ).stdout
    for word in ("queried: the store", "freshness: ", "DescribeInstances", "needs: cvm:DescribeInstances"):
        assert word in drawn


def test_explain_tells_why_a_party_failed(folder: Path, cloud: Qcloud) -> None:
    cloud.fail("503")
    cold = explain(folder, *GZ, code=5)
    assert cold["sources"][0]["state"] == "failed"
    assert "there is no snapshot" in cold["sources"][0]["why"]
    assert [(call["status"], call["error"]) for call in cold["calls"]] == [(503, "party_unavailable")] * 2
    assert cold["retries"] == 1
    cloud.plans.clear()
    assert explain(folder, *GZ)["sources"][0]["failures_in_a_row"] == 1
    cloud.fail("503")
    stale = explain(folder, *GZ)
    assert (stale["sources"][0]["state"], stale["sources"][0]["from"]) == ("stale", "snapshot")
    assert "the stale snapshot serves" in stale["sources"][0]["why"]
    for _ in range(8):
        run(folder, "servers", *GZ)
    calls = cloud.count()
    report = explain(folder, *GZ)
    source = report["sources"][0]
    assert cloud.count() == calls, source
    assert report["calls"] == [], source
    assert source["breaker_open_seconds"] > 0, source
    assert "the circuit breaker is open for" in source["why"], source
    cloud.plans.clear()
    cloud.fail("close")
    other = explain(folder, "--party", "qcloud", "--tenant", "123", "--region", "sh", code=5)
    assert other["calls"][0]["status"] is None
    assert other["calls"][0]["error"] == "party_unavailable"


@pytest.mark.slow
def test_explain_headers_and_log_say_the_same(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """One place decides why a source is answered as it is; whoever prints it repeats that."""
    monkeypatch.setattr(explaining, "deployment", lambda: served.deployment)
    cloud, headers = served.clouds["qcloud"], list[str]()

    def compare(served_as: str, *more: tuple[str, str], header: str | None, status: int = 200) -> str:
        pairs = [("party", "qcloud"), ("tenant_id", "123"), ("region", "gz"), *more]
        report, error = explaining._over_store(pairs)
        (source,) = report["sources"]
        with heard() as lines:
            response = served.get(urlencode(pairs))
        line = next(line for line in map(json.loads, lines) if line["event"] == "request")
        assert line["why"] == source["why"]
        headers.append(line["why"])
        assert response.status_code == status == (error.status if error else 200), response.text
        assert response.headers.get("Cache-Status") == header
        assert line.get("snapshot") == (None if error else served_as)
        assert line.get("error") == source["error"]
        assert source["state"] == {"live": "ok", "hit": "ok"}.get(served_as, served_as)
        return line["why"]

    cloud.fail("503")
    assert compare("failed", header=None, status=503).startswith("there is no snapshot")
    cloud.plans.clear()
    assert compare("live", ("f", "1"), ("t", "3"), header=None) == "there is no snapshot; the party was queried"
    served.get("party=qcloud&tenant_id=123&region=gz")
    assert "max_age is 0" in compare("live", ("f", "1"), ("t", "3"), header=None)
    served.clock.forward(5)
    assert compare("hit", ("max_age", "60"), header="twocloud; hit") == "the snapshot is 5 s old, max_age allows 60 s"
    cloud.fail("503")
    assert "the stale snapshot serves" in compare("stale", header="twocloud; hit; detail=party_unavailable")
    assert "0 s are allowed" in compare("failed", ("on_error", "fail"), header=None, status=503)
    for _ in range(8):
        served.get("party=qcloud&tenant_id=123&region=gz")
    assert "the circuit breaker is open" in compare("stale", header="twocloud; hit; detail=party_unavailable")
    assert len(set(headers)) == len(headers)


def test_explain_over_http(served: App, tmp_path: Path) -> None:
    add(tmp_path, "here", served.url, served.token)
    report = explain(tmp_path, *GZ)
    assert report["status"] == 200
    assert report["headers"]["X-Request-Id"]
    assert report["sources"][0]["count"] == 25
    assert report["chosen_by"].startswith("context here")
    assert explain(tmp_path, *GZ, "--max-age", "600")["headers"]["Cache-Status"] == "twocloud; hit"
    served.clouds["qcloud"].fail("503")
    assert explain(tmp_path, *GZ)["sources"][0]["state"] == "stale"
    refused = explain(tmp_path, *GZ, "--from", "0", code=4)
    assert refused["error"]["error"] == "invalid_parameter"
    assert "vm_servers" not in refused
    assert explain(tmp_path, *GZ, "--on-error", "fail", code=5)["status"] == 503
    served.clouds["qcloud"].plans.clear()
    several = explain(tmp_path, "--party", "all", "--tenant", "123", "--region", "gz,us-east-1", "--max-age", "600")
    assert [row["party"] for row in several["sources"]] == ["aws", "qcloud"]
    (tmp_path / CONFIG).unlink()


@pytest.mark.parametrize("arguments", [("--party", "nope", "--tenant", "1", "--region", "x"),
                                       ("--party", "qcloud", "--tenant", "7", "--region", "gz")])
def test_explain_refuses_as_servers_does(folder: Path, arguments: tuple[str, ...]) -> None:
    one, other = run(folder, "explain", *arguments), run(folder, "servers", *arguments)
    assert one.returncode == other.returncode == 4
    assert one.stderr == other.stderr
    assert one.stdout == ""


def test_nothing_secret_is_said(folder: Path) -> None:
    for words in (("doctor",), ("doctor", "--debug"), ("explain", *GZ, "--debug")):
        done = run(folder, *words)
        assert "canary" not in done.stdout + done.stderr
        assert secret("none") not in done.stdout


def test_a_file_of_contexts_that_others_may_read_is_told_once(folder: Path) -> None:
    (folder / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text("")
    (folder / CONFIG).chmod(0o644)
    done = run(folder, "doctor", "--offline")
    assert done.returncode == 1, done
    assert done.stdout.count("others may read it") == 1, done
    assert [row["state"] for row in json.loads(run(folder, "doctor", "--offline", "-o", "json").stdout)
            if row["check"] == "contexts"] == ["fail"]
