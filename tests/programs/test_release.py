"""A release: its notes, its bills of materials, its sums; and advisories against what it installs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chalicelib import __version__
from deploy import release
from tests.programs import MISSING, ROOT, program
from tests.programs.test_install import TOOLS
from tests.programs.test_wheel import NO_NETWORK, locked

CHANGELOG = """# Changes

## [Unreleased]

### Added

- next

## [1.2.0] - 2026-11-01

### Fixed

- a fault

## [1.1.0] - 2026-10-01

- old
"""


@pytest.mark.parametrize(("version", "text"), [("1.2.0", "### Fixed\n\n- a fault"), ("1.1.0", "- old"),
                                               ("1.3.0", "### Added\n\n- next")])
def test_notes_are_the_versions_section_of_the_changelog(version: str, text: str) -> None:
    assert release.notes(CHANGELOG, version) == f"# twocloud {version}\n\n{text}\n"


def test_a_changelog_without_a_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section for 9"):
        release.notes("# Changes\n\n## [Unreleased]\n", "9.0.0")


def test_todays_changelog_has_notes() -> None:
    assert "### Added" in release.notes((ROOT / "CHANGELOG.md").read_text(), __version__)


def test_licences_are_a_line_for_each_component() -> None:
    bill = {"components": [
        {"name": "b", "version": "2", "licenses": [{"license": {"name": "License :: OSI Approved :: MIT"}},
                                                   {"license": {"id": "MIT"}}]},
        {"name": "a", "version": "1", "licenses": [{"expression": "MIT OR Apache-2.0"}]},
        {"name": "c", "version": "3", "licenses": [{"license": {"name": "License :: Public Domain"}}]}]}
    assert release.licences(bill) == "a 1: MIT OR Apache-2.0\nb 2: MIT\nc 3: License :: Public Domain\n"
    with pytest.raises(ValueError, match="d names no licence"):
        release.licences({"components": [{"name": "d", "version": "1"}]})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_release_is_whole(tmp_path: Path) -> None:
    program("twine", str(TOOLS))
    if not (ROOT / ".git").exists():
        pytest.skip(f"{MISSING}a git clone of this project")
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home), "TWOCLOUD_REPOSITORY": "https://git.example.org/you/twocloud"}
    gpg = ["gpg", "--batch", "--quiet", "--passphrase", ""]
    signs = subprocess.run(["sh", "-c", "command -v gpg"], capture_output=True).returncode == 0
    if signs:
        subprocess.run([*gpg, "--quick-gen-key", "release@example.org", "ed25519"], env=environment, check=True,
                       capture_output=True, timeout=60)
        environment["SIGN_KEY"] = "release@example.org"
    done = subprocess.run([sys.executable, "-m", "deploy.release", tmp_path / "dist"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=500)
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"{MISSING}a package index, to describe a release from")
    assert done.returncode == 0, done.stderr
    dist = tmp_path / "dist"
    names = {path.name.replace(__version__, "V") for path in dist.iterdir()}
    assert names == {"twocloud-V-py3-none-any.whl", "twocloud-V.tar.gz", "twocloud-V.wheel.cdx.json",
                     "twocloud-V.image.cdx.json", "twocloud-V.wheel.licences.txt", "twocloud-V.image.licences.txt",
                     "twocloud-V.notes.md", "SHA256SUMS", *(["SHA256SUMS.asc"] if signs else [])}
    subprocess.run(["sha256sum", "--strict", "--check", "SHA256SUMS"], cwd=dist, check=True, capture_output=True,
                   timeout=60)
    if signs:
        subprocess.run([*gpg, "--verify", "SHA256SUMS.asc", "SHA256SUMS"], cwd=dist, env=environment, check=True,
                       capture_output=True, timeout=60)
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, timeout=60, capture_output=True, check=False)
    for name, lock in release.LOCKS.items():
        bill = json.loads((dist / f"twocloud-{__version__}.{name}.cdx.json").read_text())
        assert bill["bomFormat"] == "CycloneDX"
        components = {re.sub("[_.]", "-", component["name"].lower()) for component in bill["components"]}
        missing = {it.replace(".", "-") for it in locked(f"requirements/{lock}.txt")} - components
        assert missing <= {"colorama", "pywin32", "httpx2-jsfetch"}, missing        # other systems'
        assert len(components) == len((dist / f"twocloud-{__version__}.{name}.licences.txt").read_text().splitlines())
        assert str(tmp_path) not in json.dumps(bill)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_advisory_is_known_against_what_is_installed() -> None:
    """Where the package index serves advisories; a mirror may not."""
    done = subprocess.run([program("pip-audit", str(TOOLS)), "--requirement", ROOT / "requirements/container.txt",
                           "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"],
                          capture_output=True, text=True, timeout=250)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        pytest.skip(f"{MISSING}advisories against packages: {done.stderr.strip().splitlines()[-1][:80]}")
    audited = [it for it in report["dependencies"] if "vulns" in it]
    if not audited:
        pytest.skip(f"{MISSING}advisories against packages: the package index serves none")
    assert not [(it["name"], it["version"], [one["id"] for one in it["vulns"]]) for it in audited if it["vulns"]]
