"""A real Chromium and a real Firefox for the tests of the pages: Debian's packages, driven by what lies in
`.tools/browser`.

Where there is none, it is installed (as root, with apt-get); where that cannot be, the tests are skipped and the run's
summary says so.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

NOT_RUN = "NOT RUN"
# no GPU, no sandbox (root in a container), and no calls home
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
              "--disable-component-update", "--disable-sync"]


def _program(package: str, *names: str) -> str:
    """The path of a browser; skips the test if there is none and none can be installed. `names`: of its program."""
    def find() -> str | None:
        return next(filter(None, map(shutil.which, names)), None)

    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        with Path(tempfile.gettempdir(), "twocloud-browsers.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)                    # two workers ask for it at once
            if not find():
                for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
                    subprocess.run(["apt-get", "--quiet", *command], capture_output=True, check=False, timeout=110,
                                   env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    program = find()
    if not program:
        pytest.skip(f"{NOT_RUN}: the console's tests need {names[0]}: apt-get install {package}")
    return program


def _packages() -> Path:
    folders = sorted((ROOT / ".tools/browser").glob("lib/python*/site-packages"))
    if not folders:
        pytest.skip(f"{NOT_RUN}: the console's tests need .tools/browser: make .tools/browser/ready")
    return folders[0]


def axe() -> str:
    """The source of axe-core, which finds what a screen reader or a keyboard cannot use."""
    return (_packages() / "axe_playwright_python/axe.min.js").read_text()


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """A Browser of Playwright; its profile goes below the folder, where it is searched for secrets."""
    program = _program("chromium", "chromium", "chromium-browser")
    with _playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS,
                                             env={**os.environ, "TMPDIR": str(folder)})
        yield browser
        browser.close()


@contextmanager
def firefox(folder: Path, *, dark: bool = False) -> Iterator[Any]:
    """The same with Firefox as it is shipped, through WebDriver BiDi. The colour scheme is the whole browser's. What a
    page makes and saves lands in the folder: Playwright sees downloads from a server alone."""
    program = _program("firefox-esr", "firefox-esr", "firefox")
    with _playwright() as playwright:
        browser = playwright.firefox.launch(
            channel="moz-firefox", executable_path=program, downloads_path=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            firefox_user_prefs={"layout.css.prefers-color-scheme.content-override": 0 if dark else 1,
                                "ui.prefersReducedMotion": 1})
        yield browser
        browser.close()


@contextmanager
def _playwright() -> Iterator[Any]:
    if str(_packages()) not in sys.path:
        sys.path.append(str(_packages()))   # last: what .venv has, comes from there
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright
