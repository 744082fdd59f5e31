"""What the pages for newcomers say, done in the demo as they say it: a cloud is switched off and on."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests

from chalicelib import simulators
from tests import canaries
from tests.programs import ROOT, block, program, run


@dataclass
class Demo:
    """`everything`: the printed line that lists all tenants."""

    url: str
    token: str
    switch: str
    everything: str

    def get(self, **parameters: str) -> requests.Response:
        query = {"party": "qcloud", "tenant_id": "123", "region": "all", **parameters}
        return requests.get(f"{self.url}/twocloud/servers?{urlencode(query)}", auth=(self.token, ""), timeout=40)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    process = subprocess.Popen([sys.executable, "-m", "chalicelib", "demo", "--port", "0"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE,
                               text=True, cwd=ROOT)
    assert process.stdout
    assert process.stderr
    try:
        line = process.stdout.readline()
        hints = "".join(iter(process.stderr.readline, "Press Ctrl-C to stop.\n"))
        everything = re.search(r"^curl .*tenant_id=all.*$", hints, re.M)
        url = re.search(r"'(http://[^/]+)/", line)
        switch = re.search(r"(curl -X POST (http://127\.0\.0\.1:\d+)/qcloud/off)", hints)
        assert url
        assert switch
        assert everything
        yield Demo(url[1], canaries.watch(line.split("'")[1].split(":")[0]), switch[2], everything[0])
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_one_printed_line_lists_all_tenants(demo: Demo) -> None:
    """Two accounts at one cloud, and an organisation, whose suspended member is no source."""
    answer = json.loads(run(["sh", "-c", f"{demo.everything} -sS --fail-with-body"], Path("/")).stdout)
    assert answer["complete"]
    accounts = Counter((source["tenant_id"], source["party"], source["account"]) for source in answer["sources"])
    assert {party for tenant, party, _ in accounts if tenant == "123"} == set(simulators.clouds())
    assert {account for tenant, _, account in accounts if tenant == "123"} == {"default"}
    several = {party: {account for tenant, at, account in accounts if (tenant, at) == ("456", party)}
               for tenant, party, _ in accounts if tenant == "456"}
    for party, cloud in simulators.clouds().items():
        shown = cloud.demo(party)
        opened = [branch for branch in shown.branches if not branch.closed]
        assert len(several.pop(party, ())) == len(shown.accounts) + len(opened), party
        rows = [row for row in answer["vm_servers"] if (row["tenant_id"], row["party"]) == ("456", party)]
        fleets = [*shown.accounts.values(), *(branch.fleets for branch in opened)]
        assert len(rows) == sum(len(fleet) for each in fleets for fleet in each.values()), party
    assert not several
    assert any(len(cloud.demo(party).accounts) > 1 for party, cloud in simulators.clouds().items())
    assert any(branch.closed for party, cloud in simulators.clouds().items() for branch in cloud.demo(party).branches)


def test_its_machines_are_recent_and_no_two_share_an_id(demo: Demo) -> None:
    """Except for the machine of the API document, which has the date that is printed there."""
    answer = json.loads(run(["sh", "-c", f"{demo.everything} -sS --fail-with-body"], Path("/")).stdout)
    rows = [row for row in answer["vm_servers"] if row["instance_name"] != "hehe"]
    assert len(rows) == len(answer["vm_servers"]) - 1
    ids = Counter((row["party"], row["instance_id"]) for row in rows)
    assert [key for key, count in ids.items() if count > 1] == []
    now = datetime.now(UTC)
    times = [datetime.fromisoformat(row["create_at"]).replace(tzinfo=UTC) for row in rows if row["create_at"]]
    assert now - timedelta(days=123) < min(times) < max(times) < now
    assert max(times) - min(times) > timedelta(days=60)


@pytest.mark.slow
def test_it_listens_on_another_address_and_prints_one_that_works() -> None:
    process = subprocess.Popen([sys.executable, "-m", "chalicelib", "demo", "--host", "0.0.0.0", "--port", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    try:
        assert process.stdout
        line = process.stdout.readline().strip()
        canaries.watch(line.split("'")[1].split(":")[0])
        assert "'http://127.0.0.1:" in line
        assert json.loads(run(["sh", "-c", f"{line} -sS"], Path("/")).stdout)["code"] == 200
        port = line.split(":")[3].split("/")[0]
        assert requests.get(f"http://127.0.0.2:{port}/twocloud/health", timeout=30).ok     # not loopback's one address
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_cloud_is_switched_off_and_on(demo: Demo) -> None:
    before = demo.get()
    assert before.json()["complete"]
    assert len(before.json()["vm_servers"]) == 335
    # no page opens it by accident
    assert requests.get(f"{demo.switch}/qcloud/off", timeout=10).status_code == 405
    assert requests.post(f"{demo.switch}/nowhere/off", timeout=10).status_code == 404
    off = run(["curl", "-sS", "-X", "POST", f"{demo.switch}/qcloud/off"], Path("/"))
    assert off.stdout == "qcloud is off\n"
    stale = demo.get().json()
    assert [row["instance_id"] for row in stale["vm_servers"]] == [row["instance_id"]
                                                                   for row in before.json()["vm_servers"]]
    assert {source["state"] for source in stale["sources"]} == {"stale"}
    assert "this is a stale snapshot" in stale["msg"]
    failed = demo.get(on_error="fail", format="csv")
    assert failed.status_code == 503
    assert failed.json()["error"] == "party_unavailable"
    assert demo.get(party="aws").json()["msg"] == ""
    # each account at it is off
    states = demo.get(tenant_id="456", on_error="partial").json()["sources"]
    assert {(source["account"], source["error"]) for source in states} == {
        ("shop", "party_unavailable"), ("lab", "party_unavailable")}
    assert requests.post(f"{demo.switch}/qcloud/on", timeout=10).text == "qcloud is on\n"
    assert {source["state"] for source in demo.get().json()["sources"]} == {"ok"}


@pytest.mark.slow
def test_ansible_as_its_page_says(demo: Demo, tmp_path: Path) -> None:
    """Its files and lines as they stand, but for the port, and for installing Ansible, which the tests have."""
    program("ansible-galaxy")
    (tmp_path / "servers.twocloud.yml").write_text(block("ansible.md", "yaml", "keyed_groups"))
    (tmp_path / "ansible.cfg").write_text(block("ansible.md", "ini", "servers.twocloud.yml"))
    there = {"TWOCLOUD_URL": demo.url, "TWOCLOUD_TOKEN": demo.token, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"}
    install = re.search(r"^ansible-galaxy .*$", block("ansible.md", "sh", "galaxy"), re.M)
    assert install
    done = run(["bash", "-euc", install[0].replace("./", f"{ROOT}/")], tmp_path, there)
    assert done.returncode == 0, done.stderr
    done = run(["bash", "-euc", block("ansible.md", "sh", "--graph")], tmp_path, there)
    assert done.returncode == 0, done.stderr
    assert "hosts (" in done.stdout, done.stderr
    assert '"ansible_host": "122.22.3.45"' in done.stdout, done.stderr
    requests.post(f"{demo.switch}/qcloud/off", timeout=10)
    off = run(["ansible-inventory", "--graph"], tmp_path, there)
    assert off.returncode == 0
    assert "  |--@party_qcloud:" in off.stdout
    text = block("ansible.md", "text", "WARNING").split(" 4 s old")[0].strip()
    assert text in off.stderr, off.stderr
    requests.post(f"{demo.switch}/qcloud/on", timeout=10)


@pytest.mark.slow
def test_promtool_as_its_page_says(demo: Demo, tmp_path: Path) -> None:
    program("promtool")
    (tmp_path / "prometheus.yml").write_text(block("prometheus.md", "yaml",
                                                   "scrape_configs").replace("https://HOST", demo.url))
    done = run(["bash", "-euc", block("prometheus.md", "sh", "umask")], tmp_path, {"TWOCLOUD_TOKEN": demo.token})
    assert done.returncode == 0
    assert (tmp_path / "twocloud.token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "rules.yml").write_text(block("prometheus.md", "yaml", "alert:"))
    check, discovery, _ = (line.removeprefix("$ ").split()
                           for line in block("prometheus.md", "console", "promtool").splitlines())
    assert run(check, tmp_path).returncode == 0
    assert run(["promtool", "check", "rules", "rules.yml"], tmp_path).returncode == 0
    process = run([*discovery[:3], "--timeout=12s", *discovery[3:]], tmp_path)
    (tmp_path / "twocloud.token").unlink()
    addressed = [server for server in demo.get(party="all").json()["vm_servers"]
                 if server["lan_ip_set"] or server["lan_ipv6_set"]]
    assert process.stdout.count('"discoveredLabels"') == len(addressed) > 900, process.stderr
