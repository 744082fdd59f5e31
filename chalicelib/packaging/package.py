"""Build what goes to AWS, in a clone or from the wheel: `twocloud deploy --package DIR` leaves it there.

    deployment.zip     the code of all four functions, byte for byte the same from the same sources
    template.json      CloudFormation (SAM): what Chalice says, merge.yaml, watch.yaml and policies
    sbom.json          what is in the zip (CycloneDX 1.6), with the hashes of the wheels
    licences.md        under which licences
    LICENSE            that of twocloud, which the template names for AWS's repository of applications

Chalice packages the app alone. The requirements are unpacked from wheels for the functions' own processor and Python,
each checked against its hash in requirements.txt; one that is missing ends the build. `here` takes wheels for this
machine instead: for emulators, which run the functions themselves, never for AWS.
"""

import email.parser
import gzip
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import yaml

from .. import __version__, settings
from ..errors import TwocloudError

PACKAGE = Path(__file__).resolve().parent.parent        # chalicelib in a clone, twocloud where the wheel is installed
_CARRIED = Path(__file__).resolve().parent / "functions"        # what the wheel carries of the clone beside it
LARGEST = 12 * 1024 * 1024                  # bytes of deployment.zip
RUNTIMES = ("3.12", "3.13", "3.14")         # of Lambda, on Amazon Linux 2023: glibc 2.34
GLIBC = (34, 28, 17)
PROCESSORS = {"arm64": "aarch64", "x86_64": "x86_64"}         # Lambda's name -> that of wheels
NOT_SHIPPED = (                             # what serves one machine, simulators, tests and their data
    "chalicelib/simulators/*", "chalicelib/parties/*/simulator.py", "chalicelib/parties/*/test_*.py",
    "chalicelib/parties/*/reference.py", "chalicelib/parties/*/*.json", "*.md",
    "chalicelib/cli/*", "chalicelib/packaging/*", "chalicelib/http/serve.py", "chalicelib/http/connections.py",
    "chalicelib/__main__.py", "chalicelib/fleet/rotation.py", "chalicelib/fleet/verification.py",
    "chalicelib/access/copying.py")
_DROPPED = ("*/tests/*", "*/testing/*", "*.pyi", "*/py.typed", "bin/*", "botocore/data/*/examples-1.json",
            "prometheus_client/aiohttp/*", "prometheus_client/bridge/*", "prometheus_client/django/*",
            "prometheus_client/twisted/*",
            "*.dist-info/RECORD", "*.dist-info/WHEEL", "*.dist-info/INSTALLER", "*.dist-info/top_level.txt",
            "*.dist-info/entry_points.txt", "*.dist-info/zip-safe")
_SERVICES = ("dynamodb", "kms", "sqs")      # whose models are kept, of botocore's four hundred


class BuildError(TwocloudError):
    """The package cannot be built; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Component:
    """A distribution in the zip. `sha256` of its wheel, "" where there was none."""

    name: str
    version: str
    licence: str
    sha256: str = ""


def build(out: Path, python: str, processor: str = "arm64", here: bool = False) -> None:
    """Write the five files. `python`: an interpreter of the runtime's version, which compiles. `processor`: one of
    PROCESSORS. Raises BuildError."""
    python = interpreter(python)
    version = version_of(python)
    if not here and version not in RUNTIMES:
        raise BuildError(f"{python} is Python {version}; Lambda takes {', '.join(RUNTIMES)}. Name one: --python "
                         "python3.12 (make package RUNTIME=python3.12)")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="twocloud-package-") as folder:
        work, task = Path(folder), Path(folder, "task")
        template = _chalice(work / "app", task, processor)
        components = [_unpack(wheel, task) for wheel in _wheels(version, None if here else processor, work / "wheels")]
        components.append(_chalices_own(task))
        for folder_of_licence in (task, out):
            shutil.copyfile(source("LICENSE"), folder_of_licence / "LICENSE")
        _drop(task)
        _trim(task)
        _compile(python, task)
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["Runtime"] = f"python{version}"
        size = _zip(task, out / "deployment.zip")
        if size > LARGEST:
            raise BuildError(f"deployment.zip has {size:,} bytes, more than {LARGEST:,}")
    components.sort(key=lambda it: it.name)
    digest = hashlib.sha256((out / "deployment.zip").read_bytes()).hexdigest()
    _write(out / "template.json", json.dumps(template, indent=1))
    _write(out / "sbom.json", json.dumps(bill(components, digest), indent=1))
    _write(out / "licences.md", licences(components))
    print(f"{out}: deployment.zip {size:,} bytes, sha256 {digest}", file=sys.stderr)


def interpreter(python: str) -> str:
    """Where this one is: pyenv keeps versions whose names on the path only say which is chosen."""
    pyenv = shutil.which("pyenv")
    if pyenv and re.fullmatch(r"python3\.[0-9]+", python):
        own = Path(pyenv).resolve().parents[1]                  # it looks below HOME, which a build may have changed
        root = {"PYENV_ROOT": str(own)} if (own / "versions").is_dir() else {}
        done = subprocess.run([pyenv, "prefix", python.removeprefix("python")], capture_output=True, text=True,
                              check=False, env={**root, **settings.inherited()})
        if done.returncode == 0:
            return f"{done.stdout.strip()}/bin/python"
    return python


def version_of(python: str) -> str:
    try:
        return _run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    except (OSError, BuildError):
        raise BuildError(f"{python} does not run on this machine; it must be of the runtime's own version, for the "
                         ".pyc files. Name another, or its path: --python python3.13 (make package "
                         "RUNTIME=python3.13)") from None


def an_interpreter() -> str:
    """This one, if its version is one of Lambda's, or the first of them that is on the path. Raises BuildError."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if ours in RUNTIMES:
        return sys.executable
    for version in RUNTIMES:
        python = interpreter(f"python{version}")
        try:
            if version_of(python) == version:
                return python
        except BuildError:
            continue
    raise BuildError(f"This is Python {ours}, and none of Lambda's versions ({', '.join(RUNTIMES)}) is on the PATH. "
                     "Run twocloud with one (uvx --python 3.13), or name one with --python.")


# ---------------------------------------------------------------- the app and its template

def source(name: str) -> Path:
    """A file of the clone, by its path there, or what the wheel carries of it."""
    carried = _CARRIED / name
    return carried if carried.exists() else PACKAGE.parent / name


def _chalice(folder: Path, task: Path, processor: str) -> dict[str, Any]:
    """Let Chalice package a clean copy of the app without any requirement; its zip is unpacked into `task`."""
    for name, path in shipped():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    (folder / "requirements.txt").touch()
    shutil.copytree(PACKAGE / "packaging/policies", folder / ".chalice/policies")
    config = {**json.loads(source(".chalice/config.json").read_text()), "lambda_architecture": processor}
    (folder / ".chalice/config.json").write_text(json.dumps(config))
    clean = settings.inherited("AWS_", "TWOCLOUD_")
    (folder / "merge.yaml").write_text(json.dumps(merged()))
    _run([sys.executable, "-c", "from chalice.cli import main; main()", "package", "--stage", "prod",
          "--merge-template", "merge.yaml", "out"], cwd=folder,
         env={**clean, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONDONTWRITEBYTECODE": "1"})
    with zipfile.ZipFile(folder / "out/deployment.zip") as made:
        made.extractall(task)
    template = yaml.safe_load((folder / "out/sam.yaml").read_text())   # written as JSON, for it uses YAML's aliases
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            template["Resources"][name] = _on_table_in_use(resource)
    return template


def _on_table_in_use(it: Any) -> Any:
    """Where a right is on the stack's own table, the one that the parameter TableName names in its place."""
    if it == {"Fn::GetAtt": ["Table", "Arn"]}:
        other = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${TableName}"
        return {"Fn::If": ["OwnTable", it, {"Fn::Sub": other}]}
    if isinstance(it, dict):
        return {name: _on_table_in_use(value) for name, value in cast(dict[str, Any], it).items()}
    return [_on_table_in_use(value) for value in cast(list[Any], it)] if isinstance(it, list) else it


def merged() -> dict[str, Any]:
    """What is merged into Chalice's template: merge.yaml and watch.yaml, which have no name in common."""
    template: dict[str, Any] = {}
    for name in ("merge.yaml", "watch.yaml"):
        for part, entries in yaml.safe_load((PACKAGE / "packaging" / name).read_text()).items():
            if part == "Description":
                template[part] = entries
            elif twice := template.setdefault(part, {}).keys() & entries.keys():
                raise BuildError(f"{name} names {', '.join(twice)} a second time")
            else:
                template[part] |= entries
    dashboard = template["Resources"]["Dashboard"]["Properties"]
    for widget in dashboard["DashboardBody"]["widgets"]:
        if "query" in widget["properties"]:
            *groups, query = cast(list[str], widget["properties"]["query"])
            widget["properties"]["query"] = " | ".join(f"SOURCE '${{{name}}}'" for name in groups) + f"\n| {query}"
    in_use = {"Fn::If": ["OwnTable", {"Ref": "Table"}, {"Ref": "TableName"}]}
    dashboard["DashboardBody"] = {"Fn::Sub": [json.dumps(dashboard["DashboardBody"]), {"TableInUse": in_use}]}
    # AWS's repository of applications (SAR): `sam publish`, or `aws cloudformation package` first
    template["Metadata"] = {"AWS::ServerlessRepo::Application": {
        "Name": "twocloud", "Description": template["Description"], "Author": "twocloud-developers",
        "SemanticVersion": __version__, "SpdxLicenseId": "MIT", "LicenseUrl": "LICENSE",
        "Labels": ["inventory", "multicloud", "servers"]}}
    return template


def shipped() -> Iterator[tuple[str, Path]]:
    """The app's own files that the functions need: their names in the zip, and where they are."""
    for name in ("app.py", "chalicelib/http/authorizer.py"):    # which the wheel carries apart: they need Chalice
        yield name, source(name)
    for path in sorted(PACKAGE.rglob("*")):
        name = f"chalicelib/{path.relative_to(PACKAGE).as_posix()}"
        if path.is_file() and path.suffix != ".pyc" and not any(fnmatch(name, pattern) for pattern in NOT_SHIPPED):
            yield name, path


# ---------------------------------------------------------------- what it requires

def _wheels(version: str, processor: str | None, folder: Path) -> list[Path]:
    """The wheels of requirements.txt for this Python and processor (None: this machine's), checked by hash."""
    requirements = source("requirements.txt").read_text()
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if ours != version and re.search(r"python_(full_)?version", requirements):
        raise BuildError(f"requirements.txt asks for the version of Python, which pip takes to be {ours}, "
                         f"not {version}: run the build with Python {version}")
    platforms = [f"--platform=manylinux_2_{glibc}_{PROCESSORS[processor]}" for glibc in GLIBC] if processor else []
    if processor:
        platforms.append(f"--platform=manylinux2014_{PROCESSORS[processor]}")
    _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--dest", str(folder),
          "--only-binary", ":all:", "--no-deps", "--require-hashes", "--implementation", "cp",
          "--python-version", version, *platforms, "--requirement", str(source("requirements.txt"))])
    wheels = sorted(folder.glob("*.whl"))
    pinned = len(re.findall(r"^[A-Za-z0-9_.-]+==", requirements, re.MULTILINE))
    if len(wheels) != pinned:
        raise BuildError(f"{len(wheels)} wheels for {pinned} requirements: {', '.join(path.name for path in wheels)}")
    return wheels


def _unpack(wheel: Path, task: Path) -> Component:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inner = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
            if name.endswith("/") or re.match(r"[^/]+\.data/", inner):
                continue                    # scripts and headers
            if ".." in Path(inner).parts or inner.startswith("/"):
                raise BuildError(f"{wheel.name} wants to write {name}")
            target = task / inner
            if target.exists():
                raise BuildError(f"{wheel.name} would overwrite {inner}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
        (metadata,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        about = email.parser.Parser().parsestr(archive.read(metadata).decode(), headersonly=True)
    return Component(re.sub(r"[-_.]+", "-", about["Name"]).lower(), about["Version"], _licence(about),
                     hashlib.sha256(wheel.read_bytes()).hexdigest())


def _chalices_own(task: Path) -> Component:
    """What Chalice adds of itself; its licence goes with it."""
    chalice = importlib.metadata.distribution("chalice")
    folder = task / f"chalice-{chalice.version}.dist-info/licenses"
    for file in chalice.files or []:
        if file.name in ("LICENSE", "NOTICE"):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), folder / file.name)
    return Component("chalice", chalice.version, _licence(cast(Message, chalice.metadata)))


def _licence(fields: Message) -> str:
    classified = [value.rpartition(" :: ")[2] for value in map(str, fields.get_all("Classifier", []))
                  if value.startswith("License :: ")]
    written = str(fields["License-Expression"] or fields["License"] or "").strip()
    if not written or "\n" in written or written == "Dual License":
        written = " or ".join(classified)
    if not written:
        raise BuildError(f"{fields['Name']} names no licence")
    return written


def _trim(task: Path) -> None:
    """Of botocore's descriptions what a client needs: a cold start reads them all. No texts, and of the table of
    endpoints the services that are kept."""
    data = task / "botocore/data"
    for packed in sorted(data.rglob("*.json.gz")):
        _compact(packed.with_suffix(""), _without_texts(json.loads(gzip.decompress(packed.read_bytes()))))
        packed.unlink()
    endpoints: dict[str, Any] = json.loads((data / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: it for name, it in partition["services"].items() if name in _SERVICES}
    _compact(data / "endpoints.json", endpoints)


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        described = cast(dict[str, Any], value)
        return {name: _without_texts(it) for name, it in described.items()
                if not (name.startswith("documentation") and isinstance(it, str))}
    return [_without_texts(it) for it in cast(list[Any], value)] if isinstance(value, list) else value


def _compact(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")))


def _drop(task: Path) -> None:
    for path in sorted(task.rglob("*")):
        name = path.relative_to(task).as_posix()
        service = re.match(r"botocore/data/([^/]+)/", name)
        if path.is_file() and (any(fnmatch(name, pattern) for pattern in _DROPPED)
                               or (service and service[1] not in _SERVICES)):
            path.unlink()


# ---------------------------------------------------------------- the zip

def _compile(python: str, task: Path) -> None:
    """Make .pyc files that are valid whatever the dates in the zip, so that a cold start compiles nothing."""
    code = ("import compileall, py_compile, sys; sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1,"
            " maxlevels=30, stripdir=sys.argv[1], prependdir='/var/task',"
            " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))")
    _run([python, "-I", "-S", "-c", code, str(task)])


def _zip(task: Path, target: Path) -> int:
    aside = target.with_suffix(".part")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in task.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(task).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=9)
    aside.replace(target)
    return target.stat().st_size


# ---------------------------------------------------------------- what is shown of it

def bill(components: list[Component], digest: str) -> dict[str, Any]:
    """CycloneDX 1.6, without a date: the same zip has the same bill."""
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "name": "twocloud", "version": __version__,
                                   "bom-ref": "twocloud", "licenses": [{"license": {"id": "MIT"}}],
                                   "hashes": [{"alg": "SHA-256", "content": digest}]}},
        "components": [{
            "type": "library", "name": it.name, "version": it.version, "bom-ref": f"pkg:pypi/{it.name}@{it.version}",
            "purl": f"pkg:pypi/{it.name}@{it.version}", "licenses": [{"license": {"name": it.licence}}],
            **({"hashes": [{"alg": "SHA-256", "content": it.sha256}]} if it.sha256 else {})} for it in components],
        "dependencies": [{"ref": "twocloud", "dependsOn": [f"pkg:pypi/{it.name}@{it.version}" for it in components]}],
    }


def licences(components: list[Component]) -> str:
    rows = "".join(f"| {it.name} | {it.version} | {it.licence} |\n" for it in components)
    return ("# Licences of what is in deployment.zip\n\nTheir texts lie in it.\n\n"
            f"| | version | licence |\n|---|---|---|\n{rows}")


def _write(path: Path, text: str) -> None:
    path.write_text(text if text.endswith("\n") else text + "\n")


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    if done.returncode:
        what = " ".join([Path(command[0]).name, *command[1:4]])
        raise BuildError(f"{what} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
