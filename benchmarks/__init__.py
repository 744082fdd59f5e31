"""Benchmarks: what twocloud costs beside what a user would use instead, as ratios from one run on one input.

`python -m benchmarks [NAME…]` writes results.json here, and from it docs/benchmarks.md and docs/benchmarks.svg;
`python -m benchmarks report` writes the documents alone. Times are reported, never asserted; that both sides give
the same list is checked.
"""
