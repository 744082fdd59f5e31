"""`make lock`: pin the requirements again, as uv resolves what pyproject.toml asks for.

Each lock holds every platform's versions with the hashes of their files, from wheels alone (NO_WHEELS aside). A lock
that extends another one keeps its versions. All locks are made beside the old ones and take their place together, so
that a failure on the way changes none of them. With names of groups as arguments, only the locks of these are made.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
NO_WHEELS = ("jdcloud-sdk", "alibabacloud-endpoint-util", "ovs")        # their vendors publish source archives alone
_UV = ROOT / ".tools/release/bin/uv"


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """What is resolved into one file: the package itself (`package`) with its `extras`, and `groups`.

    `beside`: groups without what their packages require: of those, files are used and no code. `extends`: the lock
    whose versions it keeps. `upgrade`: to the newest versions that fit; else only what no longer fits is changed.
    """

    package: bool = False
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    extends: str | None = None
    upgrade: bool = True


_EVERY = ("postgres", "mcp", "aws")
LOCKS = {                                   # in their order: one that extends another comes after it
    "requirements.txt": Lock(groups=("lambda",)),
    "requirements/local.txt": Lock(package=True, extends="requirements.txt"),
    "requirements/package.txt": Lock(package=True, extras=("aws",), extends="requirements/local.txt"),
    "requirements/dev.txt": Lock(package=True, extras=_EVERY, groups=("dev", "judges"),
                                 extends="requirements/package.txt"),
    "requirements/bench.txt": Lock(package=True, extras=_EVERY, groups=("dev", "judges", "bench"),
                                   extends="requirements/dev.txt"),
    "requirements/container.txt": Lock(package=True, extras=("postgres", "yaml", "bridge", "mcp"),
                                       extends="requirements/dev.txt"),
    **{f"requirements/{name}.txt": Lock(groups=(name,)) for name in (
        "build", "ministack", "aws", "go", "postgres", "release", "clients", "ansible216", "browser", "oci")},
    "requirements/manifests.txt": Lock(groups=("manifests",), beside=("manifests-beside",)),
    "requirements/openstack.txt": Lock(groups=("openstack",), upgrade=False),           # its releases fit each other
}


class Unresolved(Exception):
    """uv could not resolve a lock; the message is what it says."""


def resolve(name: str, folder: Path, upgrade: bool) -> None:
    """The lock into `folder`/`name`, which holds the old one, and those that it extends. Without `upgrade` each version
    stays as long as it fits. Raises Unresolved."""
    lock, target = LOCKS[name], folder / name
    what = [*(["pyproject.toml"] if lock.package else []), *(f"--extra={extra}" for extra in lock.extras),
            *(f"--group={group}" for group in lock.groups)]
    _uv([*what, *([f"--constraint={folder / lock.extends}"] if lock.extends else [])], target, upgrade)
    if lock.beside:
        beside = target.with_suffix(".beside")
        beside.write_text(target.read_text() if upgrade else (ROOT / name).read_text())
        _uv([*(f"--group={group}" for group in lock.beside), "--no-deps"], beside, upgrade)
        target.write_text(target.read_text() + beside.read_text())
        beside.unlink()


def _uv(what: list[str], target: Path, upgrade: bool) -> None:
    program = str(_UV) if _UV.exists() else shutil.which("uv")
    if program is None:
        raise Unresolved("uv is not there: run `make .tools/release/ready`")
    done = subprocess.run(
        [program, "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--only-binary=:all:",
         *(f"--no-binary={package}" for package in NO_WHEELS), "--generate-hashes", "--no-annotate", "--no-header",
         *(["--upgrade"] if upgrade else []), *what, f"--output-file={target}"],
        cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unresolved(f"{' '.join(what)}: {done.stderr.strip()}")


def copied(folder: Path) -> None:
    """All locks, into the folder."""
    for name in LOCKS:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def main(groups: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=ROOT / ".tools") as text:
        folder = Path(text)
        copied(folder)
        wanted = [name for name in LOCKS if not groups or Path(name).stem in groups]
        for name in wanted:
            print(name, file=sys.stderr)
            resolve(name, folder, LOCKS[name].upgrade)
        for name in wanted:
            (folder / name).replace(ROOT / name)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Unresolved as unresolved:
        sys.exit(f"no lock was changed: {unresolved}")
