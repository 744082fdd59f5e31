"""The command: what it prints and where, its exit codes, and that no secret travels in the open."""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
import requests

from chalicelib import cli, log, parties
from chalicelib.cli import changes, in_parts, output, remote, servers
from chalicelib.cli.output import in_options
from chalicelib.fleet import changes_query, query
from chalicelib.http import formats
from chalicelib.model import Source
from chalicelib.parties.jdcloud.simulator import Jdcloud
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import snapshots, sqlite
from tests import ROOT
from tests.canaries import secret, watch
from tests.fixtures import App

TWOCLOUD = Path(sys.executable).parent / "twocloud"


class Command:
    """Runs the command in this process, on a store of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        self.err = ""

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        output.deployment.cache_clear()
        self.capsys.readouterr()
        exit_code = cli.main(arguments)
        captured = self.capsys.readouterr()
        self.err = captured.err
        assert exit_code == code, (arguments, captured)
        return captured.out

    def json(self, *arguments: str, **more: Any) -> Any:
        return json.loads(self(*arguments, "-o", "json", **more))


@pytest.fixture
def twocloud(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Command]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TWOCLOUD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TWOCLOUD_LOCAL", "1")
    yield Command(capsys, monkeypatch)
    output.deployment.cache_clear()


@pytest.fixture
def cloud() -> Iterator[Qcloud]:
    with Qcloud({"AKIDcli": secret("cli")}, {"ap-guangzhou": Fleet(25)}) as cloud:
        yield cloud


def credentials(cloud: Qcloud) -> str:
    return json.dumps({"secret_id": "AKIDcli", "secret_key": cloud.keys["AKIDcli"]})


# ---------------------------------------------------------------- users, tokens, accounts

def test_users(twocloud: Command) -> None:
    made = twocloud.json("user", "add", "ann", "--tenant", "123", "--tenant", "7", "--party", "qcloud", "--region",
                         "gz")
    assert made == {"user": "ann", "tenants": ["123", "7"], "parties": ["qcloud"], "regions": ["gz"], "disabled": False,
                    "has_password": False}
    assert twocloud("user", "add", "bob", "--tenant", "*", "--password-stdin", stdin=secret("pw") + "\n") == ""
    assert "User bob added." in twocloud.err
    twocloud("user", "add", "ann", code=4)
    assert "already" in twocloud.err
    assert [user["user"] for user in twocloud.json("user", "list")] == ["ann", "bob"]
    assert twocloud.json("user", "show", "bob")["has_password"]
    assert twocloud.json("user", "show", "bob")["tenants"] == ["*"]
    changed = twocloud.json("user", "set", "ann", "--tenant", "9", "--party", "*")
    assert (changed["tenants"], changed["parties"], changed["regions"]) == (["9"], [], ["gz"])
    assert twocloud.json("user", "set", "ann", "--no-tenants", "--region", "*")["tenants"] == []
    assert twocloud.json("user", "disable", "ann")["disabled"]
    assert not twocloud.json("user", "enable", "ann")["disabled"]
    twocloud("user", "set", "ann", code=2)
    twocloud("user", "set", "ann", "--tenant", "1", "--no-tenants", code=2)
    for words in (("show", "eve"), ("set", "eve", "--tenant", "1"), ("disable", "eve"), ("remove", "eve")):
        twocloud("user", *words, code=4)
    twocloud("user", "remove", "ann")
    assert [user["user"] for user in twocloud.json("user", "list")] == ["bob"]
    for option in ("--tenant", "--region"):
        twocloud("user", "add", "eve", option, "all", code=2)
        assert "write '*'" in twocloud.err, twocloud.err
    twocloud("user", "add", "eve+ci@example.com")
    for name in ("a/b", "", "x" * 65, "a b", "é", "a:b", "a\n"):
        twocloud("user", "add", "--", name, code=2)


def test_a_password_from_a_file(twocloud: Command, tmp_path: Path) -> None:
    (tmp_path / "pw.secret").write_text(secret("file") + "\n")
    twocloud("user", "add", "ann", "--password-file", str(tmp_path / "pw.secret"))
    assert twocloud.json("user", "show", "ann")["has_password"]
    twocloud("user", "add", "bob", "--password-stdin", "--password-file", str(tmp_path / "pw.secret"), code=2)
    twocloud("user", "add", "bob", "--password-stdin", stdin="\n", code=2)
    twocloud("user", "add", "bob", "--password-file", "/nonexistent", code=2)
    twocloud("user", "add", "bob", "--password-stdin", stdin="x" * 2000, code=2)


def test_tokens(twocloud: Command) -> None:
    twocloud("user", "add", "ann", "--tenant", "123", "--region", "gz")
    made = twocloud.json("token", "issue", "--user", "ann", "--ttl", "12h", "--label", "ci", "--region", "ap-guangzhou")
    watch(made["token"])
    assert re.fullmatch(r"tc_[0-9A-Za-z]{36}", made["token"])
    assert {k: made[k] for k in ("user", "tenants", "parties", "regions", "label")} == {
        "user": "ann", "tenants": None, "parties": None, "regions": ["ap-guangzhou"], "label": "ci"}
    assert list(made)[:3] == ["token", "token_id", "user"]
    assert made["expires_at"] > made["created_at"]
    plain = twocloud("token", "issue", "--user", "ann")
    assert re.fullmatch(r"tc_[0-9A-Za-z]{36}\n", watch(plain.strip()) + "\n")
    assert "not shown again" in twocloud.err
    listed = twocloud.json("token", "list", "--user", "ann")
    assert len(listed) == 2
    assert "token" not in listed[0]
    assert twocloud.json("token", "list", "--user", "bob") == []
    assert twocloud.json("token", "show", made["token_id"])["label"] == "ci"
    rotated = twocloud.json("token", "rotate", made["token_id"], "--grace", "0s")
    watch(rotated["token"])
    assert rotated["token"] != made["token"]
    assert rotated["label"] == "ci"
    assert rotated["regions"] == ["ap-guangzhou"]
    twocloud("token", "show", made["token_id"], code=4)
    twocloud("token", "revoke", rotated["token_id"])
    for words in (("show", rotated["token_id"]), ("revoke", rotated["token_id"]), ("rotate", rotated["token_id"]),
                  ("show", "x"), ("revoke", "tc_" + "0" * 36), ("show", "")):
        twocloud("token", *words, code=4)
    for wider in (("--tenant", "124"), ("--tenant", "*"), ("--region", "sh")):
        twocloud("token", "issue", "--user", "ann", *wider, code=2)
        assert "wider" in twocloud.err
    twocloud("token", "issue", "--user", "eve", code=4)


def test_several_tokens_end_at_once(twocloud: Command) -> None:
    for name in ("ann", "bob"):
        twocloud("user", "add", name, "--tenant", "123")
    ids = [(made := twocloud.json("token", "issue", "--user", name), watch(made["token"]))[0]["token_id"]
           for name in ("ann", "ann", "ann", "bob", "bob")]
    twocloud("token", "revoke", ids[0], "0" * 16, ids[1], code=4)
    assert "1 of 3 tokens do not exist" in twocloud.err
    assert {row["token_id"] for row in twocloud.json("token", "list")} == set(ids[2:])
    twocloud("token", "revoke", "--user", "bob")
    assert [row["token_id"] for row in twocloud.json("token", "list")] == [ids[2]]
    twocloud("token", "revoke", "--all")
    twocloud("token", "revoke", "--all")
    assert twocloud.json("token", "list") == []
    for words in ((), ("--all", "--user", "bob"), ("--all", ids[0])):
        twocloud("token", "revoke", *words, code=2)


@pytest.mark.parametrize("ttl", ["0s", "1", "1.5h", "-1h", "10", "1w", "1y", "9999d", "", " 1h", "１h", "1h\n", "0x1h"])
def test_durations(twocloud: Command, ttl: str) -> None:
    twocloud("user", "add", "ann")
    twocloud("token", "issue", "--user", "ann", "--ttl", ttl, code=2)


def test_accounts(twocloud: Command, cloud: Qcloud, tmp_path: Path) -> None:
    made = twocloud.json("account", "put", "123", "qcloud", "--project", "7", "--region", "gz", "--region", "sh",
                         "--deep",
                         "--endpoint", cloud.url, stdin=credentials(cloud))
    assert {k: made[k] for k in ("tenant_id", "party", "project", "regions", "deep", "endpoint")} == {
        "tenant_id": "123", "party": "qcloud", "project": "7", "regions": ["ap-guangzhou", "ap-shanghai"], "deep": True,
        "endpoint": cloud.url}
    (tmp_path / "keys.secret").write_text(credentials(cloud))
    put = ("account", "put", "123", "qcloud", "--endpoint", cloud.url, "--credentials-file",
           str(tmp_path / "keys.secret"))
    twocloud("refresh", code=0)
    twocloud(*put, code=4)
    assert re.search(r"--replace; that drops its snapshots \([12], with \d+ servers\) and the history", twocloud.err)
    assert "twocloud account rotate 123 qcloud" in twocloud.err
    assert twocloud.json("account", "show", "123", "qcloud") == made
    twocloud(*put, "--replace")
    assert twocloud.json("account", "show", "123", "qcloud")["project"] is None
    assert [row["tenant_id"] for row in twocloud.json("account", "list")] == ["123"]
    assert twocloud.json("account", "list", "7") == []
    for words in (("show", "123", "aws"), ("remove", "123", "aws"), ("check", "7", "qcloud")):
        twocloud("account", *words, code=4)
    twocloud("account", "remove", "123", "qcloud")
    assert twocloud.json("account", "list") == []
    for path in (tmp_path / ".twocloud").glob("twocloud.db*"):
        assert b"AKIDcli" not in path.read_bytes()


def test_an_account_names_only_regions_in_the_form_of_its_party(twocloud: Command, cloud: Qcloud) -> None:
    twocloud("account", "put", "123", "qcloud", "--region", "GZ", "--region", "sh", "--endpoint", cloud.url,
             stdin=credentials(cloud), code=2)
    assert "no region of this name" in twocloud.err
    assert twocloud.json("account", "list") == []


@pytest.mark.parametrize(("arguments", "stdin"), [
    (("123", "qcloud"), "not json"), (("123", "qcloud"), "[]"), (("123", "qcloud"), ""), (("123", "qcloud"), "{}"),
    (("123", "qcloud"), '{"secret_id": "canaryA"}'),
    (("123", "qcloud"), '{"secret_id": "a", "secret_key": "b", "more": "c"}'),
    (("123", "nocloud"), "{}"), (("a/b", "qcloud"), "{}"), (("123", "qcloud", "--region", "a/b"), "{}"),
    (("123", "qcloud", "--endpoint", "http://cloud.example"), '{"secret_id": "a", "secret_key": "b"}'),
    (("123", "qcloud", "--project", "x"), '{"secret_id": "a", "secret_key": "b"}'), (("123", "qcloud"), "[" * 70_000),
])
def test_accounts_that_are_refused(twocloud: Command, arguments: tuple[str, ...], stdin: str) -> None:
    twocloud("account", "put", *arguments, stdin=stdin, code=2)
    assert "Traceback" not in twocloud.err
    assert "canaryA" not in twocloud.err
    assert twocloud.json("account", "list") == []


def test_plain_http_needs_the_local_switch(twocloud: Command, cloud: Qcloud, monkeypatch: pytest.MonkeyPatch) -> None:
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    monkeypatch.delenv("TWOCLOUD_LOCAL")
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, "--replace", stdin=credentials(cloud), code=2)
    assert "TWOCLOUD_LOCAL=1" in twocloud.err
    twocloud("servers", "--party", "qcloud", "--tenant", "123", "--region", "gz", code=5)
    assert "TWOCLOUD_LOCAL=1" in twocloud.err


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All of them, with the words that name them."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, (*path, name))


def test_a_secret_that_was_typed_in_a_wrong_place_is_not_repeated(twocloud: Command) -> None:
    typed = secret("typed")
    for path, command in commands(cli.twocloud):
        there = [words for it in command.params if it.required
                 for words in ((it.opts[-1], "x") if isinstance(it, click.Option) else ("qcloud",))]
        files = [it.opts[-1] for it in command.params
                 if isinstance(it, click.Option) and isinstance(it.type, click.File)]
        more = ([] if any(it.nargs == -1 for it in command.params if isinstance(it, click.Argument)) else
                [[typed] * 4])
        for wrong in ([f"--secret={typed}"], *([name, typed] for name in files), *more):
            twocloud(*path, *there, *wrong, code=2)
            assert typed not in twocloud.err, (path, wrong)
            assert "Error: " in twocloud.err


@pytest.mark.parametrize("text", ['{"secret_id": "AKIDcli", "secret_id": "AKIDother", "secret_key": "x"}',
                                  '{"secret_id": "AKIDcli", "secret_key": "x", "secret\\u005fkey": "x"}'])
def test_credentials_that_give_a_key_twice_are_refused(twocloud: Command, text: str) -> None:
    """As everywhere: parsers keep the last one without a word."""
    twocloud("account", "put", "123", "qcloud", stdin=text, code=2)
    assert "more than once" in twocloud.err
    twocloud("account", "put", "123", "gcp", stdin='{"service_account": {"type": "a", "type": "b"}}', code=2)
    assert "more than once" in twocloud.err
    assert twocloud.json("account", "list") == []


def test_a_lost_key_is_not_replaced(twocloud: Command, cloud: Qcloud, tmp_path: Path) -> None:
    """What a second key seals would be lost as soon as the first is restored."""
    put = ("account", "put", "123", "qcloud", "--endpoint", cloud.url)
    twocloud(*put, stdin=credentials(cloud))
    key = tmp_path / ".twocloud/key"
    kept = key.read_bytes()
    key.unlink()
    for command in ((*put, "--account", "b"), (*put, "--replace"), ("account", "check", "123", "qcloud"),
                    ("account", "rotate", "123", "qcloud"), ("serve", "--port", "0")):
        twocloud(*command, stdin=credentials(cloud), code=2)
        assert "Restore it from its backup" in twocloud.err, command
        assert not key.exists()
    twocloud("account", "list")             # which needs no key
    key.write_bytes(kept)
    key.chmod(0o600)
    twocloud("account", "check", "123", "qcloud")
    key.unlink()
    twocloud("account", "remove", "123", "qcloud")
    twocloud(*put, stdin=credentials(cloud))
    assert key.read_bytes() != kept


def test_check(twocloud: Command, cloud: Qcloud) -> None:
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    assert twocloud.json("account", "check", "123", "qcloud") == {
        "tenant_id": "123", "party": "qcloud", "account": "default", "region": "ap-guangzhou", "state": "ok"}
    assert len(cloud.calls) == 1
    cloud.keys["AKIDcli"] = "another"
    answer = twocloud.json("account", "check", "123", "qcloud", code=5)
    assert (answer["state"], answer["error"]) == ("failed", "party_denied")
    assert "wrong key" in answer["msg"]
    assert "wrong key" in twocloud.err
    cloud.late = 900
    assert "clock" in twocloud.json("account", "check", "123", "qcloud", code=5)["msg"]
    cloud.late = 0
    twocloud("account", "check", "123", "qcloud", "--region", "m.ars", code=4)
    cloud.close()
    assert "cannot be reached" in twocloud.json("account", "check", "123", "qcloud", code=5)["msg"]


def test_a_check_shows_what_the_party_hides(twocloud: Command) -> None:
    key = secret("jdcloud")
    with Jdcloud({"JDCcli": key}, {"cn-north-1": Fleet(12)}) as simulator:
        twocloud("account", "put", "123", "jdcloud", "--endpoint", simulator.url,
                 stdin=json.dumps({"access_key": "JDCcli", "secret_key": key}))
        assert "warning" not in twocloud.json("account", "check", "123", "jdcloud")
        simulator.hidden = 2
        assert "10 of the 12" in twocloud.json("account", "check", "123", "jdcloud")["warning"]
        assert "10 of the 12" in twocloud("account", "check", "123", "jdcloud")


def test_a_removed_tenant_is_gone_from_the_bytes(twocloud: Command, cloud: Qcloud, tmp_path: Path) -> None:
    name = "tenant-to-forget"
    twocloud("account", "put", name, "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    twocloud("account", "put", "other", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    twocloud("user", "add", "ann", "--tenant", name, "--tenant", "other")
    twocloud("user", "add", "bob", "--tenant", name)
    both = twocloud.json("token", "issue", "--user", "ann", "--tenant", name, "--tenant", "other")
    only = twocloud.json("token", "issue", "--user", "bob", "--tenant", name)
    watch(both["token"])
    watch(only["token"])
    twocloud("tenant", "remove", name)
    for path in (tmp_path / ".twocloud").glob("twocloud.db*"):
        assert name.encode() not in path.read_bytes(), path
    assert [row["tenant_id"] for row in twocloud.json("account", "list")] == ["other"]
    assert twocloud.json("user", "show", "ann")["tenants"] == ["other"]
    assert twocloud.json("user", "show", "bob")["tenants"] == []
    assert [row["tenants"] for row in twocloud.json("token", "list")] == [["other"]]
    twocloud("tenant", "remove", name)      # again: nothing there, nothing wrong


# ---------------------------------------------------------------- servers, parties

def test_servers_without_http(twocloud: Command, cloud: Qcloud) -> None:
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    where = ("servers", "--party", "qcloud", "--tenant", "123", "--region", "gz")
    whole = twocloud.json(*where)
    assert len(whole["vm_servers"]) == 25
    assert list(whole) == ["code", "msg", "vm_servers"]
    assert twocloud.json(*where, "--from", "4", "--to", "6")["vm_servers"] == whole["vm_servers"][3:6]
    assert twocloud.json(*where, "--view", "full", "--status", "ACTIVE")["vm_servers"][0]["party"] == "qcloud"
    table = twocloud(*where, "--to", "3").splitlines()
    assert table[0].split() == ["NAME", "ID", "STATUS", "CPU", "MEM", "DISK", "LAN", "WAN", "CREATED", "UPDATED"]
    assert len(table) == 4
    for arguments, code in ((("--from", "0"), 4), (("--from", "x"), 4), (("--status", "nice"), 4),
                            (("--view", "x"), 4)):
        twocloud(*where, *arguments, code=code)
    twocloud("servers", "--party", "qcloud", "--tenant", "7", "--region", "gz", code=4)
    twocloud("servers", "--party", "nocloud", "--tenant", "7", "--region", "gz", code=4)
    twocloud("servers", "--party", "qcloud", code=2)
    cloud.fail("503")
    assert twocloud(*where, "--on-error", "fail", code=5) == ""
    assert "cannot be reached" in twocloud.err
    assert len(twocloud(*where).splitlines()) == 26
    assert "this is a stale snapshot" in twocloud.err


@pytest.mark.parametrize(("options", "text"), [
    (("--from", "0"), "--from must be a whole number"), (("--to", "x"), "--to must be a whole number"),
    (("--from", "3", "--to", "2"), "--to must not be less than --from."), (("--tag", "="), "--tag must be"),
    (("--max-age", "-1"), "--max-age must be"), (("--changed-since", "2026-09-21"), "--changed-since must be"),
    (("--on-error", "partial"), "--on-error partial"), (("--list", "none"), "Start again without --list."),
    (("--from", "2", "-o", "ansible"), "-o ansible always returns the whole list. Leave out --from."),
    (("--changed-since", "2026-09-21T00:00:00Z", "-o", "csv"), "Use --changed-since only with -o json"),
    (("--account", "/"), "--account must be"), (("--url", "URL"), "does not accept the token of TWOCLOUD_TOKEN")])
def test_refusals_name_the_options_of_the_command(twocloud: Command, served: App, monkeypatch: pytest.MonkeyPatch,
                                                  options: tuple[str, ...], text: str) -> None:
    monkeypatch.setattr("chalicelib.cli.servers.deployment", lambda: served.deployment)
    monkeypatch.setenv("TWOCLOUD_TOKEN", "tc_none")
    where = ["servers", "--party", "qcloud", "--tenant", "123", "--region", "gz"]
    twocloud(*where, *(option.replace("URL", served.url) for option in options), code=4)
    assert text in twocloud.err
    assert not re.search(r"=|`|\b(POST|Bearer|max_age|on_error|changed_since|tenant_id|[ft] must)\b",
                         twocloud.err.replace("KEY=VALUE", "")), twocloud.err


@pytest.mark.parametrize(("command", "parameters"), [
    (servers.servers, query.PARAMETERS), (changes.changes, changes_query.PARAMETERS)], ids=["servers", "changes"])
def test_every_parameter_is_an_option(command: click.Command, parameters: tuple[query.Parameter, ...]) -> None:
    """In each turn of the API's texts; a word of English stays."""
    known = {option for it in command.params for option in it.opts}
    for name in (parameter.name for parameter in parameters):
        option, *rest = in_options(f"{name} must be x").split()
        assert (option in known, rest) == (True, ["must", "be", "x"]), name
        assert in_options(f"Use {name} only here. Leave out {name}.") == f"Use {option} only here. Leave out {option}."
        assert in_options(f"Set `{name}`, or {name}=9&{name}=x.") == f"Set {option}, or {option} 9 {option} x."
    text = "Name one party or a region of another account. A list must fit its format."
    assert in_options(text) == text


@pytest.mark.sample(3)
@pytest.mark.parametrize("written", ["csv", "ndjson", "prometheus", "ansible"])
@pytest.mark.parametrize("over", ["store", "http"])
def test_servers_in_every_format(twocloud: Command, served: App, monkeypatch: pytest.MonkeyPatch, written: str,
                                 over: str) -> None:
    """The API's own bytes, over the store as from a server, and what they cannot hold on standard error."""
    where = ["servers", "--party", "qcloud", "--tenant", "123", "--region", "gz", "-o", written]
    if over == "http":
        monkeypatch.setenv("TWOCLOUD_TOKEN", served.token)
        where += ["--url", served.url]
    else:
        monkeypatch.setattr("chalicelib.cli.servers.deployment", lambda: served.deployment)
    query = f"party=qcloud&tenant_id=123&region=gz&format={written}"
    expected = served.get(query).content.decode()
    ended = "" if written in ("csv", "ndjson") else "\n"
    twocloud.capsys.readouterr()
    assert cli.main(where) == 0
    printed = twocloud.capsys.readouterr()
    assert printed.out == expected + ended
    assert printed.err == ""
    if written == "prometheus":
        expected = served.get(f"{query}&port=9100&address=wan").content.decode()
        assert twocloud(*where, "--port", "9100", "--address", "wan") == expected + ended
        assert re.fullmatch(r"\d+ servers have no such address and are no targets\.\n", twocloud.err)
    else:
        twocloud(*where, "--port", "9100", code=4)
        assert "Use --port only with -o prometheus." in twocloud.err
    twocloud(*where, "--changed-since", "2026-09-21T00:00:00Z", code=4)
    served.clouds["qcloud"].fail("503")
    served.clock.forward(5)
    assert len(twocloud(*where)) == len(served.get(query).content.decode() + ended)
    assert "this is a stale snapshot, 5 s old" in twocloud.err.lower()
    assert twocloud(*where, "--on-error", "fail", code=5) == ""


def test_hostile_names_reach_no_terminal(twocloud: Command, cloud: Qcloud) -> None:
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    cloud.fleets["ap-guangzhou"] = Fleet(1)
    cloud.rows[0] = {**cloud._row(Fleet(1)[0], "ap-guangzhou"),
                     "InstanceName": "\x1b[2J\x07evil\u202e[bold]x[/bold] 名"}
    table = twocloud("servers", "--party", "qcloud", "--tenant", "123", "--region", "gz")
    assert "\x1b" not in table
    assert "\x07" not in table
    assert "\u202e" not in table
    assert "[bold]x[/bold] 名" in table


def test_servers_from_a_server(twocloud: Command, served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOCLOUD_TOKEN", served.token)
    where = ("servers", "--url", served.url, "--party", "qcloud", "--tenant", "123", "--region", "gz")
    assert len(twocloud.json(*where)["vm_servers"]) == 25
    assert len(twocloud(*where, "--from", "2", "--to", "4").splitlines()) == 4
    twocloud(*where, "--from", "0", code=4)
    assert "request id" in twocloud.err
    twocloud(*where, "--name", "\udcff", code=4)            # a byte of the shell that is no UTF-8
    assert "UTF-8" in twocloud.err
    served.clouds["qcloud"].fail("503")
    twocloud(*where, "--on-error", "fail", code=5)
    monkeypatch.setenv("TWOCLOUD_TOKEN", "tc_wrong")
    twocloud(*where, code=4)
    monkeypatch.delenv("TWOCLOUD_TOKEN")
    twocloud(*where, code=2)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://cloud.example", "ftp://x", "x", "https://",
                                 "http://10.0.0.1", "https://[::1"])
def test_urls_that_cannot_be_asked(twocloud: Command, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TWOCLOUD_TOKEN", "tc_x")
    twocloud("servers", "--url", url, "--party", "qcloud", "--tenant", "1", "--region", "gz", code=3)
    assert len(twocloud.err.strip().splitlines()) == 1


def test_a_login_page_is_no_twocloud(twocloud: Command, monkeypatch: pytest.MonkeyPatch, cloud: Qcloud) -> None:
    monkeypatch.setenv("TWOCLOUD_TOKEN", "tc_x")
    for fault in ("html", "redirect", "list", "null", "empty body", "404"):
        cloud.forget()
        cloud.fail(fault)
        twocloud("servers", "--url", cloud.url, "--party", "qcloud", "--tenant", "1", "--region", "gz", code=3)
        assert "is not a twocloud server" in twocloud.err
    for written in ("csv", "prometheus"):
        cloud.forget()
        cloud.fail("list" if written == "prometheus" else "html")
        twocloud("servers", "--url", cloud.url, "--party", "qcloud", "--tenant", "1", "--region", "gz", "-o", written,
                 code=3)


def test_parties(twocloud: Command) -> None:
    assert [row["name"] for row in twocloud.json("parties")] == list(parties.names())
    one = twocloud("parties", "qcloud")
    for word in ("secret_id, secret_key, token?", "cvm:DescribeInstances", "ap-guangzhou (gz)", "cbs:DescribeDisks"):
        assert word in one
    twocloud("parties", "nocloud", code=4)


# ---------------------------------------------------------------- the command itself

def test_audit_says_who_did_what(twocloud: Command, cloud: Qcloud, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(log, "audit", lambda who, what, **fields: lines.append({"who": who, "what": what, **fields}))
    twocloud("user", "add", "ann", "--tenant", "123", "--password-stdin", stdin="pw")
    twocloud("user", "set", "ann", "--tenant", "7")
    twocloud("user", "disable", "ann")
    twocloud("user", "enable", "ann")
    made = twocloud.json("token", "issue", "--user", "ann")
    watch(made["token"])
    watch(twocloud.json("token", "rotate", made["token_id"])["token"])
    twocloud("token", "revoke", made["token_id"])
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
    twocloud("account", "remove", "123", "qcloud")
    twocloud("tenant", "remove", "123")
    twocloud("user", "remove", "ann")
    assert [line["what"] for line in lines] == [
        "user add", "user set", "user disable", "user enable", "token issue", "token rotate", "token revoke",
        "account put",
        "account remove", "tenant remove", "user remove"]
    assert all(line["who"] == output.operator() for line in lines)


def test_what_was_removed_is_written_down_even_if_the_file_cannot_be_scrubbed(twocloud: Command, cloud: Qcloud,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(log, "audit", lambda _, what, **fields: lines.append(what))
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.1)
    for remove in (("account", "remove", "123", "qcloud"), ("tenant", "remove", "123")):
        twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=credentials(cloud))
        with closing(sqlite3.connect(".twocloud/twocloud.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM entry").fetchone()
            twocloud(*remove, code=5)
        assert "The next command that removes something erases them" in twocloud.err
        assert lines.pop() == f"{remove[0]} remove"
        assert twocloud.json("account", "list") == []


def run(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWOCLOUD_")}
    return subprocess.run([TWOCLOUD, *arguments], input=stdin, capture_output=True, timeout=60,
                          env={**clean, **environment})


def test_exit_codes_of_the_real_command(tmp_path: Path) -> None:
    store = {"TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db", "TWOCLOUD_KEY": f"file:{tmp_path}/key"}
    assert run("--version").stdout.startswith(b"twocloud ")
    assert run("user", "add", "ann", **store).returncode == 0
    assert run("nonsense").returncode == run("user", "add").returncode == run("user", "add", "a/b",
                                                                              **store).returncode == 2
    bad = run("user", "list", TWOCLOUD_STORE="mysql://x")
    assert bad.returncode == 2
    assert bad.stderr.decode().strip() == (
        "twocloud: TWOCLOUD_STORE must be sqlite:///PATH, postgresql://… or dynamodb://TABLE.")
    assert run("user", "show", "eve", **store).returncode == 4
    module = subprocess.run([sys.executable, "-m", "chalicelib", "user", "list", "-o", "json"], capture_output=True,
                            timeout=60, cwd=ROOT,
                            env={**os.environ, **store})
    assert json.loads(module.stdout)[0]["user"] == "ann"


def test_a_store_that_breaks_is_one_clear_line(tmp_path: Path) -> None:
    store = {"TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db"}
    assert run("user", "list", **store).returncode == 0
    with sqlite3.connect(tmp_path / "x.db") as other:
        other.execute("DROP TABLE entry")
    done = run("user", "list", **store)
    assert done.returncode == 5
    assert b"Traceback" not in done.stderr
    assert b"no such table" in done.stderr


def test_data_goes_to_standard_output_and_all_else_to_standard_error(tmp_path: Path) -> None:
    store = {"TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db"}
    run("user", "add", "ann", "--tenant", "1", **store)
    issued = run("token", "issue", "--user", "ann", "-o", "json", **store)
    watch(json.loads(issued.stdout)["token"])
    for line in issued.stderr.decode().splitlines():
        assert json.loads(line)["event"] == "audit"
    assert json.loads(issued.stdout)["token"] not in issued.stderr.decode()


NASTY = ["", " ", "a b", "a/b", "../x", "\n", "x" * 5000, "é", "\u202e", "$(id)", "'; DROP TABLE entry; --", "\udc80",
         "%00", "*x", "１２"]


@pytest.mark.parametrize("command", [
    ("user", "add", "{}"), ("user", "add", "n", "--tenant", "{}"), ("user", "add", "n", "--party", "{}"),
    ("user", "add", "n", "--region", "{}"),
    ("user", "show", "{}"), ("user", "remove", "{}"), ("token", "issue", "--user", "{}"),
    ("token", "issue", "--user", "n", "--ttl", "{}"),
    ("token", "show", "{}"), ("token", "revoke", "{}"), ("token", "rotate", "{}"), ("token", "list", "--user", "{}"),
    ("account", "put", "{}", "qcloud"), ("account", "put", "1", "{}"),
    ("account", "put", "1", "qcloud", "--project", "{}"),
    ("account", "put", "1", "qcloud", "--endpoint", "{}"), ("account", "put", "1", "qcloud", "--region", "{}"),
    ("account", "put", "1", "qcloud", "--credentials-file", "{}"), ("account", "check", "{}", "qcloud"),
    ("account", "show", "1", "{}"),
    ("tenant", "remove", "{}"), ("parties", "{}"), ("serve", "--port", "{}"),
    ("servers", "--party", "{}", "--tenant", "1", "--region", "gz"),
    ("servers", "--party", "qcloud", "--tenant", "{}", "--region", "gz"),
    ("servers", "--party", "qcloud", "--tenant", "1", "--region", "{}"),
    ("servers", "--party", "qcloud", "--tenant", "1", "--region", "gz", "--from", "{}"),
], ids=" ".join)
def test_nasty_words_are_refused_in_a_line(twocloud: Command, command: tuple[str, ...]) -> None:
    """Exit 2 or 4 for every option, never a trace, nothing stored."""
    for word in NASTY:
        arguments = [word if part == "{}" else part for part in command]
        twocloud.monkeypatch.setattr(
            "sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"secret_id": "a", "secret_key": "b"}')))
        code = cli.main(arguments)
        printed = twocloud.capsys.readouterr()
        if arguments[:3] == ["token", "list", "--user"] and code == 0:
            continue                        # nobody of this name has a token
        assert code in (2, 4), (arguments, code, printed)
        assert "Traceback" not in printed.err
        assert printed.out == ""
    assert twocloud.json("account", "list") == []


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    done = subprocess.run(f"{TWOCLOUD} parties qcloud -o json | head -c 1", shell=True, capture_output=True, timeout=60,
                          env={**os.environ, "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db"})
    assert done.stdout == b"{"
    assert done.stderr == b""


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    """Nor is a disk that is full a success."""
    for command, code in (("parties -o json | true", "0"), ("parties | true", "0"), ("parties > /dev/full", "5")):
        done = subprocess.run(f"{TWOCLOUD} {command}; echo ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                              capture_output=True,
                              text=True, timeout=60, env={**os.environ, "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db"})
        assert done.stdout == f"{code}\n", (command, done)
        assert "Exception ignored" not in done.stderr
        assert bool(done.stderr) == (code != "0")


def test_serve_and_stop(tmp_path: Path) -> None:
    for stop in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([TWOCLOUD, "serve", "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True,
                                   env={**os.environ, "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db",
                                        "TWOCLOUD_KEY": f"file:{tmp_path}/key"})
        line = process.stderr.readline() if process.stderr else ""
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line
        assert requests.get(f"{url[0]}/twocloud/health", timeout=9).status_code == 200
        assert requests.get(f"{url[0]}/twocloud/servers", timeout=9).status_code == 401
        process.send_signal(stop)
        assert process.wait(15) == 0
        assert process.communicate()[0] == ""


def test_a_key_that_cannot_be_used_stops_serve(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "junk").chmod(0o600)
    for key in (tmp_path / "junk", tmp_path):
        done = subprocess.run([TWOCLOUD, "serve", "--port", "0"], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/x.db",
                                   "TWOCLOUD_KEY": f"file:{key}"})
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert done.stderr.startswith("twocloud: TWOCLOUD_KEY")


@pytest.mark.sample(2)
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_demo_leaves_nothing_however_soon_it_is_ended(tmp_path: Path, stop: signal.Signals) -> None:
    process = subprocess.Popen([TWOCLOUD, "demo", "--port", "0"], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               text=True,
                               env={**os.environ, "TMPDIR": str(tmp_path)})
    assert process.stdout
    watch(process.stdout.readline().split("'")[1].partition(":")[0])
    process.send_signal(stop)               # before it serves at all
    assert process.wait(30) == 0
    process.stdout.close()
    assert not list(tmp_path.iterdir())


def test_a_port_in_use(tmp_path: Path, served: App) -> None:
    port = served.url.rsplit(":", 1)[1]
    done = run("serve", "--port", port, TWOCLOUD_STORE=f"sqlite:///{tmp_path}/x.db",
               TWOCLOUD_KEY=f"file:{tmp_path}/key")
    assert done.returncode == 3
    assert b"Address already in use" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_demo_prints_one_line_that_works_as_pasted() -> None:
    process = subprocess.Popen([TWOCLOUD, "demo", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        watch(line.split("'")[1].split(":")[0])
        assert line.startswith("curl -u 'tc_")
        answer = json.loads(subprocess.run(line.replace("curl", "curl -sS"), shell=True, capture_output=True,
                                           timeout=30, check=True).stdout)
        assert answer["vm_servers"][0] == {
            "instance_name": "hehe", "instance_id": "ins-u23j34j2", "cpu_num": 8, "mem_size": 16, "disk_size": 20,
            "lan_ip_set": "192.168.0.2,192.168.0.3", "wan_ip_set": "122.22.3.45,122.22.3.46", "status": "ACTIVE",
            "create_at": "2014-07-29 15:08:39", "update_at": "2014-07-29 15:08:39"}
        assert len(answer["vm_servers"]) == 10
    finally:
        started = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("written", ["json", "csv", "ndjson"])
def test_a_list_that_is_too_long_for_one_answer_is_read_in_parts(twocloud: Command, served: App, written: str,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined, the parts are the API's own bytes; the fleet may change between them."""
    monkeypatch.setenv("TWOCLOUD_TOKEN", served.token)
    where = ("servers", "--url", served.url, "--party", "qcloud", "--tenant", "123", "--region", "gz", "-o", written)
    whole = served.get(f"party=qcloud&tenant_id=123&region=gz&format={written}").text
    some = served.get(f"party=qcloud&tenant_id=123&region=gz&format={written}&f=3&t=24").text
    write, get, queries = formats.write, remote.get, list[str]()
    monkeypatch.setattr(formats, "write", lambda fleet, query, zone: write(fleet, query, zone, most=2600))
    monkeypatch.setattr(in_parts, "PART", 20)
    qcloud: Any = served.clouds["qcloud"]

    def changing(there: Any, path: str, query: str = "") -> Any:
        response = get(there, path, query)
        queries.append(query)
        if "X-List-Id" in response.headers:
            qcloud.fleets["ap-guangzhou"] = Fleet(30 + len(queries))
            served.clock.forward(1)
            assert served.get("party=qcloud&tenant_id=123&region=gz").status_code in (200, 413)
        return response

    monkeypatch.setattr(remote, "get", changing)
    assert twocloud(*where).rstrip("\n") == whole.rstrip("\n")
    assert sum("list=" in query for query in queries) >= 2
    assert twocloud.err == ""
    qcloud.fleets["ap-guangzhou"] = Fleet(25)
    queries.clear()
    assert twocloud(*where, "--from", "3", "--to", "24").rstrip("\n") == some.rstrip("\n")


def test_a_list_that_goes_while_it_is_read_is_read_again(twocloud: Command, served: App,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOCLOUD_TOKEN", served.token)
    where = ("servers", "--url", served.url, "--party", "qcloud", "--tenant", "123", "--region", "gz", "-o", "json")
    write, get, going = formats.write, remote.get, [True]
    monkeypatch.setattr(formats, "write", lambda fleet, query, zone: write(fleet, query, zone, most=2600))
    monkeypatch.setattr(in_parts, "PART", 10)

    def gone(there: Any, path: str, query: str = "") -> Any:
        if "list=" in query and going[0]:
            going[0] = len(going) > 1
            snapshots.forget(served.deployment.store, Source("123", "qcloud", "ap-guangzhou"))
        return get(there, path, query)

    monkeypatch.setattr(remote, "get", gone)
    assert len(twocloud.json(*where)["vm_servers"]) == 25
    assert "Reading it again." in twocloud.err
    going[:] = [True, True]
    twocloud(*where, code=4)
    assert twocloud.err.count("Reading it again.") == 2
    assert "no longer kept" in twocloud.err
