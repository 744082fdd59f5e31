"""Answers that the real clouds gave, played to the adapters: what a party's grade `recorded` rests on.

The recordings are other people's and stay beside this project, in ../shared/recorded (`TWOCLOUD_RECORDED` names another
folder); each party's SOURCE.md says where they come from and what was replaced in them. Where the folder is missing its
tests are skipped, and the end of the run names each party that was not tested.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import msgspec
import pytest
import yaml

from chalicelib import parties
from chalicelib.cloud.failures import failure_in
from chalicelib.fleet.one_source import Answer as Part
from chalicelib.http.formats.rows import FullRow, full_rows
from chalicelib.model import WHOLE, Request, Response, Server, Sign, Source
from tests import ROOT
from tests.unit.test_parties import account_of

FOLDER = Path(os.environ.get("TWOCLOUD_RECORDED") or ROOT.parent / "shared" / "recorded")
MISSING = "no recordings on this machine: "
LATER_FIELDS = FullRow.__struct_fields__[FullRow.__struct_fields__.index("account"):]


def folder(party: str) -> Path:
    """The folder of the party's recordings. Skips the test if it is not there."""
    if not (FOLDER / party).is_dir():
        pytest.skip(f"{MISSING}{party}")
    return FOLDER / party


@dataclass(frozen=True)
class Answer:
    """One recorded exchange. `parameters`: the words of the query and of the body. An empty `host` fits every host."""

    method: str
    host: str
    path: str
    parameters: Mapping[str, Any]
    response: Response


def answers(cassette: Path) -> list[Answer]:
    """The exchanges of a cassette of vcrpy or go-vcr, in their order."""
    recorded = yaml.load(cassette.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [_answer(each["request"], each["response"]) for each in recorded["interactions"]]


def _answer(request: Mapping[str, Any], response: Mapping[str, Any]) -> Answer:
    url = urlsplit(request.get("uri") or request["url"])
    body, status = response["body"], response.get("code") or response["status"]
    text = body["string"] if isinstance(body, dict) else body
    headers = {str(name).lower(): ", ".join(values) for name, values in (response.get("headers") or {}).items()}
    return Answer(request["method"], url.netloc, url.path, words(url.query, (request.get("body") or "").encode()),
                  Response(status["code"] if isinstance(status, dict) else status, headers, text.encode()))


def made(path: str, body: object, *, method: str = "GET", status: int = 200, **parameters: str) -> Answer:
    """An answer written by hand, for a call that nobody recorded, or one recorded as a bare body (bytes)."""
    return Answer(method, "", path, parameters, Response(
        status, {}, body if isinstance(body, bytes) else json.dumps(body).encode()))


def words(query: str, body: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    return fields | (json.loads(body) if body.startswith(b"{") else dict(
        parse_qsl(body.decode(errors="replace"), keep_blank_values=True)))


class Player:
    """A `send` that gives recorded answers.

    An answer fits a call of the same method, host and path in which each of `compared` has the same value. Answers
    that fit the same call come in their order, the last one again and again. A call that none fits fails the test.
    """

    def __init__(self, party: str, recorded: Iterable[Answer], compared: Collection[str] = ()) -> None:
        self.party = parties.load(party)
        self.recorded = list(recorded)
        self.compared = compared
        self.used: list[int] = []

    def __call__(self, operation: str, sign: Sign) -> Response:
        request = sign()
        fitting = [n for n, answer in enumerate(self.recorded) if self._fits(answer, request)]
        assert fitting, f"no recorded answer fits {operation} {request.method} {request.url} {request.body[:300]!r}"
        chosen = next((n for n in fitting if n not in self.used), fitting[-1])
        self.used.append(chosen)
        response = self.recorded[chosen].response
        if failure := failure_in(self.party, response):
            raise failure
        return response

    def _fits(self, answer: Answer, request: Request) -> bool:
        url = urlsplit(request.url)
        words_sent = words(url.query, request.body)
        return (answer.method, answer.path) == (request.method, url.path) and answer.host in ("", url.netloc) and all(
            answer.parameters.get(word) == words_sent.get(word) for word in self.compared)


def anywhere(recorded: Iterable[Answer]) -> list[Answer]:
    """The same answers from whichever host: theirs is the region's, the adapter's is one for all."""
    return [replace(answer, host="") for answer in recorded]


def listed(player: Player, region: str, **more: Any) -> list[Server]:
    """A whole listing by the party's adapter."""
    name = player.party.name
    listing = parties.list_servers(Source("123", name, region), account_of(name, **more), WHOLE, player)
    assert listing.total == len(listing.servers)
    return listing.servers


def later_fields(servers: Iterable[Server], party: str, region: str) -> dict[str, dict[str, Any]]:
    """By the server's id, what an answer with view=full shows in `account` and the fields after it; without those that
    are null."""
    part = Part(Source("123", party, region), list(servers), None, 0.0, kept=False)
    rows = [msgspec.to_builtins(row) for row in full_rows(part, ZoneInfo("UTC"))]
    return {row["instance_id"]: {name: row[name] for name in LATER_FIELDS if row[name] is not None} for row in rows}
