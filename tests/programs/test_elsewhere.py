"""The command where Python lacks what only POSIX has, as on Windows: simulated, because no such machine is here.

The libraries are imported first, since they choose by the system's name; then the modules and functions go, and the
command runs. docs/limits.md says that it was never run on Windows or macOS.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.canaries import watch
from tests.fixtures import App

MODULES = ("pwd", "grp", "spwd", "fcntl", "resource", "termios", "tty", "pty", "syslog", "posix", "curses", "readline",
           "crypt", "nis")
HIDDEN = f"""
import os, select, shutil, signal, socket, sys
usage = shutil.disk_usage("/")
shutil.disk_usage = lambda path: usage      # Windows' Python finds it without os.statvfs
import botocore.session, click, click.shell_completion, click._termui_impl, cryptography.hazmat.primitives.ciphers.aead
import asyncio, getpass, msgspec, prometheus_client, psycopg, requests, rich.console, rich.progress, rich.table
import sqlite3, subprocess, tempfile, urllib3.util.ssltransport, waitress.server, waitress.task
for name in {MODULES}:
    sys.modules[name] = None                # importing it is an ImportError
for name in ("getuid", "geteuid", "getgid", "getegid", "getgroups", "setuid", "setgid", "fork", "forkpty", "wait",
             "waitpid", "statvfs", "fstatvfs", "fchmod", "fchown", "chown", "lchown", "chroot", "killpg", "getpgid",
             "setsid", "uname", "getloadavg", "sysconf", "mkfifo", "register_at_fork", "O_NOFOLLOW", "O_DIRECTORY",
             "O_CLOEXEC", "O_NONBLOCK", "pread", "pwrite", "sched_getaffinity", "ST_RDONLY", "ctermid", "ttyname"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGWINCH",
             "SIGTSTP", "SIGCONT", "alarm", "pause", "setitimer", "pthread_sigmask", "pthread_kill", "sigwait"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("poll", "epoll", "kqueue"):
    if hasattr(select, name):
        delattr(select, name)
for name in ("AF_UNIX", "SO_REUSEPORT", "SO_PEERCRED", "SCM_RIGHTS"):
    if hasattr(socket, name):
        delattr(socket, name)
"""
COMMAND = f"{HIDDEN}\nfrom chalicelib import cli\nsys.exit(cli.main(sys.argv[1:]))"


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """HOME and USER are Windows' own variables."""
    return subprocess.run([sys.executable, "-c", COMMAND, *arguments], cwd=folder, text=True, capture_output=True,
                          timeout=60, env={"PYTHONPATH": str(ROOT), "USERPROFILE": str(folder), "USERNAME": "ann",
                                           "HOME": str(folder), "PATH": "", **environment})


def test_every_module_is_imported_without_posix(tmp_path: Path) -> None:
    code = (f"{HIDDEN}\nimport pkgutil, importlib, chalicelib\n"
            "for it in pkgutil.walk_packages(chalicelib.__path__, 'chalicelib.'):\n"
            "    parts = it.name.split('.')\n"
            "    if not {'__main__', 'authorizer', 'simulator', 'simulators', 'reference'} & set(parts) and not "
            "parts[-1].startswith('test_'):\n"
            "        importlib.import_module(it.name)\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=100,
                          env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert done.returncode == 0, done.stderr


def test_no_module_imports_posix_when_it_is_imported() -> None:
    for path in (ROOT / "chalicelib").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [
                node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not set(MODULES) & {name.partition(".")[0] for name in names}, path


def test_the_command_lists_a_remote_server(served: App, tmp_path: Path) -> None:
    done = run(tmp_path, "servers", "--party", "qcloud", "--tenant", "123", "--region", "gz", "-o", "json", "--url",
               served.url, TWOCLOUD_TOKEN=served.token)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["vm_servers"]) == 25
    for words in (("me",), ("parties",), ("context", "list"), ("doctor",), ("completion", "bash")):
        done = run(tmp_path, *words, TWOCLOUD_URL=served.url, TWOCLOUD_TOKEN=served.token)
        assert done.returncode in (0, 1), (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert "AttributeError" not in done.stderr + done.stdout
        assert "ImportError" not in done.stderr + done.stdout


def test_a_store_on_this_machine_works(tmp_path: Path) -> None:
    done = run(tmp_path, "user", "add", "bob", "--tenant", "123", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["who"]                       # Windows' own name of the user, for the audit
    done = run(tmp_path, "token", "issue", "--user", "bob")
    assert done.returncode == 0, done.stderr
    watch(done.stdout.strip())
    done = run(tmp_path, "doctor", "-o", "json")
    states = {row["check"]: row["state"] for row in json.loads(done.stdout)}
    assert states["store"] == "ok"
    done = run(tmp_path, "serve", "--workers", "2")
    assert done.returncode == 2
    assert "--workers needs a system with processes that fork" in done.stderr


@pytest.mark.parametrize("name", ["pwd", "fcntl"])
def test_the_simulation_hides_what_it_says(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", f"{HIDDEN}\nimport {name}"], cwd=tmp_path, text=True,
                          capture_output=True, timeout=60)
    assert f"import of {name} halted" in done.stderr
