"""P10: strangers who hold, flood and guess, and a tenant whose cloud hangs, leave everybody else's requests alone.

Every attack is bounded in number and time; the limits are made small, so that few connections meet them.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
import requests

from chalicelib.access import users
from chalicelib.errors import RateLimited, Unauthorized
from chalicelib.http import connections, serve
from chalicelib.settings import ServerLimits
from tests.fixtures import FEW, US, App, limited

HEALTH = b"GET /twocloud/health HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(served: App, data: bytes = b"") -> socket.socket:
    where = urlsplit(served.url)
    sock = socket.create_connection((where.hostname or "", where.port or 0), timeout=15)
    sock.sendall(data)
    return sock


def rest(sock: socket.socket) -> bytes:
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
    return received


def whole(sock: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"}"):
        received += sock.recv(65536)
    return received


def answered(served: App, data: bytes) -> tuple[int, dict[str, object], bool]:
    """Status and body of the first answer, and that the server then closes, though more could be sent."""
    with connect(served, data) as sock:
        head, _, body = rest(sock).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body), b"connection: close" in head.lower()


def gets(served: App) -> requests.Response:
    return requests.get(f"{served.url}/twocloud/servers?{US}&t=1&max_age=600", auth=(served.token, ""), timeout=15)


# ---------------------------------------------------------------- doubtful framing

def head(*fields: bytes, line: bytes = b"POST /twocloud/tokens HTTP/1.1", host: bytes = b"Host: x",
         after: bytes = b"") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *fields, b"", b""]) + after


DOUBTFUL = {
    "te with cl": head(b"Transfer-Encoding: chunked", b"Content-Length: 5", after=b"0\r\n\r\n" + HEALTH),
    "cl with te": head(b"Content-Length: 5", b"transfer-encoding: chunked", after=b"0\r\n\r\n"),
    "two te": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", after=b"0\r\n\r\n"),
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked", after=b"0\r\n\r\n"),
    "te identity": head(b"Transfer-Encoding: identity"),
    "te empty": head(b"Transfer-Encoding:"),
    "te in 1.0": head(b"Transfer-Encoding: chunked", line=b"POST /twocloud/tokens HTTP/1.0", after=b"0\r\n\r\n"),
    "two cl alike": head(b"Content-Length: 2", b"Content-Length: 2", after=b"{}"),
    "two cl": head(b"Content-Length: 2", b"Content-Length: 9", after=b"{}"),
    "cl list": head(b"Content-Length: 2, 2", after=b"{}"),
    "cl signed": head(b"Content-Length: +2", after=b"{}"),
    "cl endless": head(b"Content-Length: " + b"9" * 5000),
    "two hosts": head(b"Host: y", line=b"GET /twocloud/health HTTP/1.1"),
    "no host": head(line=b"GET /twocloud/health HTTP/1.1", host=b""),
    "folded": head(b"X: a", b" b", line=b"GET /twocloud/health HTTP/1.1"),
    "folded first": head(line=b"GET /twocloud/health HTTP/1.1", host=b" Host: x"),
    "space before colon": head(b"Content-Length : 5", line=b"GET /twocloud/health HTTP/1.1"),
    "no colon": head(b"Content-Length", line=b"GET /twocloud/health HTTP/1.1"),
    "bare lf": b"GET /twocloud/health HTTP/1.1\nHost: x\n\n",
    "bare lf in a field": head(b"X: a\nContent-Length: 5", line=b"GET /twocloud/health HTTP/1.1"),
    "bare cr": head(b"X: a\rContent-Length: 5", line=b"GET /twocloud/health HTTP/1.1"),
    "bare cr unfinished": b"GET /twocloud/health HTTP/1.1\r\nHost: x\rX: y",
    "nul": head(b"X: a\x00b", line=b"GET /twocloud/health HTTP/1.1"),
    "no version": b"GET /twocloud/health\r\n\r\n",
    "version": head(line=b"GET /twocloud/health HTTP/2.0"),
    "tab in the line": head(line=b"GET\t/twocloud/health\tHTTP/1.1"),
    "control in the path": head(line=b"GET /twocloud/\x01health HTTP/1.1"),
    "brackets": head(line=b"GET http://[x/twocloud/health HTTP/1.1"),
    "chunk size": head(b"Transfer-Encoding: chunked", after=b"zz\r\n{}\r\n0\r\n\r\n"),
    "chunk end": head(b"Transfer-Encoding: chunked", after=b"2\r\n{}x\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("data", DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_others_could_read_otherwise_is_refused_and_ends_the_connection(served: App, data: bytes) -> None:
    status, body, closed = answered(served, data)
    assert (status, body["code"], body["error"], closed) == (400, 400, "invalid_parameter", True)


def test_after_a_refusal_nothing_of_the_same_bytes_is_read(served: App) -> None:
    with connect(served, head(b"Host: y") + HEALTH * 3) as sock:
        assert rest(sock).count(b"HTTP/1.") == 1


def test_what_is_right_is_still_read(served: App) -> None:
    served.user("bob", password="pw")
    header = b"Authorization: Basic Ym9iOnB3"
    for data in (head(b"Transfer-Encoding: Chunked", header, after=b"2\r\n{}\r\n0\r\n\r\n"),
                 head(b"Content-Length: 2", header, after=b"{}"),
                 head(b"Content-Length: 16384", header, after=b"{}" + b" " * 16382),
                 head(b"Content-Length: 2", header, b"Connection: keep-alive", line=b"POST /twocloud/tokens HTTP/1.0",
                      after=b"{}"),
                 b"\r\n\r\n" + head(header, line=b"POST http://x/twocloud/tokens HTTP/1.1")):
        with connect(served, data) as sock:
            assert sock.recv(65536).startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")), data[:80]
    with connect(served) as sock:           # a byte at a time
        for at in range(len(HEALTH)):
            sock.sendall(HEALTH[at:at + 1])
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"], ids=["", "expects"])
@pytest.mark.parametrize("length", [b"16385", b"1000000", b"99999999999999"])
def test_a_body_that_no_path_reads_is_refused_before_it_is_sent(served: App, length: bytes, expects: bytes) -> None:
    status, body, closed = answered(served, b"POST /twocloud/tokens HTTP/1.1\r\nHost: x\r\n" + expects
                                    + b"Content-Length: " + length + b"\r\n\r\n")
    assert (status, body["error"], closed) == (413, "too_large", True)


def test_a_sender_of_a_large_body_reads_why_it_is_refused(served: App) -> None:
    for _ in range(5):
        answer = requests.post(f"{served.url}/twocloud/tokens", data=b"x" * 3_000_000, auth=("bob", "pw"), timeout=15)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


def test_endless_chunks_end(served: App) -> None:
    with connect(served, head(b"Transfer-Encoding: chunked")) as sock:
        for _ in range(17):
            sock.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_nothing_of_a_body_is_kept_on_disk(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    import waitress.buffers

    def refuse(*_: object) -> None:
        raise AssertionError("on disk")

    monkeypatch.setattr(waitress.buffers, "TempfileBasedBuffer", refuse)
    served.user("bob", password="pw")
    assert requests.post(f"{served.url}/twocloud/tokens", data=b"{}" + b" " * 16_382, auth=("bob", "pw"),
                         timeout=15).status_code == 200
    assert requests.post(f"{served.url}/twocloud/tokens", data=b" " * 2_000_000, auth=("bob", "pw"),
                         timeout=15).status_code == 413


def test_a_get_that_expects_to_continue_is_answered(served: App) -> None:
    with connect(served, HEALTH.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")) as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


# ---------------------------------------------------------------- unfinished requests

UNFINISHED = {"nothing": b"", "head": b"GET /twocloud/servers HTTP/1.1\r\nHost: x\r\nX-A: ", "bare": b"G",
              "body": b"POST /twocloud/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 16000\r\n\r\n{",
              "chunk": b"POST /twocloud/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{",
              "idle": HEALTH}


@pytest.mark.sample(3)
@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED)
def test_connections_that_wait_make_room_for_new_ones(app: App, data: bytes) -> None:
    """As many as there may be, and more, from the very address of those who ask: the ones that wait longest go."""
    with ExitStack() as stack:
        served = stack.enter_context(limited(app, address_connections=20))
        assert gets(served).status_code == 200
        held = [stack.enter_context(connect(served, data)) for _ in range(60)]
        for _ in range(5):
            assert gets(served).status_code == 200
        ended = 0
        for sock in held:
            sock.settimeout(0.05)
            try:
                ended += not rest(sock)
            except TimeoutError:
                pass
            except ConnectionResetError:
                ended += 1
        assert ended >= 35 or data == HEALTH


def test_when_all_places_are_taken_by_many_addresses_the_fullest_makes_room(app: App) -> None:
    with ExitStack() as stack:
        served = stack.enter_context(limited(app, connections=20, address_connections=20))
        for _ in range(60):
            stack.enter_context(connect(served, UNFINISHED["head"]))
        assert gets(served).status_code == 200


@pytest.mark.parametrize("kind", ["head", "body", "chunk", "bare", "nothing"])
def test_a_dripped_request_has_so_long_in_all(served: App, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However lively it is: a byte now and then held its place forever."""
    monkeypatch.setattr(connections, "SECONDS_TO_SEND", 0.5)
    with connect(served, UNFINISHED[kind]) as sock:
        sock.settimeout(0.1)
        until = time.monotonic() + 12
        with pytest.raises((ConnectionError, BrokenPipeError)):
            while time.monotonic() < until:
                if kind != "nothing":
                    sock.sendall(b"x")
                try:
                    if not sock.recv(100):
                        raise ConnectionError
                except TimeoutError:
                    pass


def test_an_idle_connection_ends_and_a_busy_one_stays(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SECONDS_TO_SEND", 1)
    monkeypatch.setattr(connections, "SECONDS_IDLE", 1)
    with connect(served) as busy, connect(served, HEALTH) as idle:
        whole(idle)
        for _ in range(12):
            busy.sendall(HEALTH)
            assert whole(busy).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)
        assert idle.recv(100) == b""


def test_an_answer_that_is_not_read_ends(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelined requests whose answers nobody reads held a thread each, forever."""
    monkeypatch.setattr(connections, "SECONDS_TO_READ", 1)
    ask = b"GET /twocloud/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        served = stack.enter_context(limited(app, address_requests=4))
        for _ in range(6):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", int(served.url.rsplit(":", 1)[1])))
            sock.sendall(ask * 400)
        started = time.monotonic()
        assert requests.get(f"{served.url}/twocloud/health", timeout=15).status_code == 200
        assert time.monotonic() - started < 15


def test_pipelining_is_answered_in_order_and_shares_with_others(served: App) -> None:
    with connect(served, HEALTH * 300) as sock:
        assert gets(served).status_code == 200
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 300:
            received += sock.recv(65536)


@pytest.mark.parametrize("data", [b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                                  b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5_000 + b"\r\n",
                                  b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x" * 200_000], ids=["address", "fields", "name"])
def test_a_flood_of_a_head_is_refused(served: App, data: bytes) -> None:
    status, body, closed = answered(served, data)
    assert (status, body["error"], closed) == (400, "invalid_parameter", True)


# ---------------------------------------------------------------- a fair share

def many(count: int, call: Callable[[int], int]) -> Iterator[int]:
    with ThreadPoolExecutor(count) as pool:
        yield from pool.map(call, range(count))


@contextmanager
def hanging(served: App, count: int, token: str) -> Iterator[None]:
    """So many requests for a cloud that hangs, each for another region, so that none shares the call of another."""
    served.clouds["qcloud"].fail("hang")
    with ExitStack() as stack:
        for n in range(count):
            query = f"party=qcloud&tenant_id=123&region={'gz' if n % 2 else 'ap-shanghai'}&f={n + 1}&t={n + 1}"
            ask = f"GET /twocloud/servers?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            stack.enter_context(connect(served, ask.encode()))
        time.sleep(1)
        yield


@pytest.mark.slow
def test_a_tenant_whose_cloud_hangs_leaves_threads_to_the_others(app: App) -> None:
    other = app.issue(app.user("bob", tenants=("7",)))
    with limited(app, tenant_requests=10) as served, hanging(served, FEW.requests + 20, served.token):
        for _ in range(3):
            answer = requests.get(f"{served.url}/twocloud/servers?party=aws&tenant_id=7&region=us-east-1",
                                  auth=(other, ""), timeout=10)
            assert answer.status_code == 404
        assert requests.get(f"{served.url}/twocloud/health", timeout=10).status_code == 200


def test_a_caller_with_more_waiting_requests_than_are_kept_is_refused(app: App, stack: ExitStack,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_WAITING", 5)
    served = stack.enter_context(limited(app, tenant_requests=2))
    assert gets(served).status_code == 200
    # the first of them came while that answer was on its way, so that one of them more may start later: fill its place
    with hanging(served, 10, served.token), hanging(served, 3, served.token):
        refused = gets(served)
        assert (refused.status_code, refused.json()["error"],
                refused.headers["Retry-After"]) == (429, "rate_limited", "1")
        assert requests.get(f"{served.url}/twocloud/health", timeout=10).status_code == 200


def test_many_requests_of_one_caller_are_all_answered(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than its share at once wait without a thread, and are not refused."""
    monkeypatch.setattr(serve, "_LONGEST_WAIT", 60)             # on a machine that has other work, too
    assert served.get(US).status_code == 200                    # from now on there is a snapshot: no rate is waited for
    ask = (f"GET /twocloud/servers?{US}&t=1&max_age=600 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
           f"Authorization: Bearer {served.token}\r\n\r\n").encode()
    for _ in range(2):
        with ExitStack() as stack:
            sent = [stack.enter_context(connect(served, ask)) for _ in range(FEW.tenant_requests + 70)]
            for sock in sent:
                sock.settimeout(60)
            assert {rest(sock)[:13] for sock in sent} == {b"HTTP/1.1 200 "}


class FakeRequest:
    def __init__(self, authorization: str, tenant: str) -> None:
        self.headers, self.query, self.error = {"AUTHORIZATION": authorization}, f"tenant_id={tenant}", None


class FakeChannel:
    def __init__(self, address: str, authorization: str = "", tenant: str = "1") -> None:
        self.peer, self.requests = address, [FakeRequest(authorization, tenant)]
        self.behind_proxy, self.trusted = False, ()
        self.started, self.free = threading.Event(), threading.Event()

    def service(self) -> None:
        self.started.set()
        self.free.wait(20)

    def cancel(self) -> None:
        pass


def test_threads_are_shared_by_callers_and_nobody_waits_for_a_free_one() -> None:
    share = connections.FairShare(ServerLimits(requests=16, tenant_requests=8, address_requests=2))
    made: list[FakeChannel] = []

    def send(count: int, *callers: str) -> list[FakeChannel]:
        sent = [FakeChannel(*callers) for _ in range(count)]
        made.extend(sent)
        for channel in sent:
            share.add_task(channel)
        return sent

    def at_work(sent: list[FakeChannel], expected: int) -> bool:
        """So many are, and it stays so."""
        def count() -> int:
            return sum(it.started.is_set() and not it.free.is_set() for it in sent)

        ends = time.monotonic() + 20
        while count() != expected and time.monotonic() < ends:
            time.sleep(0.01)
        time.sleep(0.1)
        assert count() == expected
        return True

    try:
        strangers = send(20, "192.0.2.1", "Bearer a")
        assert at_work(strangers, 2)
        strangers[0].turn.recognise()       # type: ignore[attr-defined]  # its token is valid: all of its requests are its own
        assert at_work(strangers, 8 + 1)    # the other one that was at work has shown nothing yet
        others = send(20, "192.0.2.2", "Bearer b")
        assert at_work(others, 2)
        for channel in strangers:
            channel.free.set()
        assert all(it.started.wait(20) for it in strangers)
        assert at_work(others, 2)
        others[0].turn.recognise()          # type: ignore[attr-defined]
        assert at_work(others, 8 + 1)
        assert at_work(send(1, "192.0.2.3"), 1)
    finally:
        for channel in made:
            channel.free.set()
        assert all(it.started.wait(20) for it in made)
        share.shutdown(timeout=5)


def test_a_token_is_one_caller_however_it_is_shown(served: App) -> None:
    import base64

    shown = {connections._digest(f"Basic {base64.b64encode(f'{served.token}:{password}'.encode()).decode()}")
             for password in ("", "a", "b")}
    assert shown == {connections._digest(f"Bearer {served.token}")} != {connections._digest("Bearer other")}


# ---------------------------------------------------------------- guesses

def test_a_flood_of_guesses_is_refused_and_everybody_else_goes_on(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """250 callers, each with a user of its own, and passwords as expensive as real ones."""
    checked: list[int] = []

    def expensive(*_: object) -> bytes:
        checked.append(1)
        time.sleep(0.2)
        return b""

    served.user("bob", password="pw")
    assert gets(served).status_code == 200
    monkeypatch.setattr(users, "_scrypt", expensive)

    def guess(n: int) -> int:
        return requests.post(f"{served.url}/twocloud/tokens", auth=(f"user-{n}", "wrong"), timeout=30).status_code

    statuses: list[int] = []
    flood = threading.Thread(target=lambda: statuses.extend(many(250, guess)))
    flood.start()
    while flood.is_alive():
        assert gets(served).status_code == 200
        time.sleep(0.1)
    flood.join(30)
    assert set(statuses) <= {401, 429}
    assert statuses.count(429) >= 200
    assert len(checked) == statuses.count(401) <= FEW.wrong_passwords + 10
    refused = requests.post(f"{served.url}/twocloud/tokens", auth=("bob", "pw"),
                            headers={"Sec-Fetch-Site": "cross-site"}, timeout=9)
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")


def test_wrong_passwords_are_counted_by_address_and_right_ones_are_not() -> None:
    now = [0.0]
    guesses = serve._Guesses(20, lambda: now[0])

    def wrong(address: str) -> None:
        with pytest.raises(Unauthorized), guesses.try_from(address):
            raise Unauthorized()

    for _ in range(40):       # an office behind one address
        with guesses.try_from("192.0.2.1"):
            pass
    for _ in range(20):
        wrong("192.0.2.1")
    with pytest.raises(RateLimited) as limited, guesses.try_from("192.0.2.1"):
        pass
    assert 1 <= limited.value.retry_after <= serve._WRONG_SECONDS + 1
    wrong("192.0.2.2")                      # others are not concerned
    now[0] += limited.value.retry_after
    with guesses.try_from("192.0.2.1"):     # nor is it locked out for long
        pass
    for n in range(20):           # one network of IPv6 is one caller
        wrong(f"2001:db8::{n:x}")
    with pytest.raises(RateLimited), guesses.try_from("2001:db8::ffff"):
        pass
    wrong("2001:db8:0:1::1")
    for n in range(serve._ADDRESSES + 100):
        wrong(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(guesses._by) <= serve._ADDRESSES


def test_few_passwords_of_one_address_wait_at_once() -> None:
    guesses = serve._Guesses(20)
    with ExitStack() as stack:
        for _ in range(serve._CHECKED):
            stack.enter_context(guesses.try_from("192.0.2.1"))
        with pytest.raises(RateLimited), guesses.try_from("192.0.2.1"):
            pass
        with guesses.try_from("192.0.2.2"):
            pass
    with guesses.try_from("192.0.2.1"):
        pass


def test_every_wrong_login_over_http_is_one_body(served: App) -> None:
    served.user("bob", password="pw")
    served.user("eve")
    bodies = set()
    for name, password in (("bob", "wrong"), ("eve", "x"), ("nobody", "x"), (served.token, ""), ("a b", "x"), ("", "")):
        answer = requests.post(f"{served.url}/twocloud/tokens", auth=(name, password), timeout=9)
        assert answer.status_code == 401
        bodies.add(answer.text.replace(answer.json()["request_id"], ""))
    assert len(bodies) == 1
    assert "POST to /twocloud/tokens" in bodies.pop()


def test_closing_twice_is_closing_once(app: App) -> None:
    server = serve.Server(app.deployment, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    closers = [threading.Thread(target=server.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(10)
    thread.join(10)
    server.close()
    assert not thread.is_alive()
