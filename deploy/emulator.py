"""The packaged template on MiniStack, an emulator of AWS on this machine, with simulator clouds behind it.

    make deploy-emulator PORT=4566        prints one curl line to paste; stays until make stop-emulator

Rights are enforced: each function has those of its role. What differs from AWS: the wheels are this machine's, for the
emulator runs the functions itself; the zip trusts the simulators' authority too, for a function in Lambda speaks https
alone; gateway responses inside the API's description become resources, and the conditions of the key's policy and the
saved queries are left out, for the emulator knows none of them; and it asks for a right sqs:SendMessageBatch, which AWS
does not have.
"""

import argparse
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import boto3
import click

from chalicelib import parties, simulators
from chalicelib.access import accounts, tokens, users
from chalicelib.access.sealing import KmsSealer
from chalicelib.packaging import package
from chalicelib.simulators import tls
from chalicelib.simulators.demo import TENANT
from chalicelib.storage.dynamodb import DynamoStore
from deploy.ministack import ministack

ROOT = Path(__file__).resolve().parent.parent

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION}
_BUCKET = "twocloud-deploy"
_RESPONSES = "x-amazon-apigateway-gateway-responses"


def client(endpoint: str, service: str) -> Any:
    return cast(Any, boto3).client(service, endpoint_url=endpoint, **KEYS)


def deploy(endpoint: str, out: Path, stack: str, trusted: Path | None = None,
           parameters: dict[str, str] = {}) -> dict[str, str]:
    """The stack's outputs, URL being the emulator's own. `trusted`: an authority that the functions trust as well."""
    s3, formation = client(endpoint, "s3"), client(endpoint, "cloudformation")
    s3.create_bucket(Bucket=_BUCKET)
    s3.put_object(Bucket=_BUCKET, Key=f"{stack}.zip", Body=code(out / "deployment.zip", trusted))
    template = for_emulator(json.loads((out / "template.json").read_text()), _BUCKET, f"{stack}.zip")
    s3.put_object(Bucket=_BUCKET, Key=f"{stack}.json", Body=json.dumps(template).encode())
    formation.create_stack(
        StackName=stack, TemplateURL=f"{endpoint}/{_BUCKET}/{stack}.json",
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"])
    until = time.monotonic() + 60
    while (made := formation.describe_stacks(StackName=stack)["Stacks"][0])["StackStatus"].endswith("IN_PROGRESS"):
        if time.monotonic() > until:
            raise RuntimeError(f"{stack} is not done after a minute")
        time.sleep(0.2)
    if made["StackStatus"] != "CREATE_COMPLETE":
        events = formation.describe_stack_events(StackName=stack)["StackEvents"]
        raise RuntimeError("\n".join(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
                                     for event in events if "FAILED" in event["ResourceStatus"]))
    outputs = {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
    outputs["URL"] = f"{endpoint}/_aws/execute-api/{outputs['RestAPIId']}/api/twocloud/servers"
    return outputs


def code(archive: Path, trusted: Path | None) -> bytes:
    """The zip as built, but for one more authority in certifi's list."""
    if trusted is None:
        return archive.read_bytes()
    made = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "certifi/cacert.pem":
                content += b"\n" + trusted.read_bytes()
            target.writestr(entry, content)
    return made.getvalue()


def for_emulator(template: dict[str, Any], bucket: str, key: str) -> dict[str, Any]:
    """SAM applied, the code in s3://bucket/key, and each gateway response a resource that the deployment waits for."""
    plain = without_sam(template, bucket, key)
    for statement in plain["Resources"]["Key"]["Properties"]["KeyPolicy"]["Statement"]:
        statement.pop("Condition", None)
    for policy in plain["Resources"]["SpreadRole"]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            if "sqs:SendMessage" in statement["Action"]:
                statement["Action"].append("sqs:SendMessageBatch")
    resources, made = plain["Resources"], dict[str, Any]()
    for name in [name for name, it in resources.items() if it["Type"] == "AWS::Logs::QueryDefinition"]:
        del resources[name]
    for name, api in resources.items():
        if api["Type"] == "AWS::ApiGateway::RestApi":
            for kind, response in api["Properties"]["Body"].pop(_RESPONSES).items():
                made[name + kind.title().replace("_", "")] = {
                    "Type": "AWS::ApiGateway::GatewayResponse",
                    "Properties": {"RestApiId": {"Ref": name}, "ResponseType": kind,
                                   "StatusCode": response["statusCode"],
                                   "ResponseParameters": response["responseParameters"],
                                   "ResponseTemplates": response["responseTemplates"]}}
    for resource in resources.values():
        if resource["Type"] == "AWS::ApiGateway::Deployment":
            resource["DependsOn"] = sorted(made)
    return {**plain, "Resources": {**resources, **made}}


def without_sam(template: dict[str, Any], bucket: str, key: str) -> dict[str, Any]:
    """What Amazon's own translator makes of the template: what CloudFormation will see."""
    os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
    parser: Any = importlib.import_module("samtranslator.parser.parser")
    translator: Any = importlib.import_module("samtranslator.translator.translator")
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = f"s3://{bucket}/{key}"
    plain: dict[str, Any] = translator.Translator({}, parser.Parser()).translate(template, {})
    plain.pop("Transform", None)
    return plain


# ---------------------------------------------------------------- make deploy-emulator

def run(out: Path, port: int, folder: Path) -> None:
    """Emulator, simulators, the stack and a token, until SIGTERM or Ctrl-C; nothing is kept."""
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        endpoint = stack.enter_context(ministack(folder, port, rights=True))
        pem, key = tls.certificate(folder)
        outputs = deploy(endpoint, out, "twocloud", trusted=pem)
        store = DynamoStore(outputs["Store"].removeprefix("dynamodb://"), time.time, client(endpoint, "dynamodb"))
        sealer = KmsSealer(outputs["Key"].removeprefix("kms:"), client(endpoint, "kms"))
        for name, cloud in simulators.clouds().items():
            fleets = cloud.demo(name).fleets
            simulator, credentials = cloud.start(fleets, "demo-secret-key")
            plain = simulator.url
            url = tls.wrap(stack.enter_context(simulator), pem, key)
            for field in parties.load(name).addresses:          # openstack's auth_url: the same simulator, behind TLS
                if field in credentials:
                    credentials = {**credentials, field: str(credentials[field]).replace(plain, url)}
            accounts.put(store, sealer, accounts.check(
                TENANT, parties.load(name), credentials, project=None, regions=tuple(fleets), deep=False, endpoint=url,
                local=False), time.time())
        user = users.User(name="demo", uid=users.new_uid(), tenants=(TENANT,), created_at=int(time.time()))
        users.add(store, user)
        token, _ = tokens.issue(store, user, tokens.Limits(), 86_400, time.time())
        click.echo(f"curl -u '{token}:password' "
                   f"'{outputs['URL']}?party=qcloud&tenant_id={TENANT}&region=gz&f=1&t=10'")
        while True:
            time.sleep(3600)


def start(out: Path, port: int, folder: Path) -> None:
    """`run` in a process of its own; returns when it has printed its line."""
    folder.mkdir(parents=True, exist_ok=True)
    if _pid(folder):
        raise SystemExit("it runs already; end it with: make stop-emulator")
    output = folder / "output"
    with output.open("wb") as target, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.emulator", "run", str(out), "--port", str(port), "--folder", str(folder)],
            stdout=target, stderr=log, cwd=ROOT, start_new_session=True)
    (folder / "pid").write_text(str(process.pid))
    while "\n" not in output.read_text():
        if process.poll() is not None:
            (folder / "pid").unlink()
            raise SystemExit((folder / "log").read_text())
        time.sleep(0.2)
    line = output.read_text()
    output.unlink()                             # it holds a token
    click.echo(line, nl=False)
    click.echo("Paste the line above. To stop: make stop-emulator.", err=True)


def stop(folder: Path) -> None:
    if pid := _pid(folder):
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 20
        while _pid(folder) and time.monotonic() < until:
            time.sleep(0.1)
    (folder / "pid").unlink(missing_ok=True)


def _pid(folder: Path) -> int | None:
    """Of the emulator that runs there."""
    try:
        pid = int((folder / "pid").read_text())
        done = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return pid if "deploy.emulator" in done.stdout else None
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "run", "start", "stop"])
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/emulator"))
    parser.add_argument("--port", type=int, default=4566)
    parser.add_argument("--folder", type=Path, default=Path(".ministack").absolute())
    options = parser.parse_args()
    if options.what == "build":
        package.build(options.out, str(ROOT / ".tools/ministack/bin/python"), here=True)
    elif options.what == "stop":
        stop(options.folder)
    else:
        {"run": run, "start": start}[options.what](options.out, options.port, options.folder)
