"""The systemd unit: systemd's own checks, and the command under as much of its confinement as works without systemd.

systemd itself does not run here, so nothing tries the unit as a whole: docs/limits.md says so.
"""

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import requests

from chalicelib import cli, settings
from chalicelib.cli.serving import serve
from tests.programs import ROOT, block, program

UNIT = ROOT / "deploy/systemd/twocloud.service"
COMMAND = Path(sys.executable).with_name("twocloud")
# no_new_privs and MemoryDenyWriteExecute as prctl has them, and a user that owns nothing but its folder
CONFINED = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
libc.prctl(65, 1, 0, 0, 0)              # older kernels lack it
os.umask(0o077)
os.execv(sys.argv[1], sys.argv[1:])
"""


def lines(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


@pytest.fixture
def runnable(tmp_path: Path) -> Path:
    """The unit with a command that is there: what verify would complain about otherwise."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/twocloud/bin/twocloud", str(COMMAND)))
    return path


def test_systemd_reads_every_line_of_it(runnable: Path) -> None:
    command = [program("systemd-analyze"), "verify", str(runnable)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0, done.stderr
    assert complaints == []
    runnable.write_text(runnable.read_text().replace("ProtectSystem=strict", "ProtectSystm=strict"))
    assert "ProtectSystm" in subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


def test_systemd_rates_its_exposure_as_low(runnable: Path) -> None:
    """Below 1.5 of 10. What is left over is what a program that calls clouds needs: the network."""
    command = [program("systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=15", str(runnable)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    runnable.write_text(re.sub(r"^(Protect|Private|Restrict).*\n", "", runnable.read_text(), flags=re.MULTILINE))
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).returncode != 0


def test_its_command_and_settings_are_the_programs() -> None:
    (line,) = lines("ExecStart")
    program_path, name, *options = shlex.split(line)
    assert (Path(program_path).name, name) == ("twocloud", "serve")
    # the option for help is kept with the command
    with click.Context(serve, help_option_names=cli.twocloud.context_settings["help_option_names"]) as context:
        serve.parse_args(context, options)
    named = {value.partition("=")[0] for value in lines("Environment")} - {"PYTHONUNBUFFERED"}
    assert named <= set(settings.SETTINGS)
    assert settings.load(dict(value.replace("%d", "/run/credentials/x").split("=", 1)
                              for value in lines("Environment"))).key == "file:/run/credentials/x/key"
    (stop,) = lines("TimeoutStopSec")
    assert int(stop) > 25                   # a request under way may take that long


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[tuple[list[str | Path], dict[str, str], Path]]:
    """A command line in front of another, the settings of the unit, and its state's folder."""
    state, credentials = tmp_path / "state", tmp_path / "credentials"
    state.mkdir()
    credentials.mkdir()
    key = credentials / "key"
    key.write_bytes(base64.b64encode(os.urandom(32)))
    key.chmod(0o400)
    environment = {"PATH": os.environ["PATH"], "HOME": "/"}
    for value in lines("Environment"):
        name, _, text = value.replace("%d", str(credentials)).replace("/var/lib/twocloud", str(state)).partition("=")
        environment[name] = text
    yield [sys.executable, "-c", CONFINED], environment, state
    key.unlink()


def started(command: list[str | Path], environment: dict[str, str], folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The unit's own command on a free port, and its address."""
    options = shlex.split(lines("ExecStart")[0])[1:]
    options[options.index("--port") + 1] = "0"
    process = subprocess.Popen([*command, COMMAND, *options], cwd=folder, env=environment, text=True,
                               stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True)
    assert process.stderr
    line = process.stderr.readline()
    address = re.search(r"http://[\d.:]+", line)
    assert address, line + process.stderr.read()
    return process, address[0]


def test_it_serves_under_its_limits_and_stops_at_sigterm(
        confined: tuple[list[str | Path], dict[str, str], Path]) -> None:
    command, environment, state = confined
    process, url = started(command, environment, state)
    try:
        health = requests.get(f"{url}/twocloud/health", timeout=30)
        assert health.status_code == 200, health.text
    finally:
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr
        process.stderr.close()
    assert (state / "twocloud.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_its_system_calls_are_those_that_the_unit_allows(
        confined: tuple[list[str | Path], dict[str, str], Path], tmp_path: Path) -> None:
    strace, analyze = program("strace"), program("systemd-analyze")

    def calls(group: str) -> set[str]:
        shown = subprocess.run([analyze, "syscall-filter", group], capture_output=True, text=True, check=True,
                               timeout=60).stdout.splitlines()[1:]
        names = {line.strip() for line in shown if line.strip() and not line.strip().startswith("#")}
        return set().union(*(calls(name) if name.startswith("@") else {name} for name in names))

    allowed: set[str] = set()
    for value in lines("SystemCallFilter"):
        named = set().union(*(calls(group) for group in value.removeprefix("~").split()))
        allowed = allowed - named if value.startswith("~") else allowed | named
    command, environment, state = confined
    if os.geteuid() == 0:                   # SQLite gives files to their folder's owner, but only as root
        allowed.add("fchown")
    process, url = started([strace, "-f", "-qq", "-o", tmp_path / "trace", *command], environment, state)
    try:
        for path in ("health", "openapi.json", "", "servers"):
            requests.get(f"{url}/twocloud/{path}", timeout=30)
        requests.post(f"{url}/twocloud/tokens", auth=("nobody", "password"), timeout=30)
    finally:
        os.killpg(process.pid, signal.SIGTERM)                  # strace itself ignores it
        process.wait(30)
        assert process.stderr
        process.stderr.close()
    used = set(re.findall(r"^\d+ +(\w+)\(", (tmp_path / "trace").read_text(), re.MULTILINE))
    assert {"accept4", "openat"} & used
    assert used - allowed == set()


def test_the_pages_lines_name_what_the_unit_names() -> None:
    page = block("install.md", "console", "systemctl enable")
    (credential,) = lines("LoadCredential")
    name, _, path = credential.partition(":")
    assert name == "key"
    assert path in page
    assert set(re.findall(r"/etc/twocloud/(\w+)", page)) == {"key"}
    assert lines("ExecStart")[0].split()[0].rpartition("/bin/")[0] in page
    unit = UNIT.read_text().splitlines()
    for kind, text in re.findall(r"--(property|setenv)=(\S+)", page):
        text = text.replace("/run/credentials/twocloud-command.service", "%d")      # a transient unit expands no %d
        line = f"Environment={text}" if kind == "setenv" else text
        assert line == "User=twocloud" or line in unit, line    # its name is the unit's, so both are one user
