"""The page on PostgreSQL, as written: several `serve` over one database, one of them killed, a dump, a copy."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage.store import open_store
from tests import ROOT
from tests.canaries import secret
from tests.postgres import Postgres
from tests.programs.test_terminal import GZ
from tests.programs.test_terminal import run_here as run

KEY = secret("page")
PAGE = (ROOT / "docs/postgresql.md").read_text()


@pytest.fixture(scope="module")
def database() -> Generator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def cloud() -> Generator[Qcloud]:
    with Qcloud({"AKIDpage": KEY}, {"ap-guangzhou": Fleet(30)}, latency=0.1) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, database: Postgres, cloud: Qcloud) -> Path:
    """With a key and an account, in an empty database."""
    database.run("DROP TABLE IF EXISTS twocloud, twocloud_schema")
    keys = json.dumps({"secret_id": "AKIDpage", "secret_key": KEY})
    done = run(tmp_path, "account", "put", "123", "qcloud", "--endpoint", cloud.url, "--region", "ap-guangzhou",
               stdin=keys, TWOCLOUD_STORE=database.url)
    assert done.returncode == 0, done.stderr
    return tmp_path


def token(folder: Path, database: Postgres, name: str = "ann") -> tuple[str, str]:
    """A token and its password, of a new user."""
    password = secret(name)
    for arguments, stdin in ((("user", "add", name, "--tenant", "123", "--password-stdin"), password),
                             (("token", "issue", "--user", name, "-o", "json"), "")):
        done = run(folder, *arguments, stdin=stdin, TWOCLOUD_STORE=database.url)
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["token"], password


@contextmanager
def serve(folder: Path, database: Postgres) -> Generator[tuple[str, "subprocess.Popen[str]"]]:
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("TWOCLOUD_")}, "HOME": str(folder),
                   "TWOCLOUD_STORE": database.url, "TWOCLOUD_KEY": f"file:{folder}/.twocloud/key"}
    with subprocess.Popen([sys.executable, "-m", "chalicelib", "serve", "--port", "0"], cwd=ROOT, env=environment,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            line = next(line for line in process.stderr if "twocloud listens on " in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield line.split("listens on ")[1].split()[0], process
        finally:
            process.kill()


QUERY = {"party": "qcloud", "tenant_id": "123", "region": "gz"}


def test_a_database_is_made_as_its_page_says(database: Postgres) -> None:
    lines = [line.replace("twocloud", "page") for line in PAGE.splitlines()
             if line.startswith(("createuser", "createdb"))]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line, shell=True, check=True, timeout=60, env={
            "PATH": f"{database.bin}:{os.environ['PATH']}", "PGHOST": "127.0.0.1", "PGPORT": str(database.port),
            "PGUSER": "twocloud", "PGDATABASE": "twocloud"})
    open_store(f"postgresql://page@127.0.0.1:{database.port}/page", time.time).close()


def test_two_processes_list_a_source_once_and_one_revokes_for_both(folder: Path, database: Postgres,
                                                                   cloud: Qcloud) -> None:
    login = token(folder, database)
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        urls = [stack.enter_context(serve(folder, database))[0] for _ in range(2)]
        cloud.calls.clear()
        answers = list(pool.map(lambda n: requests.get(urls[n % 2], QUERY, auth=login, timeout=30), range(16)))
        assert {answer.status_code for answer in answers} == {200}
        assert {len(answer.json()["vm_servers"]) for answer in answers} == {30}
        assert cloud.count("DescribeInstances") <= 4
        row = json.loads(run(folder, "token", "list", "-o", "json", TWOCLOUD_STORE=database.url).stdout)[0]
        done = run(folder, "token", "revoke", row["token_id"], TWOCLOUD_STORE=database.url)
        assert done.returncode == 0, done.stderr
        assert [requests.get(url, QUERY, auth=login, timeout=30).status_code for url in urls] == [401, 401]


def test_the_kill_of_one_and_a_restart_of_the_database_under_load_give_no_wrong_answer(
        folder: Path, database: Postgres) -> None:
    """Answers are whole, or errors of the server; afterwards all is as it was."""
    login, stopped = token(folder, database), threading.Event()
    with ExitStack() as stack:
        first, second = (stack.enter_context(serve(folder, database)) for _ in range(2))
        answers: list[tuple[int, int]] = []

        def read(url: str) -> None:
            while not stopped.is_set():
                try:
                    answer = requests.get(url, {**QUERY, "max_age": "600"}, auth=login, timeout=30)
                    answers.append((answer.status_code, len(answer.json().get("vm_servers", ()))))
                except requests.RequestException:
                    time.sleep(0.05)

        readers = [threading.Thread(target=read, args=(url,)) for url in (first[0], second[0], second[0])]
        for reader in readers:
            reader.start()
        time.sleep(1)
        first[1].send_signal(signal.SIGKILL)
        database.stop(signal.SIGQUIT)
        database.start()
        time.sleep(1)
        stopped.set()
        for reader in readers:
            reader.join(60)
        assert {count for status, count in answers if status == 200} == {30}
        assert {status for status, _ in answers} <= {200, 500}
        after = requests.get(second[0], QUERY, auth=login, timeout=30)
        assert (after.status_code, len(after.json()["vm_servers"])) == (200, 30)


def test_a_dump_is_restored(folder: Path, database: Postgres) -> None:
    dump, restore = (next(line for line in PAGE.splitlines() if line.startswith(name)) for name in (
        "pg_dump", "pg_restore"))
    assert run(folder, "servers", *GZ, TWOCLOUD_STORE=database.url).returncode == 0
    before = database.run("SELECT kind, key, version FROM twocloud ORDER BY 1, 2")
    environment = {"PATH": f"{database.bin}:{os.environ['PATH']}", "TWOCLOUD_STORE": database.url}
    subprocess.run(dump, shell=True, check=True, cwd=folder, env=environment, timeout=60)
    database.run("DROP TABLE twocloud, twocloud_schema")
    subprocess.run(restore, shell=True, check=True, cwd=folder, env=environment, timeout=60)
    assert database.run("SELECT kind, key, version FROM twocloud ORDER BY 1, 2") == before
    assert run(folder, "servers", *GZ, "--max-age", "600", TWOCLOUD_STORE=database.url).returncode == 0


def test_a_file_moves_to_the_database_and_back(folder: Path, database: Postgres, cloud: Qcloud) -> None:
    here = "sqlite:///.twocloud/file.db"
    for source, target in ((database.url, here), (here, database.url)):
        done = run(folder, "store", "copy", source, target)
        assert done.returncode == 0, done.stderr
        if target == here:
            database.run("DROP TABLE twocloud, twocloud_schema")
    cloud.calls.clear()
    listed = run(folder, "servers", *GZ, "-o", "json", TWOCLOUD_STORE=database.url)
    assert len(json.loads(listed.stdout)["vm_servers"]) == 30


def test_a_password_in_the_url_is_shown_nowhere(folder: Path, database: Postgres) -> None:
    password = secret("database")
    url = database.url.replace("twocloud@", f"twocloud:{password}@")
    for arguments in (("doctor", "--offline"), ("store", "copy", url, "sqlite:///.twocloud/copy.db"),
                      ("account", "list")):
        done = run(folder, *arguments, TWOCLOUD_STORE=url)
        assert password not in done.stdout + done.stderr
        assert done.returncode in (0, 1), done.stderr
    missing = run(folder, "account", "list", TWOCLOUD_STORE=f"{url.rpartition('/')[0]}/nothing")
    assert missing.returncode != 0
    assert password not in missing.stdout + missing.stderr
