"""1,000 servers at every native party with a simulator: calls and wall time beside the API's minimum and the SDK."""

import hashlib
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.clouds import Cloud
from benchmarks.keys import TENANT
from benchmarks.measure import Round, cpu_seconds, in_child, middle
from benchmarks.verdict import Claim, lines, seconds

if TYPE_CHECKING:
    from chalicelib.simulators.cloud import Least

TITLE = "Every native party: 1,000 servers and a window of ten"
LIBRARIES = ()
SIZE = 1000
WINDOW = (501, 510)
LATENCY = 0.05
ROUNDS, SDK_ROUNDS = 5, 1


@cache
def least_of() -> "dict[str, Least]":
    """party -> what its API itself asks, of those whose simulator states it."""
    from chalicelib import simulators

    return {name: cloud.least for name, cloud in simulators.clouds().items() if cloud.least}


def names() -> list[str]:
    """The parties whose API's own minimum is known, without those that take a call for each server: there, 1,000 are
    too much for one request, or for the time of a benchmark."""
    return [name for name, least in least_of().items() if least.calls <= SIZE]


# ---------------------------------------------------------------- in a process of its own

def rounds(side: str, number: int, **arguments: Any) -> list[Round]:
    """`number` rounds of a side, each as cold as a fresh process but for its imports; one more before only warms."""
    figures: list[Round] = []
    with redirect_stdout(sys.stderr):       # where an SDK may chat
        for _ in range(number + 1):
            with _SIDES[side](**arguments) as listing:
                cpu, wall = cpu_seconds(), time.perf_counter()
                result = listing()
                wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            figures.append({"wall": wall, "cpu": cpu, **_seen(result)})
    return figures[1:]


def sdk_rounds(number: int, **arguments: Any) -> list[Round]:
    """None where the party has no judge yet, or its SDK is not installed."""
    import pytest

    try:
        return rounds("sdk", number, **arguments)
    except (ModuleNotFoundError, pytest.skip.Exception) as missing:
        print(f"no SDK for {arguments['party']}: {missing}", file=sys.stderr)
        return []


@contextmanager
def _ours(party: str, url: str, credentials: Mapping[str, object], region: str,
          window: tuple[int, int] | None = None) -> Iterator[Callable[[], Any]]:
    from benchmarks import ours
    from chalicelib.cloud import cache
    from chalicelib.fleet import many_sources
    from chalicelib.model import WHOLE, Window

    cache.forget()
    with ours.deployed(party, url, credentials) as deployment:
        source = many_sources.source_of(TENANT, party, region)

        wanted = Window(*window) if window else WHOLE
        yield lambda: ours.body(deployment, many_sources.list_servers(deployment, source, wanted))


@contextmanager
def _sdk(party: str, url: str, credentials: Mapping[str, str], region: str) -> Iterator[Callable[[], Any]]:
    """What the party's judge does with the vendor's SDK; for the first two, what their own benchmarks do."""
    if party in ("aws", "qcloud"):
        module = importlib.import_module(f"benchmarks.{party}")
        with (module.boto3_paginators if party == "aws" else module.sdk)(url, credentials) as work:
            yield work
    else:
        judge = importlib.import_module(f"chalicelib.parties.{party}.test_{party}")
        yield lambda: judge.machines(url, credentials, region)


_SIDES: dict[str, Callable[..., Any]] = {"ours": _ours, "sdk": _sdk}
_FIELDS = ("name", "cpu", "memory", "disk", "lan", "wan", "created", "updated")     # beside the id and the state
_STATES = {"party_status", "state", "status", "word"}


def _seen(result: Any) -> Round:
    """How many servers there are, which, and how many of the ten fields each has."""
    if isinstance(result, bytes):
        rows = json.loads(result)["vm_servers"]
        ids = [row["instance_id"] for row in rows]
        fields = min(sum(value is not None for value in row.values()) for row in rows)
    else:
        ids = [row.get("uuid", key) for key, row in result.items()]         # vsphere's judge names managed objects
        first = next(iter(result.values()))
        fields = 1 + any(name in _STATES for name in first) + sum(
            any(key.startswith(name) for key in first) for name in _FIELDS)
    return {"rows": len(ids), "fields": fields,
            "digest": hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()[:16]}


# ---------------------------------------------------------------- the rounds

def run() -> dict[str, Any]:
    return {name: _measured(name) for name in names()}


def _measured(party: str) -> dict[str, Any]:
    with Cloud("party", party=party, size=SIZE, latency=LATENCY) as cloud:
        details = {"party": party, "url": cloud.url, **cloud.details}

        def side(target: str, number: int, **arguments: Any) -> dict[str, Any]:
            cloud.calls()
            made = in_child(f"benchmarks.parties:{target}", {"number": number, **details, **arguments})
            calls = {name: count / (number + 1) for name, count in cloud.calls().items()}
            return {"rounds": made, "calls": calls}

        whole = side("rounds", ROUNDS, side="ours")
        window = side("rounds", ROUNDS, side="ours", window=WINDOW)
        sdk = side("sdk_rounds", SDK_ROUNDS)
    if {each["digest"] for each in (*whole["rounds"], *sdk["rounds"])} != {whole["rounds"][0]["digest"]}:
        raise RuntimeError(f"{party}: the sides disagree about the list")
    return {"whole": whole, "window": window, "sdk": sdk}


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, Any]) -> list[Claim]:
    known = [name for name in figures if name in least_of()]
    calls = {name: _calls(figures[name]["whole"]) / least_of()[name].calls for name in known}
    parts = {name: _calls(figures[name]["window"]) / least_of()[name].window_calls for name in known}
    walls = {name: _wall(figures[name]["whole"]) / least_of()[name].wall(LATENCY) for name in known}
    sdks = {name: _wall(sides["whole"]) / _wall(sides["sdk"])
            for name, sides in figures.items() if sides["sdk"]["rounds"]}

    def worst_of(what: str, of: dict[str, float], aim: float | None) -> Claim:
        name, ratio = max(of.items(), key=lambda one: one[1])
        return Claim(f"1,000 servers, {what}, the worst of {len(of)} native parties ({name})", ratio, aim)

    return [
        worst_of("calls, ours / the API's own minimum", calls, 1.0),
        worst_of("calls for a window of ten, ours / the API's own minimum", parts, 1.0),
        worst_of("wall time at 50 ms a call, ours / the physical limit", walls, 1.5),
        Claim(f"1,000 servers, wall time at 50 ms a call, ours / the physical limit, the median of {len(known)} native "
              "parties", statistics.median(walls.values()), None),
        worst_of("wall time at 50 ms a call, ours / the vendor's SDK in a loop", sdks, None),
    ]


def text(figures: dict[str, Any]) -> str:
    whole: list[tuple[str, ...]] = []
    parts: list[tuple[str, ...]] = []
    reasons: list[tuple[str, ...]] = []
    left_out = sorted(set(least_of()) - set(names()))
    for name, sides in figures.items():
        least = least_of().get(name)
        mine, sdk = _wall(sides["whole"]), sides["sdk"]
        limit = least.wall(LATENCY) if least else None
        whole.append((name, _number(_calls(sides["whole"])), str(least.calls) if least else "–", seconds(mine),
                      seconds(limit) if limit else "–", _against(mine, limit) if limit else "–",
                      *((_number(_calls(sdk)), seconds(_wall(sdk))) if sdk["rounds"] else ("–", "–")),
                      _fields(sides["whole"]), _fields(sdk)))
        part = _wall(sides["window"])
        parts.append((name, _number(_calls(sides["window"])), str(least.window_calls) if least else "–", seconds(part),
                      seconds(least.window_wall(LATENCY)) if least else "–"))
        if least:
            rate = f"{least.rate[0]:,} calls in {least.rate[1]:g} s" if least.rate else "none published"
            pace = _pace(name, sides["whole"])
            held = f"; ours spreads them over {seconds(pace)}" if pace else ""
            reasons.append((name, f"{least.calls}, {least.trips} in sequence",
                            f"{least.window_calls}, {least.window_trips} in sequence", f"{rate}{held}", least.why))
    return f"""\
Every party (cloud) with an adapter of its own and a simulator. Each response takes {LATENCY * 1000:.0f} ms; the
simulator's rate limit is off, ours is on.

- Ours is a whole deployment that knows nothing yet: a new store, new connections, no login, no catalogue. It also
  writes the snapshot. {ROUNDS} rounds, medians.
- The SDK's side is the loop that its user has to write, from this project's tests: once, after one round to warm up.
  The lists of both are compared by their ids.
- A simulator checks each request once and then keeps the response, so its own work is not in the figures.
- *Fields*: how many of the ten are filled.
- *Least* and *limit* are the API's own: the fewest calls that give all ten fields, and the time that nobody can beat.
  That is the calls that must follow one another × {LATENCY * 1000:.0f} ms, or the documented rate limit's time for all
  of them, if that is longer.
- Left out, since their APIs take a call for each server ([how many fit](limits.md)): {", ".join(left_out)}.
- Reading a megabyte of responses and writing the snapshot is in our time, but not in the limit.

{lines(("party", "calls", "least", "wall", "limit", "wall / limit (aim ≤ 1.5)", "SDK: calls", "SDK: wall", "fields",
        "SDK: fields"), whole)}

Servers {WINDOW[0]} to {WINDOW[1]} of these, again by a deployment that knows nothing yet:

{lines(("party", "calls", "least", "wall", "limit"), parts)}

How *least* and *limit* come about. Where a vendor publishes no rate limit, ours is a careful guess, which may spread
the calls over some time.

{lines(("party", "calls", "for the window", "rate limit", "why"), reasons)}
"""


def _wall(side: dict[str, Any]) -> float:
    return middle(side["rounds"], "wall")


def _calls(side: dict[str, Any]) -> float:
    return sum(side["calls"].values())


def _fields(side: dict[str, Any]) -> str:
    return str(side["rounds"][0]["fields"]) if side["rounds"] else "–"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _against(mine: float, limit: float) -> str:
    return f"{mine / limit:.2f}" if mine <= 1.5 * limit else f"**{mine / limit:.2f}**"


def _pace(party: str, side: dict[str, Any]) -> float:
    """Seconds over which our own limiter spreads these calls."""
    from chalicelib import parties

    limits = parties.load(party).limits
    return max((int(count - 1) // limits[name].calls * limits[name].seconds * 1.05
                for name, count in side["calls"].items() if name in limits), default=0.0)
