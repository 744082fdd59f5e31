"""What the schedule takes to say which of 100,000 sources are due, beside a bare reading of the same rows."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds, forget_peak, in_child, middle, peak_kib, resident_kib
from benchmarks.verdict import Claim, lines, seconds

TITLE = "The schedule's survey of 100,000 sources"
LIBRARIES = ()
SIZES = (10_000, 100_000)
ROUNDS = 3
REGIONS = ("ap-guangzhou", "ap-beijing")    # of each account
_KINDS = ("account", "named", "snapshot", "interest", "breaker")


def _settings(path: str) -> dict[str, str]:
    return {"TWOCLOUD_STORE": f"sqlite:///{path}", "TWOCLOUD_KEY": f"file:{path}.key", "TWOCLOUD_LOCAL": "1"}


def filled(path: str, size: int) -> None:
    """A store with so many sources, two of each account; every second list is older than it should be. In a process of
    its own."""
    import msgspec

    from chalicelib import settings
    from chalicelib.access.accounts import AccountRow
    from chalicelib.fleet.many_sources import open_deployment
    from chalicelib.storage import store
    from chalicelib.storage.snapshots import VERSION, Head
    from chalicelib.storage.store import Entry

    deployment, now = open_deployment(settings.load(_settings(path))), time.time()
    head = Head(version=VERSION, revision="r", seen_at=0.0, since=now - 86_400, generation="g" * 22, total=40,
                starts=(0,), marks=1, digest="d" * 64, expires=int(now) + 86_400, serial="s" * 22)
    rows: list[Entry] = []
    for number in range(size // len(REGIONS)):
        key = f"tenant-{number}/qcloud"
        row = AccountRow(tenant_id=f"tenant-{number}", party="qcloud", sealed=b"x" * 300, revision="r", bound=True,
                         regions=REGIONS, created_at=int(now), updated_at=int(now))
        rows.append(Entry("account", key, msgspec.json.encode(row), store.new_version(), None))
        for late, region in enumerate(REGIONS):
            written = msgspec.structs.replace(head, seen_at=now - (3600 if late else 10))
            rows += [Entry("snapshot", f"{key}/{region}", msgspec.msgpack.encode(written), store.new_version(), None),
                     Entry("interest", f"{key}/{region}", b"%d" % now, store.new_version(), int(now) + 86_400)]
        if len(rows) > 10_000:
            deployment.store.write(rows)
            rows = []
    deployment.store.write(rows)
    deployment.close()


def surveyed(path: str) -> dict[str, float]:
    """One run in a fresh process: seconds and MiB to say what is due and to make the messages, and those of reading
    the same rows alone."""
    from chalicelib import settings
    from chalicelib.fleet import schedule
    from chalicelib.fleet.many_sources import open_deployment

    deployment = open_deployment(settings.load(_settings(path)))
    wall = time.perf_counter()
    read = sum(1 for kind in _KINDS for _ in deployment.store.list(kind))
    bare = time.perf_counter() - wall
    forget_peak()
    before, cpu, wall = resident_kib(), cpu_seconds(), time.perf_counter()
    survey = schedule.survey(deployment)
    messages = list(schedule.messages(deployment, waiting=survey.messages))
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "bare": bare, "rows": read,
            "known": survey.known, "due": len(survey.due), "messages": len(messages),
            "added_mib": (peak_kib() - before) / 1024}


def run() -> dict[str, list[dict[str, float]]]:
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = str(Path(folder) / f"{size}.db")
            in_child("benchmarks.survey:filled", {"path": path, "size": size})
            figures[str(size)] = [in_child("benchmarks.survey:surveyed", {"path": path}) for _ in range(ROUNDS)]
            if any(each["known"] != size or each["due"] != size / 2 for each in figures[str(size)]):
                raise RuntimeError(f"{figures[str(size)]}: not what was stored")
    return figures


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, list[dict[str, float]]]) -> list[Claim]:
    small, large = (middle(figures[str(size)], "cpu") / size for size in SIZES)
    most = figures[str(SIZES[-1])]
    return [Claim(f"The schedule's survey, CPU time per source at {SIZES[-1]:,} / at {SIZES[0]:,}", large / small, None,
                  plotted=False),
            Claim(f"The schedule's survey of {SIZES[-1]:,} sources, wall time / reading the same rows",
                  middle(most, "wall") / middle(most, "bare"), None, plotted=False)]


def text(figures: dict[str, list[dict[str, Any]]]) -> str:
    rows = [(f"{size:,}", f"{each[0]['rows']:,}", seconds(middle(each, "wall")), seconds(middle(each, "cpu")),
             f"{middle(each, 'added_mib'):.0f} MiB", seconds(middle(each, "bare")))
            for size in SIZES for each in [figures[str(size)]]]
    return f"""\
One run of the schedule on SQLite, in a fresh process: which sources there are, how old the list of each is and when it
was last read, which are due, and the messages for those (half of them). Two sources of each account; all were read in
the last hour. Sending is not counted. Medians of {ROUNDS}.

{lines(("sources", "rows", "wall", "CPU", "memory on top", "reading the rows alone"), rows)}
"""
