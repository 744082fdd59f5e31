"""The command on a terminal: what fits, what lines up, what cannot move the cursor; watching; colours; progress."""

import contextlib
import csv
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from chalicelib import cli, log, simulators
from chalicelib.cli import columns, terminal
from chalicelib.cli.terminal import Screen, draw
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from tests.canaries import secret, watch
from tests.programs.test_cli import Command, twocloud  # noqa: F401  (a fixture)
from tests.terminal import COMMAND, ROOT, Terminal

GZ = ("--party", "qcloud", "--tenant", "123", "--region", "gz")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b5;5H\u202egnp.exe\r\n\x08\x08web\u200d\ufe0f"


@pytest.fixture
def cloud() -> Iterator[Qcloud]:
    with Qcloud({"AKIDterm": secret("term")}, {"ap-guangzhou": Fleet(12), "ap-shanghai": Fleet(3)},
                limited=False) as cloud:
        yield cloud


@pytest.fixture
def folder(tmp_path: Path, cloud: Qcloud) -> Path:
    """Where a store is with one account at the cloud."""
    keys = json.dumps({"secret_id": "AKIDterm", "secret_key": cloud.keys["AKIDterm"]})
    done = run(tmp_path, "account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=keys)
    assert done.returncode == 0, done.stderr
    return tmp_path


def put_account(twocloud: Command, cloud: Qcloud) -> None:                      # noqa: F811
    """The same in this process, for tests in which nothing but the text matters."""
    keys = json.dumps({"secret_id": "AKIDterm", "secret_key": cloud.keys["AKIDterm"]})
    twocloud("account", "put", "123", "qcloud", "--endpoint", cloud.url, stdin=keys)


def run(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWOCLOUD_")
             and k not in ("NO_COLOR", "FORCE_COLOR")}
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, text=True, timeout=60, cwd=folder,
                          env={
        **clean, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "HOME": str(folder), "TWOCLOUD_LOCAL": "1",
        **environment})


def run_here(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """What `run` gives, without a process: for tests in which only words, exit codes and files matter."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWOCLOUD_")}
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    source = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    with contextlib.chdir(folder), mock.patch.dict(os.environ, {
            **clean, "HOME": str(folder), "TWOCLOUD_LOCAL": "1", **environment}, clear=True), \
            mock.patch.object(sys, "stdin", source), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
            mock.patch.object(log.logger, "handlers", []), mock.patch.object(log.calls, "disabled", False):
        code = cli.main(arguments)
    texts = (stream.buffer.getvalue().decode().replace("\r\n", "\n")           # type: ignore[attr-defined]
             for stream in (out, err))
    return subprocess.CompletedProcess(arguments, code, *texts)


def name(cloud: Qcloud, number: int, text: str) -> None:
    """Gives the machine at this place another name."""
    cloud.rows[number] = {**cloud._row(cloud.fleets["ap-guangzhou"][number], "ap-guangzhou"), "InstanceName": text}


# ---------------------------------------------------------------- tables

@pytest.mark.parametrize("width", [20, 80, *(pytest.param(width, marks=pytest.mark.slow) for width in (40, 60, 200))])
def test_a_table_fits_the_terminal(folder: Path, cloud: Qcloud, width: int) -> None:
    name(cloud, 1, "a name that is " + "much " * 20 + "too long")
    with Terminal("servers", *GZ, columns=width, lines=60, folder=folder) as screen:
        assert screen.end() == 0
    head, *rows = screen.rows
    ids = [machine["InstanceId"] for machine in (cloud._row(cloud.fleets["ap-guangzhou"][n], "ap-guangzhou")
                                                 for n in range(12))]
    assert head.split()[:2] == ["NAME", "ID"] if width >= 40 else "ID" in head
    for wanted in ids:
        assert sum(wanted in row for row in rows) == 1          # in one piece, so that it can be copied
    table = [line for line in screen.raw.decode().split("\r\n") if "No room" not in line]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in table]
    assert all(wcswidth(line) <= width for line in plain)
    assert ("No room for: " in screen.text) == (width < 200)
    if width == 80:
        assert head.split() == ["NAME", "ID", "STATUS", "CPU", "MEM", "DISK", "LAN", "WAN"]
        assert "No room for: created, updated." in screen.text


@pytest.mark.slow
def test_an_id_is_whole_even_where_it_does_not_fit(folder: Path, cloud: Qcloud) -> None:
    with Terminal("servers", *GZ, "--columns", "id", "--to", "1", columns=8, folder=folder) as screen:
        assert screen.end() == 0
    assert cloud._row(cloud.fleets["ap-guangzhou"][0], "ap-guangzhou")["InstanceId"] in "".join(screen.rows)


def test_chinese_names_line_up(folder: Path, cloud: Qcloud) -> None:
    for n, text in enumerate(("数据库-主", "ｗｅｂ", "web-中-1", "e\u0301té", "ＤＢ备份服务器", "ﾊﾝｶｸ")):
        name(cloud, n, text)
    with Terminal("servers", *GZ, columns=120, lines=40, folder=folder) as screen:
        assert screen.end() == 0
    at = screen.rows[0].index("ID")           # pyte keeps an empty cell after each wide one
    for row in range(1, 13):
        assert "".join(screen.screen.buffer[row][x].data or "" for x in range(at, at + 4)) == "ins-"
        assert screen.screen.buffer[row][at - 1].data == " "


@pytest.mark.parametrize(("written", "shown"), [
    ("table", ()), ("json", ()), ("table", ("--watch=60",)),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (
        ("csv", ()), ("ndjson", ()), ("ndjson", ("--watch=60",))))])
def test_a_hostile_name_moves_no_cursor(folder: Path, cloud: Qcloud, written: str, shown: tuple[str, ...]) -> None:
    name(cloud, 0, HOSTILE)
    with Terminal("servers", "--quiet", *GZ, "-o", written, *shown, columns=200, lines=60, folder=folder) as screen:
        if shown:
            screen.until(lambda _: screen.raw.count(b"ins-") == 12)
            screen.type("\x03")
        assert screen.end() == (130 if shown else 0)
    assert screen.screen.title == ""
    allowed = rb"\x1b\[(1|0|3[123])m" + (rb"|\x1b\[[HKJ]" if shown else b"")
    rest = re.sub(allowed, b"", screen.raw).decode()
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u200d\u202e]", rest), ascii(rest)
    if written in ("json", "ndjson") and not shown:             # the same name still
        whole = screen.raw.decode().replace("\r\n", "\n")
        rows = json.loads(whole)["vm_servers"] if written == "json" else [json.loads(line)
                                                                          for line in whole.splitlines()]
        assert rows[0]["instance_name"] == HOSTILE


@pytest.mark.slow
def test_a_file_gets_the_name_as_it_is(folder: Path, cloud: Qcloud) -> None:
    name(cloud, 0, HOSTILE)
    assert json.loads(run(folder, "servers", *GZ, "-o", "json").stdout)["vm_servers"][0]["instance_name"] == HOSTILE
    done = subprocess.run([*COMMAND, "servers", *GZ, "-o", "csv"], capture_output=True, timeout=60, cwd=folder,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
                               "TWOCLOUD_LOCAL": "1"})
    assert next(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))["instance_name"] == HOSTILE
    table = run(folder, "servers", *GZ).stdout
    assert "\x1b" not in table
    assert "\u202e" not in table
    assert len(table.splitlines()) == 13


def test_a_pipe_gets_the_full_width(folder: Path, cloud: Qcloud) -> None:
    name(cloud, 0, "x" * 300)
    head, first, *_ = run(folder, "servers", *GZ, COLUMNS="40").stdout.splitlines()
    assert head.split() == ["NAME", "ID", "STATUS", "CPU", "MEM", "DISK", "LAN", "WAN", "CREATED", "UPDATED"]
    assert first.startswith("x" * 300 + "  ins-")
    assert first.index("ins-") == head.index("ID")


@pytest.mark.slow
@given(st.lists(st.fixed_dictionaries({"name": st.text(max_size=60), "id": st.from_regex(r"\Ai-[0-9a-f]{4,20}\Z"),
                                       "status": st.sampled_from(["ACTIVE", "ERROR"]),
                                       "lan": st.text("0123456789.,", max_size=80)}),
                min_size=1, max_size=6), st.integers(10, 130))
def test_no_line_is_wider_than_the_terminal_unless_an_id_is(rows: list[dict[str, Any]], width: int) -> None:
    lines, dropped = draw(rows, ["name", "id", "status", "lan"], Screen(width))
    needed = max(len(row["id"]) for row in rows)
    for line in lines:
        assert terminal_width(line) <= max(width, needed + 2 + 12)
    for row in rows:
        assert any(row["id"] in line for line in lines)
    assert set(dropped) < {"name", "status", "lan"} or dropped == ["name", "status", "lan"]


def terminal_width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


@given(st.text(max_size=200))
def test_plain_text_is_one_line_that_does_nothing(text: str) -> None:
    shown = terminal.plain(text)
    assert all(c.isprintable() for c in shown)
    assert terminal.plain(shown) == shown
    assert json.loads(terminal.harmless(json.dumps(text, ensure_ascii=False))) == text


@given(st.text(max_size=50))
def test_a_line_of_the_log_does_nothing_to_a_terminal(text: str) -> None:
    """A name of a region, a member or a party's error code is the party's: DEL, C1, bidi and separators were raw."""
    record = logging.makeLogRecord({"msg": "call", "fields": {"region": text, "party_word": {text: [text]}}})
    line = log.Lines().format(record)
    assert line.isprintable()
    assert json.loads(line)["region"] == text
    assert json.loads(line)["party_word"] == {text: [text]}


@given(st.text(max_size=120), st.integers(2, 40))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    shown = terminal.plain(text)
    assert "".join("".join(terminal.wrapped(shown, width)).split()) == "".join(shown.split())


# ---------------------------------------------------------------- columns, sort

ROWS = [{"id": f"i-{n}", "name": text, "lan": lan, "cpu": cpu} for n, (text, lan, cpu) in enumerate((
    ("web-10", "10.0.0.10,10.0.0.1", 8), ("web-2", "10.0.0.9", None), ("Web-1", "", 16), ("db", "9.1.1.1", 2),
    ("", "fd00::1", 4),
    ("web-2a", "192.168.0.1", 1)))]


@pytest.mark.parametrize(("order", "expected"), [
    ("name", ["db", "Web-1", "web-2", "web-2a", "web-10", ""]),
    ("name:desc", ["web-10", "web-2a", "web-2", "Web-1", "db", ""]),
    ("lan", ["db", "web-2", "web-10", "web-2a", "", "Web-1"]),
    ("lan:desc", ["", "web-2a", "web-10", "web-2", "db", "Web-1"]),
    ("cpu", ["web-2a", "db", "", "web-10", "Web-1", "web-2"]),
    ("cpu:desc", ["Web-1", "web-10", "", "db", "web-2a", "web-2"]),
    ("id:asc", ["web-10", "web-2", "Web-1", "db", "", "web-2a"])])
def test_order(order: str, expected: list[str]) -> None:
    assert [row["name"] for row in columns.in_order(ROWS, order, list(ROWS[0]))] == expected


@given(st.lists(st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.ip_addresses().map(str),
                          st.lists(st.text(max_size=3), min_size=1))))
def test_whatever_can_be_compared(values: list[Any]) -> None:
    rows = columns.in_order([{"x": value} for value in values], "x", ["x"])
    assert len(rows) == len(values)
    assert [row["x"] for row in columns.in_order(rows, "x", ["x"])] == [row["x"] for row in rows]


def test_columns(twocloud: Command, cloud: Qcloud) -> None:                     # noqa: F811
    put_account(twocloud, cloud)

    def lines(*arguments: str) -> list[str]:
        return twocloud("servers", *GZ, "--to", "3", *arguments).splitlines()

    assert lines("--columns", "id,name,zone")[0].split() == ["ID", "NAME", "ZONE"]
    assert lines("--columns", "zone,party")[1].endswith("qcloud")
    assert lines("-o", "csv", "--columns", "id,cpu_num")[0] == "instance_id,cpu_num"
    assert list(json.loads(lines("-o", "ndjson", "--columns", "wan,instance_id,region")[0])) == [
        "wan_ip_set", "instance_id", "region"]
    assert len(lines("--no-header")) == len(lines("-o", "csv", "--no-header")) == 3
    whole = lines("-o", "csv")
    assert lines("-o", "csv", "--no-header") == whole[1:]
    assert sorted(lines("-o", "csv", "--sort", "id")) == sorted(whole)
    assert lines("--sort", "name:desc", "--no-header") == lines("--sort", "name", "--no-header")[::-1]
    many = twocloud("servers", "--party", "qcloud", "--tenant", "123", "--region", "gz,sh").splitlines()
    assert many[0].split()[:4] == ["PARTY", "REGION", "NAME", "ID"]
    assert len(many) == 16


@pytest.mark.parametrize(("arguments", "message"), [
    (("--columns", "idd"), "Columns: name, id, cpu"), (("--columns", ""), "no column ''"),
    (("--columns", "id,"), "no column ''"),
    (("--sort", "x"), "Columns: name"), (("--sort", "name:up"), "COLUMN:desc"),
    (("-o", "json", "--columns", "id"), "the API's unchanged answer"),
    (("-o", "ansible", "--no-header"), "the API's unchanged"),
    (("-o", "prometheus", "--sort", "id"), "the API's unchanged"),
    (("--view", "basic", "--columns", "zone"), "no column 'zone'"), (("--columns", "\x1b[2J"), "Columns: "),
    (("--color", "pink"), "pink"),
    (("--watch=1",), "at least 2"), (("--watch=-1",), "-1"), (("--watch=x",), "must be a number and s, m, h or d"),
    (("--watch", "-o", "csv"), "ndjson"),
    (("--watch",), "-o ndjson")])
def test_what_is_refused_says_what_there_is(twocloud: Command, cloud: Qcloud,   # noqa: F811
                                            arguments: tuple[str, ...], message: str) -> None:
    put_account(twocloud, cloud)
    assert twocloud("servers", *GZ, *arguments, code=2) == ""
    assert message in twocloud.err
    assert "\x1b" not in twocloud.err
    assert cloud.count() == 0               # nobody was asked for what cannot be shown


def test_other_lists_take_the_same(twocloud: Command) -> None:                  # noqa: F811
    for user in ("u10", "u2", "=cmd"[1:]):
        twocloud("user", "add", user, "--tenant", "7")
    assert twocloud("user", "list", "--columns", "user", "--sort", "user",
                    "--no-header").split() == ["cmd", "u2", "u10"]
    assert twocloud.json("user", "list", "--columns", "user,disabled")[0] == {"user": "cmd", "disabled": False}
    assert twocloud("user", "list", "-o", "csv", "--columns",
                    "user,tenants") == 'user,tenants\r\ncmd,"[""7""]"\r\nu10,"[""7""]"\r\nu2,"[""7""]"\r\n'
    assert [json.loads(line)["user"] for line in twocloud("user", "list", "-o", "ndjson").splitlines()] == [
        "cmd", "u10", "u2"]
    twocloud("user", "list", "--columns", "nope", code=2)
    assert twocloud("token", "list", "-o", "json") == "[]\n"


# ---------------------------------------------------------------- colours

@pytest.mark.sample(4)
@pytest.mark.parametrize(("environment", "arguments", "on_terminal", "on_pipe"), [
    ({}, (), True, False), ({"NO_COLOR": "1"}, (), False, False), ({"FORCE_COLOR": "1"}, (), True, True),
    ({"NO_COLOR": "1"}, ("--color", "always"), True, True), *(pytest.param(*row, marks=pytest.mark.slow) for row in (
        ({"NO_COLOR": ""}, (), True, False), ({"TERM": "dumb"}, (), False, False),
        ({"FORCE_COLOR": "0"}, (), False, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), False, False),
        ({}, ("--color", "never"), False, False), ({"FORCE_COLOR": "1"}, ("--color", "auto"), True, True))),
])
def test_colours(folder: Path, environment: dict[str, str], arguments: tuple[str, ...], on_terminal: bool,
                 on_pipe: bool) -> None:
    with Terminal("servers", *GZ, *arguments, folder=folder, **environment) as screen:
        assert screen.end() == 0
    shown = screen.raw.replace(b"\r\x1b[K", b"")              # which clears a progress line, if the query took a second
    assert (b"\x1b[" in shown) == on_terminal
    assert (b"\x1b[32mACTIVE" in shown) == on_terminal
    assert ("\x1b[" in run(folder, "servers", *GZ, *arguments, **environment).stdout) == on_pipe


# ---------------------------------------------------------------- watching

def test_watch_marks_what_changed_and_ends_without_a_trace(folder: Path, cloud: Qcloud) -> None:
    with Terminal("servers", *GZ, "--watch=2", columns=100, folder=folder) as screen:
        first = screen.until(lambda text: text.count("ins-") == 12)
        assert "12 servers; next query in 2 s" in first
        assert not re.search(r"^[+~-] ", first, re.M)
        name(cloud, 3, "renamed")
        cloud.fleets["ap-guangzhou"] = Fleet(13)
        screen.until(lambda text: "1 appeared, 1 changed" in text and bool(re.search(r"^~ +renamed", text, re.M))
                     and len(re.findall(r"^\+ ", text, re.M)) == 1)
        cloud.fleets["ap-guangzhou"] = Fleet(11)
        screen.until(lambda text: "11 servers, 2 vanished" in text and len(re.findall(r"^- ", text, re.M)) == 2)
        screen.until(lambda text: "vanished" not in text and text.count("ins-") == 11)
        cloud.fail("503")
        screen.until(lambda text: "! this is a stale snapshot" in text and text.count("ins-") == 11)
        screen.type("\x03")
        assert screen.end() == 130
    assert "Traceback" not in screen.raw.decode()
    assert "Aborted" not in screen.raw.decode()


@pytest.mark.slow
def test_watch_on_a_pipe_prints_a_line_for_each_event(folder: Path, cloud: Qcloud) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "TWOCLOUD_LOCAL": "1"}
    process = subprocess.Popen([*COMMAND, "servers", *GZ, "--watch=2", "-o", "ndjson", "--columns", "id,name",
                                "--on-error", "fail"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=environment)
    assert process.stdout
    assert process.stderr
    first = [json.loads(process.stdout.readline()) for _ in range(12)]
    assert {line["event"] for line in first} == {"listed"}
    assert set(first[0]["server"]) == {"instance_id", "instance_name"}
    name(cloud, 3, "renamed")
    changed = json.loads(process.stdout.readline())
    assert (changed["event"], changed["fields"], changed["server"]["instance_name"]) == (
        "changed", ["instance_name", "update_at"], "renamed")
    cloud.fail("503")
    assert json.loads(process.stdout.readline())["event"] == "failed"
    calls = cloud.count()
    cloud.plans.clear()
    cloud.fleets["ap-guangzhou"] = Fleet(11)
    assert json.loads(process.stdout.readline())["event"] == "vanished"
    assert cloud.count() <= calls + 2       # a failure makes it no quicker
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read().strip() == ""


@pytest.mark.slow
@pytest.mark.parametrize("view", ["full", pytest.param("basic", marks=pytest.mark.slow)])
def test_watch_calls_nothing_vanished_whose_source_did_not_answer(folder: Path, cloud: Qcloud, view: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "TWOCLOUD_LOCAL": "1",
                   "TWOCLOUD_STALE_IF_ERROR": "0"}
    other, credentials = simulators.clouds()["ucloud"].start({"cn-bj2": Fleet(3)}, secret("term-ucloud"), limited=False)
    with other:
        done = run(folder, "account", "put", "123", "ucloud", "--endpoint", other.url, stdin=json.dumps(credentials))
        assert done.returncode == 0, done.stderr
        process = subprocess.Popen(
            [*COMMAND, "servers", "--party", "qcloud,ucloud", "--tenant", "123", "--region", "gz,cn-bj2", "--watch=2",
             "-o", "ndjson", "--view", view,
             "--on-error", "partial"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder,
            env=environment)
        assert process.stdout
        assert process.stderr
        events = (json.loads(line)["event"] for line in process.stdout)
        assert {next(events) for _ in range(15)} == {"listed"}
        other.fail("503")
        assert next(events) == "warning"    # as every look that lacks a source
        other.plans.clear()
        cloud.fleets["ap-guangzhou"] = Fleet(11)
        # one, of the cloud that answered
        assert next(event for event in events if event != "warning") == "vanished"
        name(cloud, 3, "renamed")
        assert next(event for event in events if event != "warning") == "changed"               # and nothing appeared
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read().strip() == ""


@pytest.mark.slow
def test_watch_ends_when_it_is_refused(folder: Path, cloud: Qcloud) -> None:
    with Terminal("servers", *GZ, "--watch=2", folder=folder) as screen:
        screen.until(lambda text: text.count("ins-") == 12)
        assert run(folder, "account", "remove", "123", "qcloud").returncode == 0
        assert screen.end() == 4
    cloud.keys["AKIDterm"] = "another"
    assert run(folder, "servers", *GZ, "--watch=2", "-o", "ndjson").returncode == 4


@pytest.mark.sample(3)
@pytest.mark.parametrize("command", [("servers", *GZ), ("servers", "--party", "qcloud", "--tenant", "123", "--region",
                                                        "gz,sh"), ("doctor",),
                                     ("refresh", "--tenant", "123", "--party", "qcloud", "--region", "gz")],
                         ids=["one", "many", "doctor", "refresh"])
def test_ctrl_c_waits_for_nobody(folder: Path, cloud: Qcloud, command: tuple[str, ...]) -> None:
    cloud.fail("hang")
    with Terminal(*command, folder=folder) as screen:
        end = time.monotonic() + 30
        while not cloud.calls and time.monotonic() < end:
            time.sleep(0.05)
        began = time.monotonic()
        screen.type("\x03")
        assert screen.end() == 130
        assert time.monotonic() - began < 7
    assert "Traceback" not in screen.text


# ---------------------------------------------------------------- progress

@pytest.mark.slow
def test_progress_is_for_terminals_alone(folder: Path, cloud: Qcloud) -> None:
    cloud.latency = 1.2
    with Terminal("servers", *GZ, folder=folder, stdout=subprocess.DEVNULL) as screen:
        assert screen.end() == 0
    assert b"querying, 1 calls so far" in screen.raw
    assert screen.text == ""
    for quiet in ({"TERM": "dumb"}, {}):
        with Terminal("servers", *GZ, *([] if quiet else ["--quiet"]), folder=folder, stdout=subprocess.DEVNULL,
                      **quiet) as screen:
            assert screen.end() == 0
        assert screen.raw == b""
    assert run(folder, "servers", *GZ).stderr == ""
    with Terminal("refresh", "--tenant", "123", "--party", "qcloud", "--region", "gz", folder=folder,
                  stdout=subprocess.DEVNULL) as screen:
        assert screen.end() == 0
    assert b"refresh" in screen.raw
    assert "1 of 1 sources refreshed." in screen.text
    assert "refresh " not in run(folder, "refresh", "--tenant", "123", "--party", "qcloud", "--region", "gz").stderr


@pytest.mark.slow
def test_people_read_a_sentence_and_logs_the_audit(folder: Path, cloud: Qcloud) -> None:
    """Every command that changes something prints something to a terminal, and no JSON. -o json and --debug do."""
    keys = folder / "keys.secret"
    keys.write_text(json.dumps({"secret_id": "AKIDterm", "secret_key": cloud.keys["AKIDterm"]}))
    made = json.loads(run(folder, "user", "add", "bob", "-o", "json").stdout)
    assert made["user"] == "bob"
    token = json.loads(run(folder, "token", "issue", "--user", "bob", "-o", "json").stdout)
    watch(token["token"])
    rotate = ("account", "rotate", "123", "qcloud", "--credentials-file", str(keys))
    for arguments in (("user", "add", "ann", "--tenant", "123"), ("user", "disable", "ann"), ("user", "remove", "ann"),
                      ("token", "revoke", token["token_id"]), rotate, ("account", "remove", "123", "qcloud"),
                      ("account", "put", "123", "qcloud", "--endpoint", cloud.url, "--credentials-file", str(keys)),
                      ("tenant", "remove", "123")):
        with Terminal(*arguments, folder=folder, TWOCLOUD_LOCAL="1") as screen:
            assert screen.end() == 0, screen.text
        assert screen.text.strip(), arguments
        assert '"event"' not in screen.text, arguments
    for more in (("-o", "json"), ("--debug",)):
        with Terminal("user", "set", "bob", "--tenant", "7", *more, columns=400, folder=folder) as screen:
            assert screen.end() == 0
        assert '"event":"audit"' in screen.text, more
    assert '"event":"audit"' in run(folder, "user", "set", "bob", "--tenant", "8").stderr          # a log reads it
    keys.unlink()


def test_quiet_keeps_warnings_and_debug_tells_the_calls(folder: Path, cloud: Qcloud) -> None:
    assert run(folder, "user", "add", "ann", "--quiet").stderr.count("\n") == 1     # the audit alone
    assert "added" in run(folder, "user", "add", "bob").stderr
    output = run(folder, "--debug", "servers", *GZ).stderr
    calls = [json.loads(line) for line in output.splitlines()]
    assert [(call["event"], call["party"], call["operation"], call["tries"]) for call in calls
            if call["event"] == "call"] == [
        ("call", "qcloud", "DescribeInstances", 1)]
    assert "canary" not in output
    cloud.fail("503")
    assert "this is a stale snapshot" in run(folder, "servers", *GZ, "-q").stderr


def test_help_loads_no_more_than_it_shows() -> None:
    """What makes a start slow: the network's libraries, the adapters, the drawing of tables."""
    code = "import sys; from chalicelib import cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    loaded = set(done.stderr.split())
    assert "Usage: twocloud" in done.stdout
    for name_ in ("requests", "urllib3", "rich", "boto3", "cryptography", "chalice", "waitress", "http.client",
                  "chalicelib.cloud.sender", "chalicelib.parties"):
        assert name_ not in loaded, name_


def test_the_list_of_commands_says_what_they_say_themselves() -> None:
    from chalicelib import cli

    for command, (_, text) in cli.COMMANDS.items():
        entry = cli.twocloud.get_command(None, command)         # type: ignore[arg-type]
        assert entry, (command, entry and entry.help)
        assert entry.help, (command, entry and entry.help)
        assert entry.help.startswith(text.rstrip(".").split(",")[0].split(";")[0]), (command, entry and entry.help)
