"""python -m benchmarks [NAME…]: measure all or the named ones; `report` writes the documents from what there is."""

import sys
import time
from datetime import date

from benchmarks import report


def main(names: list[str]) -> None:
    if unknown := set(names) - {*report.NAMES, "report"}:
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; known are: {', '.join(report.NAMES)}, report")
    results = report.load()
    for name in report.NAMES if not names else [name for name in report.NAMES if name in names]:
        started = time.monotonic()
        print(f"{name}: {report.module(name).TITLE}", end=" ", file=sys.stderr, flush=True)
        report.keep(results, name, report.module(name).run(), date.today().isoformat())
        print(f"({time.monotonic() - started:.0f} s)", file=sys.stderr)
    if missing := set(report.NAMES) - set(results["benchmarks"]):
        print("nothing was written: results.json is of another machine or of other versions, and "
              f"{', '.join(sorted(missing))} not measured here; measure all: make bench", file=sys.stderr)
    else:
        report.write(results)
    for name in [name for name in report.NAMES if name in results["benchmarks"]]:
        for claim in report.module(name).claims(results["benchmarks"][name]["figures"]):
            print(f"{claim.ratio:8.3g}  {'' if claim.aim is None else f'aim {claim.aim:g}':8}  {claim.verdict:10}  "
                  f"{claim.text}")


if __name__ == "__main__":
    main(sys.argv[1:])
