"""Shared stages: a clock to move, simulator clouds, a deployment on a fresh store, the API over HTTP; what one run
shares between its workers, and in which order it runs.
"""

import contextlib
import fcntl
import logging
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import boto3
import pytest
import requests
from hypothesis import HealthCheck, settings
from moto import mock_aws
from msgspec import structs
from xdist.scheduler import LoadScopeScheduling

from chalicelib import log, parties
from chalicelib.access import accounts, tokens, users
from chalicelib.cloud import cache
from chalicelib.fleet import many_sources
from chalicelib.fleet.many_sources import Deployment
from chalicelib.http import serve
from chalicelib.model import DEFAULT_ACCOUNT
from chalicelib.parties.aws.simulator import Aws
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.settings import ServerLimits, Settings
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Simulator
from chalicelib.storage import amazon
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.postgres import PostgresStore
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import Store
from deploy import ministack
from deploy.ministack import TABLE as TABLE
from tests import canaries
from tests.postgres import Postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Under nohup, or in the background of a script, this process ignores SIGINT and so would every program that a test
    # starts and interrupts. A handler of our own ignores it here and is not inherited.
    signal.signal(signal.SIGINT, lambda *_: None)

# The tests start hundreds of programs, which would each compile every module again where no bytecode may be kept.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# a busy machine draws examples slowly and runs them slowly: neither is a fault
settings.register_profile("twocloud", deadline=None, suppress_health_check=[
    HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("twocloud")

START = 1_790_000_000.0                     # 2026-09-21T14:13:20Z


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ---------------------------------------------------------------- what runs, and in which order

@pytest.hookimpl(tryfirst=True)             # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`sample(3)`: about a third of a test's parameter sets is quick. What the deployed emulator answers comes first,
    so that one worker has it all and deploys once; then what may take long, so that no worker is left alone with it at
    the end."""
    met: Counter[str] = Counter()
    for item in items:
        if mark := item.get_closest_marker("sample"):
            # multiples of the golden ratio spread evenly, whatever rhythm two parameters make together
            if met[test := item.nodeid.partition("[")[0]] * 0.618034 % 1 >= 1 / mark.args[0]:
                item.add_marker("slow")
            met[test] += 1

    def place(item: pytest.Item) -> int:
        if {"stack", "targets"} & set(getattr(item, "fixturenames", ())):
            return 0
        return 1 if item.get_closest_marker("timeout") else 2

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)         # there is none where xdist is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """What `--dist loadfile` means here: a file stays with one worker, the table of faults party by party."""
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


class _ByFile(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        party = re.search(r"\[([a-z0-9]+)", test) if file.endswith("/test_faults.py") else None
        return f"{file}[{party[1]}]" if party else file


# ---------------------------------------------------------------- stores

AWS = {"region_name": "us-east-1", "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MiniStack, one for all workers: whichever test needs it first starts it, the end of the run stops it."""
    folder = folder_of_the_run(tmp_path_factory) / "ministack"
    with (folder.parent / "ministack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "started").exists():
            folder.mkdir()
            process, url = ministack.start(folder)
            (folder / "started").write_text(f"{process.pid} {url}")
    return (folder / "started").read_text().split()[1]


def stop_ministack(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "ministack/started").read_text().split()[0]), signal.SIGKILL)


def folder_of_the_run(factory: pytest.TempPathFactory) -> Path:
    """Which all workers share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def server_client(server_url: str) -> Any:
    return boto3.client("dynamodb", endpoint_url=server_url, **AWS)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for each worker."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_store(postgres: Postgres, clock: Clock) -> Iterator[PostgresStore]:
    """An empty one."""
    postgres.run("DROP TABLE IF EXISTS twocloud, twocloud_schema")
    made = PostgresStore(postgres.url, clock)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres", "ministack", pytest.param("moto", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    if request.param == "sqlite":
        made = SqliteStore(f"{tmp_path}/a/b/store.db", clock)
        yield made
        made.close()
    elif request.param == "postgres":
        yield request.getfixturevalue("postgres_store")
    elif request.param == "moto":
        with mock_aws():
            client = boto3.client("dynamodb", **AWS)
            client.create_table(TableName="twocloud", **TABLE)
            yield DynamoStore("twocloud", clock, client)
    else:
        client = request.getfixturevalue("server_client")
        name = f"twocloud-{os.getpid()}-{abs(hash(request.node.name)) % 10**9}"
        client.create_table(TableName=name, **TABLE)
        yield DynamoStore(name, clock, client)
        client.delete_table(TableName=name)


# ---------------------------------------------------------------- an app

@pytest.fixture(autouse=True)
def cold_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the test before is remembered: no login, no catalogue, no credentials of a session, no command that
    wants no lines."""
    cache.forget()
    log.logger.setLevel(logging.DEBUG)
    log.calls.disabled = False
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    amazon.session.cache_clear()


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real cost of a password has a test of its own."""
    monkeypatch.setattr(users, "_SCRYPT", {"n": 16, "r": 8, "p": 1})
    monkeypatch.setattr(users, "_NOBODY", f"scrypt$16$8$1${'00' * 16}${'00' * 32}")


# hundreds of tests start a server: more threads than one caller's share, and not two hundred each time
FEW = ServerLimits(requests=26, tenant_requests=18)


def settings_in(folder: Path, **changes: object) -> Settings:
    made = Settings(store=f"sqlite:///{folder}/store/twocloud.db", key=f"file:{folder}/key", timezone=ZoneInfo("UTC"),
                    max_age=0, stale_if_error=86_400, history=30, local=True, in_lambda=False, log="debug",
                    limits=FEW)
    return structs.replace(made, **changes)         # type: ignore[arg-type]


@pytest.fixture
def deployment(tmp_path: Path, clock: Clock) -> Iterator[Deployment]:
    made = many_sources.open_deployment(settings_in(tmp_path), clock)
    yield made
    made.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@dataclass
class App:
    """A deployment with simulators behind it. `token` opens tenant 123 everywhere."""

    deployment: Deployment
    clock: Clock
    clouds: dict[str, Simulator] = field(default_factory=dict)
    token: str = ""
    url: str = ""
    session: requests.Session = field(default_factory=requests.Session)
    responses: list[bytes] = field(default_factory=list)

    def user(self, name: str = "ann", tenants: tuple[str, ...] = ("123",), password: str | None = None,
             parties: tuple[str, ...] = (), regions: tuple[str, ...] = ()) -> users.User:
        made = users.User(name=name, uid=users.new_uid(), tenants=tenants, parties=parties, regions=regions,
                          password=users.hash_password(password) if password else None)
        users.add(self.deployment.store, made)
        return made

    def issue(self, user: users.User, lifetime: int = 86_400, **limits: tuple[str, ...]) -> str:
        text, _ = tokens.issue(self.deployment.store, user, tokens.Limits(**limits), lifetime, self.clock())
        return canaries.watch(text)

    def account(self, party: str, credentials: Mapping[str, object], endpoint: str, tenant: str = "123",
                project: str | None = None, deep: bool = False, name: str = DEFAULT_ACCOUNT,
                regions: tuple[str, ...] = ()) -> None:
        made = accounts.check(tenant, parties.load(party), credentials, project=project, regions=regions, deep=deep,
                              endpoint=endpoint, local=True, name=name)
        accounts.put(self.deployment.store, self.deployment.sealer(), made, self.clock(), replace=True)

    def change_settings(self, **changes: object) -> None:
        """Of the deployment that may be serving already."""
        structs.force_setattr(self.deployment, "settings",
                              structs.replace(self.deployment.settings, **changes))     # type: ignore[arg-type]

    def get(self, query: str, token: str | None = None, method: str = "GET", path: str = "/twocloud/servers",
            headers: dict[str, str] | None = None, **more: object) -> requests.Response:
        """Over real HTTP; `query` goes out as it is."""
        auth = None if token == "" else (token or self.token, "password")
        answer = self.session.request(method, f"{self.url}{path}?{query}" if query else f"{self.url}{path}",
                                      auth=auth, headers=headers, allow_redirects=False, timeout=40,
                                      **more)       # type: ignore[arg-type]
        self.responses.append(repr(answer.headers).encode() + answer.content)
        return answer


def qcloud_keys() -> dict[str, str]:
    return {"secret_id": "AKIDtest", "secret_key": canaries.secret("qcloud")}


def aws_keys() -> dict[str, str]:
    return {"access_key_id": "AKIATEST", "secret_access_key": canaries.secret("aws")}


@pytest.fixture
def app(deployment: Deployment, clock: Clock, stack: ExitStack, tmp_path: Path) -> Iterator[App]:
    """Tenant 123 with 25 servers at qcloud gz and 12 at aws us-east-1; nothing listens yet."""
    made = App(deployment, clock)
    qcloud, aws = qcloud_keys(), aws_keys()
    made.clouds["qcloud"] = stack.enter_context(Qcloud(
        {qcloud["secret_id"]: qcloud["secret_key"]}, {"ap-guangzhou": Fleet(25), "ap-shanghai": Fleet(250)}))
    made.clouds["aws"] = stack.enter_context(Aws(
        {aws["access_key_id"]: aws["secret_access_key"]}, {"us-east-1": Fleet(12)}))
    made.account("qcloud", qcloud, made.clouds["qcloud"].url)
    made.account("aws", aws, made.clouds["aws"].url)
    made.token = made.issue(made.user())
    yield made
    (tmp_path / "answers").write_bytes(b"\n".join(made.responses))


@contextmanager
def serving(app: App) -> Generator[App]:
    """The app with its API listening on a free port."""
    server = serve.Server(app.deployment, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    app.url = f"http://{server.address}"
    yield app
    app.session.close()
    server.close()
    thread.join(10)


@contextmanager
def limited(app: App, **limits: int) -> Generator[App]:
    """The same with such limits."""
    before = app.deployment.settings
    app.change_settings(limits=structs.replace(before.limits, **limits))
    with serving(app):
        yield app


@pytest.fixture
def served(app: App) -> Iterator[App]:
    with serving(app):
        yield app


GZ = "party=qcloud&tenant_id=123&region=gz"
US = "party=aws&tenant_id=123&region=us-east-1"


# ---------------------------------------------------------------- P4: what the whole run leaves behind

@pytest.fixture(autouse=True, scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every line that any test logs, ours or a library's, down to debug."""
    handler = logging.FileHandler(tmp_path_factory.getbasetemp() / "twocloud.log")
    handler.setFormatter(log.Lines())
    root = logging.getLogger()
    root.addHandler(handler)
    log.logger.addHandler(handler)
    for name in ("twocloud", "urllib3", "requests", "chalice", "waitress"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield
    handler.close()
    root.removeHandler(handler)
    log.logger.removeHandler(handler)


_leaks: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker searches what it left and hands on what it found; who talks to the terminal fails the run."""
    output: dict[str, list[str]] | None = getattr(session.config, "workeroutput", None)
    factory: pytest.TempPathFactory = session.config._tmp_path_factory      # type: ignore[attr-defined]
    if canaries.known:
        own, shared = factory.getbasetemp(), folder_of_the_run(factory) / "ministack"
        _leaks.extend(sorted({leak for folder in {own, shared} for leak in canaries.leaks(folder)}))
    if output is not None:
        output["leaks"] = _leaks
        return
    stop_ministack(factory.getbasetemp())
    if _leaks:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    _leaks.extend(getattr(node, "workeroutput", {}).get("leaks", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")
               if isinstance(report.longrepr, tuple)}
    if skipped:
        terminalreporter.section("tests skipped, and why")
        for line in sorted(skipped):
            terminalreporter.line(line, red=True)
    if _leaks:
        terminalreporter.section("secrets left behind (P4)")
        for line in _leaks:
            terminalreporter.line(line, red=True)
