"""No answer of a party makes the process grow by more than 200 MB, ten at once: tests/bombs.py, in a process of its
own."""

import subprocess
import sys

import pytest

SHAPES = ["nested elements", "tiny rows", *(pytest.param(shape, marks=pytest.mark.slow) for shape in (
    "unclosed elements", "attributes", "attributes with blanks", "texts",
    "one long wide text"))]                 # all: tests/bombs.py


@pytest.mark.sample(3)
@pytest.mark.parametrize("shape", SHAPES)
def test_ten_bombs_at_once_stay_below_200_mb(shape: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bombs", shape], capture_output=True, text=True, timeout=100,
                          check=True)
    grown, *words = done.stdout.split()
    assert int(grown) < 200, done.stdout
    assert set(words) <= {"party_malformed", "party_throttled", "party_timeout"}, done.stdout
