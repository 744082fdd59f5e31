"""`make release`: everything that a release consists of, in dist/: built, checked, described and summed.

The wheel and the source archive; for the wheel and for the image a bill of materials (CycloneDX) and a list of
licences, made from environments that hold exactly the locked versions; the notes from CHANGELOG.md; SHA256SUMS, signed
if gpg and SIGN_KEY are there. The same commit gives the same wheel.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCKS = {"wheel": "local", "image": "container"}            # what is described -> its lock in requirements/
_TOOLS = ROOT / ".tools/release/bin"


def main(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (version,) = re.findall(r'^__version__ = "(.*)"$', (ROOT / "chalicelib/__init__.py").read_text(), re.MULTILINE)
    if not os.environ.get("TWOCLOUD_REPOSITORY", "").startswith("https://"):
        os.environ["TWOCLOUD_REPOSITORY"] = ""
        _say("No REPOSITORY=https://… is set: the wheel names no links. Set it before you publish.")
    os.environ["SOURCE_DATE_EPOCH"] = _run("git", "log", "-1", "--format=%ct").strip()
    _run(sys.executable, "-m", "hatchling", "build", "-d", str(target))
    (wheel,) = target.glob("*.whl")
    _run(str(_TOOLS / "twine"), "check", "--strict", *map(str, target.iterdir()))
    for name, lock in LOCKS.items():
        bill = _bill_of(wheel, ROOT / f"requirements/{lock}.txt", version)
        (target / f"twocloud-{version}.{name}.cdx.json").write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
        (target / f"twocloud-{version}.{name}.licences.txt").write_text(licences(bill))
    (target / f"twocloud-{version}.notes.md").write_text(notes((ROOT / "CHANGELOG.md").read_text(), version))
    (target / "SHA256SUMS").write_text("".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(target.iterdir())))
    _sign(target / "SHA256SUMS")
    for path in sorted(target.iterdir()):
        _say(str(path))


def notes(changelog: str, version: str) -> str:
    """The version's section of the changelog; until it has one, what is not released yet. Raises ValueError."""
    for heading in (version, "Unreleased"):
        match = re.search(rf"^## \[{re.escape(heading)}\].*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
        if match and match[1].strip():
            return f"# twocloud {version}\n\n{match[1].strip()}\n"
    raise ValueError(f"CHANGELOG.md has no section for {version} and none for what is unreleased.")


def licences(bill: dict[str, Any]) -> str:
    """A line for each component: name, version, licence. Raises ValueError for one that names none."""
    lines: list[str] = []
    for component in sorted(bill["components"], key=lambda component: component["name"]):
        names: list[str] = [one.get("expression") or one["license"].get("id") or one["license"].get("name", "")
                            for one in component.get("licenses", ())]
        classifiers = [name for name in names if name.startswith("License ::")]      # only where nothing better is
        exact = list(dict.fromkeys(name for name in names if name and name not in classifiers))
        if not exact and not classifiers:
            raise ValueError(f"{component['name']} names no licence.")
        lines.append(f"{component['name']} {component['version']}: {'; '.join(exact or classifiers)}\n")
    return "".join(lines)


def _bill_of(wheel: Path, lock: Path, version: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "env"
        _run(sys.executable, "-m", "venv", str(environment))
        pip = (str(environment / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
        _run(*pip, "install", "--only-binary", ":all:", "--require-hashes", "-r", str(lock))
        _run(*pip, "install", "--no-index", "--no-deps", str(wheel))
        _run(*pip, "uninstall", "--yes", "setuptools", "pip")
        text = _run(str(_TOOLS / "cyclonedx-py"), "environment", "--output-reproducible", "--output-format", "JSON",
                    "--spec-version", "1.6", str(environment / "bin/python"))
    bill: dict[str, Any] = json.loads(text.replace(Path(wheel).parent.as_uri(), "."))
    own = [component for component in bill["components"] if component["name"] == "twocloud"]
    bill["components"] = [component for component in bill["components"] if component["name"] != "twocloud"]
    bill["metadata"]["component"] = {"type": "application", "name": "twocloud", "version": version,
                                     "bom-ref": own[0]["bom-ref"], "licenses": [{"license": {"id": "MIT"}}]}
    return bill


def _sign(sums: Path) -> None:
    key = os.environ.get("SIGN_KEY", "")
    if key and shutil.which("gpg"):
        _run("gpg", "--batch", "--yes", "--local-user", key, "--armor", "--detach-sign", str(sums))
    else:
        _say("Not signed: set SIGN_KEY to the id of a gpg key.")


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{_shown(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute() if sys.argv[1:] else ROOT / "dist")
