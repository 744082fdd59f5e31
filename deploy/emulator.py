"""The packaged template on MiniStack, an emulator of AWS on this machine, with stand-in clouds behind it.

    make deploy-emulator PORT=4566        prints one curl line to paste; stays until make stop-emulator

Two things differ from what goes to AWS, and nothing else. The wheels are this machine's, for the emulator runs the
functions itself; and the zip trusts the stand-ins' authority too, for a function in Lambda speaks https alone. What the
emulator does not know is turned into what it knows: gateway responses inside the API's description become resources.
"""

import importlib
import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any, cast

import boto3

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
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
    resources, made = plain["Resources"], dict[str, Any]()
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
