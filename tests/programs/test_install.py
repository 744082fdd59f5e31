"""The wheel as people install it, from an empty folder with an empty HOME, and what the package index would show of it.

uv, pipx and twine are in an environment of their own, which `make test` makes. Without an index the installations are
skipped and named.
"""

import email.message
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from chalicelib import __version__
from tests.aws.deployed import runtime
from tests.programs import MISSING, PATHS, ROOT, block, program, run
from tests.programs.test_docs import DOCUMENTS
from tests.programs.test_wheel import NO_NETWORK, build, lists_the_demo

TOOLS = ROOT / ".tools/release/bin"
REPOSITORY = "https://git.example.org/you/twocloud"
_LINK = r"\]\(([^)\s]+)\)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("published"), TWOCLOUD_REPOSITORY=f"{REPOSITORY}.git")


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(archive.read(name))


# ---------------------------------------------------------------- what the index shows

def test_twine_accepts_it(wheel: Path) -> None:
    done = subprocess.run([program("twine", str(TOOLS)), "check", "--strict", wheel], capture_output=True, text=True,
                          timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


def test_its_links_work_on_the_index(wheel: Path) -> None:
    """Each leads to the files of this version."""
    described = metadata(wheel)
    text = str(described.get_payload())
    links = re.findall(_LINK, text)
    assert links
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    urls = dict(link.split(", ") for link in described.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Changelog", "Source", "Issues"} <= set(urls)
    for link in (*links, *urls.values()):
        kind, _, path = link.removeprefix(f"{REPOSITORY}/").partition(f"/v{__version__}/")
        if link.startswith(f"{REPOSITORY}/") and path:
            assert kind == ("raw" if Path(path).suffix in (".svg", ".png") else "blob"), link
            assert (ROOT / path.partition("#")[0]).exists(), link
    assert described["License-Expression"] == "MIT"
    assert described["License-File"] == "LICENSE"
    assert not [it for it in described.get_all("Classifier", []) if it.startswith("License ::")]   # PEP 639: not both
    assert described["Requires-Python"] == ">=3.11"
    assert set(described.get_all("Provides-Extra", [])) == {"aws", "bridge", "mcp", "postgres", "yaml"}


def test_without_an_address_it_names_no_links(tmp_path: Path) -> None:
    described = metadata(build(tmp_path, TWOCLOUD_REPOSITORY=""))
    assert described.get_all("Project-URL") is None
    links = re.findall(_LINK, str(described.get_payload()))
    assert links
    assert not [link for link in links if not link.startswith(("https://", "#"))]


@pytest.mark.parametrize("address", ["git@git.example.org:you/twocloud", "http://git.example.org/x", "/tmp/x"])
def test_an_address_that_is_no_link_stops_the_build(address: str, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(tmp_path, TWOCLOUD_REPOSITORY=address)
    assert f"TWOCLOUD_REPOSITORY={address} is not an https address" in failed.value.stderr


# ---------------------------------------------------------------- nobody is sent to a name that is not ours

BARE = re.compile(r"""(?x) (?: \bpip3?\s+(?:install|download|wheel) | \bpipx\s+(?:install|run|inject) | \buvx\b
                           | \buv\s+(?:pip\s+install|tool\s+(?:install|run)|add) )
                      (?: \s+-[^\s]+ )* \s+ ["']? twocloud (?![\w./-])""")


@pytest.mark.parametrize("line", [
    "pip install twocloud", "pip install -U twocloud[postgres]", "pip install 'twocloud[bridge]'", "uvx twocloud demo",
    "uv tool install twocloud", "pipx run twocloud", "pip3 install twocloud==0.1.0"])
def test_such_a_line_would_be_seen(line: str) -> None:
    assert BARE.search(f"Run `{line}`.")


@pytest.mark.parametrize("line", [
    "uvx --from ./dist/twocloud-0.1.0-py3-none-any.whl twocloud demo", "pip install ./twocloud-0.1.0-py3-none-any.whl",
    "pip install twocloud-0.1.0-py3-none-any.whl", "pipx install git+https://git.example.org/you/twocloud"])
def test_a_file_or_an_address_is_fine(line: str) -> None:
    assert not BARE.search(line)


def test_no_text_installs_the_bare_name() -> None:
    """It is not published, so anyone could register it."""
    texts = [*DOCUMENTS, *(path for suffix in ("py", "md", "js", "html") for path in
                           (ROOT / "chalicelib").rglob(f"*.{suffix}")), ROOT / "Makefile"]
    assert not [(path.name, hit[0]) for path in texts for hit in BARE.finditer(path.read_text())]


# ---------------------------------------------------------------- the page

def test_the_pages_ways_are_those_that_the_tests_try() -> None:
    ways = re.findall(r"\| `([^`]*FILE[^`]*)` \|", (ROOT / "docs/install.md").read_text())
    assert ways == ["uvx --from FILE twocloud demo", "uv tool install FILE", "pipx install FILE", "pip install FILE"]
    extras = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/install.md").read_text(), re.M)
    assert set(extras) == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_builds_the_wheel(empty: tuple[Path, dict[str, str]]) -> None:
    """In a clone, as it says, with pip's own environment for the build."""
    folder, environment = empty
    if not (ROOT / ".git").exists():
        pytest.skip(f"{MISSING}a git clone of this project")
    subprocess.run(["git", "clone", "--quiet", f"file://{ROOT}", folder / "clone"], check=True, timeout=100)
    install(["sh", "-euc", block("install.md", "sh", "pip wheel")], folder / "clone", environment)
    (named,) = set(re.findall(r"dist/twocloud[\w.-]+\.whl", (ROOT / "docs/install.md").read_text()))
    assert (folder / "clone" / named).exists()


def test_the_pages_check(tmp_path: Path) -> None:
    done = run(["bash", "-uc", block("install.md", "sh", "doctor")], tmp_path,
               {"PATH": f"{Path(sys.executable).parent}:{PATHS}"})
    assert done.stdout.startswith(f"twocloud {__version__}\n")
    assert "store" in done.stdout


# ---------------------------------------------------------------- installed

@pytest.fixture
def empty(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with nothing in it, and an environment whose HOME is another such folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    kept = {name: value for name, value in os.environ.items() if name.startswith(("SSL_", "PIP_")) or name == "LANG"}
    return tmp_path / "work", {**kept, "HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"],
                               "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"}


def install(command: Sequence[str | Path], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"{MISSING}a package index, to install the wheel from")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_uvx_starts_the_demo(wheel: Path, empty: tuple[Path, dict[str, str]]) -> None:
    uvx = [program("uvx", str(TOOLS)), "--from", wheel, "twocloud"]
    assert install([*uvx, "--version"], *empty) == f"twocloud {__version__}\n"
    lists_the_demo(uvx, *empty)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_uvx_builds_the_package_for_aws(wheel: Path, empty: tuple[Path, dict[str, str]]) -> None:
    """As docs/deploy.md says: with the extra, outside of a clone, by the Python that runs it."""
    folder, environment = empty
    install([program("uvx", str(TOOLS)), "--python", runtime(), "--from", f"{wheel}[aws]", "twocloud", "deploy",
             "--package", "out"], folder, environment)
    assert {path.name for path in (folder / "out").iterdir()} == {"deployment.zip", "template.json", "sbom.json",
                                                                  "licences.md", "LICENSE"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("words", [("pipx", "install"), ("uv", "tool", "install")], ids=["pipx", "uv"])
def test_pipx_and_uv_install_the_command(words: Sequence[str], wheel: Path,
                                         empty: tuple[Path, dict[str, str]]) -> None:
    folder, environment = empty
    install([program(words[0], str(TOOLS)), *words[1:], wheel], folder, environment)
    lists_the_demo([Path(environment["HOME"]) / ".local/bin/twocloud"], folder, environment)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", ["wheel", "git"])
def test_pip_installs_the_command(source: str, wheel: Path, empty: tuple[Path, dict[str, str]]) -> None:
    """Without the lock's versions: those that the metadata allows. From git, the build is pip's own."""
    folder, environment = empty
    where = wheel
    if source == "git":
        if not (ROOT / ".git").exists():
            pytest.skip(f"{MISSING}a git clone of this project")
        where = f"git+file://{ROOT}"
    install([program("python3"), "-m", "venv", "env"], folder, environment)
    install([folder / "env/bin/pip", "install", "--quiet", where], folder, environment)
    lists_the_demo([folder / "env/bin/twocloud"], folder, environment)
