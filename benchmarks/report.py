"""From results.json to docs/benchmarks.md and docs/benchmarks.svg."""

import importlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.measure import ROOT
from benchmarks.plot import draw
from benchmarks.verdict import Claim, lines

RESULTS = ROOT / "benchmarks" / "results.json"
_PAGE, _PLOT = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
NAMES = ("qcloud", "aws", "parties", "page", "serve", "processes", "snapshots", "growth", "sources", "survey",
         "imports", "coldstart", "load")
_OURS = ("twocloud", "msgspec", "requests", "urllib3", "cryptography")


def module(name: str) -> ModuleType:
    """A benchmark: TITLE, LIBRARIES, run() -> its figures, claims(figures), text(figures)."""
    return importlib.import_module(f"benchmarks.{name}")


def machine() -> dict[str, Any]:
    libraries = {*_OURS, *(library for name in NAMES for library in module(name).LIBRARIES)}
    return {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(),
            "libraries": {name: importlib.metadata.version(name) for name in sorted(libraries)}}


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"machine": {}, "benchmarks": {}}


def keep(results: dict[str, Any], name: str, figures: Any, date: str) -> None:
    """Put one benchmark's figures among the others; figures of another machine or of other versions go.

    The file changes only when it holds every benchmark: documents are made from all of them.
    """
    here = machine()
    if results["machine"] != here:
        results["machine"], results["benchmarks"] = here, {}
    results["benchmarks"][name] = {"date": date, "figures": _short(figures)}
    if set(NAMES) <= set(results["benchmarks"]):
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _short(value: Any) -> Any:
    """Six digits of every number: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value


def write(results: dict[str, Any]) -> None:
    figures = {name: results["benchmarks"][name] for name in NAMES if name in results["benchmarks"]}
    claims = {name: module(name).claims(each["figures"]) for name, each in figures.items()}
    draw([claim for each in claims.values() for claim in each],
         module("growth").per_server(figures["growth"]["figures"]) if "growth" in figures else [], _PLOT)
    here = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["libraries"].items())
    parts = [f"""# Benchmarks

After this page you know how fast twocloud lists beside the vendors' SDKs, what a page costs, how it grows, and which of
its aims it misses.

To measure on your own machine, run `make bench`. It writes this page and `benchmarks/results.json`, which holds all
figures. This run: {here["cpu"]}, {here["cores"]} cores, {here["system"]}, Python {here["python"]}; {_dates(figures)}.

![Ratios with their aims, and cost per server](benchmarks.svg)

{lines(("what", "ratio", "aim", ""), [_line(claim) for each in claims.values() for claim in each])}

How to read the ratios:

- Each is ours divided by the other side's, of medians; smaller is better. Both sides get the same input, in turns, in
  one run.
- The aims were set beforehand. Ratios move by some 10 % from run to run, so a smaller difference from the aim is a tie.
- Clouds are simulators on this machine, each in a process of its own. Their work is not counted, but it uses the same
  cores. There is no TLS and no real network.
- Wall time, CPU time (user and system, of the side's own process), peak memory and calls are of a fresh process for
  each round. It is ready before the clock starts: imports done, client or deployment made.
- *Live* means that the cloud is queried; a *snapshot* is the last complete list, kept in the store.

Versions: {versions}.
"""]
    parts += [f"## {module(name).TITLE}\n\n{module(name).text(each['figures'])}" for name, each in figures.items()]
    _PAGE.write_text("\n".join(parts))


def _line(claim: Claim) -> tuple[str, ...]:
    return claim.text, f"{claim.ratio:.3g}", "–" if claim.aim is None else f"≤ {claim.aim:g}", claim.verdict


def _dates(figures: Mapping[str, Any]) -> str:
    days = sorted({each["date"] for each in figures.values()})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
