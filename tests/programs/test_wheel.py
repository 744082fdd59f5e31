"""The wheel: one package `twocloud`, which is the complete command and runs nothing that lies in the current folder."""

import email
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from chalicelib import parties
from tests import canaries
from tests.programs import ROOT

HOSTILE = "import sys; sys.stdout.write('HOSTILE'); sys.exit(99)\n"
NO_NETWORK = re.compile(
    "ConnectionError|NewConnectionError|Temporary failure|Network is unreachable|Read timed out|from versions: none|"
    "Could not connect|dns error|Connection refused|Failed to fetch|no index")


def build(folder: Path, **environment: str) -> Path:
    """The wheel, built into the folder with what this environment has."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, timeout=100,
                   env={**os.environ, **environment}, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def lists_the_demo(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command line that starts the demo, and paste the line that it prints."""
    with tempfile.TemporaryFile("w+") as log:                   # its lines hold the token: no file stays behind
        demo = subprocess.Popen([*command, "demo", "--port", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE,
                                stderr=log, text=True, start_new_session=True)
        try:
            assert demo.stdout
            line = demo.stdout.readline()
            parts = re.fullmatch(r"curl -u '([^':]+):password' '([^']+)'\n", line)
            log.seek(0)
            assert parts, line + log.read()
            canaries.watch(parts[1])
            listed = subprocess.run(["curl", "-sS", "-u", f"{parts[1]}:password", parts[2]], cwd=folder,
                                    env=environment, capture_output=True, text=True, timeout=100)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(demo.pid, signal.SIGTERM)
            demo.wait(30)
    assert listed.returncode == 0, listed.stderr
    assert '"code":200' in listed.stdout
    assert listed.stdout.count('"instance_id"') == 10


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files whose names are those of our own."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "app.py").write_text(HOSTILE)
    for name in ("chalicelib", "twocloud"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(HOSTILE)
        (folder / name / "__main__.py").write_text(HOSTILE)
    return folder


def clean(**more: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items()
               if not name.startswith(("TWOCLOUD_", "AWS_", "PYTHON"))}, **more}


def locked(name: str) -> set[str]:
    return {line.replace("_", "-").lower() for line in re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / name).read_text(),
                                                                  re.MULTILINE)}


def test_it_holds_one_package_and_only_what_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    ours = [name for name in names if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in ours} == {"twocloud"}
    apart = "twocloud/packaging/functions/"
    functions = {name.removeprefix(apart) for name in ours if name.startswith(apart)}
    assert functions == {"app.py", "chalicelib/http/authorizer.py", "requirements.txt", ".chalice/config.json",
                         "LICENSE"}
    ours = [name for name in ours if not name.startswith(apart)]
    assert {Path(name).suffix for name in ours} == {".py", ".js", ".css", ".html", ".yaml", ".json"}
    assert all(name.startswith("twocloud/packaging/") for name in ours if name.endswith((".yaml", ".json")))
    assert not [name for name in ours if Path(name).name.startswith("test_")]
    expected = {path.relative_to(ROOT / "chalicelib").as_posix() for path in (ROOT / "chalicelib").rglob("*.py")
                if not path.name.startswith("test_")}
    modules = {name.removeprefix("twocloud/") for name in ours if name.endswith(".py")}
    assert expected - modules == {"http/authorizer.py"}           # the function's, which needs the framework
    assert modules <= expected


def test_its_requirements_are_the_commands_and_not_the_frameworks(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        required = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    bare = {re.split(r"[^A-Za-z0-9_.-]", it)[0].lower() for it in required if "extra ==" not in it}
    assert {"click", "rich", "waitress"} <= bare
    assert "chalice" not in bare
    assert bare <= locked("requirements/local.txt")
    assert "chalice" not in locked("requirements/local.txt")


def test_the_functions_get_what_the_command_gets_without_its_own() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    functions, command = described["dependency-groups"]["lambda"], described["project"]["dependencies"]
    assert {re.split("[~>=]", it)[0] for it in set(command) - set(functions)} == {"click", "rich", "waitress"}
    assert set(functions) <= set(command)
    assert locked("requirements.txt") <= locked("requirements/local.txt")
    assert not {"click", "rich", "waitress", "chalice"} & locked("requirements.txt")
    assert locked("requirements/local.txt") <= locked("requirements/package.txt") <= locked("requirements/dev.txt")


@pytest.mark.slow
def test_unpacked_it_runs_without_the_framework(wheel: Path, tmp_path: Path, hostile: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # each import of them fails; oci's SDK has an environment of its own
    code = ("import sys; sys.modules |= dict.fromkeys(['chalice', 'app', 'chalicelib'])\n"
            "import pkgutil, importlib, twocloud\n"
            "for it in pkgutil.walk_packages(twocloud.__path__, 'twocloud.'):\n"
            "    it.name.endswith(('__main__', 'oci.reference')) or importlib.import_module(it.name)\n"
            "from twocloud import parties; print(len([parties.load(name) for name in parties.names()]),"
            " twocloud.__file__)")
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=hostile, env=clean(PYTHONPATH=str(tmp_path / "site")),
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(parties.names())} {tmp_path}/site/twocloud/__init__.py\n"


@pytest.mark.parametrize("module", ["twocloud", "chalicelib"])
def test_as_a_module_it_runs_nothing_from_the_current_folder(module: str, wheel: Path, tmp_path: Path,
                                                             hostile: Path) -> None:
    """Python itself looks for the module's own name in the current folder first, unless it is told -P."""
    site = ROOT
    if module == "twocloud":
        site = tmp_path / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    others = tmp_path / "others"
    others.mkdir()
    for name in {"app.py", "chalicelib", "twocloud"} - {module}:
        (others / name).symlink_to(hostile / name)
    for flags, where in ((["-P"], hostile), ([], others)):
        done = subprocess.run([sys.executable, *flags, "-m", module, "servers", "--help"], cwd=where,
                              env=clean(PYTHONPATH=str(site)), capture_output=True, text=True,
                              timeout=100)
        assert done.returncode == 0, done.stderr
        assert "Usage: twocloud servers" in done.stdout
        assert "HOSTILE" not in done.stdout


# ---------------------------------------------------------------- in an environment of its own

@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of programs of an empty environment, into which pip put the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True, timeout=100)
    pip = [folder / "env/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    done = subprocess.run([*pip, "--only-binary", ":all:", "--require-hashes", "-r", ROOT / "requirements/local.txt"],
                          capture_output=True, text=True, timeout=300)
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip("the wheel is not installed into an empty environment: pip reaches no index")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*pip, "--no-index", wheel], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr                    # what it requires is there
    yield folder / "env/bin"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installed_it_is_the_complete_command(installed: Path, hostile: Path, tmp_path: Path) -> None:
    environment = clean(TWOCLOUD_STORE=f"sqlite:///{tmp_path}/twocloud.db", TWOCLOUD_KEY=f"file:{tmp_path}/key")

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True, timeout=100)

    assert "No module named 'chalice'" in run(installed / "python", "-P", "-c", "import chalice").stderr
    assert re.fullmatch(r"twocloud \d+\.\d+\.\d+\n", run(installed / "twocloud", "--version").stdout)
    done = run(installed / "twocloud", "servers", "--party", "qcloud", "--tenant", "123", "--region", "gz")
    assert done.returncode == 4, done.stderr                  # there is no such account
    assert "HOSTILE" not in done.stdout + done.stderr
    lists_the_demo([installed / "twocloud"], hostile, environment)
