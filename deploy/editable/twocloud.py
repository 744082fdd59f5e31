"""In a clone, `twocloud` is the package chalicelib; the wheel holds it under its own name."""

from pathlib import Path

from chalicelib import __version__ as __version__

__path__ = [str(Path(__file__).resolve().parents[2] / "chalicelib")]
