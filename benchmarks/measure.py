"""How everything here is measured: each round of each side in a fresh process of its own, the sides in turn.

A side is a context manager that gets ready (imports, client, deployment) and yields the work, which returns the
JSON body; only the work is timed. Run as a module, this is such a process.
"""

import gc
import hashlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Round = dict[str, Any]


# ---------------------------------------------------------------- in a process of its own

def in_child(target: str, arguments: Mapping[str, Any] = {}, environment: Mapping[str, str] = {}) -> Any:
    """What the function `target` ("module:function") returns, called in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-m", __spec__.name, target, json.dumps(arguments)], cwd=ROOT, check=True,
                          env={**os.environ, **environment}, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def work(side: str, arguments: Mapping[str, Any]) -> Round:
    """One round: wall and CPU seconds of the work, peak memory in MiB, and a digest of the list it gave.

    `added_mib`: the peak during the work above what was resident when the side was ready.
    """
    with _named(side)(**arguments) as listing:
        gc.collect()
        before_ready, ready = peak_kib(), resident_kib()
        forget_peak()
        cpu, wall = cpu_seconds(), time.perf_counter()
        body = listing()
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        peak = peak_kib()
    rows = json.loads(body)["vm_servers"]
    rows.sort(key=lambda row: row["instance_id"])
    return {"wall": wall, "cpu": cpu, "ready_mib": ready / 1024, "peak_mib": max(before_ready, peak) / 1024,
            "added_mib": (peak - ready) / 1024, "rows": len(rows),
            "digest": hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]}


def cpu_seconds() -> float:
    """User and system time of this process and its children; the simulator is neither."""
    return sum(used.ru_utime + used.ru_stime
               for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def cpu_of(pid: int) -> float:
    """User and system seconds of that process: fields 14 and 15 of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_kib() -> int:
    """The same count as ru_maxrss, but of this program alone: Linux carries ru_maxrss over from who started it."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_kib() -> int:
    return _status("VmRSS") or peak_kib()


def _status(name: str) -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def forget_peak() -> None:
    """Reset the peak, so that memory needed by imports alone is not counted."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _named(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


# ---------------------------------------------------------------- rounds

def in_turn(sides: Mapping[str, Callable[[], Round]], rounds: int, pause: float = 0.0) -> dict[str, list[Round]]:
    """`rounds` rounds of each side: one of each, then one of each in the opposite order, and so on.

    One more round goes before them and does not count: it fills the caches of files and of the simulator.
    `pause`: seconds before each round, in which the party's own rate forgets the round before.
    """
    figures: dict[str, list[Round]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in (list(sides) if number % 2 else list(sides)[::-1]):
            time.sleep(pause)
            measured = sides[name]()
            if number:
                figures[name].append(measured)
    return figures


def middle(rounds: Sequence[Round], name: str) -> float:
    return statistics.median(each[name] for each in rounds)


def least(rounds: Sequence[Round], name: str) -> float:
    return min(each[name] for each in rounds)


def same_lists(*sides: Sequence[Round]) -> None:
    """Raises if the sides did not all give one and the same list: then there is nothing to compare."""
    digests = {each["digest"] for rounds in sides for each in rounds}
    if len(digests) != 1:
        raise RuntimeError(f"the sides disagree about the list: {sorted(digests)}")


if __name__ == "__main__":
    print(json.dumps(_named(sys.argv[1])(**json.loads(sys.argv[2]))))
