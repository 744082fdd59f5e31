"""Several `twocloud serve` over one PostgreSQL, beside one over SQLite: pages live and kept, and refreshes."""

import base64
import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.clouds import Cloud
from benchmarks.keys import REGION
from benchmarks.measure import cpu_of, in_child
from benchmarks.serve import started
from benchmarks.verdict import Claim, lines, seconds

TITLE = "Several processes over one database"
LIBRARIES = ("psycopg",)
ROUNDS, CALLERS = 5, 8
REQUESTS = {"kept": 60, "live": 20}         # of each caller in each round
LATENCY = 0.05                              # of the simulator cloud
SOURCES, SERVERS = 1000, 100
SIDES: dict[str, tuple[str, int, tuple[str, ...]]] = {          # store, processes, options of each
    "sqlite": ("sqlite", 1, ()),
    "workers": ("sqlite", 1, ("--workers", "2")),
    "one": ("postgres", 1, ()),
    "two": ("postgres", 2, ()),
}
_TITLES = {"sqlite": "one `serve` on SQLite", "workers": "one `serve --workers 2` on SQLite",
           "one": "one `serve` on PostgreSQL", "two": "two `serve` on PostgreSQL"}


class _Side:
    """Running processes of one side; `database`: the pid of its PostgreSQL, 0 without."""

    def __init__(self, settings: Mapping[str, str], processes: int, options: tuple[str, ...], database: int,
                 stack: ExitStack) -> None:
        self._database = database
        command = ["-m", "chalicelib", "serve", "--port", "0", *options]
        self._served = [stack.enter_context(started(command, dict(settings))) for _ in range(processes)]
        self.ports = [port for _, port in self._served]

    def cpu(self) -> tuple[float, float]:
        """Seconds of the processes of twocloud and of the database."""
        return (sum(cpu for pid, _ in self._served for cpu in _tree(pid)),
                sum(_tree(self._database)) if self._database else 0.0)


def _tree(pid: int) -> Generator[float]:
    """CPU seconds of a process and of those below it that still run."""
    with suppress(FileNotFoundError, ProcessLookupError):           # it has ended meanwhile
        yield cpu_of(pid)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _tree(int(child))


def _round(side: _Side, token: str, query: str, times: int) -> dict[str, float]:
    """Pages a second of all callers, and CPU seconds of twocloud and of the database for each page."""
    failures = list[Exception]()

    def work(number: int) -> None:
        port = side.ports[number % len(side.ports)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            for _ in range(times):
                connection.request("GET", f"/twocloud/servers?{query}&tenant_id=t{number}",
                                   headers={"Authorization": token})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"status {answer.status}")
        except Exception as problem:
            failures.append(problem)
        finally:
            connection.close()

    callers = [threading.Thread(target=work, args=(number,)) for number in range(CALLERS)]
    before, wall = side.cpu(), time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    wall, after = time.perf_counter() - wall, side.cpu()
    if failures:
        raise failures[0]
    pages = CALLERS * times
    return {"rate": pages / wall, "cpu": (after[0] - before[0]) / pages, "database": (after[1] - before[1]) / pages}


def filled(url: str, store: str, key: str, accounts: int) -> dict[str, str]:
    """A store with a user and so many tenants with an account each: its settings, and a token. In its own process."""
    from chalicelib import parties, settings
    from chalicelib.access import accounts as rows
    from chalicelib.access import tokens, users
    from chalicelib.fleet import many_sources

    there = {"TWOCLOUD_STORE": store, "TWOCLOUD_KEY": f"file:{key}", "TWOCLOUD_LOCAL": "1"}
    deployment = many_sources.open_deployment(settings.load(there))
    for number in range(accounts):
        rows.put(deployment.store, deployment.sealer(), rows.check(
            f"t{number}", parties.load("qcloud"), {"secret_id": f"AKIDbenchmark{number}",
                                             "secret_key": "benchmark-secret-key"},
            project=None, regions=(REGION["qcloud"],), deep=False, endpoint=url, local=True), deployment.clock())
    for number in range(CALLERS):
        many_sources.list_servers(deployment, many_sources.source_of(f"t{number}", "qcloud", REGION["qcloud"]))
    user = users.User(name="benchmark", uid=users.new_uid(), tenants=("*",), created_at=int(time.time()))
    users.add(deployment.store, user)
    token, _ = tokens.issue(deployment.store, user, tokens.Limits(), 3600, time.time())
    text = base64.b64encode(f"{token}:password".encode()).decode()
    deployment.close()
    return {**there, "token": f"Basic {text}"}


def _refreshed(store: str) -> int:
    """How many sources have a snapshot."""
    from chalicelib.storage.store import open_store

    opened = open_store(store, time.time)
    try:
        return sum(1 for _ in opened.list("snapshot"))
    finally:
        opened.close()


def run() -> dict[str, Any]:
    with Cloud("qcloud", size=SERVERS, latency=LATENCY, limited=False, accounts=SOURCES) as cloud:
        return {"pages": _pages(cloud.url), "refreshes": {name: _refreshes(cloud.url, *SIDES[name]) for name in SIDES}}


def _pages(cloud: str) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The rounds of each kind of page, of each side in turn."""
    from deploy.postgres import Postgres

    query = f"party=qcloud&region={REGION['qcloud']}&f=1&t=10&max_age="
    figures: dict[str, dict[str, list[dict[str, float]]]] = {
        kind: {name: [] for name in SIDES} for kind in REQUESTS}
    with ExitStack() as stack, Postgres("fsync=on") as database, tempfile.TemporaryDirectory() as folder:
        sides, tokens = dict[str, _Side](), dict[str, str]()
        for kind, url in (("sqlite", f"sqlite:///{folder}/pages.db"), ("postgres", database.url)):
            made = _filled(cloud, url, f"{folder}/key", CALLERS)
            token = made.pop("token")
            pid = database.process.pid if database.process and kind == "postgres" else 0
            for name, (store, processes, options) in SIDES.items():
                if store == kind:
                    tokens[name], sides[name] = token, _Side(made, processes, options, pid, stack)
        for kind, times in REQUESTS.items():
            for number in range(ROUNDS + 1):
                for name, side in sides.items():
                    measured = _round(side, tokens[name], query + ("99999" if kind == "kept" else "0"),
                                      times if number else times // 10)
                    if number:
                        figures[kind][name].append(measured)
    return figures


def _refreshes(cloud: str, store: str, processes: int, options: tuple[str, ...]) -> dict[str, float]:
    """Seconds until a new side has listed all sources."""
    from deploy.postgres import Postgres

    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        database = stack.enter_context(Postgres("fsync=on")) if store == "postgres" else None
        url = database.url if database else f"sqlite:///{folder}/refreshes.db"
        made = _filled(cloud, url, f"{folder}/key", SOURCES)
        del made["token"]
        wall = time.perf_counter()
        side = _Side(made, processes, ("--refresh", "1s", *options),
                     database.process.pid if database and database.process else 0, stack)
        while _refreshed(url) < SOURCES:
            if time.perf_counter() - wall > 600:
                raise RuntimeError(f"only {_refreshed(url)} of {SOURCES} sources were refreshed")
            time.sleep(0.5)
        wall = time.perf_counter() - wall
        mine, theirs = side.cpu()
        return {"wall": wall, "cpu": mine, "database": theirs}


def _filled(cloud: str, store: str, key: str, accounts: int) -> dict[str, str]:
    return in_child("benchmarks.processes:filled", {"url": cloud, "store": store, "key": key, "accounts": accounts})


# ---------------------------------------------------------------- what it says

def _middle(figures: dict[str, Any], kind: str, side: str, name: str) -> float:
    return statistics.median(each[name] for each in figures["pages"][kind][side])


def claims(figures: dict[str, Any]) -> list[Claim]:
    def time_of(side: str, kind: str) -> float:
        return 1 / _middle(figures, kind, side, "rate")

    def cpu_of(side: str) -> float:
        return _middle(figures, "kept", side, "cpu") + _middle(figures, "kept", side, "database")

    return [
        Claim("A page from a snapshot, time at full load: two `serve` on PostgreSQL / one on SQLite",
              time_of("two", "kept") / time_of("sqlite", "kept"), None),
        Claim("A live page, time at full load: two `serve` on PostgreSQL / one on SQLite",
              time_of("two", "live") / time_of("sqlite", "live"), None),
        Claim("A page from a snapshot, CPU with the database's: PostgreSQL / SQLite", cpu_of("one") / cpu_of("sqlite"),
              None),
        Claim(f"{SOURCES:,} sources listed for the first time: two `serve --refresh` on PostgreSQL / one on SQLite",
              figures["refreshes"]["two"]["wall"] / figures["refreshes"]["sqlite"]["wall"], None)]


def text(figures: dict[str, Any]) -> str:
    pages = [(title, *(each for kind in REQUESTS for each in (
        f"{_middle(figures, kind, name, 'rate'):.0f}", seconds(_middle(figures, kind, name, "cpu")),
        seconds(_middle(figures, kind, name, "database")) if SIDES[name][0] == "postgres" else "–")))
        for name, title in _TITLES.items()]
    refreshes = [(title, seconds(each["wall"]), seconds(each["cpu"]),
                  seconds(each["database"]) if SIDES[name][0] == "postgres" else "–")
                 for name, title in _TITLES.items() if (each := figures["refreshes"][name])]
    return f"""\
The processes, the database, the simulator of the cloud ({LATENCY * 1000:.0f} ms an answer) and the client share this
machine's cores, so these rates are what they reach together, not what a machine of their own would. The CPU of a page
is what counts elsewhere: [scale](scale.md#several-machines) reckons with it. {CALLERS} callers, each of
its own account, read pages of ten of {SERVERS} servers, {ROUNDS} rounds in turns; medians.

{lines(("side", "pages from snapshots a second", "CPU a page", "of the database", "live pages a second", "CPU a page",
        "of the database"), pages)}

{SOURCES:,} sources of {SERVERS} servers that nobody has listed yet, until each has a snapshot, start of the processes
included:

{lines(("side", "wall", "CPU", "of the database"), refreshes)}
"""
