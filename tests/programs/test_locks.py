"""The locks against pyproject.toml: each is what uv resolves from it, with hashes, from wheels."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import locks
from tests.programs import ROOT, program
from tests.programs.test_install import TOOLS

DESCRIBED: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^ ;]+)( ; [^\\]+)? \\")


def pins(text: str) -> Iterator[tuple[str, str, frozenset[str]]]:
    """(name, version with its marker, hashes) of a lock. Fails at a line that is neither."""
    lines = text.splitlines()
    while lines:
        pin = _PIN.fullmatch(lines.pop(0))
        assert pin, "a line that is no pin with hashes"
        hashes: set[str] = set()
        while lines and (match := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", lines[0])):
            lines.pop(0)
            hashes.add(match[1])
            if not match[2]:
                break
        assert hashes, pin[0]
        yield canonicalize_name(pin[1]), pin[2] + (pin[3] or ""), frozenset(hashes)


def wanted(lock: locks.Lock) -> list[Requirement]:
    """What pyproject.toml asks for, where the lock is."""
    texts = [*(DESCRIBED["project"]["dependencies"] if lock.package else []),
             *(text for extra in lock.extras for text in DESCRIBED["project"]["optional-dependencies"][extra]),
             *(text for group in (*lock.groups, *lock.beside) for text in DESCRIBED["dependency-groups"][group])]
    return [Requirement(text) for text in texts]


def test_every_file_of_requirements_is_a_lock() -> None:
    files = {"requirements.txt", *(path.relative_to(ROOT).as_posix() for path in (ROOT / "requirements").iterdir())}
    assert files == locks.LOCKS.keys()
    groups = {group for lock in locks.LOCKS.values() for group in (*lock.groups, *lock.beside)}
    assert groups == DESCRIBED["dependency-groups"].keys()
    assert {extra for lock in locks.LOCKS.values()
            for extra in lock.extras} == DESCRIBED["project"]["optional-dependencies"].keys()
    assert DESCRIBED["dependency-groups"]["build"] == DESCRIBED["build-system"]["requires"]


@pytest.mark.parametrize("name", locks.LOCKS)
def test_a_lock_is_pins_with_hashes_that_meet_what_is_wanted(name: str) -> None:
    pinned: dict[str, list[str]] = {}
    for package, version, _ in pins((ROOT / name).read_text()):
        pinned.setdefault(package, []).append(version.partition(" ")[0])
    for requirement in wanted(locks.LOCKS[name]):
        versions = pinned.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement} is not pinned"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), (
            f"{requirement}, but {versions} pinned")


@pytest.mark.parametrize("name", [name for name, lock in locks.LOCKS.items() if lock.extends])
def test_a_lock_keeps_the_versions_of_the_one_that_it_extends(name: str) -> None:
    above = locks.LOCKS[name].extends
    assert above
    mine = {(package, version) for package, version, _ in pins((ROOT / name).read_text())}
    theirs = {(package, version) for package, version, _ in pins((ROOT / above).read_text())}
    shared = {package for package, _ in mine} & {package for package, _ in theirs}
    assert {pin for pin in mine if pin[0] in shared} == {pin for pin in theirs if pin[0] in shared}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", locks.LOCKS)
def test_a_lock_is_what_uv_resolves(name: str, tmp_path: Path) -> None:
    """From wheels alone, and with no version that nothing wants. A file that was added to a release later is new.

    It depends on what a package index holds at the moment, so it runs where somebody asks for it."""
    if not os.environ.get("TWOCLOUD_INDEX"):
        pytest.skip("NOT RUN: TWOCLOUD_INDEX=1 resolves every lock again at the package index")
    program("uv", str(TOOLS))
    locks.copied(tmp_path)
    locks.resolve(name, tmp_path, upgrade=False)
    ours = {(package, version): hashes for package, version, hashes in pins((ROOT / name).read_text())}
    theirs = {(package, version): hashes for package, version, hashes in pins((tmp_path / name).read_text())}
    assert ours.keys() == theirs.keys()
    assert [pin for pin, hashes in ours.items() if not hashes <= theirs[pin]] == []


def test_a_lock_that_cannot_be_made_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".tools").mkdir()
    (tmp_path / "requirements").mkdir()
    names = {name: locks.LOCKS[name] for name in ("requirements.txt", "requirements/go.txt")}
    for name in names:
        (tmp_path / name).write_text(f"old {name}")

    def uv(what: list[str], target: Path, upgrade: bool) -> None:
        if "--group=go" in what:
            raise locks.Unresolved("no answer")
        target.write_text("new")

    monkeypatch.setattr(locks, "ROOT", tmp_path)
    monkeypatch.setattr(locks, "LOCKS", names)
    monkeypatch.setattr(locks, "_uv", uv)
    with pytest.raises(locks.Unresolved):
        locks.main([])
    assert [(tmp_path / name).read_text() for name in names] == [f"old {name}" for name in names]
    locks.main(["requirements"])            # the lock of this name alone
    assert [(tmp_path / name).read_text() for name in names] == ["new", "old requirements/go.txt"]
    assert list((tmp_path / ".tools").iterdir()) == []
