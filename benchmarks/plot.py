"""The plot: ratios with their aims, and what one server costs as lists grow."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.verdict import Claim

_MET, _MISSED, _NO_AIM = "#2a7f4f", "#c0392b", "#6b7a8f"


def draw(claims: Sequence[Claim], growth: Sequence[tuple[int, float, float, float]], path: Path) -> None:
    """`growth`: (size, wall seconds, CPU seconds, KiB), each per server."""
    import matplotlib as mpl
    mpl.use("svg")
    from matplotlib import pyplot as plt

    shown = [claim for claim in claims if claim.plotted][::-1]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "twocloud", "font.family": "sans-serif",
                         "font.size": 9}):
        figure, (ratios, costs) = plt.subplots(
            2, 1, figsize=(9, 0.42 * len(shown) + 4), height_ratios=(0.42 * len(shown) + 0.6, 2.6),
            layout="constrained")
        for at, claim in enumerate(shown):
            color = _NO_AIM if claim.aim is None else _MET if claim.ratio <= claim.aim else _MISSED
            ratios.barh(at, claim.ratio, height=0.6, color=color)
            ratios.annotate(f"{claim.ratio:.3g}", (max(claim.ratio, claim.aim or 0), at), (5, 0),
                            textcoords="offset points", va="center")
            if claim.aim is not None:
                ratios.plot((claim.aim, claim.aim), (at - 0.42, at + 0.42), color="black", linewidth=2)
        ratios.set(xscale="log", xlim=(0.02, 200), xlabel="ours / the other side")
        figure.suptitle("Green: aim met. Red: missed. Grey: no aim. Black mark: the aim.", fontsize=10)
        ratios.set_yticks(range(len(shown)), [fill(claim.text, 62) for claim in shown])
        ratios.axvline(1, color="#999999", linewidth=0.8, linestyle=":")
        sizes = [size for size, *_ in growth]
        costs.plot(sizes, [wall * 1e6 for _, wall, _, _ in growth], "o-", color=_MET, label="wall, µs per server")
        costs.plot(sizes, [cpu * 1e6 for _, _, cpu, _ in growth], "s--", color=_NO_AIM, label="CPU, µs per server")
        costs.set(xscale="log", xlabel="servers in the list", ylabel="µs per server", title="Growth")
        costs.set_ylim(bottom=0)
        memory = costs.twinx()
        memory.plot(sizes, [kib for _, _, _, kib in growth], "^:", color=_MISSED, label="memory, KiB per server")
        memory.set_ylabel("KiB per server")
        memory.set_ylim(bottom=0)
        costs.legend(handles=[*costs.get_lines(), *memory.get_lines()], loc="lower left", frameon=False)
        for axes in (ratios, costs, memory):
            axes.spines["top"].set_visible(False)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        plt.close(figure)
