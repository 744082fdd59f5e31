"""What the template says: functions, queue, gateway, and the rights of each function."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import app
from chalicelib import errors, settings
from chalicelib.access import accounts
from chalicelib.fleet import many_sources, schedule
from chalicelib.http import admission, api, authorizer, cors
from deploy import emulator
from tests.aws.deployed import FUNCTIONS, ROLES, here, resource, statements, template

__all__ = ["here", "template"]
pytestmark = pytest.mark.timeout(600)


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
