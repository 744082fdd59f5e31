"""The alert rules and the dashboard for Prometheus: each rule fires when it should and not before, and all that they
name is there in a scrape of a running `serve`.

What says so is Debian's promtool and Prometheus.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from chalicelib.access import accounts
from chalicelib.fleet import schedule
from chalicelib.model import Server, Source, Status
from chalicelib.storage import snapshots
from tests import ROOT
from tests.fixtures import GZ, US, App
from tests.programs import run
from tests.programs.test_prometheus import DAY, Prometheus, listens, started, watched

RULES = ROOT / "deploy/prometheus/alerts.yaml"
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"]
                                     for rule in group["rules"]}
SOURCE = 'tenant_id="1", party="aws", account="prod", region="us-east-1"'
OF_SOURCE = {"tenant_id": "1", "party": "aws", "account": "prod", "region": "us-east-1"}
Series = Sequence[tuple[str, str]]                              # (name and labels without job and instance, values)
WELL: Series = [
    ("up", "1x600"), (f"twocloud_source_up|{SOURCE}", "1x600"), (f"twocloud_source_age_seconds|{SOURCE}", "300x600"),
    (f"twocloud_source_refresh_interval_seconds|{SOURCE}", "300x600"),
    (f"twocloud_source_breaker_open|{SOURCE}", "0x5 1x3 0x600"), ("twocloud_schedule_late", "0x600"),
    (f'twocloud_servers_expiring|{SOURCE}, days="7"', "0x600"),
    (f'twocloud_servers_expiring|{SOURCE}, days="30"', "9x600"),
    ("twocloud_schedule_age_seconds", "60x600"),
    ('twocloud_http_requests_total|route="/twocloud/servers", code="200"', "0+1000x600"),
    ('twocloud_http_requests_total|route="/twocloud/servers", code="500"', "0+1x600")]


@dataclass(frozen=True)
class Case:
    """In place of the same series of a deployment that is well; None: absent. The alert fires `after` so many minutes,
    and not a minute before. `summary`: as a person reads it."""

    alert: str
    series: dict[str, str | None]
    after: int
    labels: dict[str, str]
    summary: str


AT = "tenant 1 at aws us-east-1, account prod,"
CASES = {
    "a process that is gone": Case(
        "TwocloudDown", {"up": "1x9 0x600"}, 15, {"instance": "a", "job": "twocloud"},
        "twocloud at a cannot be scraped."),
    "one request in fifty is 500": Case(
        "TwocloudErrors",
        {'twocloud_http_requests_total|route="/twocloud/servers", code="200"': "0+980x600",
         'twocloud_http_requests_total|route="/twocloud/servers", code="500"': "0+20x600"}, 11,
        {"job": "twocloud"}, "2% of the requests end in 500."),
    "the schedule has stopped": Case(
        "TwocloudScheduleLate", {"twocloud_schedule_late": "0x9 1x600"}, 15, {"job": "twocloud"},
        "The schedule has missed two runs, so only requests refresh snapshots."),
    "a key was withdrawn": Case(
        "TwocloudCredentialsRefused", {f'twocloud_source_last_error|{SOURCE}, error="party_denied"': "_x10 1x600",
                                       f"twocloud_source_up|{SOURCE}": "0x600"}, 15, OF_SOURCE,
        "aws refuses the credentials of tenant 1, account prod (us-east-1)."),
    "a cloud is down": Case(
        "TwocloudSourceFailing", {f'twocloud_source_last_error|{SOURCE}, error="party_unavailable"': "_x10 1x600",
                                  f"twocloud_source_up|{SOURCE}": "0x600"}, 25,
        {**OF_SOURCE, "error": "party_unavailable"},
        "Tenant 1: aws us-east-1, account prod, cannot be listed: party_unavailable."),
    "its breaker opens again and again": Case(
        "TwocloudBreakerOpen", {f"twocloud_source_breaker_open|{SOURCE}": "0x9 1 1 1 0 1 1 1 0 1 1 1 0 1x600"}, 25,
        OF_SOURCE, "The circuit breaker of tenant 1 at aws us-east-1, account prod, stays open."),
    "nobody has ever listed it": Case(
        "TwocloudSourceNeverListed", {f"twocloud_source_up|{SOURCE}": "0x600",
                                      f"twocloud_source_age_seconds|{SOURCE}": None}, 60, OF_SOURCE,
        "Tenant 1: aws us-east-1, account prod, was never listed."),
    "three servers end next week": Case(
        "TwocloudServersExpiring", {f'twocloud_servers_expiring|{SOURCE}, days="7"': "0x9 3x600"}, 10, OF_SOURCE,
        f"3 prepaid servers of {AT} end within 7 days."),
    "the schedule does not reach it": Case(
        "TwocloudSnapshotStale", {f"twocloud_source_age_seconds|{SOURCE}": "0+60x600"}, 51, OF_SOURCE,
        f"The snapshot of {AT} is 46m 0s overdue."),
}


def written(name: str, values: str, instance: str) -> dict[str, str]:
    metric, _, labels = name.partition("|")
    own = f'job="twocloud", instance="{instance}"'
    return {"series": f"{metric}{{{own}{', ' if labels else ''}{labels}}}", "values": values}


def series_of(case: Case | None, *instances: str) -> Iterator[dict[str, str]]:
    """Those of the fault are the first process' alone if they are about that process."""
    values: dict[str, str | None] = {**dict(WELL), **(case.series if case else {})}
    for n, instance in enumerate(instances):
        for name, numbers in (dict(WELL) | {} if n and case and case.alert == "TwocloudDown" else values).items():
            if numbers is not None:
                yield written(name, numbers, instance)


def expected(case: Case) -> dict[str, Any]:
    rule = ALERTS[case.alert]
    return {"exp_labels": {**rule["labels"], **case.labels},
            "exp_annotations": {**rule["annotations"], "summary": case.summary}}


def promtool(folder: Path, tests: list[dict[str, Any]]) -> None:
    (folder / "tests.yaml").write_text(yaml.safe_dump(
        {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}, width=10_000))
    done = run(["promtool", "test", "rules", "tests.yaml"], folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules(tmp_path: Path) -> None:
    done = run(["promtool", "check", "rules", RULES], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {case.alert for case in CASES.values()} == ALERTS.keys()
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_when_it_should_and_not_a_minute_before(tmp_path: Path, name: str) -> None:
    """Once, though two processes show it; and no alert about anything else."""
    case = CASES[name]

    def at(minutes: int, *alerts: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"alertname": alert, "eval_time": f"{minutes}m", "exp_alerts": [*alerts] if alert == case.alert else []}
                for alert in ALERTS]

    promtool(tmp_path, [{"interval": "1m", "input_series": [*series_of(case, "a", "b")],
                         "alert_rule_test": [*at(case.after - 1), *at(case.after, expected(case))]}])


def test_a_deployment_that_is_well_raises_no_alert(tmp_path: Path) -> None:
    """Nor one whose schedule never ran, whose snapshots are as old as their last reader."""
    idle = Case("", {"twocloud_schedule_age_seconds": None, "twocloud_schedule_late": None,
                     f"twocloud_source_age_seconds|{SOURCE}": "0+60x600"}, 0, {}, "")
    promtool(tmp_path, [{"interval": "1m", "input_series": [*series_of(case, "a", "b")], "alert_rule_test": [
        {"alertname": alert, "eval_time": f"{minutes}m", "exp_alerts": []} for alert in ALERTS
        for minutes in (1, 10, 60, 300, 600)]} for case in (None, idle)])


# ---------------------------------------------------------------- against a real scrape

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/twocloud.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMETHEUS_OWN = {"job", "instance", "le"}
WORDS = re.compile(r"[a-zA-Z_]\w*")


def expressions() -> dict[str, tuple[str, set[str]]]:
    """By where each stands: the expression, and labels that texts beside it name."""
    by_place = {alert: (rule["expr"], set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))))
             for alert, rule in ALERTS.items()}
    for panel in PANELS:
        for target in panel["targets"]:
            names = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for change in panel.get("transformations", ()):
                names |= change["options"]["indexByName"].keys() - {"Value"}
            by_place[f"{panel['title']}/{target['refId']}"] = target["expr"], names
    return by_place


def labels_in(expression: str) -> set[str]:
    matchers = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    lists = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression)
    return {*matchers, *(name for text in lists for name in WORDS.findall(text))}


@pytest.fixture
def everything(served: App, tmp_path: Path) -> Iterator[Prometheus]:
    """A deployment of which each metric has something to say, scraped twice by a real Prometheus."""
    served.clock.now = time.time()
    served.token = served.issue(served.user("bob"))
    served.get(GZ)
    ends = [datetime.fromtimestamp(served.clock() + days * DAY, UTC) for days in (3, 20, 100)]
    own = accounts.find(served.deployment.store, "123", "qcloud").revision
    snapshots.save(served.deployment.store, Source("123", "qcloud", "ap-shanghai"), own, [
        Server(id=f"ins-{n}", name="", status=Status.ACTIVE, expires_at=end) for n, end in enumerate(ends)],
        served.clock(), history=DAY)
    served.clock.forward(1000)
    served.clouds["aws"].fail("503")
    for _ in range(9):
        served.get(US)
    served.get(US.replace("us-east-1", "eu-west-1"))
    schedule.finish(served.deployment, schedule.survey(served.deployment), 300)
    watched(served, tmp_path)
    with started(tmp_path) as prometheus:
        prometheus.until(lambda: listens(prometheus) and bool(prometheus.query(
            'rate(twocloud_http_requests_total{route="/twocloud/metrics"}[1m]) > 0')))
        yield prometheus


def scraped(prometheus: Prometheus) -> dict[str, set[str]]:
    """Each metric of ours with its labels."""
    labels = defaultdict[str, set[str]](set)
    for series in prometheus.get('/api/v1/series?match[]={__name__=~"twocloud_.*|up"}').json()["data"]:
        labels[series.pop("__name__")] |= series.keys()
    return labels


def test_all_that_alerts_and_dashboard_name_is_scraped(everything: Prometheus) -> None:
    """And every expression of the dashboard draws something."""
    labels = scraped(everything)
    for place, (expression, named) in expressions().items():
        metrics = set(re.findall(r"\b(?:twocloud_\w+|up(?=\{))", expression))
        assert metrics, place
        assert metrics <= labels.keys(), (place, metrics - labels.keys())
        there = PROMETHEUS_OWN.union(*(labels[metric] for metric in metrics))
        assert labels_in(expression) | named <= there, (place, (labels_in(expression) | named) - there)
        plain = re.sub(r"\$(tenant_id|party)\b", ".*", expression).replace("$__rate_interval", "1m")
        assert "$" not in plain, place
        rows = everything.query(plain)
        assert rows or place in ALERTS, (place, plain)
        assert all(named <= row.keys() for row in rows), (place, named, rows)
    firing = {alert for alert, rule in ALERTS.items() if everything.query(rule["expr"])}
    assert firing == {"TwocloudSourceFailing", "TwocloudServersExpiring"} | (firing & {"TwocloudBreakerOpen"})


@pytest.mark.slow
def test_the_page_names_what_is_scraped(everything: Prometheus) -> None:
    """Each metric with its labels, and none that is not there."""
    rows = re.findall(r"(?m)^\| `(twocloud_\w+)` \| (.*?) \|", (ROOT / "docs/watch.md").read_text())
    source = {"tenant_id", "party", "account", "region"}
    page = {name: set(re.findall(r"`(\w+)`", labels)) | (source if labels.startswith("source") else set())
            for name, labels in rows}
    labels = {re.sub(r"_(bucket|sum|count)$", "", name): own - PROMETHEUS_OWN
              for name, own in scraped(everything).items() if name != "up"}
    assert page == labels


@pytest.mark.slow
def test_variables_of_the_dashboard_have_values(everything: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            ((metric, label),) = re.findall(r"^label_values\((\w+)(?:\{.*\})?, (\w+)\)$", query)
            choices = everything.get(f"/api/v1/label/{label}/values?match[]={metric}").json()["data"]
            assert choices == {"tenant_id": ["123"], "party": ["aws", "qcloud"]}[variable["name"]]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [(x, y) for panel in DASHBOARD["panels"] for at in [panel["gridPos"]]
             for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in PANELS for target in panel["targets"])
