"""The tests; CONTRIBUTING.md says how they are run."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
