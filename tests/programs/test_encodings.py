"""The command where the locale's encoding is not UTF-8, where an argument is not text in it, and where a stream is
closed: no row is lost, and no failure is silent."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from chalicelib.simulators.fleet import Machine, Machines, seed_machine
from tests import ROOT
from tests.fixtures import App

NAMES = ["web", "名", "é", "\U0001f600", "ß=x", "سلام", "end"]
ENCODINGS = ["utf-8", "gbk", "big5", "shift_jis", "latin-1", "ascii", "cp1252"]
ASK = ["servers", "--party", "qcloud", "--tenant", "123", "--region", "gz"]


@pytest.fixture
def app(served: App) -> App:
    seed = {key: getattr(seed_machine(), key) for key in Machine.__slots__}
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(         # type: ignore[attr-defined]
        [Machine(**{**seed, "number": number, "key": f"{number:08d}", "name": name})
         for number, name in enumerate(NAMES)])
    return served


def twocloud(app: App, *arguments: str | bytes, encoding: str = "utf-8",
             closed: Sequence[int] = ()) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding,
                   "TWOCLOUD_TOKEN": app.token, "LC_ALL": "C.UTF-8",
                   "PYTHONWARNINGS": "error::EncodingWarning"}
    shell = ["sh", "-c", f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}', "sh"] if closed else []
    return subprocess.run([*shell, sys.executable, "-m", "chalicelib", *arguments], env=environment,
                          capture_output=True, timeout=100, cwd=ROOT)


@pytest.mark.sample(3)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_loses_a_row(app: App, encoding: str) -> None:
    done = twocloud(app, *ASK, "--url", app.url, encoding=encoding)
    # click writes UTF-8 where ASCII is set
    table = done.stdout.decode("utf-8" if encoding == "ascii" else encoding).splitlines()
    assert done.returncode == 0, done.stderr
    assert len(table) == 1 + len(NAMES), done.stderr
    for name, line in zip(NAMES, table[1:], strict=True):
        assert line.split()[0] in (name, name.encode(encoding, "backslashreplace").decode(encoding))
        assert "ins-" in line


@pytest.mark.sample(5)
@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "prometheus", "ansible"])
def test_formats_are_utf8_in_every_locale(app: App, form: str) -> None:
    """Their readers expect it; what is shaped here is the same."""
    for more in ([], ["--columns", "name,id"]) if form in ("ndjson", "csv") else ([],):
        ask = [*ASK, "--url", app.url, "-o", form, "--max-age", "9999", *more]
        expected, output = twocloud(app, *ask), twocloud(app, *ask, encoding="gbk")
        assert output.returncode == expected.returncode == 0
        assert output.stdout == expected.stdout
        text = output.stdout.decode()
        if form == "csv":
            assert [row["instance_name"] for row in csv.DictReader(io.StringIO(text, newline=""))] == NAMES
        elif form == "ndjson":
            assert [json.loads(line)["instance_name"] for line in text.splitlines()] == NAMES
        else:
            assert json.loads(text)


def test_errors_and_help_in_another_encoding(app: App) -> None:
    done = twocloud(app, *ASK, "--sort", "\U0001f600", "--url", app.url, encoding="gbk")
    assert done.returncode == 2
    assert b"no column" in done.stderr
    assert b"Traceback" not in done.stderr
    done = twocloud(app, *ASK, "--url", app.url, "--status", "\U0001f600", encoding="gbk")
    assert done.returncode == 4
    assert b"status must be one of" in done.stderr
    assert twocloud(app, "servers", "--help", encoding="ascii").returncode == 0


@pytest.mark.parametrize("name", [b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_a_value_that_is_not_utf8_is_refused(app: App, name: bytes, tmp_path: Path) -> None:
    """Not an empty list: from a server, and from the store."""
    done = twocloud(app, *ASK, "--name", name, "--url", app.url)
    assert done.returncode == 4, done.stderr
    assert done.stdout == b"", done.stderr
    assert b"not valid UTF-8" in done.stderr, done.stderr
    assert twocloud(app, "context", "list", name).returncode == 2


@pytest.mark.slow
def test_a_closed_stream(app: App) -> None:
    done = twocloud(app, *ASK, "--url", app.url, closed=[1])
    assert done.returncode == 5
    assert b"Bad file descriptor" in done.stderr
    assert b"Traceback" not in done.stderr
    for form in ("json", "csv", "ndjson"):
        assert twocloud(app, *ASK, "--url", app.url, "-o", form, closed=[1]).returncode == 5
    done = twocloud(app, *ASK, "--url", app.url, closed=[2])
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1 + len(NAMES)
    assert twocloud(app, *ASK, "--url", "http://127.0.0.1:1", closed=[1, 2]).returncode == 3


@pytest.mark.parametrize("location", ["http://[", "https://[::1", "http://a]b/", "//[x", "\x00", "http://\u00e9"])
def test_a_redirect_to_nowhere_is_no_server_of_ours(app: App, location: str) -> None:
    class Redirects(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: " + location.encode() + b"\r\nContent-Length: 0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Redirects) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = twocloud(app, *ASK, "--url", f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert done.returncode == 3, done.stderr
    assert b"is not a twocloud server" in done.stderr, done.stderr
    assert b"Traceback" not in done.stderr, done.stderr
