"""What a benchmark says: claims with an aim, and tables of medians."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measure import Round, least, middle


@dataclass(frozen=True, slots=True)
class Claim:
    """A ratio, the smaller the better. `aim` None: reported without an aim. `plotted`: in the plot of ratios."""

    text: str
    ratio: float
    aim: float | None
    plotted: bool = True

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return "–"
        return "met" if self.ratio <= self.aim else "**missed**"


def table(names: Mapping[str, str], figures: Mapping[str, Sequence[Round]]) -> str:
    """One line for each side: medians over its rounds."""
    return lines(
        ("side", "wall", "least wall", "CPU", "peak memory", "of it above ready", "calls"),
        [(title, seconds(middle(figures[name], "wall")), seconds(least(figures[name], "wall")),
          seconds(middle(figures[name], "cpu")), f"{middle(figures[name], 'peak_mib'):.0f} MiB",
          f"{middle(figures[name], 'added_mib'):.1f} MiB", str(sum(figures[name][0]["calls"].values())))
         for name, title in names.items()])


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    written = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in written)


def seconds(value: float) -> str:
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1000:.{1 if value < 0.1 else 0}f} ms"
    return f"{value:.2f} s"
