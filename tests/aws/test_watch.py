"""Watching: the log's lines, what metrics, alarms, queries and the dashboard make of them, ids that lead from one
function to the next, and how the service says that it is well."""

import ast
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import app as functions
from chalicelib import log
from chalicelib.access import accounts
from chalicelib.cli import serving
from chalicelib.cloud import paging
from chalicelib.fleet import schedule
from chalicelib.fleet.schedule import IDLE_EVERY, READ_EVERY, Message
from chalicelib.model import Source
from chalicelib.packaging import package
from chalicelib.storage import snapshots
from tests import ROOT, patterns
from tests.fixtures import GZ, US, App, qcloud_keys
from tests.http.test_app import Context, event
from tests.logs import Run, get, heard, live, put, read, record

PAGE = (ROOT / "docs/watch.md").read_text()
MERGED = package.merged()
RESOURCES: dict[str, Any] = MERGED["Resources"]
OURS = {"Fn::Sub": "twocloud/${AWS::StackName}"}


def kind(wanted: str) -> dict[str, dict[str, Any]]:
    return {name: it["Properties"] for name, it in RESOURCES.items() if it.get("Type") == wanted}


FILTERS = kind("AWS::Logs::MetricFilter")
ALARMS = kind("AWS::CloudWatch::Alarm")
QUERIES = {it["Name"]["Fn::Sub"].partition("/")[2]: it for it in kind("AWS::Logs::QueryDefinition").values()}
BODY = json.loads(kind("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"]["Fn::Sub"][0])
ACCESS = RESOURCES["RestAPI"]["Properties"]["AccessLogSetting"]["Format"]


# ---------------------------------------------------------------- metrics

def access(status: str, refused_as: str = "-") -> str:
    """A line of the gateway's access log, as its format says. It writes "-" for what there is not."""
    values = {"status": status, "error.responseType": refused_as}
    return re.sub(r"\$context\.([A-Za-z.]+)", lambda name: values.get(name[1], "1"), ACCESS)


def metrics(lines: dict[str, list[str]]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for one in FILTERS.values():
        (made,) = one["MetricTransformations"]
        assert made["MetricNamespace"] == OURS
        assert "Dimensions" not in made
        assert "DefaultValue" not in made
        for line in lines[one["LogGroupName"]["Ref"]]:
            if patterns.matches(one["FilterPattern"],
                                line) and (value := patterns.value(made["MetricValue"], line)) is not None:
                values.setdefault(made["MetricName"], []).append(value)
    return values


def test_patterns_count_what_happened(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that the program wrote, with the platform's own between them; a field that is called otherwise counts
    nothing."""
    lines = live(app, monkeypatch)
    for group in lines.values():
        group += ["START RequestId: 8f5 Version: $LATEST\n",
                  "REPORT RequestId: 8f5\tDuration: 1.5 ms\tBilled Duration: 2 ms\n", "[ERROR] x", "[]", '"x"',
                  '{"time":"2026-11-23T00:00:00Z","type":"platform.report","record":{"metrics":{"durationMs":1.5}}}']
    lines["AccessLog"] = [access("200"), access("304"), access("500"), access("500", "INTEGRATION_FAILURE"),
                          access("502"), access("504"),
                          access("429", "THROTTLED"), access("429"), access("401", "UNAUTHORIZED")]
    series = metrics(lines)
    ages = series.pop("OldestList"), series.pop("LateList")
    assert series == {"Errors": [1, 1, *[0] * 7], "Throttled": [1], "Failures": [1, 1], "PartyDenied": [1, 1, 1],
                      "PartyThrottled": [1, 1]}
    (first, second) = read(lines["SpreadLog"][:2], "spread")
    assert ages == ([first["oldest"], second["oldest"]], [0, second["late"]])
    assert second["late"] == second["oldest"] - IDLE_EVERY > 0


def test_a_filter_matches_nothing_else(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field that a pattern or a value names is needed: without it, or under another name, nothing is counted."""
    lines = live(app, monkeypatch)
    lines["AccessLog"] = [access("500"), access("200"), access("429", "THROTTLED")]
    whole = metrics(lines)
    for name in {name for one in FILTERS.values() for name in re.findall(
            r"\$\.(\w+)", one["FilterPattern"] + one["MetricTransformations"][0]["MetricValue"])}:
        renamed = {group: [line.replace(f'"{name}":', f'"{name}_":') for line in some] for group, some in lines.items()}
        assert metrics(renamed) != whole, name


@pytest.mark.parametrize(("pattern", "line", "matched"), [
    ('{ $.a = "x" }', '{"a":"x"}', True), ('{ $.a = "x" }', '{"a":"X"}', False),
    ('{ $.a = "x*" }', '{"a":"xyz"}', True),
    ('{ $.a = "x?" }', '{"a":"xy"}', False), ('{ $.a != "x" }', '{"a":"y"}', True), ('{ $.a != "x" }', '{}', False),
    ('{ $.a != "x" }', '{"a":1}', False), ('{ $.a = "1" }', '{"a":1}', False), ("{ $.a = 1 }", '{"a":"1"}', False),
    ("{ $.a >= 1.5 }", '{"a":2}', True), ("{ $.a < -1 }", '{"a":0}', False), ("{ $.a.b = 1 }", '{"a":{"b":1}}', True),
    ('{ $.a = "x" || $.b = 1 && $.c = 1 }', '{"a":"x","b":2}', True),
    ('{ ($.a = "x" || $.b = 1) && $.c = 1 }', '{"a":"x","c":2}', False),
    ('{ $.a = "x" }', "a=x", False), ('{ $.a = "x" }', '["x"]', False)])
def test_the_evaluator(pattern: str, line: str, matched: bool) -> None:
    assert patterns.matches(pattern, line) is matched


@pytest.mark.parametrize("pattern", ["ERROR", "{ $.a }", "{ $.a = x }", '{ $.a > "x" }', '{ $.a = "x" } b',
                                     '{ $.a = "x" && }', "{ $.a IS NULL }", "[a, b]", ""])
def test_the_evaluator_refuses_what_it_does_not_know(pattern: str) -> None:
    with pytest.raises(ValueError):
        patterns.matches(pattern, "{}")


# ---------------------------------------------------------------- alarms

OF_AWS = {("AWS/ApiGateway", "Latency"): {"ApiName"}, ("AWS/ApiGateway", "Count"): {"ApiName"},
          ("AWS/ApiGateway", "4XXError"): {"ApiName"},
          ("AWS/ApiGateway", "5XXError"): {"ApiName"}, ("AWS/Lambda", "Errors"): {"FunctionName"},
          ("AWS/Lambda", "Throttles"): {"FunctionName"},
          ("AWS/Lambda", "Duration"): {"FunctionName"}, ("AWS/Lambda", "ConcurrentExecutions"): {"FunctionName"},
          ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
          ("AWS/SQS", "ApproximateNumberOfMessagesDelayed"): {"QueueName"},
          ("AWS/SQS", "ApproximateNumberOfMessagesNotVisible"): {"QueueName"},
          ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
          ("AWS/DynamoDB", "ReadThrottleEvents"): {"TableName"}, ("AWS/DynamoDB", "WriteThrottleEvents"): {"TableName"},
          ("AWS/DynamoDB", "ConsumedReadCapacityUnits"): {"TableName"},
          ("AWS/DynamoDB", "ConsumedWriteCapacityUnits"): {"TableName"},
          ("AWS/Logs", "IncomingBytes"): {"LogGroupName"}}      # as AWS documents them
MADE = {one["MetricTransformations"][0]["MetricName"] for one in FILTERS.values()}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_what_there_is_and_says_what_to_do(name: str) -> None:
    alarm = ALARMS[name]
    if alarm["Namespace"] == OURS:
        assert alarm["MetricName"] in MADE
        assert "Dimensions" not in alarm
    else:
        assert {row["Name"] for row in alarm["Dimensions"]} == OF_AWS[alarm["Namespace"], alarm["MetricName"]]
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Alarms"}]
    assert ("Statistic" in alarm) != ("ExtendedStatistic" in alarm)
    assert alarm["TreatMissingData"] in ("notBreaching", "breaching")
    assert alarm.get("DatapointsToAlarm", 1) <= alarm["EvaluationPeriods"]
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 86_400
    text = alarm["AlarmDescription"]
    assert len(text) <= 1024, text
    assert re.search(r'the query "|log group', text), text
    assert set(re.findall(r'(?:query|then) "([^"]+)"', text)) <= QUERIES.keys()
    for other in re.findall(r"\b[A-Z][a-z]+[A-Z][A-Za-z]+\b", text):
        assert other in ALARMS or other in MERGED["Parameters"] or other in ("EventBridge", "ThrottlingRateLimit",
                                                                             "MaximumConcurrency"), other


def test_what_the_issue_asks_for_is_watched() -> None:
    assert ALARMS["ScheduleStopped"]["TreatMissingData"] == "breaching"
    assert ALARMS["ScheduleStopped"]["Period"] == schedule.RUN_EVERY
    assert ALARMS["ListsLate"]["Threshold"] == schedule._OVERDUE
    assert not any(row["Value"] == {"Ref": "Authorize"} for alarm in ALARMS.values() if alarm["MetricName"] == "Errors"
                   for row in alarm.get("Dimensions", []))     # a wrong token is an error of that function
    crashed = {row["Value"]["Ref"] for alarm in ALARMS.values() if alarm["MetricName"] == "Errors"
               for row in alarm.get("Dimensions", [])}
    assert crashed == {"APIHandler", "Spread", "Work"}
    assert (
        RESOURCES["RestAPI"]["Properties"]["Name"]
        == RESOURCES["RestAPI"]["Properties"]["DefinitionBody"]["info"]["title"]
        == {"Ref": "AWS::StackName"}
    )
    assert ALARMS["Slow"]["Dimensions"] == [{"Name": "ApiName", "Value": {"Ref": "AWS::StackName"}}]


def test_only_this_stacks_alarms_speak_to_the_topic() -> None:
    (statement,) = RESOURCES["AlarmsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Action"] == "sns:Publish"
    assert statement["Resource"] == {"Ref": "Alarms"}
    assert set(statement["Condition"]) == {"StringEquals", "ArnLike"}
    assert RESOURCES["AlarmsByEmail"]["Condition"] == "TellsSomebody"
    assert MERGED["Parameters"]["AlarmEmail"]["Default"] == ""


# ---------------------------------------------------------------- dashboard and queries

FIELDS: dict[str, set[str]] = {}            # event -> its fields, as the page has them
for _name, _events in re.findall(r"^\| `(\w+)` \| ([^|]+) \|",
                                 PAGE[PAGE.index("| field |"):PAGE.index("<!-- end of fields -->")], re.M):
    for _event in _events.strip().split(", "):
        FIELDS.setdefault(_event, set()).add(_name)
OF_INSIGHTS = {"timestamp", "message", "log", "requestId", "type", "billedDuration", "duration", "maxMemoryUsed",
               "memorySize", "initDuration"}
WORDS = {"fields", "filter", "stats", "sort", "limit", "by", "as", "asc", "desc", "and", "or", "in", "count", "sum",
         "avg", "max", "pct", "latest", "ispresent"}


def named(query: str) -> set[str]:
    """Fields that a query reads, without what it calls its own results."""
    plain = re.sub(r'"[^"]*"|SOURCE \'[^\']*\'', "", query)
    assert set(re.findall(r"@(\w+)", plain)) <= OF_INSIGHTS
    plain = re.sub(r"@\w+", "", plain)
    made = set(re.findall(r"\bas (\w+)", plain))
    return set(re.findall(r"\b[a-z_]\w*", plain)) - WORDS - made


def asked() -> Iterator[tuple[str, str]]:
    yield from ((name, it["QueryString"]) for name, it in QUERIES.items())
    yield from ((widget["properties"]["title"], widget["properties"]["query"]) for widget in BODY["widgets"]
                if widget["type"] == "log")


@pytest.mark.parametrize(("name", "query"), list(asked()))
def test_queries_read_fields_that_are_written(name: str, query: str) -> None:
    known = set().union(*FIELDS.values()) | set(json.loads(ACCESS))
    assert named(query) <= known, named(query) - known
    assert named(query) or "@type" in query
    assert set(re.findall(r'event (?:=|in) \[?"(\w+)"', query)) <= FIELDS.keys()
    assert '"ID"' not in query or name == "one request"


def test_the_dashboard_shows_what_there_is() -> None:
    text = json.dumps(BODY)
    for name in set(re.findall(r"\$\{(\w+)[}.]", text)) - {"TableInUse"}:
        assert name in RESOURCES, name
    (shown,) = (widget["properties"]["alarms"] for widget in BODY["widgets"] if widget["type"] == "alarm")
    assert {name.removeprefix("${").removesuffix(".Arn}") for name in shown} == set(ALARMS)
    places: set[tuple[int, int]] = set()
    names: set[str] = set()
    for widget in BODY["widgets"]:
        place = {(x, y) for x in range(widget["x"], widget["x"] + widget["width"])
                 for y in range(widget["y"], widget["y"] + widget["height"])}
        assert not place & places
        assert max(x for x, _ in place) < 24
        places |= place
        for row in widget["properties"].get("metrics", []):
            space, metric, *rest = [part for part in row if not isinstance(part, dict)]
            if space == OURS["Fn::Sub"]:
                assert metric in MADE
                assert not rest
                names.add(metric)
            else:
                assert set(rest[::2]) == OF_AWS[space, metric]
    assert names == MADE


# ---------------------------------------------------------------- the page

def test_the_pages_table_of_fields_is_what_is_written(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, set[str]] = {}
    for lines in live(app, monkeypatch).values():
        for line in read(lines):
            written.setdefault(line["event"], set()).update(line)
    # failures are many; their own fields stand in the code
    for path in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "log.failure":
                written["failure"] |= {word.arg for word in node.keywords if word.arg}
    written["request"].add("client")        # where the address is known: tests/http/test_behind.py
    assert {name: sorted(fields) for name, fields in written.items()} == {
        name: sorted(fields | FIELDS["all"]) for name, fields in FIELDS.items() if name != "all"}


def test_the_page_names_every_query_and_every_cost() -> None:
    for name in QUERIES:
        assert f"| `{name}` |" in PAGE, name
    assert f"{len(ALARMS)} alarms" in PAGE
    assert f"{len(MADE)} metrics" in PAGE


# ---------------------------------------------------------------- lines and ids

def test_one_id_leads_from_the_request_to_every_call(served: App) -> None:
    served.clouds["qcloud"].fail("403", None, (2,))              # one page of several, in a thread of its own
    with heard() as lines:
        answer = served.get(f"{GZ.replace('gz', 'ap-shanghai')}&on_error=fail")
    calls = read(lines, "call")
    assert answer.status_code == 502
    assert len(calls) >= 2
    assert {line["request_id"] for line in read(lines)} == {answer.headers["X-Request-Id"]}
    # what it ended beside it failed otherwise
    (failed,) = (line for line in calls if line.get("error") == "party_denied")
    assert (failed["level"], failed["error"], failed["tenant"], failed["party"],
            failed["region"]) == ("INFO", "party_denied", "123", "qcloud", "ap-shanghai")
    assert {line["level"] for line in calls if "error" not in line} == {"DEBUG"}


def test_ids_of_requests_at_the_same_time_do_not_mix(served: App) -> None:
    served.clouds["qcloud"].latency = served.clouds["aws"].latency = 0.05
    with heard() as lines:
        threads = [threading.Thread(target=served.get, args=(query,)) for query in (
            f"{GZ}&max_age=0", f"{US}&max_age=0", "party=aws,qcloud&tenant_id=123&region=us-east-1,ap-guangzhou") * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    requests = {line["request_id"]: line for line in read(lines, "request")}
    assert len(requests) == 9
    for call in read(lines, "call"):
        assert call["party"] in requests[call["request_id"]]["party"]


def test_a_caller_cannot_choose_the_id(served: App) -> None:
    with heard() as lines:
        answer = served.get(GZ, headers={"X-Request-Id": "mine"})
    assert answer.headers["X-Request-Id"] != "mine"
    assert not any("mine" in line for line in lines)


def test_about_ends_with_its_block_and_goes_along_to_threads() -> None:
    with heard() as lines:
        with log.about(a="1", b=None):
            with log.about(a="2"):
                paging.run_all([lambda: log.logger.info("x"), lambda: log.logger.info("x")], 2)
            log.logger.info("y")
        log.logger.info("z")
    assert [line.get("a") for line in read(lines)] == ["2", "2", "1", None]
    assert not any("b" in line for line in read(lines))


def test_a_call_is_told_without_what_was_said(served: App) -> None:
    with heard() as lines:
        served.get(GZ)
        served.clouds["qcloud"].fail("500", None, (1,))
        served.get(f"{GZ}&max_age=0")
    first, second = read(lines, "call")
    assert set(first) == {"at", "level", "event", "request_id", "tenant", "party", "account", "region", "operation",
                          "tries", "milliseconds"}
    assert (first["tries"], second["tries"]) == (1, 2)
    assert read(lines, "request")[1]["party_retries"] == 1
    assert not any("http" in line for line in lines)


def test_calls_that_went_well_are_told_at_level_debug_alone(served: App) -> None:
    log.logger.setLevel("INFO")
    try:
        with heard() as lines:
            served.get(GZ)
            served.clouds["qcloud"].fail("403")
            served.get(f"{GZ}&max_age=0")
    finally:
        log.logger.setLevel("DEBUG")
    assert [(line["event"], line.get("error")) for line in read(lines)] == [("request", None), ("call", "party_denied"),
                                                                            ("request", "party_denied")]


def test_commands_write_no_lines_of_calls_but_to_debug(served: App, tmp_path: Path) -> None:
    """They say in one clear line what went wrong; `serve` tells them."""
    keys = json.dumps(qcloud_keys())
    environment = {**os.environ, "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/own.db",
                   "TWOCLOUD_KEY": f"file:{tmp_path}/key", "TWOCLOUD_LOCAL": "1"}

    def twocloud(*arguments: str, stdin: str = "", **more: str) -> str:
        return subprocess.run([sys.executable, "-m", "chalicelib", *arguments], input=stdin,
                              env={**environment, **more}, cwd=ROOT,
                              capture_output=True, text=True, timeout=60).stderr

    twocloud("account", "put", "1", "qcloud", "--endpoint", served.clouds["qcloud"].url, stdin=keys)
    listing = ("servers", "--party", "qcloud", "--tenant", "1", "--region", "gz")
    assert "refused" in (output := twocloud(*listing))
    assert len(output.splitlines()) == 1
    first, *_ = twocloud(*listing, TWOCLOUD_LOG="debug").splitlines()
    assert json.loads(first)["event"] == "call"


# ---------------------------------------------------------------- the queue, between versions

SENT = Message("123", "qcloud", "ap-guangzhou", 1_790_000_000.25)


def test_the_body_of_a_message_is_as_it_ever_was() -> None:
    """A worker of the version before refuses unknown fields, and after a rollback it gets what the newer one sent: the
    run's id travels in an attribute, which it does not look at."""
    assert schedule.write(SENT) == '{"tenant_id":"123","party":"qcloud","region":"ap-guangzhou","due":1790000000.25}'


@pytest.mark.parametrize("message", [
    record(schedule.write(SENT), "run-9"),
    record(schedule.write(SENT)),                                                 # of the version before
    {"messageId": "m", "receiptHandle": "r", "body": schedule.write(SENT)}])
def test_messages_of_either_version_are_worked_on(app: App, message: dict[str, Any]) -> None:
    functions.use(app.deployment)
    with heard() as lines:
        assert functions.work({"Records": [message]}, Run()) == {"batchItemFailures": []}
    (done,) = read(lines, "refresh")
    assert done["total"] == 25
    assert done["message_id"] == "m"
    assert done.get("run_id") == ("run-9" if message.get("messageAttributes") else None)


def test_failures_of_the_worker_name_run_and_message(app: App) -> None:
    functions.use(app.deployment)
    with heard() as lines:
        functions.work({"Records": [record("poison", "run-9", "m-1"),
                                    record(schedule.write(SENT), "run-9", "m-2")]}, Run())
    assert [(line["event"], line["message_id"], line["run_id"]) for line in read(lines)
            if line["level"] != "DEBUG"] == [
        ("failure", "m-1", "run-9"), ("refresh", "m-2", "run-9")]


# ---------------------------------------------------------------- what is overdue

QC = Source("123", "qcloud", "ap-guangzhou")


def keep(app: App, source: Source, age: float, idle: float | None) -> None:
    store, now = app.deployment.store, app.clock()
    revision = accounts.find(store, source.tenant_id, source.party).revision
    assert snapshots.save(store, source, revision, [], now - age, history=9999)
    if idle is not None:
        store.put("interest", snapshots.key_of(source), b"%d" % (now - idle), expires=int(now) + 10 ** 6)


@pytest.mark.parametrize(("age", "idle", "oldest", "late", "overdue"), [
    (60, 0, 60, 0, False), (READ_EVERY + 60, 0, READ_EVERY + 60, 60, False),
    (READ_EVERY + 1800, 0, READ_EVERY + 1800, 1800, False),
    (READ_EVERY + 1801, 0, READ_EVERY + 1801, 1801, True), (IDLE_EVERY + 1800, 7200, IDLE_EVERY + 1800, 1800, False),
    (IDLE_EVERY + 1801, 7200, IDLE_EVERY + 1801, 1801, True),
    (10 ** 6, 86_400, 0, 0, False), (10 ** 6, None, 0, 0, False)])                # who never reads waits for nothing
def test_what_is_overdue(app: App, age: float, idle: float | None, oldest: int, late: int, overdue: bool) -> None:
    put(app, "123", ("gz",))
    keep(app, QC, age, idle)
    survey = schedule.survey(app.deployment)
    assert (survey.known, survey.oldest, survey.late, survey.overdue) == (1, oldest, late, [QC] if overdue else [])


def test_a_list_that_was_never_had_is_overdue_once_asking_failed(app: App) -> None:
    put(app, "123", ("gz",))
    app.deployment.store.put("interest", snapshots.key_of(QC), b"%d" % app.clock(), expires=2 ** 40)
    assert schedule.survey(app.deployment).overdue == []
    schedule.work(app.deployment, Message("123", "qcloud", "ap-guangzhou", app.clock()))     # its keys are wrong
    survey = schedule.survey(app.deployment)
    assert (survey.overdue, survey.oldest, survey.late) == ([QC], 0, 0)


def test_a_line_names_ten_sources_at_the_most(app: App) -> None:
    put(app, "123", tuple(f"ap-r{n:02}" for n in range(20)))
    for n in range(20):
        keep(app, Source("123", "qcloud", f"ap-r{n:02}"), 9000 + n, 0)
    with heard() as lines:
        schedule.finish(app.deployment, schedule.survey(app.deployment), 300)
    (line,) = read(lines, "spread")
    assert line["overdue"] == 20
    assert line["overdue_sources"] == [f"123/qcloud/ap-r{n:02}" for n in range(19, 9, -1)]


# ---------------------------------------------------------------- health

def health(app: App) -> dict[str, Any]:
    functions.use(app.deployment)
    answer = functions.app(event("/twocloud/health", None), Context())
    return json.loads(answer["body"])


def test_health_tells_the_schedules_age(app: App) -> None:
    assert health(app) | {"version": ""} == {"code": 200, "msg": "", "status": "ok", "version": "",
                                               "schedule_age": None}
    schedule.finish(app.deployment, schedule.survey(app.deployment), 300)
    for seconds, age, status in ((0, 0, "ok"), (899, 899, "ok"), (1, 900, "ok"), (1, 901, "late"), (-5000, 0, "ok")):
        app.clock.forward(seconds)
        assert (health(app)["schedule_age"], health(app)["status"]) == (age, status)


def test_the_pages_example_of_health_is_an_answer(app: App) -> None:
    (shown,) = re.findall(r"^(\{\"code\": 200.*schedule_age.*)$", PAGE, re.M)
    schedule.finish(app.deployment, schedule.survey(app.deployment), 300)
    app.clock.forward(41)
    assert health(app) == json.loads(shown)


def test_health_reads_one_row_and_names_nobody(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule.finish(app.deployment, schedule.survey(app.deployment), 300)
    store, calls = type(app.deployment.store), list[str]()
    for name in ("get", "put", "list", "delete"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *arguments, real=real, name=name,
                            **more: (calls.append(name), real(*arguments, **more))[1])
    body = json.dumps(health(app))
    assert calls == ["get"]
    assert not re.search("123|ann|qcloud|sqlite|/tmp", body)


def test_health_of_a_store_that_cannot_be_reached(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(type(app.deployment.store), "get", broken)
    body = health(app)
    assert (body["code"], body["error"]) == (500, "internal")
    assert "fire" not in json.dumps(body)


def test_a_row_of_another_version_is_as_good_as_none(app: App) -> None:
    app.deployment.store.put("health", "schedule", b"\xc1")
    assert health(app)["schedule_age"] is None


def test_the_loop_of_serve_tells_of_its_runs(app: App) -> None:
    put(app, "123", ("gz",))
    stopped = threading.Event()
    with heard() as lines:
        thread = threading.Thread(target=serving._refresh, args=(app.deployment, 0.05, stopped))
        thread.start()
        until = time.monotonic() + 30
        while not read(lines, "spread") and time.monotonic() < until:
            time.sleep(0.05)
        stopped.set()
        thread.join(30)
    refreshed, ran = read(lines, "refresh")[0], read(lines, "spread")[0]
    assert refreshed["run_id"] == ran["run_id"]
    assert ran["due"] == 1
    assert health(app)["schedule_age"] == 0


# ---------------------------------------------------------------- traces

def test_traces_are_off_and_have_no_rights_until_they_are_asked_for() -> None:
    assert MERGED["Parameters"]["Tracing"]["Default"] == "no"
    assert MERGED["Conditions"]["Traced"] == {"Fn::Equals": [{"Ref": "Tracing"}, "yes"]}
    for name in ("APIHandler", "Authorize", "Spread", "Work"):
        assert RESOURCES[name]["Properties"]["Tracing"] == {"Fn::If": ["Traced", "Active", "PassThrough"]}
    assert RESOURCES["RestAPI"]["Properties"]["TracingEnabled"] == {"Fn::If": ["Traced", True, False]}
    assert RESOURCES["TracingRights"]["Condition"] == "Traced"
    assert [name for name, it in RESOURCES.items() if "xray" in json.dumps(it)] == ["TracingRights"]
    for path in (package.PACKAGE / "packaging/policies").glob("*.json"):
        assert "xray" not in path.read_text()


def test_two_files_that_name_the_same_thing_are_no_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packaging").mkdir()
    for name in ("merge.yaml", "watch.yaml"):
        (tmp_path / "packaging" / name).write_text(yaml.safe_dump({"Resources": {"Table": {"Type": "x"}}}))
    monkeypatch.setattr(package, "PACKAGE", tmp_path)
    with pytest.raises(package.BuildError, match="Table"):
        package.merged()


def test_requests_that_the_gateway_would_answer_have_lines_too(app: App) -> None:
    functions.use(app.deployment)
    with heard() as lines:
        assert get(app, path="/twocloud/servers", method="PUT") == 405
    (line,) = read(lines, "request")
    assert line["error"] == "method_not_allowed"
    assert "function_request_id" in line
