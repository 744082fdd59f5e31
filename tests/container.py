"""Follow the Containerfile's own lines without a builder of images, and run the result as a container would.

Each stage is an overlay over this machine's root file system, which takes the place of the base image. The last stage
then runs with a read-only root, the image's user, environment and health check. `python -m tests.container`, inside
`unshare --mount` and as root, prints a report as JSON.
"""

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from tests import ROOT

_PASSED_ON = re.compile("PIP_|SSL_|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE")   # this machine's way to the package index


@dataclass
class Stage:
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: int = 0
    group: int = 0
    volume: str = ""
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop: str = "SIGTERM"


def instructions(text: str) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def build(text: str, scratch: Path) -> Stage:
    """Raises ValueError for an instruction that it does not know."""
    stages: dict[str, Stage] = {}
    stage = Stage(Path("/"))
    for word, rest in instructions(text):
        if word == "FROM":
            stage = Stage(_overlay(scratch, f"stage{len(stages)}"), {"PATH": os.environ["PATH"]})
            stages[rest.partition(" AS ")[2] or "last"] = stage
        elif word == "ENV":
            for part in shlex.split(rest):
                name, _, value = part.partition("=")
                stage.environment[name] = Template(value).substitute(stage.environment)
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            _copy(stage, stages, shlex.split(rest))
        elif word == "RUN":
            passed_on = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
            run(stage, ["sh", "-c", rest], {**passed_on, **stage.environment}, user=0, check=True)
        elif word == "USER":
            stage.user, stage.group = map(int, rest.split(":"))
        elif word in ("ENTRYPOINT", "CMD"):
            setattr(stage, {"ENTRYPOINT": "entry", "CMD": "command"}[word], json.loads(rest))
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        elif word == "STOPSIGNAL":
            stage.stop = rest
        elif word == "VOLUME":
            stage.volume = rest
        elif word not in ("ARG", "LABEL", "EXPOSE"):
            raise ValueError(f"tests/container.py does not know {word}")
    return stages["last"]


def _overlay(scratch: Path, name: str) -> Path:
    upper, work, root = (scratch / name / part for part in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir(parents=True)
    _mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", root)
    for folder in ("dev", "proc"):
        _mount("--rbind", f"/{folder}", root / folder)
    interpreter = Path(shutil.which("python3") or sys.executable).resolve()
    for folder in interpreter.parents:      # an image's Python is for every user of it
        inside = root / str(folder)[1:]
        inside.chmod(inside.stat().st_mode | 0o011)
    return root


def _copy(stage: Stage, stages: Mapping[str, Stage], words: Sequence[str]) -> None:
    source = ROOT
    if words[0].startswith("--from="):
        source = stages[words[0].removeprefix("--from=")].root
        words = words[1:]
    *names, target = words
    into = stage.root / os.path.normpath(f"{stage.folder}/{target}" if target[0] != "/" else target)[1:]
    for name in names:
        path = source / name.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("__pycache__") if source == ROOT else None)
        else:
            if target.endswith("/"):
                into.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, into)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, timeout=60)


def _inside(stage: Stage, user: int) -> Callable[[], None]:
    def enter() -> None:
        os.chroot(stage.root)
        os.chdir(stage.folder)
        if user:
            os.setgroups([])
            os.setgid(stage.group)
            os.setuid(user)
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)             # no new privileges
    return enter


def run(stage: Stage, command: Sequence[str], environment: Mapping[str, str] | None = None, *, user: int | None = None,
        check: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=environment or stage.environment, text=True, timeout=500, cwd="/",
                          capture_output=True, preexec_fn=_inside(stage, stage.user if user is None else user))
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    return done


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _mount("-t", "tmpfs", "tmpfs", scratch)
        image = build((ROOT / "Containerfile").read_text(), scratch)
        _mount("-o", "remount,ro", image.root)
        owner = (image.root / image.volume[1:]).stat()
        _mount("-t", "tmpfs", "-o", f"uid={owner.st_uid},gid={owner.st_gid},mode={owner.st_mode & 0o777:o}", "tmpfs",
               image.root / image.volume[1:])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        serve = subprocess.Popen([*image.entry, *(word.replace("8000", port) for word in image.command)], cwd="/",
                                 env=image.environment, preexec_fn=_inside(image, image.user), text=True,
                                 stderr=subprocess.PIPE)
        report: dict[str, object] = {}
        try:
            assert serve.stderr
            first = serve.stderr.readline()
            health = urllib.request.urlopen(f"http://127.0.0.1:{port}/twocloud/health", timeout=20).read().decode()
            report = {
                "first": first, "health": json.loads(health), "user": image.user,
                "healthy": run(image, [word.replace("8000", port) for word in image.health]).returncode,
                "unhealthy": run(image, [word.replace("8000", "1") for word in image.health]).returncode,
                "touch": run(image, ["touch", "/opt/twocloud/x"]).stderr,
                "pip": run(image, ["/opt/twocloud/bin/python", "-m", "pip", "--version"]).stderr,
                "doctor": run(image, [*image.entry, "doctor", "-o", "json"]).stdout,
                "files": sorted(path.name for path in (image.root / "data").iterdir()),
                "psycopg": run(image, ["/opt/twocloud/bin/python", "-c", "import psycopg, yaml, libcloud"]).stderr,
            }
        finally:
            serve.send_signal(signal.Signals[image.stop])
            report["exit"] = serve.wait(40)
            subprocess.run(["umount", "--recursive", "--lazy", scratch], check=True, timeout=20)
        print(json.dumps(report))


if __name__ == "__main__":
    main()
