"""Answers from a snapshot beside one read of the same bytes, memory, refreshes a minute, and what the store charges."""

import base64
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.clouds import Cloud
from benchmarks.keys import REGION, TENANT
from benchmarks.measure import cpu_seconds, forget_peak, in_child, middle, peak_kib, resident_kib
from benchmarks.verdict import Claim, lines, seconds

TITLE = "Snapshots and refreshes"
LIBRARIES = ("boto3",)
SIZES = {"ten": 10, "ten thousand": 10_000}
ROUNDS = 9
REQUESTS = {"sqlite": {"ten": 100, "ten thousand": 3}, "dynamodb": {"ten": 10, "ten thousand": 2}}
LARGE = 100_000
SOURCES, SERVERS, LATENCY = 1000, 100, 0.05
COUNTED = 1000                              # servers of the source whose refreshes and reads are counted
IDLE = 100                                  # sources of the deployment whose cost is reckoned
_TABLE = "twocloud-benchmark"


# ---------------------------------------------------------------- in processes of their own

def servers(size: int) -> list[Any]:
    """What a cloud of this size lists."""
    from chalicelib.model import Server, Status
    from chalicelib.simulators.fleet import Fleet

    fleet = Fleet(size)
    return [Server(
        id=f"ins-{machine.key}", name=machine.name, cpu=machine.cpu, memory_mib=machine.memory_gib * 1024,
        disk_gib=sum(machine.disks), lan_ipv4=machine.lan, wan_ipv4=machine.wan, status=Status.ACTIVE,
        party_status="RUNNING", created_at=machine.created, zone=f"ap-guangzhou-{machine.zone}",
        project_id=str(machine.project), instance_type=f"S5.{machine.cpu}C{machine.memory_gib}G",
        tags=machine.tags) for machine in map(fleet.__getitem__, range(size))]


def _source(tenant: str = TENANT) -> Any:
    from chalicelib.model import Source

    return Source(tenant, "qcloud", REGION["qcloud"])


@contextmanager
def _deployed(url: str, endpoint: str = "http://127.0.0.1:9") -> Iterator[Any]:
    """A deployment with one account; on SQLite, or on the DynamoDB at `url`."""
    from benchmarks import ours

    with ours.deployed("qcloud", endpoint) as deployment:
        if not url:
            yield deployment
            return
        store, key = _table(url, deployment.clock), f"{TENANT}/qcloud"
        account = deployment.store.get("account", key)
        assert account
        store.put("account", key, account.value)
        yield replace(deployment, store=store)


def _table(url: str, clock: Callable[[], float]) -> Any:
    import boto3

    from chalicelib.storage.dynamodb import DynamoStore
    from deploy.ministack import TABLE

    name = f"{_TABLE}-{os.getpid()}"
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=url, aws_access_key_id="benchmark",
                          aws_secret_access_key="benchmark")
    client.create_table(TableName=name, **TABLE)
    return DynamoStore(name, clock, client)


def _keep(deployment: Any, listed: Sequence[Any]) -> Any:
    from chalicelib.access import accounts
    from chalicelib.storage import snapshots

    revision = accounts.find(deployment.store, TENANT, "qcloud").revision
    return snapshots.save(deployment.store, _source(), revision, listed, deployment.clock(), history=30 * 86_400)


def _ask(deployment: Any, token: str, window: str) -> Callable[[], Any]:
    """The whole path of a request as Lambda or `serve` runs it, but for their wires."""
    from chalicelib.http import api

    pairs = [("party", "qcloud"), ("tenant_id", TENANT), ("region", REGION["qcloud"]), ("max_age", "86400")]
    pairs += [pair for pair in (("f", "1"), ("t", window)) if window]
    headers = {"authorization": "Basic " + base64.b64encode(f"{token}:password".encode()).decode()}

    def ask() -> Any:
        answer = api.answer(lambda: deployment, "/twocloud/servers", api.HttpRequest(
            "GET", "/twocloud/servers", pairs, headers, b"", "benchmark", time.monotonic() + 25))
        if answer.status != 200 or "hit" not in answer.headers.get("Cache-Status", ""):
            raise RuntimeError(f"status {answer.status}, not from the snapshot")
        return answer

    return ask


def reads(url: str) -> dict[str, Any]:
    """Wall and CPU seconds of an answer and of one read of what it is made of, round by round."""
    from benchmarks import ours
    from chalicelib.storage import snapshots

    kind, figures = "dynamodb" if url else "sqlite", dict[str, Any]()
    with _deployed(url) as deployment:
        store, token = deployment.store, ours.token(deployment)
        head = _keep(deployment, servers(SIZES["ten thousand"]))
        prefix = f"{snapshots.key_of(_source())}/{head.generation}/"
        routes: dict[str, dict[str, Callable[[], Any]]] = {
            "ten": {"answer": _ask(deployment, token, "10"), "read": lambda: store.get("chunk", f"{prefix}00000")},
            "ten thousand": {"answer": _ask(deployment, token, ""),
                             "read": lambda: list(store.list("chunk", prefix))}}
        for name, sides in routes.items():
            figures |= {f"{name} {side}": [] for side in sides}
            for number in range(ROUNDS + 1):
                for side, call in sides.items():
                    measured = _repeat(call, REQUESTS[kind][name])
                    if number:
                        figures[f"{name} {side}"].append(measured)
    return figures


def _repeat(call: Callable[[], Any], times: int) -> dict[str, float]:
    cpu, wall = cpu_seconds(), time.perf_counter()
    for _ in range(times):
        call()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {"wall": wall / times, "cpu": cpu / times}


def keep_large(path: str) -> dict[str, float]:
    """Memory and time of keeping LARGE servers in the file."""
    from chalicelib.storage import snapshots
    from chalicelib.storage.sqlite import SqliteStore

    store, listed = SqliteStore(path, time.time), servers(LARGE)
    made = _memory(lambda: snapshots.save(store, _source(), "r", listed, time.time(), history=86_400))
    return {**made, "stored": float(sum(len(row.value) for _, row in store.list("chunk")))}


def read_large(path: str) -> dict[str, float]:
    from chalicelib.storage import snapshots
    from chalicelib.storage.sqlite import SqliteStore

    store = SqliteStore(path, time.time)

    def read() -> None:
        head = snapshots.find(store, _source(), "r")
        assert head
        if len(snapshots.read(store, _source(), head)) != LARGE:
            raise RuntimeError("not all servers were read")

    return _memory(read)


def _memory(work: Callable[[], Any]) -> dict[str, float]:
    ready = resident_kib()
    forget_peak()
    wall = time.perf_counter()
    work()
    return {"wall": time.perf_counter() - wall, "added_mib": (peak_kib() - ready) / 1024, "ready_mib": ready / 1024}


def refreshes(endpoint: str) -> dict[str, Any]:
    """SOURCES tenants with an account each, refreshed as the schedule does it: all new, then all unchanged."""
    from benchmarks import ours
    from chalicelib import parties
    from chalicelib.access import accounts
    from chalicelib.fleet import schedule

    figures: dict[str, Any] = {}
    with ours.deployed("qcloud", endpoint) as deployment:
        for number in range(SOURCES):
            account = accounts.check(f"t{number}", parties.load("qcloud"), {
                "secret_id": f"AKIDbenchmark{number}", "secret_key": "benchmark-secret-key"}, project=None,
                regions=(), deep=False, endpoint=endpoint, local=True)
            accounts.put(deployment.store, deployment.sealer(), account, deployment.clock())
        sources = [_source(f"t{number}") for number in range(SOURCES)]
        for name in ("new", "unchanged"):
            cpu, wall = cpu_seconds(), time.perf_counter()
            results = list(schedule.run(deployment, sources))
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            if any(result.total != SERVERS for result in results):
                raise RuntimeError("a refresh failed")
            figures[name] = {"wall": wall, "cpu": cpu}
    return figures


# ---------------------------------------------------------------- what DynamoDB charges

class Units:
    """Counts what a client's calls cost on demand, from the sizes of the items that go and come.

    A consistent read: one unit for each 4 KB of what it gives, at least one; of a query, for each page. A write: one
    for each 1 KB of the item that was or is there, whichever is longer; a deletion: of the item that was.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
    """

    def __init__(self, client: Any) -> None:
        self._sizes: dict[tuple[str, str], int] = {}
        self.calls = self.read = self.write = 0
        client.meta.events.register("before-parameter-build.dynamodb.*", self._before)
        client.meta.events.register("after-call.dynamodb.*", self._after)

    def of(self, work: Callable[[], Any]) -> dict[str, int]:
        self.calls = self.read = self.write = 0
        work()
        return {"calls": self.calls, "read": self.read, "write": self.write}

    def _before(self, params: Any, context: dict[str, Any], **_: Any) -> None:
        context["asked"] = params

    def _after(self, parsed: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        query = context["asked"]
        self.calls += 1
        if model.name == "GetItem":
            self.read += _blocks(_size(parsed.get("Item", {})), 4096)
        elif model.name == "BatchGetItem":
            read = [item for items in parsed["Responses"].values() for item in items]
            queried = sum(len(table["Keys"]) for table in query["RequestItems"].values())
            self.read += sum(_blocks(_size(item), 4096) for item in read) + queried - len(read)
        elif model.name == "Query":
            self.read += _blocks(sum(map(_size, parsed["Items"])), 4096)
        elif model.name == "PutItem":
            self._written(query["Item"], _size(query["Item"]))
        elif model.name == "BatchWriteItem":
            for request in (each for requests in query["RequestItems"].values() for each in requests):
                if "PutRequest" in request:
                    self._written(request["PutRequest"]["Item"], _size(request["PutRequest"]["Item"]))
                else:
                    self._written(request["DeleteRequest"]["Key"], 0)
        else:
            raise RuntimeError(f"what does {model.name} cost?")

    def _written(self, item: Mapping[str, Any], size: int) -> None:
        key = item["pk"]["S"], item["sk"]["S"]
        self.write += _blocks(max(size, self._sizes.get(key, 0)), 1024)
        self._sizes[key] = size


def _blocks(size: int, block: int) -> int:
    return max(1, math.ceil(size / block))


def _size(item: Mapping[str, Any]) -> int:
    """Bytes, as DynamoDB counts them: names and values; a number takes a byte for two digits, and one more."""
    total = 0
    for name, typed in item.items():
        (kind, value), = typed.items()
        total += len(name) + (len(value) // 2 + 1 if kind == "N" else len(value))
    return total


def costs(url: str) -> dict[str, Any]:
    """Calls and request units of refreshes and reads. The party is a list that is there already; the store is real."""
    import msgspec

    from benchmarks import ours
    from chalicelib import parties
    from chalicelib.access import accounts
    from chalicelib.fleet import schedule
    from chalicelib.model import Listing, Source
    from chalicelib.storage import snapshots

    listed = servers(COUNTED)
    parties.list_servers = lambda *_: Listing(list(listed), len(listed))
    figures: dict[str, Any] = {}
    with _deployed(url) as deployment:
        units = Units(deployment.store._client)

        def refresh() -> None:
            result = schedule.work(deployment, schedule.Message(TENANT, "qcloud", REGION["qcloud"], time.time()))
            if result.total != COUNTED:
                raise RuntimeError(f"the refresh failed: {result.error}")

        figures["refresh, new"] = units.of(refresh)
        figures["refresh, unchanged"] = units.of(refresh)
        listed[7] = msgspec.structs.replace(listed[7], name="renamed")
        figures["refresh, one server changed"] = units.of(refresh)
        listed[7] = msgspec.structs.replace(listed[7], name="renamed again")
        figures["refresh, one changed again"] = units.of(refresh)
        token = ours.token(deployment)
        ten, whole = _ask(deployment, token, "10"), _ask(deployment, token, "")
        figures["a page of ten, the first in ten minutes"] = units.of(ten)
        figures["a page of ten"] = units.of(ten)
        figures["all thousand"] = units.of(whole)
        store = deployment.store
        account, head = store.get("account", f"{TENANT}/qcloud"), store.get("snapshot", snapshots.key_of(_source()))
        row = msgspec.json.decode(account.value, type=accounts.AccountRow)
        for number in range(1, IDLE):
            source = Source(f"t{number}", "qcloud", REGION["qcloud"])
            store.put("account", f"{source.tenant_id}/qcloud", msgspec.json.encode(
                msgspec.structs.replace(row, tenant_id=source.tenant_id)))
            store.put("snapshot", snapshots.key_of(source), head.value)
            store.put("interest", snapshots.key_of(source), b"1790000000")
        figures["schedule"] = units.of(lambda: schedule.due(deployment))
    return figures


# ---------------------------------------------------------------- the rounds

def run() -> dict[str, Any]:
    from deploy.ministack import ministack

    with tempfile.TemporaryDirectory(prefix="twocloud-benchmark-") as folder, ministack(Path(folder)) as url:
        figures = {"sqlite": in_child("benchmarks.snapshots:reads", {"url": ""}),
                 "dynamodb": in_child("benchmarks.snapshots:reads", {"url": url}),
                 "costs": in_child("benchmarks.snapshots:costs", {"url": url}),
                 "kept": in_child("benchmarks.snapshots:keep_large", {"path": f"{folder}/large.db"}),
                 "read": in_child("benchmarks.snapshots:read_large", {"path": f"{folder}/large.db"})}
    with Cloud("qcloud", size=SERVERS, latency=LATENCY, limited=False, accounts=SOURCES) as cloud:
        figures["refreshes"] = in_child("benchmarks.snapshots:refreshes", {"endpoint": cloud.url})
    return figures


# ---------------------------------------------------------------- what it says

# USD, list prices in us-east-1 without the free tier, as they were known in 2025: to be checked before use
PRICES = {"write": 0.625e-6, "read": 0.125e-6, "gigabyte": 0.25, "invocation": 0.20e-6, "gigabyte second": 13.3334e-6,
          "message": 0.40e-6, "key": 1.0, "decryption": 3e-6, "log gigabyte": 0.50}
_STORES = {"sqlite": "SQLite", "dynamodb": "DynamoDB (MiniStack)"}
_TITLES = {"ten": "a page of ten", "ten thousand": "10,000 servers"}


def claims(figures: dict[str, Any]) -> list[Claim]:
    made = [Claim(f"{_TITLES[size].capitalize()} from a snapshot on {title}, wall time, the whole answer / one read of "
                  "the same bytes", middle(figures[store][f"{size} answer"], "wall")
                  / middle(figures[store][f"{size} read"], "wall"), 2.0, plotted=False)
            for store, title in _STORES.items() for size in SIZES]
    return [*made, *(
        Claim(f"Refreshes of {SOURCES:,} {name} sources, 1,000 a minute / those that two cores do in a minute",
              1000 / _in_a_minute(figures["refreshes"][name]), 1.0) for name in ("new", "unchanged"))]


def _in_a_minute(measured: dict[str, float]) -> float:
    return SOURCES / measured["wall"] * 60


def text(figures: dict[str, Any]) -> str:
    answers = [(f"{_TITLES[size]}, {_STORES[store]}", *(seconds(middle(figures[store][f"{size} {side}"], name))
                for side in ("answer", "read") for name in ("wall", "cpu"))) for store in _STORES for size in SIZES]
    memory = [(title, seconds(figures[name]["wall"]), f"{figures[name]['added_mib']:.0f} MiB",
               f"{figures[name]['added_mib'] * 1024 / LARGE:.2f} KiB")
              for name, title in (("kept", "written, by a process that holds them"), ("read", "read"))]
    refreshed = [(name, seconds(each["wall"]), f"{_in_a_minute(each):,.0f}", seconds(each["cpu"] / SOURCES))
                 for name, each in figures["refreshes"].items()]
    units = [(name, *(str(each[unit]) for unit in ("calls", "read", "write")))
             for name, each in figures["costs"].items() if name != "schedule"]
    return f"""\
The whole path of a request that a snapshot answers, in process: token, user and account read, window read and decoded,
JSON, ETag, log line. Beside it one read of the chunks that the snapshot is made of: one row for a page of ten, one walk
for 10,000 servers. {ROUNDS} rounds in turns in one process, medians.

DynamoDB is MiniStack on the same two cores; its work is in the wall time of both. SQLite reads by copying memory, so
nothing that makes JSON of it can come near to that.

{lines(("answer", "whole answer: wall", "CPU", "one read: wall", "CPU"), answers)}

{LARGE:,} servers in one source, written and read in a process each. The store holds
{figures["kept"]["stored"] / LARGE:.0f} bytes a server, compressed.

{lines(("100,000 servers", "wall", "memory on top of a ready process", "per server"), memory)}

{SOURCES:,} tenants, each with an account and {SERVERS} servers at one simulator with {LATENCY * 1000:.0f} ms before
each response. One process refreshes them as `twocloud refresh` does, on SQLite:

{lines(("sources", "wall", "a minute", "CPU of each"), refreshed)}

### What the store charges

DynamoDB on demand, counted from the sizes of the items sent and received, with {COUNTED:,} servers in the source. Every
read is consistent, so a read unit is 4 KB; a write unit, or a deletion's, is 1 KB. A request's token and user are in
it.

{lines(("what", "calls", "read units", "write units"), units)}

{_idle(figures["costs"])}"""


def _idle(figures: dict[str, Any]) -> str:
    """A month of a deployment whose sources nobody reads, and of one whose sources are read all the time."""
    days, runs = 30, 12 * 24 * 30
    same, changed, spread = figures["refresh, unchanged"], figures["refresh, one changed again"], figures["schedule"]
    polls = 5 * 3 * 60 * 24 * days
    rows: list[tuple[str, ...]] = []
    totals = [0.0, 0.0]

    def row(what: str, amounts: tuple[float, float], unit: str, price: float) -> None:
        for at, amount in enumerate(amounts):
            totals[at] += amount * price
        rows.append((what, *(f"{amount:,.{0 if amount >= 10 else 3}f} {unit}" for amount in amounts),
                     *(f"{amount * price:.2f}" for amount in amounts)))

    refreshed = (IDLE * 4 * days, IDLE * 288 * days)
    row("refreshes, half of them changed: written", (
        refreshed[0] * (same["write"] + changed["write"]) / 2, refreshed[1] * (same["write"] + changed["write"]) / 2),
        "units", PRICES["write"])
    row("refreshes: read", (
        refreshed[0] * (same["read"] + changed["read"]) / 2, refreshed[1] * (same["read"] + changed["read"]) / 2),
        "units", PRICES["read"])
    row(f"schedule, {runs:,} runs: read", (runs * spread["read"],) * 2, "units", PRICES["read"])
    row("table", (0.01, 0.2), "GB", PRICES["gigabyte"])
    row("Lambda: runs and refreshes", (runs + refreshed[0], runs + refreshed[1]), "calls", PRICES["invocation"])
    row("Lambda: 0.5 s a run, 1 s a refresh, 0.5 GB", (
        (runs * 0.5 + refreshed[0]) * 0.5, (runs * 0.5 + refreshed[1]) * 0.5), "GB s", PRICES["gigabyte second"])
    row("SQS: five long polls of 20 s, messages", (
        polls + runs + refreshed[0] * 1.1, polls + runs + refreshed[1] * 2.1), "requests", PRICES["message"])
    row("KMS: the key", (1, 1), "key", PRICES["key"])
    row("KMS: an account opened for each refresh", refreshed, "calls", PRICES["decryption"])
    row("logs, 1 KB a call", ((runs + refreshed[0]) / 1e6, (runs + refreshed[1]) / 1e6), "GB", PRICES["log gigabyte"])
    rows.append(("**together**", "", "", *(f"**{total:.2f}**" for total in totals)))
    return f"""\
### What {IDLE} sources cost

A month of {days} days with {IDLE} sources of {COUNTED:,} servers each:

- *idle*: nobody reads them; one refresh every six hours.
- *read all the time*: one refresh every five minutes. The readers' own requests are not in it.

Units are those counted above; how long functions run is assumed. Point-in-time recovery, alarms and the API's own
gateway (paid by request) are not in it. **Check the prices**: list prices of us-east-1 without the free tier, as they
were known in 2025:

{lines(("service", "price, USD"), [
    ("DynamoDB on demand", f"{PRICES['write'] * 1e6:g} a million units written, {PRICES['read'] * 1e6:g} read, "
                           f"{PRICES['gigabyte']:g} a GB"),
    ("Lambda on arm64", f"{PRICES['invocation'] * 1e6:g} a million calls, {PRICES['gigabyte second'] * 1e6:g} a "
                        "million GB s"),
    ("SQS", f"{PRICES['message'] * 1e6:g} a million requests"),
    ("KMS", f"{PRICES['key']:g} a key, {PRICES['decryption'] * 1e4:g} for 10,000 calls"),
    ("logs", f"{PRICES['log gigabyte']:g} a GB")])}

{lines(("what", "idle", "read all the time", "idle, USD", "read, USD"), rows)}
"""
