"""The packaged functions under load: latency, errors, memory, billed milliseconds, and what a million requests cost."""

import base64
import http.client
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import cpu_of
from benchmarks.verdict import Claim, lines

TITLE = "The packaged functions under load"
LIBRARIES = ("chalice", "botocore")
TENANTS, SERVERS, TIMES, CALLERS, HUNG, SECONDS = 100, 100, 25, 8, 4, 15.0
LATENCY = 0.05  # of the simulator cloud
MEMORY = {"APIHandler": 1.0, "Authorize": 1769 / 1024}  # GB, as the template says; a test compares
KINDS = {
    "page": ("a page of ten, live", "region=gz&f=1&t=10"),
    "live": ("the whole list of 100, live", "region=gz&max_age=0"),
    "kept page": ("a page of ten, from a snapshot", "region=gz&f=1&t=10&max_age=9999"),
    "kept": ("the whole list of 100, from a snapshot", "region=gz&max_age=9999"),
    "several live": ("two sources, live", "region=gz,ap-shanghai&max_age=0"),
    "several kept": ("two sources, from snapshots", "region=gz,ap-shanghai&max_age=9999"),
    "unchanged": ("304, from a snapshot", "region=gz&max_age=9999"),
    "refused": ("403", "region=gz"),
}


class _App:
    """The package on MiniStack's store and key, its functions under awslambdaric behind a gateway."""

    def __init__(self, stack: ExitStack) -> None:
        from chalicelib import parties
        from chalicelib.access import accounts, tokens, users
        from chalicelib.access.sealing import KmsSealer
        from chalicelib.packaging import package
        from chalicelib.parties.qcloud.simulator import Qcloud
        from chalicelib.simulators import tls
        from chalicelib.simulators.fleet import Fleet
        from chalicelib.storage.dynamodb import DynamoStore
        from deploy import emulator
        from deploy.gateway import Gateway, Pool
        from deploy.ministack import Function, ministack

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out, task = folder / "out", folder / "task"
        package.build(out, sys.executable, here=True)
        pem, key = tls.certificate(folder)
        endpoint = stack.enter_context(ministack(folder, rights=True))
        outputs = emulator.deploy(endpoint, out, "load", trusted=pem)
        store = DynamoStore(
            outputs["Store"].removeprefix("dynamodb://"), time.time, emulator.client(endpoint, "dynamodb")
        )
        sealer = KmsSealer(outputs["Key"].removeprefix("kms:"), emulator.client(endpoint, "kms"))
        with zipfile.ZipFile(out / "deployment.zip") as archive:
            archive.extractall(task)
        with (task / "certifi/cacert.pem").open("ab") as trusted:
            trusted.write(pem.read_bytes())
        fleets = {"ap-guangzhou": Fleet(SERVERS), "ap-shanghai": Fleet(SERVERS, "sh")}
        clouds = [
            stack.enter_context(Qcloud({"AKIDload": "load-secret"}, fleets, limited=False, latency=LATENCY))
            for _ in range(2)
        ]
        for cloud in clouds:
            tls.wrap(cloud, pem, key)
        clouds[1].fail("hang")
        self.tokens: dict[str, str] = {}
        for number in range(TENANTS + HUNG):
            tenant = f"tenant-{number}" if number < TENANTS else f"hung-{number}"
            made = accounts.check(
                tenant,
                parties.load("qcloud"),
                {"secret_id": "AKIDload", "secret_key": "load-secret"},
                project=None,
                regions=("gz",),
                deep=False,
                endpoint=clouds[number >= TENANTS].url,
                local=False,
            )
            accounts.put(store, sealer, made, time.time())
            user = users.User(name=tenant, uid=users.new_uid(), tenants=(tenant,), created_at=int(time.time()))
            users.add(store, user)
            self.tokens[tenant] = tokens.issue(store, user, tokens.Limits(), 36_000, time.time())[0]
        template = json.loads((out / "template.json").read_text())
        names = {
            it["FunctionName"].split("-")[1]: it
            for it in emulator.client(endpoint, "lambda").list_functions()["Functions"]
        }

        def pool(name: str) -> Pool:
            variables = {
                **names[name]["Environment"]["Variables"],
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            }
            described = template["Resources"][name]["Properties"]
            return Pool(
                lambda: Function(task, described["Handler"], variables, described["Timeout"], folder),
                described["ReservedConcurrentExecutions"]["Fn::If"][1],
            )

        self.pools = {name: pool(name) for name in MEMORY}
        self.gateway = Gateway(template, self.pools)
        stack.callback(self.gateway.close)

    def ask(
        self, tenant: str, query: str, as_: str = "", gzip: bool = True, **headers: str
    ) -> tuple[int, int, dict[str, str]]:
        """(status, bytes, headers)"""
        there = urlsplit(self.gateway.url)
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=40)
        connection.request(
            "GET",
            f"{there.path}/twocloud/servers?party=qcloud&tenant_id={tenant}&{query}",
            headers={
                "Authorization": "Basic " + base64.b64encode(f"{self.tokens[as_ or tenant]}:x".encode()).decode(),
                **({"Accept-Encoding": "gzip"} if gzip else {}),
                **headers,
            },
        )
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, len(body), {name.lower(): value for name, value in answer.getheaders()}


def run() -> dict[str, Any]:
    with ExitStack() as stack:
        app = _App(stack)
        billed = _billed(app)
        _warm(app)
        mixed = _load(app, [])
        hung = _load(app, [tenant for tenant in app.tokens if tenant.startswith("hung")])
        peaks = {name: max(_peak_mib(it.pid) for it in pool.all if it.alive) for name, pool in app.pools.items()}
        cold = {name: statistics.median(it.cold for it in pool.log if it.cold) for name, pool in app.pools.items()}
        return {"billed": billed, "mixed": mixed, "hung": hung, "peak_mib": peaks, "cold": cold}


def _billed(app: _App) -> dict[str, dict[str, float]]:
    """One request at a time: medians of what Lambda would bill, CPU, and bytes out; of each kind."""
    api, guard = app.pools["APIHandler"], app.pools["Authorize"]
    figures: dict[str, dict[str, float]] = {}
    for kind, (_, query) in KINDS.items():
        tenant = "hung-999" if kind == "refused" else "tenant-0"
        as_ = "tenant-0"
        _, _, headers_before = app.ask(tenant, query, as_)
        headers = {"If-None-Match": headers_before["etag"]} if kind == "unchanged" else {}
        at, cpu = len(api.log), cpu_of(api.all[0].pid)
        answers = [app.ask(tenant, query, as_, **headers) for _ in range(TIMES)]
        expected = {"unchanged": 304, "refused": 403}.get(kind, 200)
        if {status for status, _, _ in answers} != {expected}:
            raise RuntimeError(f"{kind}: {[status for status, _, _ in answers]}")
        plain = app.ask(tenant, query, as_, gzip=False, **headers)[1]
        figures[kind] = {
            "ms": 1000 * statistics.median(it.took for it in api.log[at : at + TIMES]),
            "cpu_ms": 1000 * (cpu_of(api.all[0].pid) - cpu) / TIMES,
            "gzip": answers[0][1],
            "plain": plain,
        }
    at, cpu = len(guard.log), cpu_of(guard.all[0].pid)
    for number in range(1, TIMES + 1):  # each with a token that the gateway has not seen
        app.ask(f"tenant-{number}", "region=gz&f=1&t=10")
    figures["authorizer"] = {
        "ms": 1000 * statistics.median(it.took for it in guard.log[at:]),
        "cpu_ms": 1000 * (cpu_of(guard.all[0].pid) - cpu) / TIMES,
        "gzip": 0,
        "plain": 0,
    }
    return figures


def _warm(app: _App) -> None:
    """An environment for each caller, and a snapshot for each tenant."""
    with ThreadPoolExecutor(CALLERS + HUNG) as pool:
        list(pool.map(lambda number: app.ask(f"tenant-{number}", KINDS["kept"][1]), range(TENANTS)))


def _load(app: _App, hung: list[str]) -> dict[str, Any]:
    """CALLERS query many tenants: nine of ten a snapshot, one live; beside them one caller for each of `hung`."""
    until, timings, waited = time.monotonic() + SECONDS, list[tuple[float, int]](), list[tuple[float, int]]()

    def call(choose: Callable[[], tuple[str, str]], into: list[tuple[float, int]]) -> None:
        while time.monotonic() < until:
            tenant, query = choose()
            begun = time.perf_counter()
            status, _, _ = app.ask(tenant, query)
            into.append((time.perf_counter() - begun, status))

    def usual() -> tuple[str, str]:
        tenant = f"tenant-{random.randrange(TENANTS)}"
        return tenant, KINDS["kept" if random.random() < 0.9 else "page"][1]

    threads = [threading.Thread(target=call, args=(usual, timings)) for _ in range(CALLERS)]
    threads += [
        threading.Thread(target=call, args=(lambda name=name: (name, KINDS["page"][1]), waited)) for name in hung
    ]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads[:CALLERS]:
        thread.join()
    took = time.monotonic() - begun
    for thread in threads:
        thread.join()
    times = sorted(each for each, _ in timings)
    return {
        "requests": len(timings),
        "per_second": len(timings) / took,
        "errors": sum(status != 200 for _, status in timings),
        **{f"p{part}": times[min(len(times) - 1, len(times) * part // 100)] for part in (50, 95, 99)},
        "environments": {name: len(pool.all) for name, pool in app.pools.items()},
        "hung": [{"seconds": each, "status": status} for each, status in waited],
    }


def _peak_mib(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# ---------------------------------------------------------------- what it costs

PRICES = {  # USD, us-east-1, from memory
    "request": 3.50e-6,  # API Gateway REST, each
    "invocation": 0.20e-6,
    "gb_second": 0.0000133334,  # Lambda, arm64
    "read": 0.125e-6,
    "write": 0.625e-6,  # DynamoDB on demand, a unit
    "gb_out": 0.09,
    "gb_log": 0.50,
    "decrypt": 3e-6,
}
# Units that a request reads (4 KB) and writes (1 KB), as tests/unit/test_scale.py counts them, except the authorizer's
STORE = {
    "page": (7, 0),
    "live": (12, 3),
    "kept page": (8, 0),
    "kept": (8, 0),
    "several live": (20, 6),
    "several kept": (12, 0),
    "unchanged": (8, 0),
    "refused": (6, 0),
}

# kind of request -> its path and query (of a refresh "" and the region), and the calls to DynamoDB; a test compares
_SERVERS, _ONE = "/twocloud/servers", "party=qcloud&tenant_id=123"
_ALL = "party=all&tenant_id=123&region=all"
CALLS: dict[str, tuple[str, str, dict[str, int]]] = {
    KINDS["page"][0]: (_SERVERS, f"{_ONE}&{KINDS['page'][1]}", {"GetItem": 1, "BatchGetItem": 2}),
    KINDS["live"][0]: (
        _SERVERS,
        f"{_ONE}&{KINDS['live'][1]}",
        {"GetItem": 2, "BatchGetItem": 3, "PutItem": 2, "BatchWriteItem": 1},
    ),
    KINDS["kept page"][0]: (_SERVERS, f"{_ONE}&{KINDS['kept page'][1]}", {"GetItem": 1, "BatchGetItem": 2}),
    KINDS["kept"][0]: (_SERVERS, f"{_ONE}&{KINDS['kept'][1]}", {"GetItem": 1, "BatchGetItem": 2}),
    "a part of a named list": (_SERVERS, f"{_ONE}&region=gz&f=1&t=10&list=LIST", {"GetItem": 1, "BatchGetItem": 2}),
    KINDS["several live"][0]: (
        _SERVERS,
        f"{_ONE}&{KINDS['several live'][1]}",
        {"GetItem": 3, "BatchGetItem": 7, "PutItem": 4, "BatchWriteItem": 2},
    ),
    KINDS["several kept"][0]: (_SERVERS, f"{_ONE}&{KINDS['several kept'][1]}", {"GetItem": 1, "BatchGetItem": 4}),
    "403": (_SERVERS, "party=qcloud&tenant_id=7&region=gz", {"GetItem": 1, "BatchGetItem": 1}),
    "the changes of one source": (
        "/twocloud/changes",
        f"{_ONE}&region=gz&since=2026-09-21T00:00:00Z",
        {"GetItem": 1, "BatchGetItem": 1, "Query": 2},
    ),
    "what a token opens": ("/twocloud/me", "", {"GetItem": 2, "Query": 2}),
    "a refresh, nothing changed": (
        "",
        "ap-guangzhou",
        {"GetItem": 1, "BatchGetItem": 3, "PutItem": 2, "BatchWriteItem": 1},
    ),
    "a refresh, one server changed": (
        "",
        "ap-guangzhou",
        {"GetItem": 1, "BatchGetItem": 4, "PutItem": 4, "BatchWriteItem": 1},
    ),
    "a page of ten of 1,000 sources, from snapshots": (
        _SERVERS,
        f"{_ALL}&max_age=9999&f=1&t=10",
        {"GetItem": 1, "BatchGetItem": 2, "Query": 4},
    ),
    "all 10,000 servers of 1,000 sources in the basic view, from snapshots": (
        _SERVERS,
        f"{_ALL}&max_age=9999&view=basic",
        {"GetItem": 1, "BatchGetItem": 11, "Query": 4},
    ),
    "the metrics of 1,000 sources": ("/twocloud/metrics", "", {"GetItem": 3, "Query": 5}),
    "the changes of 1,000 sources": (
        "/twocloud/changes",
        f"{_ALL}&since=2026-09-21T00:00:00Z",
        {"GetItem": 1, "BatchGetItem": 1, "Query": 21},
    ),
}
LOG_BYTES = 900  # one line of ours, the platform's three, one of the gateway's
FACTOR = 1 / 0.57  # 1,024 MB buy 0.57 of a core


def cost(figures: dict[str, Any], kind: str, gzip: bool = True) -> dict[str, float]:
    """USD for a million requests. CPU is stretched by the share of a core that the memory buys; waiting is not."""
    each = figures["billed"][kind]
    billed = (max(0.0, each["ms"] - each["cpu_ms"]) + each["cpu_ms"] * FACTOR) / 1000
    reads, writes = STORE[kind]
    parts = {
        "gateway": PRICES["request"],
        "function": PRICES["invocation"] + billed * MEMORY["APIHandler"] * PRICES["gb_second"],
        "store": reads * PRICES["read"] + writes * PRICES["write"],
        "key": PRICES["decrypt"] if kind in ("page", "live", "several live") else 0.0,
        "out": each["gzip" if gzip else "plain"] / 1e9 * PRICES["gb_out"],
        "logs": LOG_BYTES / 1e9 * PRICES["gb_log"],
    }
    return {name: 1e6 * value for name, value in parts.items()}


def costs(figures: dict[str, Any]) -> str:
    rows = []
    for kind, (title, _) in KINDS.items():
        for gzip in (True, False) if kind in ("kept", "several kept") else (True,):
            parts = cost(figures, kind, gzip)
            rows.append(
                (
                    f"{title}{'' if gzip else ', no gzip'}",
                    f"{figures['billed'][kind]['ms']:.0f}",
                    f"{figures['billed'][kind]['cpu_ms']:.0f}",
                    *(f"{value:.2f}" for value in parts.values()),
                    f"{sum(parts.values()):.2f}",
                )
            )
    return lines(("a million of", "ms", "CPU ms", "gateway", "function", "store", "key", "out", "logs", "USD"), rows)


def calls() -> str:
    """The table of calls to DynamoDB."""
    names = ("GetItem", "BatchGetItem", "Query", "PutItem", "BatchWriteItem")
    rows = [
        (title, str(sum(made.values())), *(str(made.get(name, "")) for name in names))
        for title, (_, _, made) in CALLS.items()
    ]
    return lines(("request", "calls", *names), rows)


# ---------------------------------------------------------------- what it says


def claims(figures: dict[str, Any]) -> list[Claim]:
    return [
        Claim(
            "Under load, the slowest hundredth of callers of snapshots, with a cloud that hangs beside them / without",
            figures["hung"]["p99"] / figures["mixed"]["p99"],
            None,
        ),
        Claim(
            "Peak memory of the API's function under load / what it has (1,024 MB)",
            figures["peak_mib"]["APIHandler"] / 1024,
            1.0,
        ),
        Claim(
            "Peak memory of the authorizer under load / what it has (1,769 MB)",
            figures["peak_mib"]["Authorize"] / (1024 * MEMORY["Authorize"]),
            1.0,
        ),
    ]


def text(figures: dict[str, Any]) -> str:
    def row(name: str, title: str) -> tuple[str, ...]:
        it = figures[name]
        return (
            title,
            str(it["requests"]),
            f"{it['per_second']:.0f}",
            *(f"{1000 * it[part]:.0f} ms" for part in ("p50", "p95", "p99")),
            str(it["errors"]),
            str(it["environments"]["APIHandler"]),
        )

    waits = [it["seconds"] for it in figures["hung"]["hung"]]
    statuses = sorted({it["status"] for it in figures["hung"]["hung"]})
    titles = {kind: title for kind, (title, _) in KINDS.items()}
    titles["authorizer"] = "the authorizer, a token that the gateway has not seen"
    rows = [
        (title, f"{it['ms']:.0f}", f"{it['cpu_ms']:.0f}", f"{it['gzip']:,.0f}", f"{it['plain']:,.0f}")
        for kind, title in titles.items()
        for it in [figures["billed"][kind]]
    ]
    return f"""\
`deployment.zip` under Amazon's runtime client, one process for each execution environment, behind the tests' gateway
(policy cache on, throttle off). DynamoDB and KMS are MiniStack, one Python process. Clouds are simulators behind TLS
that take {LATENCY * 1000:.0f} ms.

All of it shares two cores with the callers (and, when this was run, with other work), so throughput and latency are
this machine's, not Lambda's. What holds elsewhere: the CPU that a request takes, that none fails, and that a hanging
cloud does nothing to the others.

{CALLERS} callers, {TENANTS} tenants, {SECONDS:.0f} s: nine of ten requests accept a snapshot, one is a live page. Then
the same beside {HUNG} callers whose cloud hangs; these were answered after at most {max(waits):.1f} s
({", ".join(map(str, statuses))}).

{
        lines(
            ("load", "requests", "a second", "p50", "p95", "p99", "errors", "environments"),
            [row("mixed", "all clouds answer"), row("hung", "one cloud hangs")],
        )
    }

Peak memory: the API's function {figures["peak_mib"]["APIHandler"]:.0f} MiB, the authorizer
{figures["peak_mib"]["Authorize"]:.0f} MiB. One request at a time is billed (medians of {TIMES}):

{lines(("request", "ms", "of it CPU", "bytes with gzip", "without"), rows)}

What a million of each costs: [Scale](scale.md).
"""
