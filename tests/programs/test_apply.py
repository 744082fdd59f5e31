"""`twocloud apply`: the store becomes what the file says, once, and nothing that somebody else made is touched."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chalicelib.access import declared
from chalicelib.cli import applying, output
from chalicelib.cloud import yaml_text
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.storage import snapshots
from tests import ROOT
from tests.canaries import secret
from tests.programs.test_cli import Command, cloud, twocloud

__all__ = ["cloud", "twocloud"]

FILE = """\
name: prod
tenants:
  007:
    - party: qcloud
      regions: [gz]
      endpoint: URL
      fields: {secret_id: {env: SECRET_ID}, secret_key: {file: key}}
    - party: vultr
      account: second
      credentials: {file: vultr.json}
users:
  ann: {tenants: [007], password: {env: PASSWORD}}
  bob: {tenants: ["*"], parties: [qcloud], regions: [gz], disabled: true}
"""


@pytest.fixture
def fleet(tmp_path: Path, cloud: Qcloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The declaration, in a folder of its own beside the secrets that it names."""
    folder = tmp_path / "declared"
    folder.mkdir()
    (folder / "key").write_text(f"{cloud.keys['AKIDcli']}\n")
    (folder / "vultr.json").write_text(json.dumps({"token": secret("vultr")}))
    monkeypatch.setenv("SECRET_ID", "AKIDcli")
    monkeypatch.setenv("PASSWORD", secret("ann"))
    (folder / "fleet.yaml").write_text(FILE.replace("URL", cloud.url))
    yield folder / "fleet.yaml"
    shutil.rmtree(folder)                   # of the run's secrets none may be left behind


def actions(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {f"{row['kind']} {row['name']}": row["action"] for row in rows}


ALL = {"account 007 qcloud": "create", "account 007 vultr second": "create", "user ann": "create", "user bob": "create"}


def test_twice_changes_nothing(twocloud: Command, fleet: Path) -> None:
    assert actions(twocloud.json("apply", "-f", str(fleet), "--dry-run")) == ALL
    assert twocloud.json("account", "list") == []
    rows = twocloud.json("apply", "-f", str(fleet))
    assert actions(rows) == ALL
    assert all(row["applied"] for row in rows)
    before = [twocloud.json("account", "list"), twocloud.json("user", "list")]
    assert set(actions(twocloud.json("apply", "-f", str(fleet))).values()) == {"none"}
    assert [twocloud.json("account", "list"), twocloud.json("user", "list")] == before
    assert [(row["tenant_id"], row["party"], row["account"], row["regions"]) for row in before[0]] == [
        ("007", "qcloud", "default", ["ap-guangzhou"]), ("007", "vultr", "second", [])]
    assert {row["user"]: (row["tenants"], row["parties"], row["disabled"], row["has_password"]) for row in before[1]
            } == {"ann": (["007"], [], False, True), "bob": (["*"], ["qcloud"], True, False)}
    listed = twocloud.json("servers", "--party", "qcloud", "--tenant", "007", "--region", "gz")
    assert len(listed["vm_servers"]) == 25  # with the credentials that the file names


@pytest.mark.parametrize(("old", "new", "action", "fields"), [
    ("regions: [gz]", "regions: [gz, sh]", "replace", ["regions"]),
    ("regions: [gz]", "regions: [gz]\n      proxy: http://127.0.0.1:9", "replace", ["proxy"]),
    ("secret_id: {env: SECRET_ID}", "secret_id: {env: OTHER_ID}", "change", ["credentials"]),
])
def test_what_differs_in_an_account(twocloud: Command, fleet: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str,
                                    action: str, fields: list[str]) -> None:
    """New credentials keep the account's snapshots; other settings make another account of it."""
    monkeypatch.setenv("OTHER_ID", "AKIDother")
    twocloud("apply", "-f", str(fleet))
    twocloud("refresh", "--tenant", "007", "--party", "qcloud")
    fleet.write_text(fleet.read_text().replace(old, new, 1))
    changed = [row for row in twocloud.json("apply", "-f", str(fleet)) if row["action"] != "none"]
    assert [(row["name"], row["action"], row["fields"]) for row in changed] == [("007 qcloud", action, fields)]
    heads = list(snapshots.heads(output.deployment().store, "007"))
    assert len(heads) == (1 if action == "change" else 0)


def test_what_differs_in_a_user(twocloud: Command, fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twocloud("apply", "-f", str(fleet))
    monkeypatch.setenv("PASSWORD", secret("another"))
    fleet.write_text(fleet.read_text().replace("disabled: true", "disabled: false"))
    changed = {row["name"]: row["fields"] for row in twocloud.json("apply", "-f", str(fleet)) if row["fields"]}
    assert changed == {"ann": ["password"], "bob": ["disabled"]}
    assert not twocloud.json("user", "show", "bob")["disabled"]
    fleet.write_text(fleet.read_text().replace(", password: {env: PASSWORD}", ""))
    assert set(actions(twocloud.json("apply", "-f", str(fleet))).values()) == {"none"}     # the password stays
    assert twocloud.json("user", "show", "ann")["has_password"]


def test_only_what_it_made_is_removed_and_only_when_told(twocloud: Command, fleet: Path) -> None:
    twocloud("user", "add", "eve")
    twocloud("account", "put", "007", "hetzner", stdin=json.dumps({"token": secret("hetzner")}))
    twocloud("user", "add", "ann", "--tenant", "007")           # declared later: it changes, but is not the file's own
    twocloud("apply", "-f", str(fleet))
    fleet.write_text("name: prod\n")
    shown = twocloud("apply", "-f", str(fleet))
    assert shown == ""
    assert "Pass --prune to remove them." in twocloud.err
    assert len(twocloud.json("account", "list")) == 3
    other = fleet.with_name("other.yaml")
    other.write_text("name: other\n")
    twocloud("apply", "-f", str(other), "--prune")
    assert len(twocloud.json("account", "list")) == 3
    assert actions(twocloud.json("apply", "-f", str(fleet), "--prune", "--dry-run")) == {
        "account 007 qcloud": "remove", "account 007 vultr second": "remove", "user bob": "remove"}
    assert len(twocloud.json("account", "list")) == 3
    twocloud("apply", "-f", str(fleet), "--prune")
    assert [(row["tenant_id"], row["party"]) for row in twocloud.json("account", "list")] == [("007", "hetzner")]
    assert sorted(row["user"] for row in twocloud.json("user", "list")) == ["ann", "eve"]


def test_an_account_that_a_person_put_again_is_a_persons(twocloud: Command, fleet: Path, cloud: Qcloud) -> None:
    twocloud("apply", "-f", str(fleet))
    twocloud("account", "put", "007", "vultr", "--account", "second", "--replace",
             stdin=json.dumps({"token": secret("vultr")}))
    fleet.write_text("name: prod\n")
    twocloud("apply", "-f", str(fleet), "--prune")
    assert [(row["party"], row["account"]) for row in twocloud.json("account", "list")] == [("vultr", "second")]


@pytest.mark.parametrize(("old", "new", "text"), [
    ("name: prod", "name: a b", "`$.name`"),
    ("name: prod", "nam: prod", "unknown field `nam`"),
    ("party: qcloud", "party: qclout", "007 qclout: party: There is no such party."),
    ("party: vultr\n      account: second", "party: qcloud", "007 qcloud: declared twice."),
    ("{env: SECRET_ID}", "{env: MISSING}", "fields.secret_id: The variable MISSING is not set."),
    ("{env: SECRET_ID}", "{env: SECRET_ID, file: key}", "Give either file or env."),
    ("{env: SECRET_ID}", "AKIDcli", "Expected `object`, got `str`"),                    # a secret in the file itself
    ("{file: key}", "{file: nowhere}", "nowhere: No such file"),
    ("{file: vultr.json}", "{file: key}", "does not hold one JSON object"),
    ("endpoint: URL", "endpoint: http://example.com", "endpoint"),
    ("  bob:", "  b/b:", "`$.users`"),
    ("  bob:", "  ann:", "the key stands there twice"),
    ("  007:", "  all:", "tenant_id"),
    ("      regions: [gz]", "      regions: [all]", "No region can be called all."),
    ('tenants: ["*"]', "tenants: [all]", "`$.users[...].tenants[0]`"),
    ("name: prod", "name: [", "The file is no YAML (line"),
])
def test_nothing_happens_if_anything_is_wrong(twocloud: Command, fleet: Path, cloud: Qcloud, old: str, new: str,
                                              text: str) -> None:
    fleet.write_text(FILE.replace(old, new).replace("URL", cloud.url))
    twocloud("apply", "-f", str(fleet), code=2)
    assert text in twocloud.err
    assert twocloud.json("account", "list") == twocloud.json("user", "list") == []


def test_every_problem_has_a_line(twocloud: Command, fleet: Path) -> None:
    fleet.write_text(fleet.read_text().replace("SECRET_ID", "MISSING").replace("vultr.json", "key")
                     .replace("parties: [qcloud]", "parties: [nocloud]"))
    twocloud("apply", "-f", str(fleet), code=2)
    for text in ("007 qcloud: fields", "007 vultr second: credentials", "user bob: parties"):
        assert text in twocloud.err


def test_from_standard_input_and_as_json(twocloud: Command, fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"name": "prod", "users": {"ann": {"tenants": ["1"]}}}
    assert actions(twocloud.json("apply", "-f", "-", stdin=json.dumps(document))) == {"user ann": "create"}
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)                        # as where it is not installed
    assert actions(twocloud.json("apply", "-f", "-", stdin=json.dumps(document))) == {"user ann": "none"}
    twocloud("apply", "-f", str(fleet), code=2)
    assert "install PyYAML" in twocloud.err
    twocloud("apply", "-f", "-", stdin='{"name": "a", "name": "b"}', code=2)
    assert "twice" in twocloud.err


def swap(folder: Path, text: str) -> None:
    """As Kubernetes changes a mounted secret: a new folder, to which the link of all entries is moved at once."""
    fresh = folder / f"..{len(list(folder.iterdir()))}"
    fresh.mkdir()
    (fresh / "key").write_text(text)
    (folder / "..new").symlink_to(fresh.name)
    (folder / "..new").rename(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").unlink()
        (folder / "key").symlink_to("..data/key")


@pytest.mark.slow
def test_watch_follows_the_file_and_its_secrets(fleet: Path, cloud: Qcloud, tmp_path: Path) -> None:
    swap(fleet.parent, cloud.keys["AKIDcli"])
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECRET_ID": "AKIDcli", "PASSWORD": secret("ann"),
                   "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/store.db", "TWOCLOUD_KEY": f"file:{tmp_path}/key",
                   "TWOCLOUD_LOCAL": "1", "PYTHONUNBUFFERED": "1"}
    command = [Path(sys.executable).parent / "twocloud", "apply", "-f", fleet, "--watch", "1s"]
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout

    def lines(last: str) -> list[str]:
        """Until one holds this."""
        read = list[str]()
        for line in process.stdout or ():
            if not line.startswith("{"):    # of the audit
                read.append(line.strip())
            if last in line:
                return read
        raise AssertionError(read)

    try:
        assert lines("unchanged.")[-1] == "4 changed, 0 unchanged."
        swap(fleet.parent, secret("next"))
        assert lines("unchanged.") == ["~ change account 007 qcloud (credentials)", "1 changed, 3 unchanged."]
        text = fleet.read_text()
        fleet.write_text(text.replace("name: prod", "name: ["))
        assert lines("Not applied")[-1].startswith("Not applied: The file is no YAML")
        fleet.write_text(text.replace("parties: [qcloud]", "parties: [qcloud, aws]"))
        assert lines("unchanged.") == ["~ change user bob (parties)", "1 changed, 3 unchanged."]
        fleet.unlink()
        assert lines("Not applied")[-1].endswith("No such file or directory.")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_watch_tries_again_and_says_once_what_is_in_the_way(twocloud: Command, fleet: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away for two looks."""
    looks, proper = [0], applying._apply

    def away(*words: Any) -> None:
        if looks[0] < 2:
            raise OSError("no store")
        proper(*words)

    def pause(_: float) -> None:
        looks[0] += 1
        if looks[0] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_apply", away)
    monkeypatch.setattr(applying.time, "sleep", pause)
    twocloud("apply", "-f", str(fleet), "--watch")
    assert [line for line in twocloud.err.splitlines() if not line.startswith("{")] == [
        "Not applied: OSError: no store", "4 changed, 0 unchanged."]


@pytest.mark.parametrize("more", [("--dry-run",), ("-o", "json"), ("-f", "-"), ("--watch", "0s")])
def test_watch_goes_with_a_file_that_is_applied(twocloud: Command, fleet: Path, more: tuple[str, ...]) -> None:
    twocloud("apply", "-f", str(fleet), "--watch", "1s", *more, code=2)
    assert "--watch" in twocloud.err


def test_the_file_of_the_docs(twocloud: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/apply.md").read_text(), re.DOTALL)
    assert text
    (tmp_path / "qcloud.json").write_text(json.dumps({"secret_id": "AKIDx", "secret_key": secret("qcloud")}))
    (tmp_path / "aws").write_text(secret("aws"))
    (tmp_path / "ann").write_text(secret("ann"))
    monkeypatch.setenv("AWS_KEY_ID", "AKIAX")
    (tmp_path / "fleet.yaml").write_text(text[1].replace("/run/secrets/", ""))
    assert set(actions(twocloud.json("apply", "-f", "fleet.yaml")).values()) == {"create"}
    for name in ("qcloud.json", "aws", "ann"):
        (tmp_path / name).unlink()


def test_the_schema_accepts_what_we_accept(twocloud: Command, cloud: Qcloud) -> None:
    schema = json.loads(twocloud("apply", "--schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    checks = jsonschema.Draft202012Validator(schema)
    good = yaml_text.parse(FILE.replace("URL", cloud.url).replace("disabled: true", "disabled: yes"))
    assert isinstance(good, dict)
    good["users"]["bob"]["disabled"] = True
    assert [problem.message for problem in checks.iter_errors(good)] == []
    for bad in ({}, {"name": "a b"}, {"name": "a", "x": 1}, {"name": "a", "users": {"a/b": {}}},
                {"name": "a", "tenants": {"1": [{}]}}):
        assert list(checks.iter_errors(bad))
        with pytest.raises(declared.InvalidParameter):
            declared.read(json.dumps(bad))
