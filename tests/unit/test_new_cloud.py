"""Two toy clouds are added to a copy of the repository by the commands of CONTRIBUTING's "Add a cloud".

One takes a token, one signs its requests. The toys differ from the clouds that they were copied from where a new cloud
differs first: its name, its host, its paths, its signature, its client.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT

MADE = {"README.md", "README.zh.md", "docs/parties.md", "docs/keys.md"}        # what `make docs` writes for a new cloud


# ---------------------------------------------------------------- the toys

def speak_token(folder: Path) -> None:
    """Other paths, in a third version of the API."""
    for name in ("__init__.py", "simulator.py"):
        change(folder / name, "/v2/", "/v3/")
    (folder / "test_toytoken.py").write_text('''"""No client but ours lists the toy."""

from contextlib import ExitStack

from tests import bearer
from tests.fixtures import App


def test_a_wrong_token_is_refused_and_regions_are_the_partys(app: App, stack: ExitStack) -> None:
    bearer.wrong_tokens_are_refused_and_regions_found(app, stack, "toytoken", "fra")
''')


def sign_by_sha256(folder: Path) -> None:
    """A signature with another hash."""
    for name in ("__init__.py", "simulator.py"):
        change(folder / name, "hashlib.sha1(", "hashlib.sha256(")
    (folder / "test_toysigned.py").write_text('''"""No client but ours lists the toy."""

from contextlib import ExitStack

import pytest

from chalicelib import simulators
from chalicelib.errors import PartyDenied
from chalicelib.fleet import many_sources
from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.fixtures import App


def test_a_signature_opens_and_another_does_not(app: App, stack: ExitStack) -> None:
    toy = simulators.clouds()["toysigned"]
    cloud, credentials = toy.start({toy.region: Fleet(7)}, canaries.secret("toysigned"))
    stack.enter_context(cloud)
    app.account("toysigned", credentials, cloud.url)
    source = many_sources.source_of("123", "toysigned", toy.region)
    assert many_sources.list_servers(app.deployment, source).total == 7
    app.account("toysigned", {**credentials, "private_key": canaries.secret("other")}, cloud.url)
    with pytest.raises(PartyDenied):
        many_sources.list_servers(app.deployment, source)
''')


TOYS: dict[str, tuple[str, Callable[[Path], None]]] = {        # name -> the cloud to copy, what makes it another one
    "toytoken": ("vultr", speak_token), "toysigned": ("ucloud", sign_by_sha256)}


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} of the copied cloud does not hold {old!r}; choose another change for the toy"
    path.write_text(text.replace(old, new))


# ---------------------------------------------------------------- the copy, and the guide's commands

def commands(toy: str) -> list[str]:
    """The guide's blocks, with the toy's name."""
    guide = (ROOT / "CONTRIBUTING.md").read_text().split("\n## Add a cloud\n")[1].split("\n## ")[0]
    return [block.replace("newcloud", toy).replace("NewCloud", toy.capitalize()).replace("vultr", TOYS[toy][0])
            for block in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)]


class Copy:
    """A copy of the repository's files. `make docs` runs what the Makefile runs for the tables and sections."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "repository", folder / "bin"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
        names = listed.split("\0")[:-1] or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
                                           if path.is_file()
                                            and not path.relative_to(ROOT).parts[0].startswith(".venv")]
        for name in names:
            if (ROOT / name).exists():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.root / name)
        self.before = self.files()
        self.bin.mkdir()
        assert re.search(r"^docs: .*\n\t\$\(BIN\)/python -m tests\.programs\.test_docs$",
                         (ROOT / "Makefile").read_text(), re.M)
        make = self.bin / "make"
        make.write_text(f"#!/bin/sh\n[ \"$*\" = docs ] && exec {sys.executable} -m tests.programs.test_docs\nexit 2\n")
        make.chmod(0o755)

    def files(self) -> dict[str, str]:
        return {str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in self.root.rglob("*")
                if path.is_file() and not {"__pycache__", ".pytest_cache",
                                           ".hypothesis"} & set(path.relative_to(self.root).parts)}

    def run(self, script: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TWOCLOUD_"))}
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-euc", script], cwd=self.root, capture_output=True, text=True, check=False,
                              env={**clean, "PATH": path, "PYTHONPATH": str(self.root)})
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"

    def add(self, toy: str) -> None:
        self.run(f"{commands(toy)[0]}\ntest -f CONTRIBUTING.md")       # the next block is pasted into the same shell
        TOYS[toy][1](self.root / "chalicelib/parties" / toy)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


# ---------------------------------------------------------------- what is held

def test_a_new_cloud_is_one_folder_and_make_docs(copy: Copy) -> None:
    for toy in TOYS:
        copy.add(toy)
    copy.run("make docs")
    after = copy.files()
    changed = {name for name, digest in copy.before.items() if after.get(name) != digest}
    added = {name for name in after.keys() - copy.before.keys() if not name.endswith("/reference.py")}
    changed -= {"docs/verify.md"}           # only for a cloud with a reference.py, which is no must
    assert changed == MADE, f"adding a cloud also changed {sorted(changed - MADE)}"
    for toy in TOYS:
        folder = f"chalicelib/parties/{toy}/"
        assert {name.removeprefix(folder) for name in added if name.startswith(folder)} == {
            "__init__.py", "cases.json", "simulator.py", f"test_{toy}.py", "notes.md", "keys.md"}
    assert len(added) == 6 * len(TOYS), f"adding a cloud also wrote {sorted(added)}"
    for page in MADE:
        assert all(toy in (copy.root / page).read_text() for toy in TOYS), page


def test_the_guide_shows_the_commands_of_each_step() -> None:
    blocks = commands("toytoken")
    assert [block.split()[0] for block in blocks] == ["cp", "python", "python", "python", "make"]
    assert all("vultr" in block or "toytoken" in block for block in blocks)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("toy", TOYS)
def test_the_tests_of_all_clouds_pass_for_a_new_one(copy: Copy, toy: str) -> None:
    copy.add(toy)
    for block in commands(toy)[1:]:
        copy.run(block)


@pytest.mark.slow
def test_a_folder_that_lacks_a_file_is_named_in_a_sentence(copy: Copy) -> None:
    copy.add("toytoken")
    (copy.root / "chalicelib/parties/toytoken/notes.md").unlink()
    with pytest.raises(AssertionError, match=r"chalicelib/parties/toytoken lacks notes\.md; see \"Add a cloud\""):
        copy.run("python -m pytest -n 0 -q tests/unit/test_parties.py -k 'toytoken and folder'")
