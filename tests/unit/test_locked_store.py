"""Another program holds SQLite's write lock: answers do not wait for what is written beside them, needed writes do."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib import cli
from chalicelib.access import accounts
from chalicelib.cli import output
from chalicelib.errors import StoreBusy
from chalicelib.fleet import one_source, schedule
from chalicelib.fleet.lookup import REQUEST_SECONDS
from chalicelib.http import api
from chalicelib.model import Source
from chalicelib.storage import snapshots
from chalicelib.storage import store as stores
from chalicelib.storage.sqlite import SqliteStore
from tests import canaries
from tests.fixtures import GZ, US, App, Clock

SOURCE = Source("123", "qcloud", "ap-guangzhou")
HOLD = """
import sqlite3, sys, time
it = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
it.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
if sys.argv[3] == "-":
    sys.stdin.read()
else:
    time.sleep(float(sys.argv[3]))
it.execute("ROLLBACK")
"""


@contextmanager
def locked(path: Path, how: str = "IMMEDIATE", seconds: float | None = None) -> Iterator[None]:
    """A real second process in a write transaction: as long as the block, or for so many seconds."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), how, "-" if seconds is None else str(seconds)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdin
    assert holder.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        holder.stdin.close()
        assert holder.wait(60) == 0
        holder.stdout.close()


def file_of(app: App) -> Path:
    return Path(app.deployment.settings.store.removeprefix("sqlite:///"))


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_reads_go_on(served: App, how: str) -> None:
    """Before: 25 to 45 s each, five for every small write beside the answer."""
    with locked(file_of(served), how):
        for query in (GZ, f"{GZ}&f=1&t=5", US, "party=all&tenant_id=123&region=gz,us-east-1"):
            began = time.monotonic()
            answer = served.get(query)
            assert answer.status_code == 200, answer.text
            assert answer.json()["vm_servers"], answer.text
            assert time.monotonic() - began < 5
        served.clouds["aws"].close()
        began = time.monotonic()
        assert served.get(US).status_code == 503                # a failure is not waited with either
        assert time.monotonic() - began < 8
    assert snapshots.find(served.deployment.store, SOURCE, _revision(served)) is None
    served.clock.forward(601)
    assert served.get(GZ).status_code == 200                    # and what was skipped is made up for
    head = snapshots.find(served.deployment.store, SOURCE, _revision(served))
    assert head
    assert head.total == 25
    with locked(file_of(served), how):
        began = time.monotonic()
        kept = served.get(f"{GZ}&max_age=3600")
        assert kept.status_code == 200
        assert "hit" in kept.headers["Cache-Status"]
        assert time.monotonic() - began < 3


def _revision(app: App) -> str:
    return accounts.find(app.deployment.store, "123", "qcloud").revision


def test_a_revoke_waits_for_the_lock_and_is_done(served: App) -> None:
    """Longer than the five seconds after which it used to fail; others are answered meanwhile."""
    with locked(file_of(served), seconds=7), ThreadPoolExecutor(1) as pool:
        revoked = pool.submit(served.get, "", method="DELETE", path="/twocloud/tokens")
        for _ in range(3):
            began = time.monotonic()
            assert served.get(f"{US}&max_age=3600").status_code in (200, 401)
            assert time.monotonic() - began < 5
        assert revoked.result(40).status_code == 204
    assert served.get(GZ).status_code == 401


def test_a_needed_write_waits_no_longer_than_its_request(tmp_path: Path, clock: Clock) -> None:
    store = SqliteStore(f"{tmp_path}/store.db", clock)
    with locked(tmp_path / "store.db"):
        for block, least, most in ((stores.within(time.monotonic() + 1.5), 1.2, 5.0), (stores.beside(), 0.0, 1.5)):
            with block:
                began = time.monotonic()
                for write in ((lambda: store.put("k", "a", b"1")), (lambda: store.delete("k", "a")),
                              (lambda: store.write([stores.Entry("k", "a", b"1", 1, None)]))):
                    with pytest.raises(StoreBusy, match="nothing was written"):
                        write()
                assert least <= time.monotonic() - began < most
        store.delete("k")                   # nothing to do waits for nobody
    with stores.beside():
        store.put("k", "a", b"1")
    assert store.get("k", "a")
    store.close()


def test_no_request_waits_for_the_store_beyond_its_end(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a path asks of the store, from the check of the token on, a store's server is waited for as long as the
    request has time."""
    patience, password = list[float](), canaries.secret("eve")

    def watched(name: str) -> Callable[..., object]:
        real = getattr(SqliteStore, name)

        def verb(self: SqliteStore, *place: Any, **more: Any) -> object:
            patience.append(stores.read_patience(inf))
            return real(self, *place, **more)

        return verb

    served.user("eve", password=password)
    for name in ("get", "get_many", "put", "delete", "list"):
        monkeypatch.setattr(SqliteStore, name, watched(name))
    since = datetime.fromtimestamp(served.clock() - 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for path, methods in api.ROUTES.items():
        query = {"/twocloud/servers": f"{GZ},ap-shanghai",
                 "/twocloud/changes": f"tenant_id=all&since={since}"}.get(path, "")
        for method in methods:
            if path != "/twocloud/tokens":
                assert served.get(query, method=method, path=path).status_code == 200
    assert requests.post(f"{served.url}/twocloud/tokens", auth=("eve", password), timeout=40).status_code == 200
    assert served.get("", method="DELETE", path="/twocloud/tokens").status_code == 204
    assert len(patience) > 20
    assert max(patience) <= REQUEST_SECONDS


@pytest.mark.slow
def test_a_patient_write_keeps_no_other_thread_waiting(tmp_path: Path, clock: Clock) -> None:
    store = SqliteStore(f"{tmp_path}/store.db", clock)
    with locked(tmp_path / "store.db", seconds=4), ThreadPoolExecutor(8) as pool:
        patient = [pool.submit(store.put, "k", str(n), b"1") for n in range(7)]
        time.sleep(0.3)
        began = time.monotonic()
        with stores.beside(), pytest.raises(StoreBusy):
            store.put("k", "beside", b"1")
        assert time.monotonic() - began < 3
        assert [it.result(30) for it in patient] == [None] * 7
    assert len(list(store.list("k"))) == 7
    store.close()


@pytest.mark.slow
def test_a_refresh_waits_for_what_it_is_for(app: App) -> None:
    with locked(file_of(app), seconds=3):
        assert one_source.refresh(app.deployment, SOURCE, time.monotonic() + 60).total == 25
    head = snapshots.find(app.deployment.store, SOURCE, _revision(app))
    assert head
    assert head.total == 25


@pytest.mark.parametrize("kind", ["chunk", "snapshot"])
def test_a_refresh_whose_list_the_store_does_not_take_says_so(app: App, monkeypatch: pytest.MonkeyPatch,
                                                              kind: str) -> None:
    """It lists in order to keep; an answer stands without."""
    real = SqliteStore.put

    def put(self: SqliteStore, where: str, *place: Any, **more: Any) -> None:
        if where == kind:
            raise StoreBusy("the disk is full")
        real(self, where, *place, **more)

    monkeypatch.setattr(SqliteStore, "put", put)
    result, = schedule.run(app.deployment, [SOURCE])
    assert result.error
    assert result.error.text == "the disk is full"
    assert result.total is None
    assert one_source.list_servers(app.deployment, SOURCE).total == 25


def test_commands_that_read_start_while_it_is_locked(app: App, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    settings = app.deployment.settings
    for name, value in (("STORE", settings.store), ("KEY", settings.key), ("LOCAL", "1")):
        monkeypatch.setenv(f"TWOCLOUD_{name}", value)
    with locked(file_of(app)):
        for line in (("account", "list"), ("token", "list"),
                     ("servers", "--party", "qcloud", "--tenant", "123", "--region", "gz")):
            output.deployment.cache_clear()
            began = time.monotonic()
            assert cli.main(line) == 0, capsys.readouterr().err
            assert time.monotonic() - began < 6
        monkeypatch.setattr(stores, "_most", ContextVar("most", default=0.5))
        output.deployment.cache_clear()
        assert cli.main(("user", "disable", "ann")) == 5
        assert "Another program holds the write lock" in capsys.readouterr().err
