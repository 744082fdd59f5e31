"""What goes to AWS: the zip."""

import ast
import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from chalicelib.packaging import package
from tests import ROOT
from tests.aws.deployed import files, here, locked, out, runtime

__all__ = ["here", "out"]
pytestmark = pytest.mark.timeout(600)


# ---------------------------------------------------------------- the zip

@pytest.mark.slow
def test_the_zip_is_small_and_holds_nothing_of_the_moment(out: Path) -> None:
    assert (out / "deployment.zip").stat().st_size <= package.LARGEST == 12 * 1024 * 1024
    with zipfile.ZipFile(out / "deployment.zip") as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names, key=PurePosixPath)
    assert {(entry.date_time, entry.external_attr) for entry in entries} == {((1980, 1, 1, 0, 0, 0), 0o100644 << 16)}


@pytest.mark.slow
def test_what_is_built_twice_is_the_same(out: Path, tmp_path: Path) -> None:
    package.build(tmp_path, runtime())
    for name in ("deployment.zip", "template.json", "sbom.json", "licences.md", "LICENSE"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.slow
def test_native_code_is_for_lambdas_processor(out: Path) -> None:
    native = {name: content for name, content in files(out).items() if content[:4] == b"\x7fELF"}
    assert len(native) >= 3
    assert all(".so" in name for name in native)
    for name, content in native.items():
        assert struct.unpack_from("<H", content, 18)[0] == 183, name       # EM_AARCH64


@pytest.mark.slow
def test_every_module_is_compiled_for_lambdas_python(out: Path) -> None:
    paths = files(out)
    python = runtime()
    magic = bytes.fromhex(subprocess.run([python, "-c",
                                          "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"],
                                         capture_output=True, text=True, check=True).stdout)
    tag = f"cpython-{package.version_of(python).replace('.', '')}"
    for name in paths:
        if name.endswith(".py"):
            folder, _, module = name.rpartition("/")
            compiled = paths[f"{folder}/__pycache__/{module[:-3]}.{tag}.pyc".lstrip("/")]
            assert compiled[:4] == magic, name      # hash-based, not checked at start
            assert compiled[4:8] == b"\x01\0\0\0", name
    assert (
        json.loads((out / "template.json").read_text())["Resources"]["Work"]["Properties"]["Runtime"]
        == f"python{package.version_of(python)}"
    )


@pytest.mark.slow
def test_only_what_is_locked_and_needed_is_in_the_zip(out: Path) -> None:
    """No development package, no command, no test, no simulator."""
    paths = files(out)
    versions = {match[1].lower().replace("_", "-"): match[2] for name in paths
                if (match := re.match(r"([^/]+?)-([^-/]+)\.dist-info/METADATA$", name))}
    assert versions == {name.lower(): version for name, version in locked().items()}
    owners = {"app.py", "LICENSE", "__pycache__", "chalicelib", "chalice"}
    for name in paths:
        top = name.split("/")[0]
        if not top.endswith(".dist-info"):
            owners.add(top) if top.removesuffix(".py") in IMPORTED_AS else None
            assert top in owners or top.startswith("_cffi_backend"), name
        assert not re.search(
            r"(^|/)(tests?|chalicelib.simulators|benchmarks|deploy|cli|serve\.py|__main__\.py|\.env|\.git)(/|$)",
            name) \
            or name.startswith(("certifi/", "charset_normalizer/", "boto", "idna/")), name
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "chalicelib").rglob("*.py")}
    left_out = ours - paths.keys()
    assert left_out == {*(f"chalicelib/{name}.py" for name in ("http/serve", "http/connections", "__main__",
                                                               "fleet/rotation", "fleet/verification",
                                                               "access/copying")),
                        *(name for name in ours if re.match(
                            r"chalicelib/(cli|packaging|simulators)/|"
                            r"chalicelib/parties/\w+/(test_\w+|simulator|reference)\.py$", name))}


IMPORTED_AS = {"boto3", "botocore", "certifi", "cffi", "charset_normalizer", "cryptography", "dateutil", "idna",
               "jmespath", "msgspec",
               "prometheus_client", "pycparser", "requests", "s3transfer", "six", "tzdata", "urllib3"}
# the bridge is an extra; types are for the checker
NOT_IN_LAMBDA = {"libcloud", "psycopg", "psycopg_pool", "types_boto3_dynamodb", "types_boto3_kms"}


@pytest.mark.slow
def test_whatever_our_code_imports_is_there(out: Path) -> None:
    paths = files(out)
    tops = {name.split("/")[0].removesuffix(".py") for name in paths}
    for name, content in paths.items():
        if name == "app.py" or re.fullmatch(r"chalicelib/.*\.py", name):
            package = name.removesuffix(".py").split("/")[:-1]
            for node in ast.walk(ast.parse(content)):
                wanted = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    above = package[:len(package) - node.level + 1] if node.level else []
                    wanted = [".".join([*above, *([node.module] if node.module else [])])]
                for module in wanted:
                    top = module.split(".")[0]
                    assert top in tops | set(sys.stdlib_module_names) | NOT_IN_LAMBDA, f"{name} imports {module}"
                    if top == "chalicelib":
                        path = module.replace(".", "/")
                        assert f"{path}.py" in paths or f"{path}/__init__.py" in paths, f"{name} imports {module}"


@pytest.mark.slow
def test_what_is_tried_here_is_what_is_shipped(out: Path, here: Path) -> None:
    """The emulators run the same files, but for native code and what is made from the sources."""
    def sources(folder: Path) -> dict[str, bytes]:
        return {name: content for name, content in files(folder).items()
                if not re.search(r"\.so(\.|$)|\.pyc$|\.dist-info/", name) and not name.startswith("_cffi_backend")}

    shipped, tried = sources(out), sources(here)
    assert shipped.keys() == tried.keys()
    assert [name for name in shipped if shipped[name] != tried[name]] == []
    real, emulated = ((folder / "template.json").read_text() for folder in (out, here))
    assert re.sub(r"python3\.\d+", "python3", real) == re.sub(r"python3\.\d+", "python3", emulated)


@pytest.mark.slow
def test_what_is_left_of_botocores_descriptions_says_the_same(out: Path) -> None:
    """All calls and shapes, and the endpoints of every partition for what is used."""
    from botocore.loaders import Loader

    paths, whole = files(out), Loader()
    for service, version in (("dynamodb", "2012-08-10"), ("kms", "2014-11-01"), ("sqs", "2012-11-05")):
        kept = json.loads(paths[f"botocore/data/{service}/{version}/service-2.json"])
        full: Any = whole.load_service_model(service, "service-2", version)
        assert kept["operations"].keys() == full["operations"].keys()
        assert kept["shapes"].keys() == full["shapes"].keys()
        for name, shape in kept["shapes"].items():
            assert shape.get("members", {}).keys() == full["shapes"][name].get("members", {}).keys(), name
    endpoints: Any = whole.load_data("endpoints")
    for kept, full in zip(json.loads(paths["botocore/data/endpoints.json"])["partitions"], endpoints["partitions"],
                          strict=True):
        assert kept["regions"] == full["regions"]
        assert kept["services"] == {name: full["services"][name] for name in kept["services"]}
        assert kept["services"].keys() == {"dynamodb", "kms", "sqs"} & full["services"].keys()


@pytest.mark.slow
def test_the_bill_of_materials_is_that_of_the_zip(out: Path) -> None:
    bill = json.loads((out / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    lock = (ROOT / "requirements.txt").read_text()
    listed = {row["name"]: row for row in bill["components"]}
    assert {name: row["version"] for name, row in listed.items() if name != "chalice"} == locked()
    for name, row in listed.items():
        assert row["purl"] == f"pkg:pypi/{name}@{row['version']}"
        assert row["licenses"][0]["license"]["name"]
        if name != "chalice":               # which Chalice puts there itself
            assert f"sha256:{row['hashes'][0]['content']}" in lock
        assert f"| {name} | {row['version']} | {row['licenses'][0]['license']['name']} |" in (
            out / "licences.md").read_text()


@pytest.mark.slow
def test_licence_texts_are_in_the_zip(out: Path) -> None:
    paths = files(out)
    assert paths["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    for name in [*locked(), "chalice"]:
        own = re.compile(
            rf"{re.escape(name).replace('-', '[-_.]').replace(chr(92) + '[-_.]', '[-_.]')}-[^/]+\.dist-info/"
            rf".*(LICEN[CS]E|COPYING|NOTICE)", re.I)
        assert any(own.match(path) for path in paths), name


@pytest.mark.sample(3)
@pytest.mark.parametrize("break_it", ["no wheel", "wrong hash", "wrong version"])
def test_a_requirement_that_cannot_be_had_ends_the_build(break_it: str, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    lock = "".join(part for part in re.split(r"(?m)^(?=\S)", (ROOT / "requirements.txt").read_text())
                   if part.startswith("msgspec=="))
    if break_it == "no wheel":
        monkeypatch.setitem(package.PROCESSORS, "arm64", "sparc")
    elif break_it == "wrong hash":
        lock = re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", lock)
    else:
        lock += "certifi==2026.10.18 ; python_version < '3.12' --hash=sha256:" + "0" * 64
    (tmp_path / "requirements.txt").write_text(lock)
    monkeypatch.setattr(package, "source", lambda name: tmp_path / name)
    with pytest.raises(package.BuildError):
        package._wheels("3.13" if break_it == "wrong version" else "3.12", "arm64", tmp_path / "wheels")


def test_an_interpreter_that_is_none_of_lambdas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(package.BuildError, match="RUNTIME="):
        package.build(tmp_path, "python-of-no-machine")
    if package.version_of(sys.executable) not in package.RUNTIMES:
        with pytest.raises(package.BuildError, match=r"Lambda takes 3\.12"):
            package.build(tmp_path, sys.executable)
