"""What goes to AWS: the zip, the template and its rights; then the whole of it on MiniStack and under awslambdaric.

Building needs a package index and, for the real package, an interpreter of one of Lambda's versions.
"""

import ast
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from msgspec import structs

import app
from chalicelib import errors, parties, settings
from chalicelib.access import accounts, tokens, users
from chalicelib.access.sealing import KmsSealer
from chalicelib.cloud.party import Party
from chalicelib.cloud.sender import Transport
from chalicelib.errors import Internal
from chalicelib.fleet import many_sources, schedule
from chalicelib.fleet.deployment import Deployment, OnFirstUse
from chalicelib.http import admission, api, authorizer, console, cors
from chalicelib.model import DEFAULT_ACCOUNT, Discovery, Member, Source
from chalicelib.packaging import package
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators import tls
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Call
from chalicelib.storage import snapshots
from chalicelib.storage.dynamodb import DynamoStore
from deploy import emulator
from deploy.ministack import Function, ministack
from tests import ROOT, canaries, patterns
from tests.fixtures import settings_in
from tests.http.test_app import Context, basic, event

FUNCTIONS = {"APIHandler": "app.app", "Authorize": "chalicelib.http.authorizer.authorize", "Spread": "app.spread",
             "Work": "app.work"}
ROLES = {"APIHandler": "ApiHandlerRole", "Authorize": "AuthorizeRole", "Spread": "SpreadRole", "Work": "WorkRole"}
pytestmark = pytest.mark.timeout(600)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made by one of the workers, for all of them."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"package-{name}"
    with (folder.parent / f"package-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "template.json").exists():
            make(folder)
    return folder


def runtime() -> str:
    for name in (os.environ.get("RUNTIME", sys.executable), sys.executable,
                 *(f"python{version}" for version in package.RUNTIMES)):
        try:
            python = package.interpreter(name)
            if package.version_of(python) in package.RUNTIMES:
                return python
        except package.BuildError:
            continue
    pytest.skip(
        "no interpreter of one of Lambda's versions on this machine; name one: make test RUNTIME=/path/to/python3.12")


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What goes to AWS."""
    python = runtime()
    return once(tmp_path_factory, "aws", lambda folder: package.build(folder, python))


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with this machine's wheels."""
    return once(tmp_path_factory, "here", lambda folder: package.build(folder, sys.executable, here=True))


@pytest.fixture(scope="session")
def template(here: Path) -> dict[str, Any]:
    return json.loads((here / "template.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "deployment.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))


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


# ---------------------------------------------------------------- the template

def resource(template: dict[str, Any], name: str) -> dict[str, Any]:
    return template["Resources"][name]["Properties"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", pytest.param("sam", marks=pytest.mark.slow)])
def test_cfn_lint_and_the_sam_translator_take_the_template(template: dict[str, Any], tmp_path: Path, form: str) -> None:
    plain = emulator.without_sam(json.loads(json.dumps(template)), "a-bucket", "key")
    assert not [name for name, it in plain["Resources"].items() if it["Type"].startswith("AWS::Serverless")]
    stages = [it for it in plain["Resources"].values() if it["Type"] == "AWS::ApiGateway::Stage"]
    assert [it["Properties"]["StageName"] for it in stages] == ["api"]     # no second public stage
    sam = {**template, "Resources": {
        key: {**value, "Properties": {**value["Properties"], "CodeUri": "s3://a-bucket/key"}}
        if value["Type"] == "AWS::Serverless::Function" else value for key, value in template["Resources"].items()}}
    (tmp_path / f"{form}.json").write_text(json.dumps(sam if form == "sam" else plain))
    done = subprocess.run([Path(sys.executable).parent / "cfn-lint", tmp_path / f"{form}.json"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert not done.stdout, done.stdout


def test_the_four_functions(template: dict[str, Any]) -> None:
    by_name = {name: it["Properties"] for name, it in template["Resources"].items()
                 if it["Type"] == "AWS::Serverless::Function"}
    assert {name: it["Handler"] for name, it in by_name.items()} == FUNCTIONS
    for name, it in by_name.items():
        assert it["Architectures"] == ["arm64"]
        assert it["Role"] == {"Fn::GetAtt": [ROLES[name], "Arn"]}
        assert it["ReservedConcurrentExecutions"]["Fn::If"][1] > 0
        retained = it["LoggingConfig"]["LogGroup"]["Ref"]
        assert resource(template, retained)["RetentionInDays"] == 30
    assert many_sources.REQUEST_SECONDS < by_name["APIHandler"]["Timeout"] < 29
    assert by_name["Work"]["Timeout"] >= schedule.REFRESH_SECONDS + app.MARGIN_SECONDS
    source = by_name["Work"]["Events"]["WorkSqsEventSource"]["Properties"]
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["Queue"] == {"Fn::Sub": "${Queue.Arn}"}
    assert source["ScalingConfig"]["MaximumConcurrency"] == by_name["Work"]["ReservedConcurrentExecutions"]["Fn::If"][1]
    assert by_name["Spread"]["Events"]["SpreadEvent"]["Properties"] == {"Schedule": "rate(5 minutes)"}


def test_only_settings_that_exist_are_given_to_a_function(template: dict[str, Any]) -> None:
    names = {name: set(resource(template, name)["Environment"]["Variables"]) for name in FUNCTIONS}
    assert set().union(*names.values()) <= set(settings.SETTINGS)
    assert "TWOCLOUD_KEY" in names["APIHandler"] & names["Work"]
    assert "TWOCLOUD_KEY" not in names["Authorize"] | names["Spread"]
    assert "TWOCLOUD_LOCAL" not in set().union(*names.values())
    assert "TWOCLOUD_QUEUE" in names["Spread"] & names["APIHandler"]
    assert [name for name in FUNCTIONS if "Layers" in resource(template, name)] == [
        name for name in FUNCTIONS if {"TWOCLOUD_CA_FILE", "TWOCLOUD_PROXY"} <= names[name]] == ["APIHandler", "Work"]
    assert template["Parameters"]["Proxy"]["NoEcho"]
    for parameter, name in (("Timezone", "TWOCLOUD_TIMEZONE"), ("MaxAge", "TWOCLOUD_MAX_AGE"),
                            ("StaleIfError", "TWOCLOUD_STALE_IF_ERROR"),
                            ("History", "TWOCLOUD_HISTORY")):
        assert str(template["Parameters"][parameter]["Default"]) == settings.SETTINGS[name][0]


def test_the_queue_outlives_its_worker(template: dict[str, Any]) -> None:
    queue = resource(template, "Queue")
    redrive = queue["RedrivePolicy"]
    assert queue["VisibilityTimeout"] >= 6 * resource(template, "Work")["Timeout"]
    assert redrive["maxReceiveCount"] >= 5
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}
    assert queue["MessageRetentionPeriod"] > redrive["maxReceiveCount"] * queue["VisibilityTimeout"]
    assert resource(template, "DeadLetters")["MessageRetentionPeriod"] == 14 * 86_400


def test_what_is_kept_survives_the_stack(template: dict[str, Any]) -> None:
    for name in ("Table", "Key"):
        assert (
            template["Resources"][name]["DeletionPolicy"]
            == template["Resources"][name]["UpdateReplacePolicy"]
            == "Retain"
        )
    table = resource(template, "Table")
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["DeletionProtectionEnabled"]
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


def test_strangers_at_the_path_of_passwords_leave_half_of_the_authorizer_to_tokens(template: dict[str, Any]) -> None:
    """A password costs one scrypt of 0.3 s on a whole core; what its own throttle lets through at once must fit."""
    (guesses,) = (it for it in resource(template, "RestAPI")["MethodSettings"] if it["HttpMethod"] == "POST")
    guard = resource(template, "Authorize")
    places = guard["ReservedConcurrentExecutions"]["Fn::If"][1]
    assert guard["MemorySize"] >= 1769      # one core
    assert guesses["ThrottlingBurstLimit"] + guesses["ThrottlingRateLimit"] * 0.3 < places * 0.6


def test_the_gateway(template: dict[str, Any]) -> None:
    rest = resource(template, "RestAPI")
    assert rest["EndpointConfiguration"] == "REGIONAL"
    assert rest["SecurityPolicy"].startswith("SecurityPolicy_TLS13_1_2_")
    assert resource(template, "Domain")["SecurityPolicy"] == "TLS_1_2"
    assert rest["MinimumCompressionSize"] == 1024
    limits, *own = rest["MethodSettings"]
    assert limits["ThrottlingRateLimit"]
    assert limits["ThrottlingBurstLimit"]
    assert (limits["ResourcePath"], limits["HttpMethod"]) == ("/*", "*")
    assert {(it["ResourcePath"], it["HttpMethod"]) for it in own} == {("/~1twocloud~1tokens", "POST"), *(
        ("/" + route.replace("/", "~1"), method) for route in api.OPEN_ROUTES for method in ("GET", "HEAD"))}
    assert all(it["ThrottlingRateLimit"] < limits["ThrottlingRateLimit"] for it in own)
    guard = rest["DefinitionBody"]["securityDefinitions"]["authorize"]["x-amazon-apigateway-authorizer"]
    assert guard["authorizerResultTtlInSeconds"] == authorizer.TTL_SECONDS
    assert guard["identityValidationExpression"] == admission.HEADER_FORM
    line = json.loads(rest["AccessLogSetting"]["Format"])
    for shown in line.values():             # nothing that a caller sends in a header, a query or a path
        assert re.fullmatch(r"\$context\.(requestTime|requestId|identity\.sourceIp|httpMethod|resourcePath|status|"
                            r"authorizer\.principalId|"
                            r"integration\.requestId|responseLength|responseLatency|error\.responseType)", shown), shown


def test_the_gateway_refuses_in_the_words_of_the_program(template: dict[str, Any]) -> None:
    known = {(kind.status, kind.code): kind.default for kind in (
        errors.Unauthorized, errors.Forbidden, errors.NotFound, errors.TooLarge, errors.RateLimited, errors.Internal)}
    known[400, "invalid_parameter"] = "The request is malformed."
    responses = resource(template, "RestAPI")["DefinitionBody"]["x-amazon-apigateway-gateway-responses"]
    for kind, response in responses.items():
        text = response["responseTemplates"]["application/json"]
        body = json.loads(text)
        assert int(response["statusCode"]) == body["code"], kind
        assert known[body["code"], body["error"]] == body["msg"], kind
        assert list(body)[:3] == ["code", "msg", "error"]
        assert body.pop("request_id") == "$context.requestId"
        assert "$" not in json.dumps(body), kind                            # echoes nothing
        headers = {name.removeprefix("gatewayresponse.header."): value
                   for name, value in response["responseParameters"].items()}
        assert headers.pop("X-Request-Id") == "context.requestId"
        assert headers.pop("Cache-Control") == "'no-store'"
        condition, several, none = headers.pop("Vary")["Fn::If"]
        assert (condition, none.strip("'")) == ("HasOrigins", api.COMMON_HEADERS["Vary"])
        assert several.strip("'") == f"{api.COMMON_HEADERS['Vary']}, Origin"
        allowed = cors.headers_for({"https://a"}, {"origin": "https://a"}, "")
        for name in ("Access-Control-Allow-Origin", "Access-Control-Expose-Headers"):
            condition, named, none = headers.pop(name)["Fn::If"]
            assert (condition, none) == ("HasOrigins", {"Ref": "AWS::NoValue"})
            assert "Fn::Sub" in named or named == f"'{allowed[name]}'", name
        assert {name: headers.pop(name).strip("'")
                for name in api.COMMON_HEADERS if name != "Vary"}.items() <= api.COMMON_HEADERS.items()
        if body["code"] == 401:
            assert headers.pop("WWW-Authenticate") == f"'{api.CHALLENGE}'"
        if body["code"] == 429:
            assert headers.pop("Retry-After") == "'1'"
        assert not headers
    assert {int(it["statusCode"]) for it in responses.values()} == {400, 401, 403, 404, 413, 429, 500}
    assert {"UNAUTHORIZED", "ACCESS_DENIED", "MISSING_AUTHENTICATION_TOKEN", "REQUEST_TOO_LARGE", "THROTTLED",
            "DEFAULT_4XX", "DEFAULT_5XX",
            "INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT", "AUTHORIZER_FAILURE"} <= set(responses)


# ---------------------------------------------------------------- rights

def statements(template: dict[str, Any], name: str) -> list[dict[str, Any]]:
    (policy,) = resource(template, ROLES[name])["Policies"]
    return policy["PolicyDocument"]["Statement"]


def test_no_stars_but_where_aws_demands_them(template: dict[str, Any]) -> None:
    stars: list[str] = []
    for name in FUNCTIONS:
        for statement in statements(template, name):
            assert statement["Effect"] == "Allow"
            assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
            assert not any("*" in action for action in statement["Action"])
            if "*" in json.dumps(statement["Resource"]):
                stars.append(f"{name} {statement['Action']} {statement['Resource']}")
            else:                           # one thing of this stack, or the table that takes its place
                if "Fn::If" in statement["Resource"]:
                    condition, own, other = statement["Resource"]["Fn::If"]
                    assert condition == "OwnTable"
                    assert other == {
                        "Fn::Sub": "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${TableName}"}
                    statement = {**statement, "Resource": own}
                assert list(statement["Resource"]) == ["Fn::GetAtt"]
                assert statement["Resource"]["Fn::GetAtt"][0] in template["Resources"]
    # only where they are asked for
    (traces,) = template["Resources"]["TracingRights"]["Properties"]["PolicyDocument"]["Statement"]
    assert traces == {"Effect": "Allow", "Action": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
                      "Resource": "*"}
    assert template["Resources"]["TracingRights"]["Condition"] == "Traced"
    # tenants' accounts are not known beforehand
    role = "{'Fn::Sub': 'arn:${AWS::Partition}:iam::*:role/${TenantRole}'}"
    assert stars == [f"APIHandler ['sts:AssumeRole'] {role}", f"Work ['sts:AssumeRole'] {role}"]
    for role_name in ROLES.values():
        assert "ManagedPolicyArns" not in resource(template, role_name)


def test_only_two_functions_open_credentials_and_only_under_their_context(template: dict[str, Any]) -> None:
    rows = resource(template, "Key")["KeyPolicy"]["Statement"]
    assert all("*" not in action for row in rows for action in ([row["Action"]] if isinstance(row["Action"], str)
                                                                else row["Action"]))
    opening = [row for row in rows if "Decrypt" in str(row["Action"]) or "GenerateDataKey" in str(row["Action"])
               or "CreateGrant" in str(row["Action"])]
    (row,) = opening
    assert row["Principal"] == {"AWS": [{"Fn::GetAtt": ["ApiHandlerRole", "Arn"]}, {"Fn::GetAtt": ["WorkRole", "Arn"]}]}
    context = accounts._context(accounts.AccountRow(tenant_id="123", party="qcloud", sealed=b"", revision="",
                                                    account="second"))
    condition = row["Condition"]
    assert condition["StringEquals"] == {"kms:EncryptionContext:purpose": context["purpose"]}
    assert condition["Null"] == {"kms:EncryptionContext:tenant": "false", "kms:EncryptionContext:party": "false"}
    assert set(condition["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"]) == set(context)
    for name in FUNCTIONS:                  # no other way in: IAM does not name the key
        assert "kms" not in json.dumps(statements(template, name))
    (administer,) = (row for row in rows if "kms:PutKeyPolicy" in row["Action"])
    assert "kms:Encrypt" not in administer["Action"]


def granted(template: dict[str, Any], name: str) -> set[tuple[str, str]]:
    """(operation, kind of row) that the function may."""
    grants: set[tuple[str, str]] = set()
    for statement in statements(template, name):
        for action in statement["Action"]:
            if action.startswith("dynamodb:"):
                kinds = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
                grants |= {(action.removeprefix("dynamodb:"), kind) for kind in kinds}
    return grants


# ---------------------------------------------------------------- on MiniStack

@dataclass
class Stack:
    """The package deployed, with one tenant's account at a simulator behind TLS."""

    endpoint: str
    outputs: dict[str, str]
    deployment: Deployment
    cloud: Qcloud
    keys: dict[str, str]
    authority: Path
    fleet: Fleet
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def environment(self) -> dict[str, str]:
        """With which boto3 finds the emulator, as the account's own user."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1"}

    @property
    def url(self) -> str:
        return self.outputs["URL"]

    def client(self, service: str) -> Any:
        return emulator.client(self.endpoint, service)

    def account(self, tenant: str, regions: tuple[str, ...] = ("gz",), name: str = DEFAULT_ACCOUNT) -> None:
        made = accounts.check(tenant, parties.load("qcloud"), self.keys, project=None, regions=regions, deep=False,
                              endpoint=self.cloud.url, local=False, name=name)
        accounts.put(self.deployment.store, self.deployment.sealer(), made, time.time(), replace=True)

    def token(self, *tenants: str) -> str:
        user = users.User(name=f"user-{os.urandom(4).hex()}", uid=users.new_uid(), tenants=tenants,
                          password=users.hash_password("password"))
        users.add(self.deployment.store, user)
        return canaries.watch(tokens.issue(self.deployment.store, user, tokens.Limits(), 3600, time.time())[0])

    def get(self, token: str, query: str = "?party=qcloud&tenant_id=123&region=gz&f=1&t=10", method: str = "GET",
            url: str = "") -> requests.Response:
        return self.session.request(method, (url or self.url) + query, auth=(token, "password") if token else None,
                                    timeout=60)

    def function(self, logical: str) -> dict[str, Any]:
        prefix = self.outputs["APIHandlerName"].partition("-APIHandler-")[0]
        (function,) = (it for it in self.client("lambda").list_functions()["Functions"]
                        if it["FunctionName"].startswith(f"{prefix}-{logical}-"))
        return function


@pytest.fixture(scope="session")
def stack(here_for_ministack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("deployed")
    pem, key = tls.certificate(folder)
    keys = {"secret_id": "AKIDtest", "secret_key": canaries.secret("qcloud")}
    fleet = Fleet(25)
    with ministack(folder, rights=True) as endpoint, Qcloud({keys["secret_id"]: keys["secret_key"]},
                                                            {"ap-guangzhou": fleet}) as cloud:
        tls.wrap(cloud, pem, key)
        outputs = emulator.deploy(endpoint, here_for_ministack, "twocloud-test", trusted=pem)
        client = emulator.client(endpoint, "dynamodb")
        kms = KmsSealer(outputs["Key"].removeprefix("kms:"), emulator.client(endpoint, "kms"))
        made = Deployment(settings_in(folder, local=False),
                          DynamoStore(outputs["Store"].removeprefix("dynamodb://"), time.time, client),
                          lambda: kms, OnFirstUse(lambda: Transport(trusted=str(pem))), time.time)
        deployed = Stack(endpoint, outputs, made, cloud, keys, pem, fleet)
        deployed.account("123")
        yield deployed
        deployed.session.close()
        made.close()


@pytest.fixture(scope="session")
def here_for_ministack(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniStack runs functions under its own interpreter: of another version than ours, it needs other wheels."""
    python = str(ROOT / ".tools/ministack/bin/python")
    if package.version_of(python) == package.version_of(sys.executable):
        return here
    return once(tmp_path_factory, "ministack", lambda folder: package.build(folder, python, here=True))


def test_the_seeds_request_through_gateway_and_authorizer(stack: Stack) -> None:
    """As pasted, with curl."""
    url = f"{stack.url}?party=qcloud&tenant_id=123&region=gz&f=1&t=10"
    done = subprocess.run(["curl", "-sS", "-u", f"{stack.token('123')}:password", url], capture_output=True, text=True,
                          timeout=60)
    body = json.loads(done.stdout)
    assert list(body) == ["code", "msg", "vm_servers"]
    assert body["code"] == 200
    assert len(body["vm_servers"]) == 10
    assert body["vm_servers"][0]["instance_id"].startswith("ins-")
    assert len(body["vm_servers"][0]) == 10


def test_the_first_page_that_may_read_the_api_may_read_the_gateways_own_refusals(stack: Stack,
                                                                                here_for_ministack: Path) -> None:
    """Of several origins the first, for a gateway response has fixed headers."""
    page = "https://dash.example.com"
    url = emulator.deploy(stack.endpoint, here_for_ministack, "twocloud-page",
                          parameters={"CorsOrigins": f"{page},https://other.example.com"})["URL"]
    for path, status in (("servers", 401), ("nowhere", 404)):
        refused = requests.get(url.replace("servers", path), headers={"Origin": page}, timeout=60)
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (status, page)
        assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
        assert "Origin" in refused.headers["Vary"]
        refused = stack.session.get(stack.url.replace("servers", path), headers={"Origin": page}, timeout=60)
        assert refused.status_code == status
        assert not [name for name in refused.headers if name.startswith("Access-Control-")]


def test_pages_join_and_links_lead_on(stack: Stack) -> None:
    token = stack.token("123")
    whole = stack.get(token, "?party=qcloud&tenant_id=123&region=gz")
    assert whole.headers["X-Total-Count"] == "25"
    assert whole.headers["ETag"]
    pages = [stack.get(token, f"?party=qcloud&tenant_id=123&region=gz&f={at}&t={at + 9}") for at in (1, 11, 21)]
    assert [row for page in pages for row in page.json()["vm_servers"]] == whole.json()["vm_servers"]
    assert pages[0].headers["Link"].startswith("</api/twocloud/servers?")


def test_a_wrong_token_gets_the_contracts_401(stack: Stack) -> None:
    good = stack.token("123")
    changed = good[:-1] + ("A" if good[-1] != "A" else "B")
    headers = []
    for token in ("", "tc_wrong", changed, good[::-1]):
        answer = stack.get(token)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == api.CHALLENGE
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        body = answer.json()
        assert body.pop("request_id") == answer.headers["X-Request-Id"]
        headers.append(body)
    assert headers[0] == {"code": 401, "msg": errors.Unauthorized.default, "error": "unauthorized"}
    assert headers == [headers[0]] * 4


def test_revoking_acts_at_once_while_the_gateway_keeps_the_policy(stack: Stack) -> None:
    token = stack.token("123")
    assert [stack.get(token).status_code for _ in range(2)] == [200, 200]  # now the policy is kept
    assert stack.get(token, "", "DELETE", stack.url.replace("servers", "tokens")).status_code == 204
    answer = stack.get(token)
    assert answer.status_code == 401
    assert answer.json()["msg"] == errors.Unauthorized.default


def test_a_password_gives_a_token_and_only_that(stack: Stack) -> None:
    user = users.User(name="pia", uid=users.new_uid(), tenants=("123",), password=users.hash_password("password"))
    users.add(stack.deployment.store, user)
    answer = stack.get("pia", "", "POST", stack.url.replace("servers", "tokens"))
    assert answer.status_code == 200
    assert stack.get(canaries.watch(answer.json()["token"])).status_code == 200
    assert stack.get("pia").status_code == 401


@pytest.mark.parametrize(("method", "path", "status", "word"), [
    ("GET", "nowhere", 404, "not_found"), ("GET", "servers/x", 404, "not_found"),
    ("PUT", "servers", 405, "method_not_allowed"),
    ("POST", "health", 405, "method_not_allowed")])
def test_other_refusals_have_the_envelope_and_repeat_nothing(stack: Stack, method: str, path: str, status: int,
                                                             word: str) -> None:
    token = stack.token("123")
    answer = stack.get(token, "", method, stack.url.replace("servers", path))
    assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (status, status, word)
    assert token not in answer.text
    assert "Basic" not in answer.text
    assert "vm_servers" not in answer.text
    if status == 405:
        assert "GET" in answer.headers["Allow"]


def test_foreign_and_open_paths(stack: Stack) -> None:
    assert stack.get(stack.token("9")).json()["error"] == "forbidden"
    assert stack.get("", "", url=stack.url.replace("servers", "health")).json()["status"] == "ok"
    assert stack.get("", "", url=stack.url.replace("servers", "openapi.json")).json()["openapi"].startswith("3.1")
    # the packaged pages, with and without the slash
    for path, name in (("", "console.html"), ("docs", "reference.html")):
        for url in {stack.url.replace("servers", path), stack.url.replace("servers", path).rstrip("/")}:
            answer = stack.get("", "", url=url)
            assert answer.content == console.page(name).body, url
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'"), url


def wait(what: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.5)
    return result


def kept(stack: Stack, tenant: str) -> snapshots.Head | None:
    revision = accounts.find(stack.deployment.store, tenant, "qcloud").revision
    return snapshots.find(stack.deployment.store, Source(tenant, "qcloud", "ap-guangzhou"), revision)


def test_the_worker_writes_what_a_message_names(stack: Stack) -> None:
    stack.account("queued")
    message = schedule.Message("queued", "qcloud", "ap-guangzhou", time.time())
    stack.client("sqs").send_message(QueueUrl=stack.outputs["QueueURL"], MessageBody=schedule.write(message))
    assert wait(lambda: kept(stack, "queued"), 60).total == 25
    answer = stack.get(stack.token("queued"), "?party=qcloud&tenant_id=queued&region=gz&max_age=600")
    assert answer.headers["Cache-Status"] == "twocloud; hit"
    assert len(answer.json()["vm_servers"]) == 25


@pytest.mark.slow
def test_a_poison_message_ends_in_the_dead_letters(stack: Stack) -> None:
    sqs, queue = stack.client("sqs"), stack.outputs["QueueURL"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == 5
    assert attributes["VisibilityTimeout"] == "780"
    # five tries, but not in an hour
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
    try:
        sqs.send_message(QueueUrl=queue, MessageBody='{"tenant_id": "123", "poison": true}')
        dead = wait(lambda: sqs.receive_message(QueueUrl=stack.outputs["DeadLettersURL"]).get("Messages"), 90)
        assert [it["Body"] for it in dead] == ['{"tenant_id": "123", "poison": true}']
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "780"})


@pytest.mark.slow
def test_the_schedule_fills_the_queue_and_the_worker_empties_it(stack: Stack) -> None:
    names = [f"due-{n}" for n in range(20)]
    for name in names:
        stack.account(name)
    events = stack.client("events")
    (rule,) = (it for it in events.list_rules()["Rules"] if "Spread" in it["Name"])
    assert rule["ScheduleExpression"] == "rate(5 minutes)"
    events.put_rule(Name=rule["Name"], ScheduleExpression="rate(1 minute)")               # the emulator's shortest
    written = wait(lambda: [name for name in names if kept(stack, name)], 150)           # spread over four minutes
    assert kept(stack, written[0]).total == 25                                          # type: ignore[union-attr]
    counts = stack.client("sqs").get_queue_attributes(QueueUrl=stack.outputs["QueueURL"],
                                                      AttributeNames=["All"])["Attributes"]
    assert int(counts["ApproximateNumberOfMessagesDelayed"]) + int(counts["ApproximateNumberOfMessages"]) > 0


def test_alarms_go_off_and_tell_the_topic(stack: Stack, template: dict[str, Any]) -> None:
    """Each with a value beyond its threshold, under the name that its filter or AWS gives it. The emulator counts no
    lines, knows no missing values and waits for no second value."""
    cloudwatch, sqs = stack.client("cloudwatch"), stack.client("sqs")
    queue = sqs.create_queue(QueueName="pager")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": arn}]})})
    stack.client("sns").subscribe(TopicArn=stack.outputs["AlarmsTopic"], Protocol="sqs", Endpoint=arn)
    mine = "twocloud-test-"                 # for whom the topic's policy speaks; other stacks have their own
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=mine)["MetricAlarms"]
    wanted = {name for name, it in template["Resources"].items() if it["Type"] == "AWS::CloudWatch::Alarm"}
    assert {it["AlarmName"].split("-")[2] for it in alarms} == wanted
    assert len(alarms) == len(wanted)
    assert {it["AlarmActions"][0] for it in alarms} == {stack.outputs["AlarmsTopic"]}
    for alarm in alarms:
        if alarm["Statistic" if "Statistic" in alarm else "ExtendedStatistic"] != "SampleCount":
            cloudwatch.put_metric_data(Namespace=alarm["Namespace"], MetricData=[{
                "MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"], "Value": alarm["Threshold"] + 1}])
    raised = {it["AlarmName"] for it in wait(
        lambda: cloudwatch.describe_alarms(StateValue="ALARM", AlarmNamePrefix=mine)["MetricAlarms"], 30)}
    assert {name.split("-")[2] for name in raised} == wanted - {"ScheduleStopped"}
    messages = wait(lambda: sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"), 30)
    notice = json.loads(json.loads(messages[0]["Body"])["Message"])
    assert notice["NewStateValue"] == "ALARM"
    assert notice["AlarmDescription"] in {it["AlarmDescription"] for it in alarms}


def test_filters_stand_on_the_groups_that_hold_the_functions_lines(stack: Stack, template: dict[str, Any]) -> None:
    """Requests through the gateway and a message through the queue: the deployed filters match the lines that the
    deployed functions left in their groups."""
    logs = stack.client("logs")
    stack.account("watched")
    stack.cloud.fail("403")
    try:
        answer = stack.get(stack.token("watched"), "?party=qcloud&tenant_id=watched&region=gz&on_error=fail")
        assert answer.status_code == 502
    finally:
        stack.cloud.forget()
    stack.client("sqs").send_message(
        QueueUrl=stack.outputs["QueueURL"], MessageBody=schedule.write(
            schedule.Message("watched", "qcloud", "ap-guangzhou", time.time())),
        MessageAttributes={"run_id": {"DataType": "String", "StringValue": "run-7"}})
    assert wait(lambda: kept(stack, "watched"), 60).total == 25            # type: ignore[union-attr]

    def lines(function: str) -> list[str]:
        group = stack.function(function)["LoggingConfig"]["LogGroup"]
        return [it["message"] for it in logs.filter_log_events(logGroupName=group)["events"]]

    logged = wait(lambda: [line for line in lines("APIHandler") if answer.headers["X-Request-Id"] in line
                           and '"call"' in line], 30)
    assert [json.loads(line)["tenant"] for line in logged] == ["watched"]
    (filter_,) = (it for it in logs.describe_metric_filters(
        logGroupName=stack.function("APIHandler")["LoggingConfig"]["LogGroup"])["metricFilters"]
                  if it["metricTransformations"][0]["metricName"] == "PartyDenied")
    assert patterns.matches(filter_["filterPattern"], logged[0])
    assert filter_["metricTransformations"][0]["metricNamespace"] == "twocloud/twocloud-test"
    refreshed = wait(lambda: [line for line in lines("Work") if '"watched"' in line and '"refresh"' in line], 30)
    assert json.loads(refreshed[0])["run_id"] == "run-7"
    assert json.loads(refreshed[0])["total"] == 25
    body = json.loads(stack.client("cloudwatch").get_dashboard(DashboardName="twocloud-test")["DashboardBody"])
    assert "${" not in json.dumps(body)
    assert stack.function("Work")["LoggingConfig"]["LogGroup"] in json.dumps(body)


def test_rights_are_enforced_and_nobody_else_opens_credentials(stack: Stack) -> None:
    """A user with every right that IAM can give on the key, but for whom the key's own policy has no word."""
    iam = stack.client("iam")
    iam.create_user(UserName="eve")
    iam.put_user_policy(UserName="eve", PolicyName="kms", PolicyDocument=json.dumps({
        "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}))
    key = iam.create_access_key(UserName="eve")["AccessKey"]
    mine = {"endpoint_url": stack.endpoint, "region_name": "us-east-1", "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"]}
    table = stack.outputs["Store"].removeprefix("dynamodb://")
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("dynamodb", **mine).get_item(TableName=table,
                                                  Key={"pk": {"S": "account"}, "sk": {"S": "123/qcloud"}})
    row = accounts.find(stack.deployment.store, "123", "qcloud")
    eve = KmsSealer(stack.outputs["Key"].removeprefix("kms:"), boto3.client("kms", **mine))
    assert eve.seal(b"x", accounts._context(row))              # that is an operator's right
    with pytest.raises(Internal, match="kms:Decrypt"):
        eve.open(row.sealed, accounts._context(row))


# ---------------------------------------------------------------- the operator's page

def test_the_page_names_what_the_template_has(template: dict[str, Any]) -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    table = page[page.index("| parameter | default"):page.index("With a domain")]
    named = {name for row in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(template["Parameters"])
    assert set(re.findall(r"\$\(stack_output (\w+)", page)) | {"DomainTarget"} <= set(template["Outputs"])
    for name in FUNCTIONS:
        it = resource(template, name)
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert (
            f"| {it['MemorySize']} MB | {it['Timeout']} s | {it['ReservedConcurrentExecutions']['Fn::If'][1]} |" in row
        )
        assert not granted(template, name) & {(write, kind) for write in ("PutItem", "BatchWriteItem")
                                              for kind in ("account", "user")}


def test_the_pages_commands_work(stack: Stack, tmp_path: Path) -> None:
    """As they stand, but for the simulator's address, and an `aws` that knows one question."""
    (script,) = (block for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL))
    (tmp_path / "keys.secret").write_text(json.dumps(stack.keys))
    (tmp_path / "outputs.json").write_text(json.dumps(stack.outputs))
    (tmp_path
     / "aws").write_text(f"#!{sys.executable}\nimport json, re, sys\nassert sys.argv[1:5] == ['cloudformation',"
                         f" 'describe-stacks', "
                                  f"'--stack-name', "
                                  f"'twocloud']\nprint(json.load(open({str(tmp_path / 'outputs.json')!r}))"
                                  "[re.search(\"OutputKey=='(\\w+)'\", sys.argv[-1])[1]])\n")
    (tmp_path / "aws").chmod(0o755)
    script = script.replace("keys.json", "keys.secret").replace(
        "put 123 qcloud", f"put 123 qcloud --replace --endpoint {stack.cloud.url}")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TWOCLOUD_", "AWS_"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{script}\necho; echo $TWOCLOUD_TOKEN >&2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, **stack.environment, "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    canaries.watch(done.stderr.strip().rpartition("\n")[2])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["code"] == 200


@pytest.mark.slow
def test_make_deploy_emulators_line_works_as_pasted(here_for_ministack: Path, tmp_path: Path) -> None:
    """What `make deploy-emulator` does once the package is built, and `make stop-emulator`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deploy.emulator"]
    start = subprocess.run([*command, "start", here_for_ministack, "--port", str(port), "--folder", tmp_path / "run"],
                           cwd=ROOT,
                           capture_output=True, text=True, timeout=300, check=False)
    try:
        assert start.returncode == 0, start.stderr
        line = start.stdout.strip()
        canaries.watch(line.split("'")[1].split(":")[0])
        everywhere = line.replace("party=qcloud", "party=all").replace("region=gz&f=1&t=10", "region=all")
        one, every = (json.loads(subprocess.run(["bash", "-euc", f"{pasted} -s"], capture_output=True, timeout=60,
                                                check=True).stdout)
                      for pasted in (line, everywhere))
        assert len(one["vm_servers"]) == 10
        assert one["vm_servers"][0]["instance_name"] == "hehe"
        assert every["complete"]
        assert {row["state"] for row in every["sources"]} == {"ok"}
        assert "openstack" in {row["party"] for row in every["sources"]}
    finally:
        subprocess.run([*command, "stop", "--folder", tmp_path / "run"], cwd=ROOT, check=True, timeout=60)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 1):
        pass


# ---------------------------------------------------------------- under Amazon's runtime client

@pytest.fixture(scope="session")
def task(here: Path, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(here / "deployment.zip") as archive:
        archive.extractall(folder)
    with (folder / "certifi/cacert.pem").open("ab") as trusted:
        trusted.write(stack.authority.read_bytes())
    return folder


@contextmanager
def started(stack: Stack, task: Path, logical: str, folder: Path, **more: str) -> Iterator[Function]:
    """The function with the variables, handler and time that the deployed one has."""
    configuration = stack.function(logical)
    assert configuration["Handler"] == FUNCTIONS[logical]
    variables = {**configuration["Environment"]["Variables"], **stack.environment, **more}
    with Function(task, configuration["Handler"], variables, configuration["Timeout"], folder) as function:
        yield function


def test_the_api_handler_starts_and_answers(stack: Stack, task: Path, tmp_path: Path) -> None:
    with started(stack, task, "APIHandler", tmp_path) as function:
        healthy = function.invoke(event("/twocloud/health", None))
        assert healthy["statusCode"] == 200
        assert json.loads(healthy["body"])["status"] == "ok"
        query = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"]}
        listed = function.invoke(event("/twocloud/servers", basic(stack.token("123")), query=query))
        assert listed["statusCode"] == 200
        assert len(json.loads(listed["body"])["vm_servers"]) == 25
        assert function.invoke(event("/twocloud/servers", None, query=query))["statusCode"] == 401


def test_the_authorizer_starts_and_answers(stack: Stack, task: Path, tmp_path: Path) -> None:
    request = {"type": "TOKEN", "methodArn": "arn:aws:execute-api:us-east-1:123456789012:abc/api/GET/twocloud/servers"}
    with started(stack, task, "Authorize", tmp_path) as function:
        policy = function.invoke({**request, "authorizationToken": basic(stack.token("123"))})["policyDocument"]
        assert [row["Effect"] for row in policy["Statement"]] == ["Allow"]
        with pytest.raises(RuntimeError, match=r"^Exception: Unauthorized$"):
            function.invoke({**request, "authorizationToken": "Basic eA=="})


@pytest.mark.parametrize("form", ["Text", "JSON"])
def test_lines_pass_through_the_runtime_unchanged(stack: Stack, task: Path, tmp_path: Path, form: str) -> None:
    """Whatever the function's log format is: one line each, of JSON, not wrapped into another."""
    with started(stack, task, "APIHandler", tmp_path, AWS_LAMBDA_LOG_FORMAT=form,
                 AWS_LAMBDA_LOG_LEVEL="INFO") as function:
        function.invoke(event("/twocloud/health", None))
        function.invoke(event("/twocloud/servers", basic(stack.token("123")),
                              query={"party": ["qcloud"], "tenant_id": ["9"], "region": ["gz"]}))
        lines = [json.loads(line) for line in function.log.read_text().splitlines() if '"request"' in line]
    assert [(line["event"], line["status"], line["request_id"])
            for line in lines] == [("request", 200, "r-1"), ("request", 403, "r-1")]
    assert len({str(uuid.UUID(line["function_request_id"])) for line in lines}) == 2


def test_the_schedule_and_the_worker_start_and_answer(stack: Stack, task: Path, tmp_path: Path) -> None:
    stack.account("spread")
    with started(stack, task, "Spread", tmp_path) as function:
        assert function.invoke({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}, "version": "0",
                                "account": "1",
                                "time": "", "region": "us-east-1", "resources": [], "id": "1"})["messages"] >= 1
    stack.account("worked")
    bodies = [schedule.write(schedule.Message("worked", "qcloud", "ap-guangzhou", time.time())), "poison"]
    with started(stack, task, "Work", tmp_path) as function:
        answer = function.invoke(
            {"Records": [{"messageId": str(n), "receiptHandle": "r", "body": body} for n, body in enumerate(bodies)]})
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert kept(stack, "worked").total == 25                               # type: ignore[union-attr]


# ---------------------------------------------------------------- the rights are those that are used

def test_each_function_has_the_rights_that_it_uses(stack: Stack, template: dict[str, Any],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other: every call of the store is recorded, function by function, and held against the function's
    policy."""
    used: dict[str, set[tuple[str, str]]] = {name: set() for name in (*FUNCTIONS, "operator")}
    now = ["APIHandler"]

    def record(params: dict[str, Any], model: Any, **_: object) -> None:
        used[now[0]] |= {(model.name, re.sub("/.*", "/*", kind)) for kind in kinds_in(params)}

    store = stack.deployment.store
    assert isinstance(store, DynamoStore)
    token = stack.token("rights", "going", "everywhere", "several", "organisation")
    stack.account("rights")
    stack.account("several")
    stack.account("several", name="second")
    organisation = accounts.check("organisation", parties.load("aws"), {
        "access_key_id": "AKIAtest", "secret_access_key": canaries.secret("aws")}, project=None,
        regions=("us-east-1",), deep=False, endpoint=stack.cloud.url, local=False, discovery=Discovery())
    accounts.put(store, stack.deployment.sealer(), organisation, time.time(), replace=True)
    monkeypatch.setattr(parties, "discover", lambda *_: [Member(id="1")])
    monkeypatch.setattr(Party, "shares", lambda *_: True)       # as at parties that count calls for the credentials
    stack.account("everywhere", regions=())
    stack.account("going")
    users.add(store, users.User(name="rita", uid=users.new_uid(), tenants=("rights",),
                                password=users.hash_password("password")))
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    deployment = structs.replace(stack.deployment, settings=structs.replace(stack.deployment.settings,
                                                            queue=stack.outputs["QueueURL"].rpartition("/")[2]))
    app.use(deployment)
    store._client.meta.events.register("before-parameter-build.dynamodb", record)
    try:
        def fail(function: str) -> None:
            stack.cloud.fail("500")
            for _ in range(2):
                if function == "Work":
                    refresh("rights")
                else:
                    ask("/twocloud/servers", basic(token), **servers, max_age="0")
            stack.cloud.forget()

        def refresh(tenant: str, region: str = "ap-guangzhou", party: str = "qcloud",
                    name: str = DEFAULT_ACCOUNT) -> None:
            body = schedule.write(schedule.Message(tenant, party, region, time.time() + 5, account=name))
            assert app.work({"Records": [{"messageId": "1", "receiptHandle": "r", "body": body}]},
                            Context(130_000)) == {"batchItemFailures": []}

        def lose_chunks(function: str) -> None:
            """Then they are looked for where version 0.1.0 kept them."""
            now[0] = "operator"
            store.delete("chunk", *[key for key, _ in store.list("chunk", "rights/")])
            now[0] = function

        proper = stack.cloud.answer

        def going(call: Call) -> Answer:
            """The account goes while its list is read."""
            now[0] = "operator"
            store.delete("account", "going/qcloud")
            now[0] = "APIHandler"
            return proper(call)

        def ask(path: str, header: str | None, method: str = "GET", **query: str) -> int:
            return app.app(event(path, header, method, {k: [v] for k, v in query.items()} or None),
                           Context())["statusCode"]

        servers = {"party": "qcloud", "tenant_id": "rights", "region": "gz"}
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert ask("/twocloud/health", None) == ask("/twocloud/parties", basic(token)) == 200
        for more in ({}, {"max_age": "600"}, {"f": "1", "t": "3"}, {"party": "all", "region": "all", "max_age": "600"}):
            assert ask("/twocloud/servers", basic(token), **{**servers, **more}) == 200
        assert ask("/twocloud/servers", basic(token), party="qcloud", tenant_id="everywhere", region="all",
                   on_error="partial") == 200
        assert ask("/twocloud/servers", basic(token), **{**servers, "tenant_id": "several"}) == 200
        assert ask("/twocloud/servers", basic(token), **{**servers, "party": "aws", "tenant_id": "organisation",
                                                         "region": "us-east-1", "on_error": "partial"}) == 200
        assert ask("/twocloud/me", basic(token)) == 200
        assert ask("/twocloud/servers", basic(token), **{**servers, "party": "all", "list": "x"}) == 409
        assert ask("/twocloud/servers", basic(token), **{**servers, "region": "ap-nowhere"}) == 400
        stack.fleet.size += 1               # something changed
        assert ask("/twocloud/servers", basic(token), **servers, max_age="0") == 200
        assert ask("/twocloud/servers", basic(token), **servers, changed_since=since) in (200, 400)
        lose_chunks("APIHandler")
        assert ask("/twocloud/servers", basic(token), **servers, max_age="600") == 200
        fail("APIHandler")
        with monkeypatch.context() as patched:
            patched.setattr(stack.cloud, "answer", going)
            assert ask("/twocloud/servers", basic(token), **{**servers, "tenant_id": "going"}) == 200
        assert ask("/twocloud/tokens", basic("rita"), "POST") == 200
        assert ask("/twocloud/tokens", basic("rita", "wrong"), "POST") == 401
        assert ask("/twocloud/tokens", basic(token), "DELETE") == 204

        now[0] = "Authorize"
        arn = "arn:aws:execute-api:us-east-1:123456789012:abc/api"
        for header, route in ((basic(stack_token(stack, now)), "GET/twocloud/servers"),
                              (basic("rita"), "POST/twocloud/tokens")):
            authorizer.authorize({"type": "TOKEN", "authorizationToken": header, "methodArn": f"{arn}/{route}"}, None)
        with pytest.raises(Exception, match="Unauthorized"):
            authorizer.authorize({"type": "TOKEN", "authorizationToken": basic("rita", "wrong"),
                                  "methodArn": f"{arn}/POST/twocloud/tokens"}, None)

        now[0] = "Spread"
        app.spread({"source": "aws.events", "detail-type": "", "detail": {}, "version": "0", "account": "1", "time": "",
                    "region": "r",
                    "resources": [], "id": "1"}, Context(120_000))
        now[0] = "Work"
        for _ in range(2):
            stack.fleet.size += 1
            refresh("rights")
        lose_chunks("Work")
        stack.fleet.size += 1
        refresh("rights")
        refresh("gone")
        refresh("rights", "ap-nowhere")
        refresh("several", name="second")
        refresh("organisation", "us-east-1", "aws", "default:1")
        now[0] = "operator"
        store.delete("members", *[key for key, _ in store.list("members", "organisation/")])
        now[0] = "Work"
        refresh("organisation", "all", "aws")
        fail("Work")
    finally:
        stack.cloud.forget()
        store._client.meta.events.unregister("before-parameter-build.dynamodb", record)
    for name in FUNCTIONS:
        assert used[name] == granted(template, name), name


def stack_token(stack: Stack, now: list[str]) -> str:
    """A new token, whose making is not counted as the function's."""
    function, now[0] = now[0], "operator"
    try:
        return stack.token("rights")
    finally:
        now[0] = function


def kinds_in(params: dict[str, Any]) -> Iterator[str]:
    """The partition keys that a call names."""
    if "Key" in params:
        yield params["Key"]["pk"]["S"]
    if "Item" in params:
        yield params["Item"]["pk"]["S"]
    if "KeyConditionExpression" in params:
        yield params["ExpressionAttributeValues"][":pk"]["S"]
    for rows in params.get("RequestItems", {}).values():
        for key in rows["Keys"] if "Keys" in rows else [row["DeleteRequest"]["Key"] for row in rows]:
            yield key["pk"]["S"]
