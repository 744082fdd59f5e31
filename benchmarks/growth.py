"""100 to 100,000 servers: what each further server costs."""

from contextlib import ExitStack

from benchmarks.clouds import Cloud
from benchmarks.measure import Round, in_turn, middle
from benchmarks.verdict import Claim, lines, seconds

TITLE = "Growth: 100 to 100,000 servers"
LIBRARIES = ()
SIZES = (100, 1_000, 10_000, 100_000)
ROUNDS = 7


def run() -> dict[str, list[Round]]:
    with ExitStack() as stack:
        sides = {}
        for size in SIZES:
            cloud = stack.enter_context(Cloud("qcloud", size=size, limited=False))
            sides[str(size)] = cloud.side("benchmarks.ours:listing", party="qcloud", url=cloud.url, limited=False)
        return in_turn(sides, ROUNDS)


# ---------------------------------------------------------------- what it says

def per_server(figures: dict[str, list[Round]]) -> list[tuple[int, float, float, float]]:
    """(size, wall seconds, CPU seconds, KiB on top of a ready process), each per server."""
    return [(size, middle(figures[str(size)], "wall") / size, middle(figures[str(size)], "cpu") / size,
             middle(figures[str(size)], "added_mib") * 1024 / size) for size in SIZES]


def claims(figures: dict[str, list[Round]]) -> list[Claim]:
    measured = {size: rest for size, *rest in per_server(figures)}
    return [Claim(f"{name} per server at 100,000 / at 1,000", measured[100_000][at] / measured[1_000][at], 1.25,
                  plotted=False)
            for at, name in enumerate(("Wall time", "CPU time", "Memory"))]


def text(figures: dict[str, list[Round]]) -> str:
    rows = [(f"{size:,}", seconds(wall * size), seconds(wall), seconds(cpu), f"{kib * size / 1024:.1f} MiB",
             f"{kib:.2f} KiB") for size, wall, cpu, kib in per_server(figures)]
    return f"""\
One whole list to its JSON body, each in a fresh process that is ready, the sizes in turns; medians of {ROUNDS} rounds.

- This shows how the code grows. The simulator has no latency and no rate limit, our own limiter is off, and the
  deadline is far. One request over HTTP carries less: 25 s at the documented rate limit, and 6 MB; beyond that callers
  request ranges.
- The aim is: at 100,000 servers at most a quarter more per server than at 1,000.
- Small lists carry the fixed costs: threads, connections, the first call.
- Memory is the peak on top of a ready process.

{lines(("servers", "wall", "wall per server", "CPU per server", "memory", "memory per server"), rows)}
"""
