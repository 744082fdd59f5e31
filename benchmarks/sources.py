"""The same 100,000 servers as one source and as 1,000 sources, read from snapshots: pages and whole lists."""

import base64
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.keys import REGION
from benchmarks.measure import (
    Round,
    cpu_seconds,
    forget_peak,
    in_child,
    in_turn,
    middle,
    peak_kib,
    resident_kib,
    same_lists,
)
from benchmarks.snapshots import Units, servers
from benchmarks.verdict import Claim, lines, seconds

TITLE = "1,000 sources beside one"
LIBRARIES = ("boto3", "psycopg")
SOURCES, SERVERS, ROUNDS = 1000, 100, 3
PAGES = 20                                  # requests of a round for a page
SHAPES = {"one": "one source", "accounts": "1,000 accounts of one tenant", "tenants": "1,000 tenants"}
QUERIES = {
    "ten": ("the first ten", {"f": "1", "t": "10"}),
    "hundred": ("the first hundred", {"f": "1", "t": "100"}),
    "last": ("the last ten", {"f": str(SOURCES * SERVERS - 9), "t": str(SOURCES * SERVERS)}),
    "list": ("all 100,000, not written yet", {}),
    "json": ("all 100,000, as JSON", {}),
    "ndjson": ("all 100,000, as NDJSON", {"format": "ndjson"}),
}
STORES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "dynamodb": "DynamoDB (MiniStack)"}
_TABLE = "twocloud-benchmark-sources-"


# ---------------------------------------------------------------- a store with the servers, in a process of its own

class _Rows:
    """As much of a store as keeping a new list takes; everything goes to another one afterwards."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def get(self, kind: str, key: str) -> None:
        return None

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None, expires: int | None = None) -> None:
        from chalicelib.storage.store import Entry, new_version

        self.entries.append(Entry(kind, key, value, new_version(), expires))


def filled(shape: str, settings: Mapping[str, str]) -> str:
    """Fill the store; a token that opens everything in it."""
    import msgspec

    from chalicelib import settings as known
    from chalicelib.access import accounts, tokens, users
    from chalicelib.fleet.many_sources import open_deployment
    from chalicelib.storage import snapshots
    from chalicelib.storage.store import Entry, new_version

    deployment, rows = open_deployment(known.load({**settings})), _Rows()
    store: Any = rows                       # as much of one as saving takes
    now, listed = deployment.clock(), servers(SOURCES * SERVERS)
    size = len(listed) if shape == "one" else SERVERS
    names = set[str]()
    for number, at in enumerate(range(0, len(listed), size)):
        source = _source(shape, number)
        row = accounts.AccountRow(tenant_id=source.tenant_id, party=source.party, sealed=b"x" * 300, revision="r",
                                  bound=True, regions=(source.region,), created_at=int(now), updated_at=int(now),
                                  account=source.account)
        place = accounts.place_of(source.tenant_id, source.party, source.account)
        rows.entries.append(Entry(*place, msgspec.json.encode(row), new_version(), None))
        names.add(source.account)
        snapshots.save(store, source, "r", listed[at:at + size], now, history=0)
    if shape == "accounts":
        rows.entries.append(Entry("names", "t/qcloud", msgspec.json.encode(sorted(names)), new_version(), None))
    for at in range(0, len(rows.entries), 500):
        deployment.store.write(rows.entries[at:at + 500])
    user = users.User(name="benchmark", uid=users.new_uid(), tenants=("*",), created_at=int(now))
    users.add(deployment.store, user)
    token = tokens.issue(deployment.store, user, tokens.Limits(), 36_000, now)[0]
    deployment.close()
    return token


def _source(shape: str, number: int) -> Any:
    from chalicelib.model import DEFAULT_ACCOUNT, Source

    return Source(f"t{number:04d}" if shape == "tenants" else "t", "qcloud", REGION["qcloud"],
                  f"a{number:04d}" if shape == "accounts" else DEFAULT_ACCOUNT)


# ---------------------------------------------------------------- one side of a round, in a process of its own

def answered(shape: str, query: str, token: str, settings: Mapping[str, str]) -> Round:
    """Wall and CPU seconds for one answer, the memory that it takes on top, its bytes, and what it reads.

    A page takes the whole path of a request as Lambda or `serve` runs it, but for their wires; a whole list, which is
    too long for one answer there, that of the command. The sources were read in the last ten minutes.
    """
    with _opened(settings) as deployment:
        reads, page = _Reads(deployment.store), "t" in QUERIES[query][1]
        ask = _page(deployment, shape, query, token) if page else _whole(deployment, shape, query)
        _page(deployment, shape, "ten", token)()                # with all that is made on first use
        before = resident_kib()
        forget_peak()
        ask()
        peak, counts, times = peak_kib(), reads.of(ask), PAGES if page else 1
        cpu, wall = cpu_seconds(), time.perf_counter()
        for _ in range(times):
            made = ask()
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        body = made if isinstance(made, bytes) else _written(deployment, made, shape, query)
        return {"wall": wall / times, "cpu": cpu / times, "added_mib": (peak - before) / 1024, **counts,
                "bytes": len(body), "digest": _digest(body, query)}


def entries(shape: str, query: str, settings: Mapping[str, str]) -> Round:
    """CPU seconds and bytes for the `sources` of an answer that was put together already: to write it with them, less
    without them."""
    from chalicelib.fleet import many_sources
    from chalicelib.http import formats

    with _opened(settings) as deployment:
        lookup = _lookup(deployment, shape, query)
        fleet, parsed, zone = many_sources.answer(lookup), lookup.query, deployment.settings.timezone
        assert parsed
        taken: dict[bool, tuple[float, int]] = {}
        for several in (False, True):
            shown = replace(fleet, several=several)
            formats.write(shown, parsed, zone, most=None)
            cpu = cpu_seconds()
            for _ in range(PAGES):
                written = formats.write(shown, parsed, zone, most=None)
            taken[several] = (cpu_seconds() - cpu) / PAGES, len(written.body)
        return {"cpu": taken[True][0] - taken[False][0], "bytes": taken[True][1] - taken[False][1]}


@contextmanager
def _opened(settings: Mapping[str, str]) -> Iterator[Any]:
    import os

    from chalicelib import log
    from chalicelib import settings as known
    from chalicelib.fleet.many_sources import open_deployment

    with Path(os.devnull).open("w") as nowhere:
        for handler in log.logger.handlers:
            handler.setStream(nowhere)                          # the lines are written, and nobody reads them
        deployment = open_deployment(known.load({**settings}))
        yield deployment
        deployment.close()


def _pairs(shape: str, query: str) -> list[tuple[str, str]]:
    """One source is named, as its callers do; the others are all that there are. Both in one view."""
    named = ({"tenant_id": "t", "party": "qcloud", "region": REGION["qcloud"]} if shape == "one"
             else {"tenant_id": "all", "party": "all", "region": "all"})
    return [*{**named, "view": "full", "max_age": "86400", **QUERIES[query][1]}.items()]


def _page(deployment: Any, shape: str, query: str, token: str) -> Callable[[], bytes]:
    from chalicelib.http import api

    headers = {"authorization": "Basic " + base64.b64encode(f"{token}:password".encode()).decode()}

    def ask() -> bytes:
        answer = api.answer(lambda: deployment, "/twocloud/servers", api.HttpRequest(
            "GET", "/twocloud/servers", _pairs(shape, query), headers, b"", "benchmark", time.monotonic() + 25))
        if answer.status != 200 or answer.headers.get("Cache-Status") != "twocloud; hit":
            raise RuntimeError(f"status {answer.status}, not from the snapshots")
        return answer.body

    return ask


def _lookup(deployment: Any, shape: str, query: str) -> Any:
    from chalicelib.fleet.lookup import Freshness, Lookup
    from chalicelib.fleet.query import parse

    return Lookup(deployment, Freshness(max_age=86_400), query=parse(_pairs(shape, query)))


def _whole(deployment: Any, shape: str, query: str) -> Callable[[], Any]:
    from chalicelib.fleet import many_sources

    def ask() -> Any:
        fleet = many_sources.answer(_lookup(deployment, shape, query))
        return fleet if query == "list" else _written(deployment, fleet, shape, query)

    return ask


def _written(deployment: Any, fleet: Any, shape: str, query: str) -> bytes:
    from chalicelib.http import formats

    return formats.write(fleet, _lookup(deployment, shape, query).query, deployment.settings.timezone, most=None).body


def _digest(body: bytes, query: str) -> str:
    """Of the servers in their order, but for whose they are and when they were seen."""
    rows = [json.loads(line) for line in body.splitlines()] if query == "ndjson" else json.loads(body)["vm_servers"]
    same = [{name: value for name, value in row.items() if name not in ("tenant_id", "account", "seen_at")}
            for row in rows]
    return hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]


class _Reads:
    """Counts what a store reads: statements of SQLite and PostgreSQL, calls and units of DynamoDB."""

    def __init__(self, store: Any) -> None:
        self.calls = 0
        self._units: Units | None = None
        if type(store).__name__ == "SqliteStore":
            connect = store._connect

            def traced() -> Any:
                connection = connect()
                connection.set_trace_callback(self._note)
                return connection

            store._idle.clear()
            store._connect = traced
        elif type(store).__name__ == "PostgresStore":
            from chalicelib.storage import postgres

            kind: Any = postgres._Connection
            execute = kind.execute

            def counted(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
                self._note(query)
                return execute(connection, query, *arguments, **options)

            kind.execute = counted
        else:
            self._units = Units(store._client)

    def of(self, work: Callable[[], Any]) -> dict[str, int]:
        self.calls = 0
        if self._units:
            return {name: count for name, count in self._units.of(work).items() if name != "write"}
        work()
        return {"calls": self.calls}

    def _note(self, statement: str) -> None:
        self.calls += statement.startswith(("SELECT", "WITH"))


# ---------------------------------------------------------------- the rounds

def run() -> dict[str, Any]:
    from deploy.ministack import ministack
    from deploy.postgres import Postgres

    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twocloud-benchmark-")))
        amazon = {"AWS_ENDPOINT_URL": stack.enter_context(ministack(folder)), "AWS_DEFAULT_REGION": "us-east-1",
                  "AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
        for store in STORES:
            sides: dict[str, Callable[[str], Round]] = {}
            for shape in SHAPES:
                if store == "dynamodb":
                    in_child("benchmarks.sources:create_table", {"name": f"{_TABLE}{shape}"}, amazon)
                there = {"sqlite": f"sqlite:///{folder}/{shape}.db", "dynamodb": f"dynamodb://{_TABLE}{shape}"}
                url = there[store] if store in there else stack.enter_context(Postgres()).url
                settings = {"TWOCLOUD_STORE": url, "TWOCLOUD_KEY": f"file:{folder}/key", "TWOCLOUD_LOCAL": "1"}
                token = in_child("benchmarks.sources:filled", {"shape": shape, "settings": settings}, amazon)
                sides[shape] = _side({"shape": shape, "token": token, "settings": settings}, amazon)
                if store == "sqlite" and shape != "one":
                    figures[shape] = [in_child("benchmarks.sources:entries", {
                        "shape": shape, "query": "ten", "settings": settings}) for _ in range(ROUNDS)]
            figures[store] = {query: _rounds(sides, query, store == "sqlite") for query in QUERIES}
    return figures


def _side(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Callable[[str], Round]:
    return lambda query: in_child("benchmarks.sources:answered", {**arguments, "query": query}, environment)


def _rounds(sides: Mapping[str, Callable[[str], Round]], query: str, timed: bool) -> dict[str, list[Round]]:
    """The rounds of each side; one, if only what it reads is counted."""
    figures = (in_turn({shape: lambda side=side: side(query) for shape, side in sides.items()}, ROUNDS) if timed
               else {shape: [side(query)] for shape, side in sides.items()})
    same_lists(*figures.values())
    return figures


def create_table(name: str) -> None:
    from chalicelib.storage import amazon
    from deploy.ministack import TABLE

    amazon.client("dynamodb", attempts=3).create_table(TableName=name, **TABLE)


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, Any]) -> list[Claim]:
    measured = figures["sqlite"]

    def ratio(query: str, shape: str, name: str = "wall") -> float:
        return middle(measured[query][shape], name) / middle(measured[query]["one"], name)

    made: list[Claim] = []
    for shape in ("accounts", "tenants"):
        ten, title = measured["ten"], SHAPES[shape]
        rest = (middle(ten[shape], "cpu") - middle(figures[shape], "cpu")) / middle(ten["one"], "cpu")
        made += [Claim(f"The first ten servers of {title}, wall time / of one source with the same servers",
                       ratio("ten", shape), 2.0),
                 Claim(f"The first ten servers of {title}, CPU time without the answer's `sources` / of one source",
                       rest, None, plotted=False)]
        made += [Claim(f"{SOURCES * SERVERS:,} servers of {title} as {word}, wall time / of one source",
                       ratio(query, shape), 1.5) for query, word in (("json", "JSON"), ("ndjson", "NDJSON"))]
    return made


def text(figures: dict[str, Any]) -> str:
    measured = figures["sqlite"]
    rows = [(f"{title}, {SHAPES[shape]}", seconds(middle(rounds, "wall")), seconds(middle(rounds, "cpu")),
             f"{middle(rounds, 'added_mib'):.1f} MiB", f"{rounds[0]['bytes']:,}")
            for query, (title, _) in QUERIES.items() for shape, rounds in measured[query].items()]
    reads = [(f"{title}, {SHAPES[shape]}", *(f"{figures[store][query][shape][0]['calls']:,}" for store in STORES),
              f"{figures['dynamodb'][query][shape][0]['read']:,}")
             for query, (title, _) in QUERIES.items() if query in ("ten", "hundred", "json") for shape in SHAPES]
    entries = [(SHAPES[shape], seconds(middle(figures[shape], "cpu")), f"{figures[shape][0]['bytes']:,}")
               for shape in ("accounts", "tenants")]
    return f"""\
The same {SOURCES * SERVERS:,} servers three times, in the full view, from snapshots: in one source, in
{SHAPES["accounts"]}, and in {SHAPES["tenants"]} with an account each. The query names the one source; of the
thousand it requests `all`. A page takes the whole path of a request but for the wire; a whole list is too long for one
answer over HTTP, so it takes that of the command. On SQLite, medians of {ROUNDS} rounds in fresh processes:

{lines(("what", "wall", "CPU", "memory on top", "bytes"), rows)}

An answer over several sources says in `sources` how each of them is. Those {SOURCES:,} entries are most of a page's
bytes. What they alone cost, to write:

{lines(("`sources` of", "CPU", "bytes"), entries)}

What is read: statements on SQLite and PostgreSQL, calls to DynamoDB (MiniStack) and read units of 4 KB.

{lines(("what", *STORES.values(), "read units"), reads)}
"""
