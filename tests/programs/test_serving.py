"""`twocloud serve` as a process: several workers, a key from the environment, a local socket."""

import base64
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.programs.test_cli import TWOCLOUD
from tests.programs.test_cli import run as run_bytes


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = run_bytes(*arguments, **environment)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def serving(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the line that it shows at the start."""
    process = subprocess.Popen([TWOCLOUD, "serve", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True, env={
        **os.environ, "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db", "TWOCLOUD_KEY": f"file:{tmp_path}/key",
        **environment})
    try:
        assert process.stderr
        yield process, process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def is_listening(url: str) -> bool:
    try:
        return requests.get(f"{url}/twocloud/health", timeout=9).status_code == 200
    except requests.ConnectionError:
        return False


def url_in(line: str) -> str:
    shown = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert shown, line
    return shown[0]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_workers_serve_one_address_and_end_together(tmp_path: Path, stop: signal.Signals) -> None:
    with serving(tmp_path, "--workers", "3", "--refresh", "1h") as (process, line):
        url = url_in(line)
        until(lambda: is_listening(url))
        assert len(children(process)) == 3
        process.send_signal(stop)
        assert process.wait(40) == 0
        assert not is_listening(url)


def test_a_worker_that_dies_ends_all(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, line):
        url = url_in(line)
        until(lambda: is_listening(url))
        os.kill(children(process)[0], signal.SIGKILL)
        assert process.wait(40) == 5
        assert process.stderr
        assert "A worker ended by itself (status -9)" in process.stderr.read()
        assert not is_listening(url)


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, line):
        url = url_in(line)
        until(lambda: is_listening(url))
        process.kill()
        until(lambda: not is_listening(url))


@pytest.mark.slow
def test_a_revoked_token_is_refused_by_every_worker(tmp_path: Path) -> None:
    here = {"TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db", "TWOCLOUD_KEY": f"file:{tmp_path}/key"}
    with serving(tmp_path, "--workers", "3") as (_, line):
        url = url_in(line)
        until(lambda: is_listening(url))
        assert run("user", "add", "eve", "--tenant", "1", **here).returncode == 0
        issued = run("token", "issue", "--user", "eve", "-o", "json", **here)
        token, token_id = (re.search(rf'"{name}": ?"([^"]+)"', issued.stdout)[1]        # type: ignore[index]
                           for name in ("token", "token_id"))

        def codes() -> set[int]:            # each on a connection of its own, so that any worker takes it
            return {requests.get(f"{url}/twocloud/me", auth=(token, ""), timeout=40).status_code for _ in range(20)}

        assert codes() == {200}
        assert run("token", "revoke", token_id, **here).returncode == 0
        assert codes() == {401}


@pytest.mark.slow
def test_any_worker_answers_with_the_counts_of_all(tmp_path: Path) -> None:
    """And never with fewer than another one has shown."""
    here = {"TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db", "TWOCLOUD_KEY": f"file:{tmp_path}/key"}
    with serving(tmp_path, "--workers", "3") as (_, line):
        url = url_in(line)
        until(lambda: is_listening(url))
        assert run("user", "add", "eve", "--tenant", "*", **here).returncode == 0
        token = run("token", "issue", "--user", "eve", **here).stdout.strip()
        lowest = dict[str, float]()

        def counts() -> dict[str, float]:   # on a connection of its own, so that any worker takes it
            text = requests.get(f"{url}/twocloud/metrics", auth=(token, ""), timeout=40).text
            shown = {name: float(value) for name, value in
                     re.findall(r'(?m)^twocloud_http_requests_total\{code="200",route="([^"]+)"\} (.*)$', text)}
            assert all(shown[name] >= count for name, count in lowest.items()), (shown, lowest)
            lowest.update(shown)
            return shown

        for _ in range(30):
            assert requests.get(f"{url}/twocloud/me", auth=(token, ""), timeout=40).status_code == 200
        until(lambda: all(counts().get("/twocloud/me") == 30 for _ in range(9)))


def test_a_key_from_the_environment(tmp_path: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    here = {"TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db", "TWOCLOUD_KEY": "env:SEAL", "SEAL": key}
    credentials = tmp_path / "credentials.json"
    credentials.write_text('{"token": "not-a-real-one"}')
    stored = run("account", "put", "1", "vultr", "--credentials-file", str(credentials), **here)
    assert stored.returncode == 0, stored.stderr
    assert not [path for path in tmp_path.iterdir() if path.name == "key"]
    (tmp_path / "same").write_text(key)
    (tmp_path / "same").chmod(0o600)
    for setting in ({"TWOCLOUD_KEY": "env:SEAL"}, {"TWOCLOUD_KEY": f"file:{tmp_path}/same"}):
        opened = run("doctor", "--offline", "-o", "json", **{**here, **setting})
        assert "the key opens all 1 accounts" in opened.stdout, opened
    other = run("doctor", "--offline", "-o", "json", **{**here, "SEAL": base64.b64encode(os.urandom(32)).decode()})
    assert "sealed with another key" in other.stdout


@pytest.mark.parametrize("value", [None, "", "c2hvcnQ=", "no base64!"])
def test_a_variable_that_holds_no_key_stops_the_start(tmp_path: Path, value: str | None) -> None:
    done = run("serve", "--port", "0", TWOCLOUD_STORE=f"sqlite:///{tmp_path}/x.db", TWOCLOUD_KEY="env:SEAL",
               **({} if value is None else {"SEAL": value}))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert done.stderr.startswith("twocloud: TWOCLOUD_KEY: the variable SEAL ")
    assert "no base64!" not in done.stderr


def test_a_local_socket(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", f"unix:{tmp_path}/s") as (process, line):
        assert line == f"twocloud listens on unix:{tmp_path}/s\n"
        command = ["curl", "-sS", "--fail-with-body", "--unix-socket", f"{tmp_path}/s", "http://x/twocloud/health"]
        assert '"status":"ok"' in subprocess.run(command, capture_output=True, text=True, timeout=40).stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    assert not (tmp_path / "s").exists()
