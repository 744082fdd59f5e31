"""The package deployed on MiniStack, and under Amazon's runtime client; the operator's page; the rights that each
function uses."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from msgspec import structs

import app
from chalicelib import errors, parties
from chalicelib.access import accounts, users
from chalicelib.access.sealing import KmsSealer
from chalicelib.cloud.party import Party
from chalicelib.errors import Internal
from chalicelib.fleet import schedule
from chalicelib.http import api, authorizer, console
from chalicelib.model import DEFAULT_ACCOUNT, Discovery, Member
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.server import Call
from chalicelib.storage.dynamodb import DynamoStore
from deploy import emulator
from tests import ROOT, canaries, patterns
from tests.aws.deployed import (
    FUNCTIONS,
    Stack,
    granted,
    here,
    here_for_ministack,
    kept,
    resource,
    stack,
    started,
    task,
    template,
    wait,
)
from tests.http.test_app import Context, basic, event

__all__ = ["here", "here_for_ministack", "stack", "task", "template"]
pytestmark = pytest.mark.timeout(600)


# ---------------------------------------------------------------- through the gateway

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
