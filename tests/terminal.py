"""The real command as a person sees it: on a pseudo-terminal, drawn by a terminal emulator that we did not write."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pyte

from tests import ROOT

COMMAND = (sys.executable, "-m", "chalicelib")


class Terminal:
    """Runs a program with its three streams, or only some of them, on a terminal of this size."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24, folder: Path, stdout: int | None = None,
                 program: tuple[str, ...] = COMMAND, **environment: str) -> None:
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        clean = {k: v for k, v in os.environ.items() if k not in (
            "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES") and not k.startswith("TWOCLOUD_")}
        self.process = subprocess.Popen(
            [*program, *arguments], stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave, cwd=folder,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**clean, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "TERM": "xterm-256color",
                 "HOME": str(folder),
                 "TWOCLOUD_LOCAL": "1", "PYTHONUTF8": "1", **environment})
        os.close(slave)

    def until(self, ready: Callable[[str], bool], seconds: float = 30) -> str:
        """What is on the screen, as soon as it is so."""
        end = time.monotonic() + seconds
        while not ready(self.text):
            assert time.monotonic() < end, self.text
            assert self._read(), self.text
        return self.text

    def end(self, seconds: float = 30) -> int:
        """Reads to the end; the exit code."""
        while self._read():
            pass
        return self.process.wait(seconds)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _read(self) -> bool:
        try:
            piece = os.read(self._master, 65_536)
        except OSError:                     # the other side is closed
            return False
        self.raw += piece
        self.stream.feed(piece)
        return bool(piece)

    @property
    def rows(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.rows).rstrip()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        os.close(self._master)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
