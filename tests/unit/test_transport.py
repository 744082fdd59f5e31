"""The door to a party: deadline, retry, pace, byte cap, what is ignored of the environment, and the border of errors.

Faults are done for real by a server; deadlines are set short, and "held" means well before the fault would end.
"""

import contextlib
import datetime
import http.client
import inspect
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chalicelib import errors
from chalicelib.access.tokens import Caller, Token
from chalicelib.access.users import User
from chalicelib.cloud import failures, rate_limit, sockets
from chalicelib.cloud import sender as sender_module
from chalicelib.cloud.answer_size import room_of
from chalicelib.cloud.failures import failure_in, failure_of
from chalicelib.cloud.party import Party
from chalicelib.cloud.sender import Sender, Transport
from chalicelib.errors import (
    FAILED,
    MALFORMED,
    REGION,
    THROTTLED,
    WRONG_KEY,
    PartyDenied,
    PartyError,
    PartyFailed,
    PartyMalformed,
    PartyThrottled,
    PartyTimeout,
    PartyUnavailable,
    UnknownRegion,
)
from chalicelib.fleet.counters import Counters
from chalicelib.model import Account, Limit, Request, Response
from chalicelib.parties.qcloud import PARTY as QCLOUD
from chalicelib.simulators.faults import FAULTS, LATE, PASSING, UNSEEN, Answer
from chalicelib.simulators.server import Call, Plan, Simulator

WORDS = {error.code: error for error in (PartyDenied, PartyFailed, PartyMalformed, PartyThrottled, PartyTimeout,
                                         PartyUnavailable)}
ACCOUNT = Account(tenant_id="1", party="test", credentials={"key": "k"})


class Plain(Simulator):
    """Answers every call with the same JSON."""

    def operation(self, call: Call) -> str:
        return call.path.strip("/") or "list"

    def answer(self, call: Call) -> Answer:
        return Answer(200, {"Content-Type": "application/json"}, b'{"rows": [' + b'1,' * 2000 + b'1]}')


def party(**changes: object) -> Party:
    """A party without rates whose error code stands in a header."""
    return msgspec.structs.replace(QCLOUD, name="test", limits={}, errors={"Throttled": THROTTLED, "Denied": WRONG_KEY,
                                                           "Odd": MALFORMED,
                                                           "Broken": FAILED},
                   error_code=lambda response: response.headers.get("x-error"), **changes)      # type: ignore[arg-type]


@pytest.fixture
def cloud() -> Iterator[Plain]:
    with Plain() as cloud:
        yield cloud


@pytest.fixture
def door() -> Iterator[Transport]:
    made = Transport(jitter=lambda: 0.0)
    yield made
    made.close()


def sender(door: Transport, seconds: float = 20.0, of: Party | None = None, account: Account = ACCOUNT) -> Sender:
    return door.sender(of or party(), account, "r1", time.monotonic() + seconds)


def ask(cloud: Simulator, path: str = "/list") -> Request:
    return Request("POST", cloud.url + path, {"Content-Type": "application/json"}, b"{}")


# ---------------------------------------------------------------- faults

# these are proper HTTP: what is wrong with them only their reader sees
PROPER = {"empty body", "html", "null", "list", "object", "empty xml", "deep json", "deep xml", "xml bomb", "not utf-8",
          "cut head", "cut body without length"}


def test_what_no_adapter_sees_is_met_here() -> None:
    assert not PROPER & {*UNSEEN, *LATE}


@pytest.mark.parametrize("fault", [name for name in FAULTS if FAULTS[name][1] and name not in PROPER])
def test_every_fault_becomes_its_error_within_the_deadline(cloud: Plain, door: Transport, fault: str) -> None:
    cloud.fail(fault)
    seconds = 1.0 if fault in LATE else 20.0
    send, started = sender(door, seconds), time.monotonic()
    with pytest.raises(PartyError) as failed:
        send("list", lambda: ask(cloud))
    assert failed.value.code == FAULTS[fault][1], failed.value
    assert time.monotonic() - started < (8 if fault in LATE else 15)
    assert cloud.count() <= 2
    if failed.value.code in ("party_denied", "party_malformed", "party_timeout"):
        assert cloud.count() == 1                               # asking again cannot help


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_at_once_is_not_seen(cloud: Plain, door: Transport, fault: str) -> None:
    cloud.fail(fault, nth=(1,))
    assert sender(door)("list", lambda: ask(cloud)).status == 200
    assert cloud.count() == 2


def test_after_a_fault_the_connection_is_not_used_again(cloud: Plain, door: Transport) -> None:
    cloud.fail("cut body", nth=(1,))
    cloud.fail("slow body", nth=(1,))       # its first call is the second of all
    send = sender(door, 1.0)
    for _ in range(2):
        with pytest.raises(PartyError):
            send("list", lambda: ask(cloud))
    answers = [sender(door)("list", lambda: ask(cloud)).body for _ in range(3)]
    assert all(msgspec.json.decode(body)["rows"] for body in answers)


def test_a_bomb_is_stopped_before_it_fills_the_memory(cloud: Plain, door: Transport) -> None:
    import tracemalloc

    cloud.fail("bomb")
    tracemalloc.start()
    with pytest.raises(PartyMalformed, match="longer than 16 MB"):
        sender(door)("list", lambda: ask(cloud))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150_000_000               # 300 MB unpacked


def test_a_closed_port_and_an_unknown_name(door: Transport) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(PartyUnavailable):
            sender(door)("list", lambda: Request("GET", url, {}))
    with pytest.raises(PartyUnavailable, match="does not know"):
        sender(door, 8)("list", lambda: Request("GET", "https://no-such-name.invalid/", {}))


def test_a_name_server_that_hangs(door: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(30) and [])
    started = time.monotonic()
    try:
        with pytest.raises(PartyTimeout):
            sender(door, 1.0)("list", lambda: Request("GET", "https://some.example/", {}))
    finally:
        released.set()
    assert time.monotonic() - started < 8


def test_an_address_that_swallows_every_packet(door: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full drops connection requests, as a firewall does."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        started = time.monotonic()
        with pytest.raises(PartyError) as failed:
            sender(door, 1.0)("list", lambda: Request("GET", f"http://127.0.0.1:{full.getsockname()[1]}/", {}))
        assert failed.value.code == "party_timeout"
        assert time.monotonic() - started < 8


def test_every_address_of_a_name_is_tried(cloud: Plain, door: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "resolve", lambda host, port: ["127.0.0.2", "127.0.0.1"])
    assert sender(door)("list", lambda: ask(cloud)).status == 200


def test_a_region_whose_host_does_not_exist(door: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the region's host is unknown, that of the usual region's is not: the party has no such region."""
    def resolve(host: str, port: int, **_: object) -> list[object]:
        if "ap-nowhere" in host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    send = door.sender(party(), ACCOUNT, "ap-nowhere-1", time.monotonic() + 5)
    with pytest.raises(UnknownRegion):
        send("list", lambda: Request("GET", "https://cvm.ap-nowhere-1.example/", {}))
    with pytest.raises(PartyUnavailable):   # a region that was there before is not gone because a name server says so
        door.sender(party(), ACCOUNT, "ap-nowhere-1", time.monotonic() + 5, known=True)(
            "list", lambda: Request("GET", "https://cvm.ap-nowhere-1.example/", {}))
    with pytest.raises(PartyUnavailable):   # a simulator for every host says nothing about regions
        door.sender(party(), replace(ACCOUNT, endpoint="https://ap-nowhere-1.example"), "ap-nowhere-1",
                    time.monotonic() + 5)("list", lambda: Request("GET", "https://ap-nowhere-1.example/", {}))


# ---------------------------------------------------------------- retries

def failing(status: int = 200, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}")


@pytest.mark.parametrize(("answer", "error", "calls"), [
    (failing(x_error="Throttled"), PartyThrottled, 2), (failing(x_error="Throttled.More"), PartyThrottled, 2),
    (failing(x_error="Broken"), PartyFailed, 2), (failing(x_error="New.Word"), PartyFailed, 2),
    (failing(x_error="Denied"), PartyDenied, 1), (failing(x_error="Odd"), PartyMalformed, 1),
    (failing(503, x_error="Denied"), PartyDenied, 1), (failing(403, x_error="Throttled"), PartyThrottled, 2),
    (failing(429, Retry_After="0"), PartyThrottled, 2), (failing(429, Retry_After="21600"), PartyThrottled, 1),
    (failing(503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT"), PartyUnavailable, 1),
    (failing(503, Retry_After="Mon, 01 Jan 2001 00:00:00 GMT"), PartyUnavailable, 2),
    (failing(503, Retry_After="soon"), PartyUnavailable, 2), (failing(503, Retry_After="-5"), PartyUnavailable, 2),
])
def test_at_most_one_retry_and_none_where_it_cannot_help(cloud: Plain, door: Transport, answer: Answer,
                                                         error: type[PartyError], calls: int) -> None:
    cloud.plans.append(Plan(answer=answer))
    with pytest.raises(error):
        sender(door)("list", lambda: ask(cloud))
    assert cloud.count() == calls


def test_no_retry_when_no_time_is_left(cloud: Plain, door: Transport) -> None:
    cloud.fail("503")
    with pytest.raises(PartyUnavailable):
        sender(door, 0.9)("list", lambda: ask(cloud))
    assert cloud.count() == 1


def test_a_partys_retry_after_is_waited_for(cloud: Plain, door: Transport) -> None:
    cloud.plans.append(Plan(answer=failing(429, Retry_After="1"), nth=(1,)))
    sender(door)("list", lambda: ask(cloud))
    assert cloud.calls[1].at - cloud.calls[0].at >= 1


def test_retries_are_a_tenth_of_the_calls_at_most(cloud: Plain, door: Transport) -> None:
    """An outage in the middle of a long listing is not answered with twice as many calls."""
    send = sender(door)
    for _ in range(30):
        send("list", lambda: ask(cloud))
    cloud.fail("503")
    for _ in range(30):
        with pytest.raises(PartyUnavailable):
            send("list", lambda: ask(cloud))
    assert cloud.count() == send.stats.calls
    assert send.stats.retries == cloud.count() - 60 <= 60 // 9


def test_each_try_is_signed_again(cloud: Plain, door: Transport) -> None:
    cloud.fail("503", nth=(1,))
    signed: list[float] = []

    def sign() -> Request:
        signed.append(time.monotonic())
        return ask(cloud)

    sender(door)("list", sign)
    assert len(signed) == 2


def test_jitter_is_full(cloud: Plain) -> None:
    """The pause is any part of a third of a second: with the dice at one half, half of it."""
    for dice in (0.0, 0.5, 0.999):
        cloud.forget()
        cloud.fail("503", nth=(1,))
        door = Transport(jitter=lambda dice=dice: dice)
        sender(door)("list", lambda: ask(cloud))
        assert cloud.calls[1].at - cloud.calls[0].at >= 0.3 * dice
        door.close()


# ---------------------------------------------------------------- pace

def test_the_documented_rate_holds_in_every_window(cloud: Plain, door: Transport,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """So the times are given out, and no call comes before its own; on a busy machine it may come later."""
    times: list[float] = []
    reserve = rate_limit.RateLimiter.reserve

    def noted(limiter: rate_limit.RateLimiter, deadline: float) -> float:
        wait = reserve(limiter, deadline)
        times.append(time.monotonic() + wait)
        return wait

    monkeypatch.setattr(rate_limit.RateLimiter, "reserve", noted)
    of = msgspec.structs.replace(party(), limits={"list": Limit(10, 0.5)})
    send = sender(door, of=of)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: send("list", lambda: ask(cloud)), range(35)))
    times.sort()
    assert all(later - earlier > 0.45 for earlier, later in zip(times, times[10:], strict=False))
    assert len(times) == len(cloud.calls) == 35
    came = sorted(call.at for call in cloud.calls)
    assert all(at > earliest - 0.01 for at, earliest in zip(came, times, strict=True))


def test_the_rate_is_one_for_all_requests_of_an_account_and_not_of_others(cloud: Plain, door: Transport) -> None:
    of = msgspec.structs.replace(party(), limits={"list": Limit(2, 30)})
    same, other = replace(ACCOUNT, tenant_id="2"), replace(ACCOUNT, credentials={"key": "other"})
    for account in (ACCOUNT, same):
        sender(door, of=of, account=account)("list", lambda: ask(cloud))
    with pytest.raises(PartyThrottled, match="Request a range") as late:
        sender(door, 2, of=of)("list", lambda: ask(cloud))
    assert late.value.retry_after
    assert late.value.retry_after > 20
    sender(door, of=of, account=other)("list", lambda: ask(cloud))
    sender(door, of=of)("other", lambda: ask(cloud))
    for region in ("r2", "r3"):
        door.sender(of, ACCOUNT, region, time.monotonic() + 5, known=True)("list", lambda: ask(cloud))
    assert cloud.count() == 6


def test_regions_that_are_not_known_share_one_rate(cloud: Plain, door: Transport) -> None:
    """Whoever makes up names of regions gets no more calls through than the party allows for one region."""
    of = msgspec.structs.replace(party(), limits={"list": Limit(3, 30)})
    for n in range(3):
        door.sender(of, ACCOUNT, f"made-up-{n}", time.monotonic() + 5)("list", lambda: ask(cloud))
    for n in range(3, 9):
        with pytest.raises(PartyThrottled):
            door.sender(of, ACCOUNT, f"made-up-{n}", time.monotonic() + 1)("list", lambda: ask(cloud))
    assert cloud.count() == 3
    assert len(door.rates._limiters) == 1
    door.sender(of, ACCOUNT, "r1", time.monotonic() + 1, known=True)("list", lambda: ask(cloud))


def test_rates_that_are_at_rest_are_forgotten(door: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    of, clock = msgspec.structs.replace(party(), limits={"list": Limit(3, 1.0)}), [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: clock[0])
    for n in range(10_000):
        clock[0] += 0.1
        pace = door.rates.limiter(of, replace(ACCOUNT, credentials={"key": str(n)}), "r1", "list")
        assert pace
        pace.reserve(clock[0] + 1)
        assert len(door.rates._limiters) <= 2100
    kept = door.rates.limiter(of, replace(ACCOUNT, credentials={"key": "9999"}), "r1", "list")
    assert kept is pace                     # one that is not at rest stays


@pytest.mark.parametrize(("request_", "named"), [
    (Request("GET", "https://ecs.ap-here.example/", {}), True),
    (Request("GET", "https://ecs.example/?Region=ap-here", {}), True),
    (Request("POST", "https://ecs.example/", {"X-TC-Region": "ap-here"}), True),
    (Request("POST", "https://ecs.example/", {}, b'{"region": "ap-here"}'), True),
    (Request("GET", "https://ecs.example/?filter=location%20eq%20%27ap-here%27", {}), True),
    (Request("POST", "https://login.example/token", {}, b"grant_type=client_credentials"), False),
    (Request("GET", "https://ecs.example/zones/ap-here-a/types", {}), False),
    (Request("GET", "https://ecs.ap-there.example/", {}), False)])
def test_only_the_answer_about_a_region_says_that_it_is_unknown(door: Transport, monkeypatch: pytest.MonkeyPatch,
                                                                request_: Request,
                                                                named: bool) -> None:
    """The same word about a zone, another host or a login is the party's failure: nothing says that the region is not
    there."""
    of = msgspec.structs.replace(party(), errors={"Gone": REGION})
    monkeypatch.setattr(sender_module.Sender, "_exchange", lambda *_: Response(404, {"x-error": "Gone"}, b""))
    with pytest.raises(UnknownRegion if named else PartyFailed) as failed:
        door.sender(of, ACCOUNT, "ap-here", time.monotonic() + 0.5)("list", lambda: request_)
    assert named or "Gone" in failed.value.text


# ---------------------------------------------------------------- connections, environment

@pytest.mark.parametrize(("seconds", "connections"), [(45.0, 1), (0.0, 10)])
def test_connections_are_kept_while_they_are_in_use(cloud: Plain, door: Transport, monkeypatch: pytest.MonkeyPatch,
                                                    seconds: float, connections: int) -> None:
    monkeypatch.setattr(sockets, "_KEPT_SECONDS", seconds)
    opened = []
    real = sockets.create_connection
    monkeypatch.setattr(sockets, "create_connection", lambda *a, **k: opened.append(a) or real(*a, **k))
    for _ in range(10):
        sender(door)("list", lambda: ask(cloud))
    assert len(opened) == connections


def test_head_and_body_leave_together(cloud: Plain, door: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    def sendall(sock: socket.socket, data: bytes) -> None:
        sent.append(bytes(data))
        socket.socket.sendall(sock, data)

    monkeypatch.setattr(sockets._PlainSocket, "sendall", sendall, raising=False)
    sender(door)("list", lambda: ask(cloud))
    assert len(sent) == 1, sent
    assert sent[0].endswith(b"\r\n\r\n{}")


def test_cookies_are_not_kept_and_redirects_not_followed(cloud: Plain, door: Transport) -> None:
    cloud.fail("cookie", nth=(1,))
    for _ in range(2):
        sender(door)("list", lambda: ask(cloud))
    assert all("cookie" not in call.headers for call in cloud.calls)
    cloud.forget()
    cloud.fail("redirect")
    with pytest.raises(PartyMalformed):
        sender(door)("list", lambda: ask(cloud))
    assert cloud.count() == 1


def test_proxies_certificates_and_netrc_of_the_environment_play_no_part(
        cloud: Plain, door: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password netrc-secret\n")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nonexistent")
    sender(door)("list", lambda: ask(cloud))
    assert "authorization" not in cloud.calls[0].headers
    assert "proxy-authorization" not in cloud.calls[0].headers


def test_closing_a_sender_ends_what_is_under_way(cloud: Plain, door: Transport) -> None:
    cloud.fail("hang")
    send, ended = sender(door, 20), threading.Event()
    counters = Counters()
    door.observe = counters.add_call

    def call() -> None:
        with pytest.raises(PartyError):
            send("list", lambda: ask(cloud))
        ended.set()

    threading.Thread(target=call, daemon=True).start()
    while not cloud.calls:
        time.sleep(0.01)
    send.close()
    assert ended.wait(5)
    with pytest.raises(PartyTimeout):
        send("list", lambda: ask(cloud))
    assert cloud.count() == 1
    cloud.forget()
    assert sender(door)("list", lambda: ask(cloud)).status == 200
    everything = Caller(Token(token_id="", user="", uid=""), User(name="", uid="", tenants=("*",)))
    (calls,) = counters.calls(everything).values()
    assert calls.count == {"cancelled": 2, "ok": 1}             # no party was late


# ---------------------------------------------------------------- TLS

def certificate(folder: Path, name: str = "localhost") -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
            .not_valid_after(now + datetime.timedelta(1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256()))
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


@contextlib.contextmanager
def tls_server(pem: str, key: str) -> Iterator[str]:
    """A simulator behind TLS: the same server, its socket wrapped."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    with Plain() as cloud:
        cloud._server.socket = context.wrap_socket(cloud._server.socket, server_side=True)
        yield f"https://localhost:{cloud.port}"


def test_a_trusted_certificate_works_and_others_do_not(tmp_path: Path, door: Transport) -> None:
    pem, key = certificate(tmp_path)
    with tls_server(pem, key) as url:
        trusting = Transport(trusted=pem)
        assert sender(trusting)("list", lambda: Request("GET", f"{url}/list", {})).status == 200
        with pytest.raises(PartyUnavailable, match="certificate"):
            sender(door)("list", lambda: Request("GET", f"{url}/list", {}))
        with pytest.raises(PartyUnavailable, match="certificate"):          # right key, wrong name
            sender(trusting)("list", lambda: Request("GET", url.replace("localhost", "127.0.0.1"), {}))


def test_no_parameter_switches_the_checks_off() -> None:
    assert "verify" not in str(inspect.signature(Transport)) + str(inspect.signature(Sender))
    made = Transport()
    assert made.adapter._tls.verify_mode == ssl.CERT_REQUIRED
    assert made.adapter._tls.check_hostname
    assert "verify=False" not in Path(sender_module.__file__).read_text()


def test_a_handshake_that_hangs(tmp_path: Path, door: Transport) -> None:
    with Plain() as cloud:
        cloud.fail("hang")                  # it never even speaks TLS
        started = time.monotonic()
        with pytest.raises(PartyError):
            sender(door, 1.0)("list", lambda: Request("GET", cloud.url.replace("http:", "https:"), {}))
        assert time.monotonic() - started < 8


def test_a_body_that_drips_through_tls(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    with Plain() as cloud:
        cloud._server.socket = context.wrap_socket(cloud._server.socket, server_side=True)
        cloud.fail("slow body")
        started = time.monotonic()
        with pytest.raises(PartyTimeout):
            sender(Transport(trusted=pem), 1.0)("list",
                                                lambda: Request("GET", f"https://localhost:{cloud.port}/list", {}))
        assert time.monotonic() - started < 8


@pytest.mark.parametrize("fault", ["hang", "slow headers", "slow body", "endless continue"])
def test_a_call_that_is_given_up_has_run_out_of_time(door: Transport, cloud: Plain, fault: str) -> None:
    """To the waiting thread the connection looks closed by the party: it was us."""
    cloud.fail(fault)
    sending = sender(door, 20.0)
    failures: list[Exception] = []

    def call() -> None:
        try:
            sending("list", lambda: Request("GET", f"{cloud.url}/list", {}))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not (cloud.calls and sending._held):
        time.sleep(0.01)
    time.sleep(0.1)                         # the fault has begun
    sending.close()
    thread.join(5)
    assert [type(error) for error in failures] == [PartyTimeout]


# ---------------------------------------------------------------- the border of errors is complete

def exceptions_of(module: object) -> list[type[Exception]]:
    return [kind for _, kind in inspect.getmembers(module, inspect.isclass)
            if issubclass(kind, Exception) and not issubclass(kind, Warning)
            and kind.__module__ == getattr(module, "__name__", "")]


def made(kind: type[Exception]) -> Exception:
    """An instance, whatever its constructor wants."""
    for arguments in ((), ("x",), ("x", "y"), (None, "x"), (None, "x", "y"), ("x", 1), (b"x", 3),
                      (None, None, None, None)):
        with contextlib.suppress(Exception):
            return kind(*arguments)
    if kind is urllib3.exceptions.InvalidChunkLength:
        return kind(urllib3.HTTPResponse(b""), b"zz")
    return kind("x", "doc", 0)              # JSONDecodeError


@pytest.mark.parametrize("kind", [*exceptions_of(requests.exceptions), *exceptions_of(urllib3.exceptions),
                                  *exceptions_of(http.client), OSError, ConnectionResetError, BrokenPipeError,
                                  TimeoutError,
                                  socket.gaierror, ssl.SSLError, ssl.SSLCertVerificationError, ConnectionRefusedError])
@pytest.mark.parametrize("answered", [False, True])
def test_every_exception_of_the_network_has_a_meaning(kind: type[Exception], answered: bool) -> None:
    if kind is urllib3.exceptions.ProxySchemeUnsupported:
        return                              # there are no proxies
    assert isinstance(failure_of(made(kind), answered=answered), PartyError)


def test_what_is_not_the_networks_is_our_own_fault() -> None:
    for mistake in (KeyError("x"), TypeError("x"), AttributeError("x")):
        assert failure_of(mistake, answered=False) is mistake


def test_the_innermost_cause_decides() -> None:
    for inner, outer_word in ((ConnectionResetError(), "party_unavailable"),
                              (http.client.BadStatusLine("x"), "party_malformed"),
                              (TimeoutError(), "party_timeout"), (http.client.IncompleteRead(b"x"), "party_malformed")):
        outer = requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", inner))
        failure = failure_of(outer, answered=False)
        assert isinstance(failure, PartyError)
        assert failure.code == outer_word


@pytest.mark.parametrize(("status", "word", "expected"), [
    (200, None, None), (204, None, None), (200, "Denied", "party_denied"), (200, "Denied.Sub.Sub", "party_denied"),
    (200, "Never.Heard", "party_error"), (500, "Never.Heard", "party_error"), (503, "Never.Heard", "party_unavailable"),
    (401, "Never.Heard", "party_denied"), (400, "Never.Heard", "party_malformed"), (301, None, "party_malformed"),
    (304, None, "party_malformed"), (400, None, "party_malformed"), (404, None, "party_malformed"),
    (401, None, "party_denied"),
    (403, None, "party_denied"), (429, None, "party_throttled"), (500, None, "party_error"), (501, None, "party_error"),
    (502, None, "party_unavailable"), (503, None, "party_unavailable"), (504, None, "party_unavailable"),
    (505, None, "party_error"), (599, None, "party_error"), (100, None, "party_malformed"),
])
def test_words_before_statuses(status: int, word: str | None, expected: str | None) -> None:
    failure = failure_in(party(), Response(status, {"x-error": word} if word else {}, b""))
    assert (failure and failure.code) == expected


def test_what_a_party_writes_is_not_repeated_raw() -> None:
    for word in ("<script>", "x" * 200, "a b", "ключ", "new\nline", "", '"quoted"'):
        failure = failure_in(party(), Response(500, {"x-error": word}, b""))
        assert failure
        assert (not word or word not in failure.text)
    failure = failure_in(party(), Response(200, {"x-error": "Denied.SecretId-Not_Found"}, b""))
    assert isinstance(failure, PartyError)
    assert failure.party_code == "Denied.SecretId-Not_Found" in failure.text


def test_all_party_errors_can_come_up() -> None:
    """Each error of the tree below PartyError is reached by some row of the tables."""
    by_network = {failure for _, failure, _ in failures._NETWORK}
    by_status = {failures._by_status(status).error for status in range(100, 600)}
    assert by_network | by_status == set(errors.PartyError.__subclasses__())


def test_signs_inside_texts_take_no_room() -> None:
    """A start-up script is full of commas and brackets, and 500 machines may have one each."""
    script = '{"a": [1, 2]}, ' * 2000
    body = msgspec.json.encode({"items": [{"id": n, "userData": f"{script} \\ \" {n}"} for n in range(300)]})
    assert (room := room_of(body)) is not None
    assert room < 1_000_000
    assert room_of(b"[" + b"{}," * 500_000 + b"{}]") is None
    assert room_of(b'["' + b'","' * 1_000_000 + b'"]') is None
