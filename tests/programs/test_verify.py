"""`twocloud verify`: the vendor's client beside us, a report that names nobody, and what the report does to a grade."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import msgspec
import pytest

from chalicelib import parties, simulators
from chalicelib.cli import verifying
from chalicelib.cli.verifying import Report, read_report
from chalicelib.fleet import many_sources, verification
from chalicelib.fleet.party_call import open_account
from chalicelib.model import Account
from chalicelib.parties.aws import reference as aws_reference
from chalicelib.parties.qcloud import reference
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from tests import ROOT, canaries, verified
from tests.fixtures import App
from tests.programs.test_cli import Command, cloud, credentials, twocloud  # noqa: F401
from tests.unit.test_discovery import UNSEEN, Organisation

WHERE = ("verify", "123", "qcloud", "--region", "gz")
REPORT = "twocloud-verify-qcloud.json"
REFERENCES = sorted(path.parent.name for path in (ROOT / "chalicelib/parties").glob("*/reference.py"))
ELSEWHERE = {"oci"}                         # whose SDK has an environment of its own: see its test_oci.py


@pytest.fixture
def stored(twocloud: Command, cloud: Qcloud) -> Command:         # noqa: F811
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    return twocloud


@pytest.fixture
def change() -> Iterator[Callable[..., None]]:
    """Has the reference say something else of servers."""
    proper = reference.list_servers
    changes: list[Callable[[dict[str, dict[str, Any]]], object]] = []

    def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
        rows = proper(account, region)
        for work in changes:
            work(rows)
        return rows

    with mock.patch.object(reference, "list_servers", list_servers):
        yield changes.append


# ---------------------------------------------------------------- both lists

def test_both_lists_agree_at_the_simulator(stored: Command, tmp_path: Path) -> None:
    printed = stored(*WHERE)
    assert "twocloud lists 25 servers, the reference 25; 25 are in both lists. 0 changed meanwhile." in printed
    assert REPORT in stored.err
    report = read_report((tmp_path / REPORT).read_bytes(), "qcloud")
    assert report.agrees
    assert (report.ours, report.theirs, report.both, report.place) == (25, 25, 25, "loopback")
    assert report.fields.keys() >= {"name", "cpu", "memory_mib", "disk_gib", "lan_ipv4", "wan_ipv4", "expires_at"}
    assert all(it.compared == it.equal == 25 for it in report.fields.values())
    assert re.fullmatch(r"[\d.]+", report.reference["tencentcloud-sdk-python-cvm"])


def test_a_difference_is_printed_and_counted(stored: Command, change: Any, tmp_path: Path) -> None:
    keys: list[str] = []

    def work(rows: dict[str, dict[str, Any]]) -> None:
        keys[:] = sorted(rows)[:2]
        rows[keys[0]]["cpu"] = 99
        rows["ins-stranger"] = rows.pop(keys[1])

    change(work)
    printed = stored(*WHERE, code=1)
    assert "The lists differ in 3 places." in stored.err
    lines = [line.split() for line in printed.splitlines()[1:4]]
    assert [line[0] for line in lines] == sorted([*keys, "ins-stranger"])
    assert next(line for line in lines if line[0] == keys[0])[1::2][:1] == ["cpu"]
    report = read_report((tmp_path / REPORT).read_bytes(), "qcloud")
    assert not report.agrees
    assert (report.both, report.only_ours, report.only_theirs) == (24, 1, 1)
    assert (report.fields["cpu"].compared, report.fields["cpu"].equal) == (24, 23)
    body = stored.json(*WHERE, "--report", "other.json", code=1)
    assert len(body["differences"]) == 3
    assert body["report"] == "other.json"
    assert (tmp_path / "other.json").exists()


def test_a_fleet_in_motion_is_no_difference(stored: Command, cloud: Qcloud, change: Any) -> None:              # noqa: F811
    """One machine is gone when our second list is made."""
    change(lambda rows: cloud.fleets.update({"ap-guangzhou": Fleet(24)}))
    assert "1 changed meanwhile" in stored(*WHERE)


@pytest.mark.sample(4)
@pytest.mark.parametrize("party", [name for name in REFERENCES if name not in ELSEWHERE])
def test_every_reference_lists_a_stored_account(party: str, app: App, stack: ExitStack) -> None:
    """As the command runs it: with the credentials as they were sealed, field by field."""
    entry = simulators.clouds()[party]
    secret = canaries.watch(str(uuid4()))   # the form that Scaleway demands
    made, fields = entry.start({entry.region: Fleet(30, party)}, secret, limited=False)
    stack.enter_context(made)
    app.account(party, fields, made.url)
    comparison = verification.verify(app.deployment, open_account(app.deployment, "123", party), entry.region,
                                     verified.reference(party).list_servers)
    assert isinstance(comparison, verification.Comparison)
    assert comparison.agrees, comparison.differences[:3]
    assert 20 < comparison.both == comparison.ours == comparison.theirs
    assert len(comparison.fields) >= 8
    assert {it.compared for it in comparison.fields.values()} == {comparison.both}


# ---------------------------------------------------------------- members, projects

DOORS = sorted(name for name in parties.names() if parties.load(name).discover)


def typed(organisation: Organisation) -> str:
    """Its credentials as a person types them in."""
    objects = parties.load(organisation.party).objects
    return json.dumps({name: json.loads(text) if name in objects else text
                       for name, text in organisation.account.credentials.items()})


@pytest.mark.sample(5)
@pytest.mark.parametrize("party", DOORS)
def test_each_member_behind_a_door_is_compared(party: str, twocloud: Command, stack: ExitStack,    # noqa: F811
                                               tmp_path: Path) -> None:
    """By the role, subscription or project that opens it; who may not open one sees it refused to both, or not at all.
    The report counts them, and does not say who they are."""
    organisation = Organisation(party, stack)
    twocloud("account", "put", "123", party, "--discover", "--endpoint", organisation.cloud.url,
             stdin=typed(organisation))
    at = ("verify", "123", party, "--region", organisation.region)
    printed = twocloud(*at)
    ids, text = organisation.cloud.ids, (tmp_path / f"twocloud-verify-{party}.json").read_text()
    report = read_report(text.encode(), party)
    refused = 0 if party in UNSEEN else 1
    assert f"5 members compared, {refused} refused to both." in printed
    assert twocloud.err.count("The vendor's client failed too: ") == refused
    assert [it.ours for it in report.members] == [0, 2, 3, 4, 5]
    assert all(it.agrees and it.ours == it.theirs == it.both for it in report.members)
    assert (report.ours, report.both, report.refused, report.agrees) == (14, 14, refused, True)
    assert all(it.compared == it.equal == 14 for it in report.fields.values())
    for name, key in ids.items():
        assert key not in text
        assert name not in text or name in ("top", "old", "more")
    twocloud(*at, "--account", f"default:{ids['payments']}")
    assert read_report((tmp_path / f"twocloud-verify-{party}.json").read_bytes(), party).ours == 5
    twocloud(*at, "--account", "default:nobody", code=4)


def test_a_member_that_the_reference_alone_may_list_is_a_difference(twocloud: Command, stack: ExitStack,   # noqa: F811
                                                                    tmp_path: Path) -> None:
    organisation = Organisation("aws", stack)
    twocloud("account", "put", "123", "aws", "--discover", "--endpoint", organisation.cloud.url,
             stdin=typed(organisation))
    proper, locked = aws_reference.list_servers, organisation.cloud.ids["locked"]

    def list_servers(account: Account, region: str) -> dict[str, dict[str, Any]]:
        assert account.member
        return {"i-hidden": {"name": "x"}} if account.member.id == locked else proper(account, region)

    with mock.patch.object(aws_reference, "list_servers", list_servers):
        printed = twocloud("verify", "123", "aws", "--region", organisation.region, code=1)
    assert "i-hidden" in printed
    report = read_report((tmp_path / "twocloud-verify-aws.json").read_bytes(), "aws")
    assert (report.only_theirs, report.refused, report.members[0]) == (1, 0, verifying.MemberCount(0, 0, 0, True))
    assert [it.agrees for it in report.members if (it.ours, it.theirs) == (0, 1)] == [False]


def test_what_is_refused_to_all_sides_is_the_partys_refusal(stored: Command, cloud: Qcloud,        # noqa: F811
                                                            tmp_path: Path) -> None:
    stored("account", "put", "123", "qcloud", "--account", "two", "--endpoint", cloud.url, stdin=json.dumps(
        {"secret_id": "AKIDcli", "secret_key": canaries.secret("wrong")}))
    stored(*WHERE, "--account", "two", code=5)
    assert "refused the credentials" in stored.err
    assert not (tmp_path / REPORT).exists()


NO_PROJECT = ("baidu", "oci", "proxmox")    # their references do not say in which --project a server is
PROJECTS = sorted(name for name in REFERENCES if parties.load(name).project and name not in NO_PROJECT)


@pytest.mark.parametrize("party", PROJECTS)
def test_an_account_limited_to_a_project(party: str, app: App, stack: ExitStack) -> None:
    """A project that some servers of the simulator are in, as we say ourselves."""
    entry = simulators.clouds()[party]
    made, fields = entry.start({entry.region: Fleet(30, party)}, canaries.watch(str(uuid4())), limited=False)
    stack.enter_context(made)
    app.account(party, fields, made.url)
    servers = many_sources.list_servers(app.deployment, many_sources.source_of("123", party, entry.region)).servers
    (project, _), = Counter(server.project_id for server in servers
                             if server.project_id or party == "aws").most_common(1)
    if party == "aws":
        project = "=".join(next((key, text) for key, text in servers[0].tags.items() if key != "Name"))
    app.account(party, fields, made.url, project=project)
    account, reference = open_account(app.deployment, "123", party), verified.reference(party)
    comparison = verification.verify(app.deployment, account, entry.region, lambda account, region: verifying.limited(
        reference.list_servers(account, region), account, reference))
    assert isinstance(comparison, verification.Comparison)
    assert comparison.agrees, comparison.differences[:3]
    assert 0 < comparison.both == comparison.ours == comparison.theirs
    assert comparison.both < len(servers) or not getattr(reference, "BY_PROJECT", False)


def test_a_reference_that_knows_no_project_says_so(stored: Command, cloud: Qcloud) -> None:        # noqa: F811
    stored("account", "put", "123", "qcloud", "--account", "two", "--project", "7", "--endpoint", cloud.url,
           stdin=credentials(cloud))
    with mock.patch.object(reference, "BY_PROJECT", new=False):
        stored(*WHERE, "--account", "two", code=2)
    assert "does not say in which project" in stored.err


# ---------------------------------------------------------------- what the report does not say

def test_a_report_names_nobody(stored: Command, cloud: Qcloud, change: Any, tmp_path: Path) -> None:           # noqa: F811
    stored("account", "put", "acme-corp", "qcloud", "--account", "secret-plan", "--endpoint", cloud.url,
           stdin=credentials(cloud))
    values: set[str] = set()

    def work(rows: dict[str, dict[str, Any]]) -> None:
        for key, row in rows.items():
            values.update({key, row["name"], *row["lan_ipv4"], *row["wan_ipv4"], row["image_id"], row["vpc_id"],
                           *row["tags"], *row["tags"].values()})
            row["cpu"] = 99                 # all differ

    change(work)
    stored("verify", "acme-corp", "qcloud", "--account", "secret-plan", "--region", "gz", code=1)
    text = (tmp_path / REPORT).read_text()
    assert len(values) > 50
    for value in (*values, "acme-corp", "secret-plan", "guangzhou", "127.0.0.1", "AKIDcli", str(cloud.port)):
        assert len(value) < 5 or value not in text, value
    assert set(json.loads(text)) == {it.name for it in msgspec.structs.fields(Report)}


@pytest.mark.parametrize("change_of", [
    {"party": "aws"}, {"region": "gz"}, {"fields": {"name": {"compared": 1, "equal": 1, "values": ["web-1"]}}},
    {"fields": {"a name": {"compared": 1, "equal": 1}}}, {"place": "home"}, {"reference": {"sdk": "1.0 of acme"}},
    {"date": "today"}])
def test_what_is_no_report_is_refused(stored: Command, tmp_path: Path, change_of: dict[str, Any]) -> None:
    stored(*WHERE)
    report = json.loads((tmp_path / REPORT).read_text())
    with pytest.raises(ValueError):
        read_report(json.dumps({**report, **change_of}).encode(), "qcloud")


# ---------------------------------------------------------------- what it says where it cannot

def test_a_party_without_a_reference_says_so(twocloud: Command) -> None:         # noqa: F811
    (bare, *_) = [name for name in parties.names() if name not in REFERENCES]
    twocloud("verify", "123", bare, code=2)
    assert f"There is no reference for {bare}" in twocloud.err
    assert "aws" in twocloud.err


@pytest.mark.parametrize("party", REFERENCES)
def test_without_the_vendors_client_it_says_what_to_install(twocloud: Command, party: str) -> None:            # noqa: F811
    """The name is one that a lock of the tests pins."""
    module = f"chalicelib.parties.{party}.reference"
    packages = verifying.packages_of(party)
    locks = [(ROOT / f"requirements/{name}.txt").read_text() for name in ("dev", "oci")]
    locked = "".join(locks).replace("_", "-").lower()
    assert packages
    assert all(f"\n{name.replace('_', '-').lower()}==" in locked for name in packages)
    real = verifying.importlib.import_module

    def without(name: str) -> Any:
        if name == module:
            raise ModuleNotFoundError("No module named 'vendor'", name="vendor")
        return real(name)

    with mock.patch.object(verifying.importlib, "import_module", without):
        twocloud("verify", "123", party, code=2)
    assert f"pip install {' '.join(packages)}" in twocloud.err


def test_an_account_that_is_not_there_or_is_no_door(stored: Command) -> None:
    stored("verify", "123", "aws", code=4)
    assert "no such account" in stored.err
    stored("verify", "123", "qcloud", "--account", "default:1", "--region", "gz", code=4)


def test_a_client_that_never_ends_fails(stored: Command, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()
    monkeypatch.setattr(verification, "REFERENCE_SECONDS", 0.3)
    change(lambda rows: ends.wait(30))
    stored(*WHERE, code=5)
    assert "no answer within" in stored.err
    ends.set()


def test_a_client_that_exits_fails(stored: Command, change: Any) -> None:
    change(lambda rows: sys.exit(0))
    stored(*WHERE, code=5)
    assert "SystemExit" in stored.err


def test_a_client_that_quotes_the_key_does_not_show_it(stored: Command, cloud: Qcloud, change: Any) -> None:   # noqa: F811
    secret = json.loads(credentials(cloud))["secret_key"]

    def work(rows: object) -> None:
        raise RuntimeError(f"401 for key {secret}")

    change(work)
    stored(*WHERE, code=5)
    assert "401 for key …" in stored.err
    assert secret not in stored.err


@pytest.mark.parametrize("keep", [0, 10, 24])
def test_a_client_that_misses_pages_differs(stored: Command, change: Any, keep: int) -> None:
    change(lambda rows: [rows.pop(key) for key in sorted(rows)[keep:]])
    stored(*WHERE, code=1)
    assert f"The lists differ in {25 - keep} places." in stored.err


def test_a_client_that_fails_is_no_difference(stored: Command, change: Any, tmp_path: Path) -> None:
    def work(rows: object) -> None:
        raise RuntimeError("the vendor's \x1b[31mword")

    change(work)
    stored(*WHERE, code=5)
    assert "The vendor's client failed: RuntimeError" in stored.err
    assert "\x1b" not in stored.err
    assert not (tmp_path / REPORT).exists()


@pytest.mark.parametrize(("endpoint", "fields", "place"), [
    (None, {}, "vendor"), ("https://cloud.example.com", {}, "private"), ("http://127.0.0.1:9", {}, "loopback"),
    (None, {"auth_url": "https://keystone.example.com/v3"}, "private"), (None, {"host": "localhost"}, "loopback"),
    (None, {"auth_url": "http://[::1]:5000/v3"}, "loopback"), (None, {"host": "vc.example.com:443"}, "private")])
def test_where_a_party_was_listed(endpoint: str | None, fields: dict[str, str], place: str) -> None:
    account = Account(tenant_id="1", party="x", credentials=fields, endpoint=endpoint)
    assert verifying.place_of(account) == place


# ---------------------------------------------------------------- the grade

def copy_of_the_project(folder: Path) -> Path:
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(
        ".git", ".venv", ".tools", "__pycache__", ".*_cache", "out", "dist", ".twocloud"))
    return folder


def grades(folder: Path) -> dict[str, str]:
    table = (folder / "README.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| \[.*?\]\(.*?\) \| (.*?) \|$", table, re.M))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_report_raises_a_partys_grade_in_a_copy(stored: Command, tmp_path: Path) -> None:
    """Only one of the vendor's own hosts: the simulator's report changes nothing."""
    stored(*WHERE)
    report = read_report((tmp_path / REPORT).read_bytes(), "qcloud")
    folder = copy_of_the_project(tmp_path / "copy")
    live, before = folder / "chalicelib/parties/qcloud/live.json", grades(folder)

    def write(**fields: Any) -> dict[str, str]:
        live.write_bytes(msgspec.json.encode(msgspec.structs.replace(report, **fields)))
        subprocess.run([sys.executable, "-m", "tests.programs.test_docs"], cwd=folder, check=True, timeout=120)
        return grades(folder)

    assert write() == before
    assert write(place="vendor", agrees=False) == before
    raised = write(place="vendor", twocloud="0.1.0", date=date(2026, 12, 24))
    assert raised == {**before, "qcloud": "live (0.1.0, 2026-12-24)"}
    page = (folder / "docs/parties.md").read_text()
    assert re.search(r"^\| \[`qcloud`\].*\| live \(0\.1\.0, 2026-12-24\) \|$", page, re.M)
    assert "真实账号 (0.1.0, 2026-12-24)" in (folder / "README.zh.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "chalicelib/parties").glob("*/live.json")) or [None])
def test_every_report_in_the_tree_is_one(path: Path | None) -> None:
    """There is none until somebody sends one in."""
    if path:
        assert read_report(path.read_bytes(), path.parent.name).is_live
