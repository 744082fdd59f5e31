"""The bridge to Apache Libcloud 3.9: the clouds that are listed through its drivers.

https://libcloud.readthedocs.io/en/stable/compute/index.html

A driver signs the calls and says what is a server: id, name, addresses. The rest is ours. Its HTTP connection is
replaced by a `Door` to `send`, so that deadline, byte cap, certificates, errors, retry and pace are those of every
party; only the calls of a table pass (each lists, or logs in), and each answer is decoded into a typed shape before the
driver sees it. What the driver made is then held against what came through the door: as many, and the same, or it is
PartyMalformed. CPUs, memory, disks, times and the party's own status word are read from the rows as they came, since
libcloud drops or bends most of them.

libcloud is an optional dependency, imported when a bridged party is first asked. One driver lives for one request: a
driver shared by threads mixes up their answers, without an error.

Bridged is only what provably lists completely. Libcloud's other drivers stop silently (ec2 after a page, nttcis before
the last), cannot stop at a given row (azure_arm, gce, ovh), need words that clouds no longer send (kubevirt:
spec.running; it also reads "500m" as 500 CPUs), may be cut by a limit that the server sets and does not tell (onapp),
or stand before clouds that have closed.

Each such cloud has a folder like the others, with its shapes, its `Bridge` and its PARTY, made by `party_of`.
"""

import importlib
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import Internal, PartyDenied, PartyMalformed, PartyThrottled
from ..model import (
    Account,
    Limit,
    Listing,
    Region,
    Request,
    Response,
    Send,
    Server,
    Source,
    Window,
)
from .client import Client
from .decoding import decode, reading
from .joining import once
from .paging import cut
from .party import Party

T = TypeVar("T")
Bytes = Annotated[int, msgspec.Meta(ge=0, le=10 ** 18)]
_OURS = {"host", "user-agent", "accept-encoding", "content-length", "connection"}       # headers that transport writes


# ---------------------------------------------------------------- the door

class Call(msgspec.Struct, frozen=True):
    """What may pass: `pattern` is the whole of "METHOD /path?query". A real answer is decoded into `shape`. If it lists
    `rows` of ours, no more than that reaches the driver, which would fail on an odd one."""

    operation: str
    pattern: str
    shape: Any
    rows: bool = True


class Answer(msgspec.Struct, frozen=True):
    """An answer as libcloud reads it; the door has found it to be JSON of a known shape."""

    status_code: int
    text: str
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: {"content-type": "application/json"})
    reason: str = ""
    request: None = None
    iter_content: None = None

    @property
    def status(self) -> int:
        return self.status_code

    def read(self) -> str:
        return self.text

    def json(self) -> Any:
        return msgspec.json.decode(self.text)


class Door:
    """Stands where libcloud expects its own HTTP connection. `answers`: the last decoded answer of each operation."""

    def __init__(self, url: str, calls: Sequence[Call], account: Account, send: Send) -> None:
        self._url = url
        self._calls = calls
        self._account = account
        self._send = send
        self._answer: Answer | None = None
        self.answers: dict[str, Any] = {}

    def ask(self, method: str, path: str, headers: Callable[[], Mapping[str, str]],
            body: str | bytes | None) -> Answer:
        call = next((call for call in self._calls if re.fullmatch(call.pattern, f"{method} {path}", re.ASCII)), None)
        if call is None:
            raise Internal("Apache Libcloud asked for a call that the bridge does not know as one that only lists.")
        sent = (body or "").encode() if isinstance(body, str | None) else body
        response = self._send(call.operation, lambda: Request(
            method, self._account.url(self._url + path), dict(headers()), sent))
        if response.status != 200:
            raise PartyMalformed()          # drivers take others for success
        decoded = self.answers[call.operation] = decode(response.body, call.shape)
        with reading():
            return Answer(response.status, (msgspec.json.encode(decoded) if call.rows else response.body).decode())

    def request(self, method: str, url: str, body: str | bytes | None = None, headers: Mapping[str, Any] | None = None,
                raw: bool = False, stream: bool = False, hooks: None = None) -> Answer:
        kept = {name: str(value) for name, value in (headers or {}).items() if name.lower() not in _OURS}
        self._answer = self.ask(method, url, lambda: kept, body)
        return self._answer

    def getresponse(self) -> Answer | None:
        return self._answer


# ---------------------------------------------------------------- a driver

class Driven(msgspec.Struct, frozen=True):
    driver: Any
    door: Door
    account: Account


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """A party's row. `module`, `driver`: of libcloud. `keys`: the fields that are the constructor's key and secret.

    `url`: where the API stands, for (credentials, region). `arguments`: the constructor's others, for the same.
    `mend`: sets right what a driver gets wrong for us, on this one object. `servers`: its list, whole.
    """

    module: str
    driver: str
    keys: tuple[str, str]
    url: Callable[[Mapping[str, str], str], str]
    arguments: Callable[[Mapping[str, str], str], dict[str, Any]] = lambda credentials, region: {}
    calls: tuple[Call, ...]
    mend: Callable[[Driven], None]
    servers: Callable[[Driven, Source, Window], Listing]
    regions: Callable[[Driven], list[Region]]
    check: Callable[[Driven, Source], object]


def library(module: str) -> Any:
    try:
        return importlib.import_module(f"libcloud.{module}")
    except ImportError:
        raise Internal("This party is asked through Apache Libcloud, which is not installed here: "
                       "in the clone, run .venv/bin/pip install -e \".[bridge]\".") from None
    except ValueError:                      # it looks at this as it is imported, though no call of ours uses it
        raise Internal("Apache Libcloud cannot be imported here: SSL_CERT_FILE names no file.") from None


@contextmanager
def open_driver(bridge: Bridge, account: Account, region: str, send: Send) -> Generator[Driven, None, None]:
    """A driver of its own, whose every call goes through `send`, and whose every failure has our name."""
    credentials = account.credentials
    types, http = library("common.types"), library("common.exceptions")
    driver_class = getattr(library(f"compute.drivers.{bridge.module}"), bridge.driver)
    door = Door(bridge.url(credentials, region), bridge.calls, account, send)
    try:
        driver = driver_class(*(credentials[name] for name in bridge.keys), **bridge.arguments(credentials, region))
        def connection(**_: object) -> Door:
            return door

        driver.connection.conn_class = connection               # nothing was sent yet; its own is never asked
        driver.connection.connect()
        driven = Driven(driver, door, account)
        bridge.mend(driven)
        yield driven
    except types.InvalidCredsError:
        raise PartyDenied() from None
    except http.RateLimitReachedError:
        raise PartyThrottled() from None
    except (types.LibcloudError, http.BaseHTTPError, LookupError, TypeError, AttributeError, ValueError):
        raise PartyMalformed() from None    # an answer that the driver does not know


def nodes_by_id(driver: Any, method: str, key: str) -> None:
    """The driver makes a node of nothing but a row's id: the rest it would read its own way, and fail on odd rows."""
    def node(row: Mapping[str, Any] | None = None, *_: object, data: Mapping[str, Any] | None = None, **__: object,
             ) -> SimpleNamespace:
        return SimpleNamespace(id=(row or data or {})[key])

    setattr(driver, method, node)


def matched(nodes: Sequence[Any], rows: Sequence[T], key: Callable[[T], object]) -> list[T]:
    """The rows, of which the driver must have made as many nodes; the first, if the party gives one twice."""
    if [str(node.id) for node in nodes] != [str(key(row)) for row in rows]:
        raise PartyMalformed("Apache Libcloud made another list of the party's answer.")
    kept: dict[str, T] = {}
    for row in rows:
        kept.setdefault(str(key(row)), row)
    return list(kept.values())


def window_of(servers: Sequence[Server], window: Window) -> Listing:
    """The window of a list that was read whole."""
    listed = once(servers)
    return Listing(cut(listed, window), len(listed))


def rounded_up(number: float | None, unit: float) -> int | None:
    return None if number is None else int(-(-number // unit))


def total(sizes: Iterable[float | None], unit: float) -> int | None:
    """The sum, rounded up; None if one is not known."""
    known = list(sizes)
    return None if None in known else rounded_up(sum(size for size in known if size is not None), unit)


# ---------------------------------------------------------------- a party

def _list_servers(bridge: Bridge, client: Client, window: Window) -> Listing:
    with open_driver(bridge, client.account, client.region, client.send) as driven:
        return bridge.servers(driven, client.source, window)


def _list_regions(bridge: Bridge, client: Client) -> list[Region]:
    with open_driver(bridge, client.account, client.region, client.send) as driven:
        return bridge.regions(driven)


def _check(bridge: Bridge, client: Client) -> None:
    with open_driver(bridge, client.account, client.region, client.send) as driven:
        bridge.check(driven, client.source)


def _error_code(read: Callable[[Any], Any], response: Response) -> str | None:
    """What `read` finds in a JSON answer; nothing else is an error code."""
    with suppress(ValueError, RecursionError, LookupError, TypeError, AttributeError):
        code = read(msgspec.json.decode(response.body))
        return str(code) if isinstance(code, str | int) else None
    return None


def party_of(bridge: Bridge, *, name: str, default_region: str, calls_a_second: int, code: Callable[[Any], Any],
             **more: Any) -> Party:
    """`code`: where a decoded JSON answer holds the cloud's error code. `more`: the other fields of Party."""
    return Party(
        name=name,
        credentials=((*bridge.keys, *more.get("addresses", ())),),
        grade="bridged",
        default_region=default_region,
        limits={call.operation: Limit(calls_a_second) for call in bridge.calls},
        error_code=partial(_error_code, code),
        list_servers=partial(_list_servers, bridge),
        list_regions=partial(_list_regions, bridge),
        check=partial(_check, bridge),
        **more,
    )
