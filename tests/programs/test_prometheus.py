"""Prometheus, Debian's: it finds targets through us, scrapes them, and keeps them while a cloud is down."""

import json
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib.simulators.fleet import Machines
from tests import canaries
from tests.fixtures import GZ, US, App
from tests.programs import block, program, run
from tests.programs.test_ansible import machine
from tests.programs.test_docs import bash

SNIPPET = block("prometheus.md", "yaml", "scrape_configs")
METRICS = block("watch.md", "yaml", "scrape_configs")
DAY = 86_400


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"tried 1\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[int]:
    """Something to scrape at two addresses that only machines have: its port."""
    first = ThreadingHTTPServer(("127.0.0.7", 0), _Exporter)
    servers = [first, ThreadingHTTPServer(("127.0.0.9", first.server_port), _Exporter)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield first.server_port
    for server in servers:
        server.shutdown()
        server.server_close()


def configuration(url: str, port: int, token: str, *, interval: str = "1s") -> str:
    """The snippet of the docs, at this address and port, often; and a job that does the same with basic_auth."""
    text = SNIPPET
    for old, new in (("https://HOST", url), ("5m", interval), ("port=9100", f"port={port}"),
                     ("party=all", "party=qcloud"),
                     ("region=all", "region=gz"), ("twocloud.token", "token.secret")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    job = text.split("scrape_configs:\n")[1]
    by_name = re.sub(r"authorization: .*", f"basic_auth: {{username: {token}}}",
                     job.replace("job_name: machines", "job_name: by_name"))
    return f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{text}{by_name}"


@dataclass
class Prometheus:
    url: str

    def get(self, path: str) -> Any:
        return requests.get(f"{self.url}{path}", timeout=10)

    def targets(self) -> dict[str, dict[str, dict[str, str]]]:
        """job -> address of the target -> its labels and health."""
        by_job: dict[str, dict[str, dict[str, str]]] = {"machines": {}, "by_name": {}}
        for target in self.get("/api/v1/targets?state=active").json()["data"]["activeTargets"]:
            job = target["labels"].pop("job")
            by_job[job][target["labels"]["instance"]] = {**target["labels"], "health": target["health"]}
        return by_job

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The labels of each series, and under "" its value."""
        answer = requests.get(f"{self.url}/api/v1/query", {"query": expression}, timeout=10).json()
        assert answer["status"] == "success", (expression, answer)
        return [{**row["metric"], "": float(row["value"][1])} for row in answer["data"]["result"]]

    def failures(self) -> float:
        (count,) = re.findall(r"^prometheus_sd_http_failures_total (\S+)$", self.get("/metrics").text, re.M)
        return float(count)

    def until(self, what: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, (self.targets(), self.failures())
            time.sleep(0.2)


@pytest.fixture
def app(app: App) -> App:
    """With a token that outlives the stale snapshot."""
    app.token = app.issue(app.user("targets"), lifetime=30 * DAY)
    return app


@pytest.fixture
def prometheus(served: App, exporter: int, tmp_path: Path) -> Iterator[Prometheus]:
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Machines([                      # type: ignore[attr-defined]
        machine(7, "web", {"team": "blue"}, lan=("127.0.0.7",)),
        machine(8, "off", lan=("127.0.0.8",), state="stopped")])
    (tmp_path / "token.secret").write_text(served.token)
    (tmp_path / "prometheus.secret").write_text(configuration(served.url, exporter, served.token))
    with started(tmp_path) as running:
        yield running


@contextmanager
def started(folder: Path) -> Iterator[Prometheus]:
    """With the configuration `prometheus.secret` in this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), f"--config.file={folder}/prometheus.secret",
                                    f"--storage.tsdb.path={folder}/metrics",
                                    f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_prometheus_keeps_its_targets_while_a_cloud_is_down(served: App, prometheus: Prometheus, exporter: int) -> None:
    """Both kinds of credentials; labels; the stale snapshot; then our error, counted; then the truth again."""
    cloud, app, web = served.clouds["qcloud"], served, f"127.0.0.7:{exporter}"

    def up(*addresses: str) -> bool:
        try:
            return all({address: target["health"] for address, target in targets.items()}
                       == dict.fromkeys(addresses, "up")
                       for targets in prometheus.targets().values())
        except requests.ConnectionError:
            return False

    prometheus.until(lambda: up(web))                   # the machine that is off is dropped by the docs' own rule
    assert prometheus.targets()["machines"][web] == {"instance": web, "instance_id": "ins-00000007", "name": "web",
                                                     "party": "qcloud",
                                                     "region": "ap-guangzhou", "team": "blue", "health": "up"}
    assert prometheus.failures() == 0

    cloud.fail("reset")                                 # down: the stale snapshot serves
    calls = cloud.count()
    prometheus.until(lambda: cloud.count() > calls + 8)
    assert up(web)
    assert prometheus.failures() == 0
    kept = app.get(f"{GZ}&format=prometheus")
    assert kept.status_code == 200
    assert "detail=party_unavailable" in kept.headers["Cache-Status"]
    assert len(kept.json()) == 2

    # and beyond its age: an error, on which Prometheus keeps what it has
    app.clock.forward(DAY + 1)
    prometheus.until(lambda: prometheus.failures() >= 4)
    refused = app.get(f"{GZ}&format=prometheus")
    assert refused.status_code == 503
    assert refused.json()["error"] == "party_unavailable"
    assert "vm_servers" not in refused.json()
    time.sleep(6)                                       # Prometheus brings targets up to date every 5 s
    assert up(web)
    series = prometheus.get("/api/v1/query?query=tried").json()["data"]["result"]
    assert {(row["metric"]["job"], row["metric"]["name"], row["value"][1])
            for row in series} == {("machines", "web", "1"), ("by_name", "web", "1")}

    cloud.plans.clear()                                 # up again, with one more
    app.clock.forward(3600)
    cloud.fleets["ap-guangzhou"] = Machines([*cloud.fleets["ap-guangzhou"].machines,
                                             machine(9, "new", lan=("127.0.0.9",))])     # type: ignore[attr-defined]
    prometheus.until(lambda: up(web, f"127.0.0.9:{exporter}"))


def test_a_token_shows_in_basic_auth_and_not_in_authorization(served: App, prometheus: Prometheus) -> None:
    """Why the docs say `authorization`: whoever may see Prometheus' own pages sees a user name."""
    prometheus.until(lambda: listens(prometheus), 30)
    shown = prometheus.get("/api/v1/status/config").json()["data"]["yaml"]
    before, after = shown.split("job_name: by_name")
    assert served.token in after
    assert served.token not in before
    assert "credentials_file: " in before


def listens(prometheus: Prometheus) -> bool:
    try:
        return bool(prometheus.get("/-/ready").ok)
    except requests.ConnectionError:
        return False


@pytest.mark.slow
def test_promtool_takes_the_configuration_and_finds_the_demo(served: App, tmp_path: Path) -> None:
    (tmp_path / "twocloud.token").write_text("x")
    (tmp_path / "prometheus.yml").write_text(SNIPPET)
    done = run(["promtool", "check", "config", "prometheus.yml"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout, done.stderr
    (tmp_path / "token.secret").write_text(served.token)
    (tmp_path / "prometheus.secret").write_text(configuration(served.url, 9100, served.token))
    listed = run(["promtool", "check", "service-discovery", "--timeout=5s", "prometheus.secret", "machines"], tmp_path)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout[listed.stdout.index("["):])
    kept = [row["labels"] for row in rows if row["labels"]]
    assert len(rows) == 25
    assert {row["discoveredLabels"]["__meta_twocloud_status"] == "ACTIVE" for row in rows if row["labels"]} == {True}
    assert all(labels["instance_id"].startswith("ins-") and labels["__address__"].endswith(":9100") for labels in kept)


def watched(app: App, folder: Path) -> None:
    """Run the page's lines unchanged, and write its job for this address, with a scrape each second."""
    done = bash(block("watch.md", "sh", "token issue"), folder, TWOCLOUD_STORE=app.deployment.settings.store,
                TWOCLOUD_KEY=app.deployment.settings.key)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((folder / "twocloud.token").stat().st_mode) == 0o600
    token = folder / "twocloud.secret"
    (folder / "twocloud.token").rename(token)
    canaries.watch(token.read_text().strip())
    job = METRICS
    for old, new in (("twocloud.token", "twocloud.secret"), ("127.0.0.1:8000", app.url.removeprefix("http://")),
                     ("scrape_interval: 1m", "scrape_interval: 1s")):
        assert job.count(old) == 1, old
        job = job.replace(old, new)
    (folder / "prometheus.secret").write_text(job)
    checked = run(["promtool", "check", "config", "prometheus.secret"], folder)
    assert checked.returncode == 0, checked.stderr


def test_the_metrics_are_scraped_as_their_page_says(served: App, tmp_path: Path) -> None:
    served.clock.now = time.time()          # which is the command's
    served.token = served.issue(served.user("bob"))
    served.get(GZ)
    served.clouds["aws"].fail("401")
    served.get(US)
    watched(served, tmp_path)
    with started(tmp_path) as prometheus:
        prometheus.until(lambda: listens(prometheus) and bool(prometheus.query("twocloud_source_up")))
        gz = {"tenant_id": "123", "party": "qcloud", "account": "default", "region": "ap-guangzhou"}
        (up,) = prometheus.query("twocloud_source_up == 1")
        assert {name: up[name] for name in gz} == gz
        assert sum(row[""] for row in prometheus.query("twocloud_servers")) == 25
        (denied,) = prometheus.query("twocloud_source_last_error")
        assert (denied["party"], denied["region"], denied["error"]) == ("aws", "us-east-1", "party_denied")
        prometheus.until(lambda: bool(prometheus.query(
            'increase(twocloud_http_requests_total{route="/twocloud/metrics"}[1m]) > 1')))
        assert prometheus.query("histogram_quantile(0.9, twocloud_http_request_duration_seconds_bucket)")


def test_promtool_takes_the_metrics(served: App, tmp_path: Path) -> None:
    """Names, types and help texts as Prometheus' own linter wants them."""
    served.get(GZ)
    text = served.get("", served.issue(served.user("eve", ("*",))), path="/twocloud/metrics").text
    checked = run(["promtool", "check", "metrics"], tmp_path, stdin=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


HOSTILE = ["{{ x }}", "a\nb", 'q"\'q\\', "\u202egnp.exe", "=cmd|'/c calc'!A0", "名", "\x00", "x" * 5000, "$1",
           "__meta_"]


@pytest.mark.slow
def test_prometheus_takes_hostile_names(served: App, tmp_path: Path) -> None:
    """One name that it refuses would lose every target."""
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(                      # type: ignore[attr-defined]
        [machine(number, name, {name: name, "c-d": "1", "c.d": "2", "": "x"}) for number, name in enumerate(HOSTILE)])
    (tmp_path / "token.secret").write_text(served.token)
    (tmp_path / "prometheus.secret").write_text(configuration(served.url, 9100, served.token))
    done = run(["promtool", "check", "service-discovery", "--timeout=5s", "prometheus.secret", "machines"], tmp_path)
    rows = json.loads(done.stdout[done.stdout.index("["):])
    assert {row["discoveredLabels"]["__meta_twocloud_instance_name"] for row in rows} == set(HOSTILE)
    assert all(row["discoveredLabels"]["__meta_twocloud_tag_c_d"] == "1"
               and row["discoveredLabels"]["__meta_twocloud_tag_c_d_2"] == "2" for row in rows)
