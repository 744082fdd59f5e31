"""`twocloud deploy`: what it builds, stores and proposes; that nothing changes before it is applied; with which rights.

On MiniStack, which knows change sets and enforces rights, but neither SAM nor the real console: docs/limits.md says so.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from botocore.exceptions import ClientError

from chalicelib import __version__, packaging
from chalicelib.packaging import package
from chalicelib.packaging import stack as stacks
from chalicelib.storage import amazon
from deploy import emulator
from tests import ROOT, canaries
from tests.aws.deployed import Stack, here, here_for_ministack, runtime, stack
from tests.programs.test_cli import Command, twocloud
from tests.programs.test_wheel import build, clean, locked

__all__ = ["here", "here_for_ministack", "stack", "twocloud"]
pytestmark = pytest.mark.timeout(600)
PAGE = (ROOT / "docs/deploy.md").read_text()


@pytest.fixture
def at_aws(stack: Stack, here_for_ministack: Path, twocloud: Command,
           monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The command's AWS is the emulator, with a package that it can run, in terms that it knows."""
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(package, "build", lambda out, *_: shutil.copytree(here_for_ministack, out, dirs_exist_ok=True))
    monkeypatch.setattr(stacks, "with_code", emulator.for_emulator)
    monkeypatch.setattr(stacks, "_PAUSE", 0.1)
    amazon.session.cache_clear()
    yield stack
    amazon.session.cache_clear()


def status_of(stack: Stack, name: str) -> str:
    try:
        return stack.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
    except ClientError:
        return ""


@pytest.mark.slow
def test_nothing_changes_before_it_is_applied_and_then_the_api_answers(at_aws: Stack, twocloud: Command) -> None:
    proposed = twocloud.json("deploy", "--stack", "twocloud-cli", "-p", "MaxAge=60", "-p", "GatewayLogs=no")
    assert proposed["creates"]
    assert {it["action"] for it in proposed["changes"]} == {"Add"}
    assert {"APIHandler", "Table", "Key"} <= {it["name"] for it in proposed["changes"]}
    assert status_of(at_aws, "twocloud-cli") == "REVIEW_IN_PROGRESS"
    name = re.search(r"--stack twocloud-cli --apply (twocloud-\w+)", twocloud.err)
    assert name
    assert "Nothing has changed yet" in twocloud.err
    again = twocloud.json("deploy", "--stack", "twocloud-cli")      # one that was never applied is in nobody's way
    assert again["creates"]
    outputs = twocloud.json("deploy", "--stack", "twocloud-cli", "--apply", name[1])
    assert outputs["Store"].startswith("dynamodb://")
    url = f"{at_aws.endpoint}/_aws/execute-api/{outputs['RestAPIId']}/api/twocloud/health"
    assert requests.get(url, timeout=60).status_code == 200

    twocloud("deploy", "--stack", "twocloud-cli")                   # the parameters keep their values
    assert "Nothing would change." in twocloud.err
    changed = twocloud("deploy", "--stack", "twocloud-cli", "-p", "Timezone=Asia/Shanghai")
    assert "APIHandler" in changed
    assert "Table" not in changed
    assert twocloud.json("deploy", "--stack", "twocloud-cli", "-p", "Timezone=Asia/Shanghai", "--yes") == outputs
    (made,) = at_aws.client("cloudformation").describe_stacks(StackName="twocloud-cli")["Stacks"]
    kept = {it["ParameterKey"]: it["ParameterValue"] for it in made["Parameters"]}
    assert (kept["MaxAge"], kept["Timezone"], kept["GatewayLogs"]) == ("60", "Asia/Shanghai", "no")


@pytest.fixture
def proposer(at_aws: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command's AWS user has the rights of the page and no others."""
    policy = re.search(r"```json\n(\{\n  \"Version\".*?)```", PAGE, re.DOTALL)
    assert policy
    iam = at_aws.client("iam")
    iam.create_user(UserName="proposer")
    iam.put_user_policy(UserName="proposer", PolicyName="deploy", PolicyDocument=policy[1])
    key = iam.create_access_key(UserName="proposer")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canaries.watch(key["SecretAccessKey"]))
    amazon.session.cache_clear()
    yield
    iam.delete_access_key(UserName="proposer", AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName="proposer", PolicyName="deploy")
    iam.delete_user(UserName="proposer")


def test_who_may_only_propose_cannot_apply(at_aws: Stack, proposer: None, twocloud: Command) -> None:
    """The page's rights are enough to propose a stack of the default name, and for nothing else."""
    proposed = twocloud.json("deploy")
    assert proposed["creates"]
    twocloud("deploy", "--apply", proposed["name"], code=4)
    assert "AccessDenied" in twocloud.err
    assert status_of(at_aws, "twocloud") == "REVIEW_IN_PROGRESS"
    twocloud("deploy", "--stack", "other", code=4)
    assert "AccessDenied" in twocloud.err
    assert status_of(at_aws, "other") == ""


def test_a_link_for_an_administrator(at_aws: Stack, twocloud: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the template that was stored and the parameters; no stack, no change set."""
    link = twocloud("deploy", "--link", "--stack", "launched", "-p", "CorsOrigins=https://a.example,https://b.example",
                    "-p", "MaxAge=60").strip()
    page, _, query = link.partition("#/stacks/create/review?")
    assert page == "https://us-east-1.console.aws.amazon.com/cloudformation/home?region=us-east-1"
    fields = {name: value for name, (value,) in parse_qs(query, strict_parsing=True).items()}
    assert fields.keys() == {"templateURL", "stackName", "param_CorsOrigins", "param_MaxAge"}
    assert fields["param_CorsOrigins"] == "https://a.example,https://b.example"
    assert status_of(at_aws, "launched") == ""
    bucket, _, key = urlsplit(fields["templateURL"]).path.strip("/").partition("/")
    assert bucket == "twocloud-123456789012-us-east-1"
    s3 = at_aws.client("s3")
    template = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    code = template["Resources"]["APIHandler"]["Properties"]["Code"]
    assert s3.head_object(Bucket=code["S3Bucket"], Key=code["S3Key"])["ContentLength"] > 1_000_000


def test_what_is_wrong_is_said_with_what_to_do(at_aws: Stack, twocloud: Command, tmp_path: Path) -> None:
    twocloud("deploy", "-p", "TimeZone=UTC", code=4)
    assert "There is no parameter TimeZone. Parameters: " in twocloud.err
    twocloud("deploy", "--bucket", "there-is-no-such-bucket", code=4)
    assert "Create it in us-east-1, or omit --bucket." in twocloud.err
    twocloud("deploy", "--apply", "twocloud-none", code=4)
    assert "ChangeSetNotFound" in twocloud.err
    for words in (["-p", "MaxAge"], ["-p", "A-B=1"], ["--yes", "--link"], ["--architecture", "mips"]):
        twocloud("deploy", *words, code=2)
    (tmp_path / "parameters.json").write_text('{"MaxAge": 60}')
    twocloud("deploy", "--parameters", str(tmp_path / "parameters.json"), code=2)
    assert "values are texts" in twocloud.err
    (tmp_path / "parameters.json").write_text('{"Timezone": "Mars/Phobos", "Unknown": ""}')
    twocloud("deploy", "--parameters", str(tmp_path / "parameters.json"), "-p", "MaxAge=1", code=4)
    assert "no parameter Unknown" in twocloud.err


def test_a_stack_that_fails_says_which_resource_and_why(at_aws: Stack, twocloud: Command,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(template: dict[str, Any], bucket: str, key: str) -> dict[str, Any]:
        made = emulator.for_emulator(template, bucket, key)
        made["Resources"]["Broken"] = {"Type": "AWS::Lambda::Url", "Properties": {"TargetFunctionArn": "nowhere",
                                                                                 "AuthType": "NONE"}}
        return made

    monkeypatch.setattr(stacks, "with_code", broken)
    twocloud("deploy", "--stack", "twocloud-broken", "--yes", "-p", "GatewayLogs=no", code=5)
    assert "The stack twocloud-broken is ROLLBACK" in twocloud.err
    assert "Broken: Lambda function not found: nowhere" in twocloud.err
    twocloud("deploy", "--stack", "twocloud-broken", "-p", "GatewayLogs=no", code=4)
    assert "Delete it in CloudFormation, then deploy again." in twocloud.err


def test_what_a_change_before_left_is_not_taken_for_the_end_of_this_one() -> None:
    """An update begins a moment after its change set is executed; until then the stack shows how the last one ended."""
    looks: list[str] = []

    class Formation:
        exceptions = SimpleNamespace(ChangeSetNotFoundException=KeyError)

        def execute_change_set(self, **_: str) -> None:
            looks.append("executed")

        def describe_change_set(self, **_: str) -> dict[str, Any]:
            looks.append("change set")
            if looks.count("change set") == 4:
                raise KeyError
            return {"ExecutionStatus": "AVAILABLE" if looks.count("change set") == 1 else "EXECUTE_IN_PROGRESS"}

        def describe_stacks(self, **_: str) -> dict[str, Any]:
            looks.append("stack")
            cleaning = looks.count("stack") == 1
            return {"Stacks": [{"StackStatus": f"UPDATE_COMPLETE{'_CLEANUP_IN_PROGRESS' if cleaning else ''}",
                                "Outputs": [{"OutputKey": "URL", "OutputValue": "https://x"}]}]}

    account = stacks.Account(sleep=lambda _: None)
    account.__dict__["_formation"] = Formation()
    assert account.apply("twocloud", "twocloud-1") == {"URL": "https://x"}
    assert looks == ["executed", *["change set"] * 4, "stack", "stack"]


def test_without_a_region_or_a_way_to_aws(twocloud: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    amazon.session.cache_clear()
    twocloud("deploy", code=4)
    assert "Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials." in twocloud.err
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    amazon.session.cache_clear()
    twocloud("deploy", code=4)
    assert "credentials" in twocloud.err
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    amazon.session.cache_clear()
    monkeypatch.setattr(time, "sleep", lambda _: None)          # botocore's, between two tries
    twocloud("deploy", code=3)


def test_every_change_of_many_is_shown() -> None:
    """CloudFormation gives them in pages."""
    class Formation:
        def describe_change_set(self, StackName: str, ChangeSetName: str, NextToken: str = "") -> dict[str, Any]:
            page = int(NextToken or 0)
            rows = [{"Type": "Resource", "ResourceChange": {
                "Action": "Modify" if page else "Remove", "LogicalResourceId": f"R{page}", "ResourceType": "T",
                "Replacement": "True"}}]
            return {"Status": "CREATE_COMPLETE", "Changes": rows, **({"NextToken": str(page + 1)} if page < 2 else {})}

    account = stacks.Account()
    account.__dict__["_formation"] = Formation()
    changes = stacks._changes(account._change_set("stack", "name"))
    assert [(it.action, it.name, it.loses) for it in changes] == [
        ("Modify", "R1", True), ("Modify", "R2", True), ("Remove", "R0", True)]


@pytest.mark.parametrize(("partition", "page"), [
    ("aws", "https://eu-west-1.console.aws.amazon.com/"), ("aws-cn", "https://eu-west-1.console.amazonaws.cn/"),
    ("aws-us-gov", "https://eu-west-1.console.amazonaws-us-gov.com/")])
def test_the_console_of_each_partition(partition: str, page: str) -> None:
    account = stacks.Account()
    account.__dict__["_s3"] = SimpleNamespace(meta=SimpleNamespace(region_name="eu-west-1", partition=partition))
    assert account.launch_link("https://x", "s", {}).startswith(page)


# ---------------------------------------------------------------- from the wheel

@pytest.mark.slow
@pytest.mark.parametrize("processor", ["arm64", pytest.param("x86_64", marks=pytest.mark.slow)])
def test_the_wheel_builds_what_the_clone_builds(processor: str, tmp_path: Path) -> None:
    """Byte for byte, in a folder where nothing of the clone can be imported."""
    python = runtime()
    package.build(tmp_path / "clone", python, processor)
    with zipfile.ZipFile(build(tmp_path / "wheel")) as archive:
        archive.extractall(tmp_path / "site")
    code = ("import sys; sys.modules |= dict.fromkeys(['app', 'chalicelib'])\n"       # each import of them fails
            "from twocloud.cli import main; sys.exit(main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-P", "-c", code, "deploy", "--package", "made", "--python", python,
                           "--architecture", processor], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          env=clean(PYTHONPATH=str(tmp_path / "site")))
    assert done.returncode == 0, done.stderr
    for name in ("deployment.zip", "template.json", "sbom.json", "licences.md", "LICENSE"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "clone" / name).read_bytes(), name
    template = json.loads((tmp_path / "made/template.json").read_text())
    functions = [it["Properties"] for it in template["Resources"].values() if it["Type"] == "AWS::Serverless::Function"]
    assert {tuple(it["Architectures"]) for it in functions} == {(processor,)}
    with zipfile.ZipFile(tmp_path / "made/deployment.zip") as archive:
        machines = {struct.unpack_from("<H", archive.read(name), 18)[0] for name in archive.namelist()
                    if archive.read(name)[:4] == b"\x7fELF"}
    assert machines == {{"arm64": 183, "x86_64": 62}[processor]}
    shutil.rmtree(tmp_path / "site")


def test_without_the_extra_it_says_what_to_install(twocloud: Command, monkeypatch: pytest.MonkeyPatch,
                                                   tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "chalicelib.packaging.package")
    monkeypatch.delattr(packaging, "package")
    monkeypatch.setitem(sys.modules, "yaml", None)
    twocloud("deploy", "--package", str(tmp_path / "out"), code=2)
    assert 'The extra `aws` is missing (yaml). Install twocloud with it: "FILE[aws]"' in twocloud.err


def test_the_extra_is_what_the_lock_for_packaging_holds() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {re.split("[~>=]", it)[0] for it in extras["aws"]} == {"chalice", "pyyaml"}
    assert {"chalice", "pyyaml", "pip"} <= locked("requirements/package.txt")


# ---------------------------------------------------------------- AWS's repository of applications

def test_what_the_repository_of_applications_wants_is_in_the_template(here: Path) -> None:
    """https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/serverless-sam-template-publishing-applications-metadata-properties.html"""
    about = json.loads((here / "template.json").read_text())["Metadata"]["AWS::ServerlessRepo::Application"]
    assert re.fullmatch(r"[a-zA-Z0-9-]{1,140}", about["Name"])
    assert 1 <= len(about["Description"]) <= 256
    assert re.fullmatch(r"[a-z0-9](([a-z0-9]|-(?!-))*[a-z0-9])?", about["Author"])
    assert (about["SpdxLicenseId"], about["SemanticVersion"]) == ("MIT", __version__)
    assert (here / about["LicenseUrl"]).read_bytes() == (ROOT / "LICENSE").read_bytes()
