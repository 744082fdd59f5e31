"""The programs that people read the list with, real ones, against `serve`.

`make test` installs them into .tools/clients, Prometheus from Debian's package. A program that is not there skips its
tests, and the end of the run names it: see pytest_terminal_summary in tests/fixtures.py.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests import ROOT

VENV = ROOT / ".tools/clients"
PATHS = f"{VENV}/bin:{VENV}/debian/usr/bin:{os.environ['PATH']}"
ANSIBLES = {"2.16": f"{ROOT}/.tools/ansible216/bin:{PATHS}", "2.19": PATHS}     # ansible-core -> where its commands are
MISSING = "not on this machine: "


def program(name: str, paths: str = PATHS) -> str:
    """Where it is; the test is skipped, loudly, if it is nowhere."""
    path = shutil.which(name, path=paths)
    if not path:
        pytest.skip(f"{MISSING}{name}")
    return path


def run(arguments: Sequence[str | Path], folder: Path, environment: Mapping[str, str] = {}, stdin: str | None = None,
        timeout: float = 100) -> subprocess.CompletedProcess[str]:
    """A program in a folder that is its home too, so that nothing of this user's settings counts."""
    arguments = [program(str(arguments[0]), environment.get("PATH", PATHS)), *map(str, arguments[1:])]
    clean = {"PATH": PATHS, "HOME": str(folder), "LANG": "C.UTF-8", "TERM": "dumb", **environment}
    return subprocess.run(arguments, cwd=folder, env=clean, input=stdin, capture_output=True, text=True,
                          timeout=timeout,
                          stdin=None if stdin is not None else subprocess.DEVNULL)


def ansible_core(version: str) -> str:
    """The search path of an ansible-core; the test is skipped, loudly, where it is not or does not start."""
    paths = ANSIBLES[version]
    output = run(["ansible", "--version"], Path("/"), {"PATH": paths})
    if f"[core {version}." not in output.stdout:
        pytest.skip(f"{MISSING}ansible-core {version}")
    return paths


def blocks(document: str, language: str) -> list[str]:
    return [text.removeprefix(f"{language}\n") for text in (ROOT / document).read_text().split("```")[1::2]
            if text.startswith(f"{language}\n")]


def block(document: str, language: str, holds: str) -> str:
    """The block of code of a page that holds this text; there must be one."""
    (example,) = (text for text in blocks(f"docs/{document}", language) if holds in text)
    return example
