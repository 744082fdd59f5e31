"""serve behind a proxy, for pages of other origins, on a local socket, while it is told to stop."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from msgspec import structs

from chalicelib.http import connections, serve
from chalicelib.settings import load
from tests.fixtures import FEW, GZ, App, serving
from tests.logs import heard

DASHBOARD = "https://dash.example.com"


@pytest.fixture
def behind(app: App) -> Iterator[App]:
    """Pages of the dashboard may read it, and loopback is a trusted proxy."""
    chosen = load({"TWOCLOUD_CORS_ORIGINS": f"{DASHBOARD},http://localhost:3000",
                   "TWOCLOUD_TRUSTED_PROXY": "127.0.0.1"})
    app.deployment = structs.replace(app.deployment, settings=structs.replace(
        app.deployment.settings, cors_origins=chosen.cors_origins, trusted_proxies=chosen.trusted_proxies))
    with serving(app):
        yield app


# ---------------------------------------------------------------- proxies

def test_links_lead_back_through_the_prefix(behind: App) -> None:
    answer = behind.get(f"{GZ}&f=1&t=10", headers={"X-Forwarded-Prefix": "/inventory/"})
    assert answer.links["next"]["url"].startswith("/inventory/twocloud/servers?")
    assert behind.get(f"{GZ}&f=1&t=10").links["next"]["url"].startswith("/twocloud/servers?")


def test_nobody_is_believed_unless_the_operator_says_so(served: App) -> None:
    answer = served.get(f"{GZ}&f=1&t=10", headers={"X-Forwarded-Prefix": "/evil"})
    assert answer.links["next"]["url"].startswith("/twocloud/servers?")
    with heard() as lines:
        served.get(GZ, headers={"X-Forwarded-For": "203.0.113.9"})
    assert {json.loads(line).get("client") for line in lines if "status" in json.loads(line)} == {"127.0.0.1"}


def test_the_log_names_the_client_and_not_the_proxy(behind: App) -> None:
    with heard() as lines:
        assert behind.get(GZ, headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 200
        assert behind.get(GZ, token="", headers={"X-Forwarded-For": "203.0.113.8"}).status_code == 401
    logged = [json.loads(line) for line in lines]
    assert [line["client"] for line in logged if "status" in line] == ["203.0.113.9", "203.0.113.8"]


def test_each_client_of_a_proxy_has_its_own_guesses(behind: App) -> None:
    """Wrong passwords from one address do not stop another one's behind the same proxy."""
    def guess(user: str, address: str) -> int:
        return requests.post(f"{behind.url}/twocloud/tokens", auth=(user, "wrong"), timeout=40,
                             headers={"X-Forwarded-For": address}).status_code

    assert 429 in {guess(f"user-{number}", "203.0.113.1") for number in range(FEW.wrong_passwords + 9)}
    assert guess("another", "203.0.113.2") == 401


# ---------------------------------------------------------------- pages of other origins

def test_every_answer_names_the_origin_that_may_read_it(behind: App) -> None:
    first = behind.get(f"{GZ}&f=1&t=2", headers={"Origin": DASHBOARD})
    answers = [first, behind.get(GZ, token="tc_x", headers={"Origin": DASHBOARD}),
               behind.get(f"{GZ}&f=0", headers={"Origin": DASHBOARD}),
               behind.get("", path="/elsewhere", headers={"Origin": DASHBOARD}),
               behind.get("", path="/twocloud/health", method="PUT", headers={"Origin": DASHBOARD}),
               behind.get("", path="/twocloud/health", headers={"Origin": DASHBOARD}),
               behind.get(f"{GZ}&f=1&t=2", headers={"Origin": DASHBOARD, "If-None-Match": first.headers["ETag"]})]
    assert [answer.status_code for answer in answers] == [200, 401, 400, 404, 405, 200, 304]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == DASHBOARD
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Link", "ETag", "X-Total-Count", "X-List-Id", "X-Request-Id", "Age", "Cache-Status"} <= set(exposed)
        assert answer.headers["Vary"] == "Authorization, Accept-Encoding, Origin"
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://dash.example.com.evil.example",
                                    "http://dash.example.com", "https://dash.example.com:8443", "*", ""])
def test_no_other_origin_may(behind: App, origin: str) -> None:
    answer = behind.get(GZ, headers={"Origin": origin} if origin else {})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["Vary"] == "Authorization, Accept-Encoding, Origin"       # or a cache would serve it to all
    preflight = behind.get("", path="/twocloud/servers", method="OPTIONS", token="", headers={
        "Origin": origin, "Access-Control-Request-Method": "GET"})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(("path", "methods"), [
    ("/twocloud/servers", "GET, HEAD"), ("/twocloud/tokens", "POST, DELETE"), ("/twocloud/me", "GET, HEAD")])
def test_a_browser_may_ask_before_it_asks(behind: App, path: str, methods: str) -> None:
    answer = behind.get("", path=path, method="OPTIONS", token="", headers={
        "Origin": DASHBOARD, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == DASHBOARD
    assert answer.headers["Access-Control-Allow-Methods"] == methods
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    plain = behind.get("", path=path, method="OPTIONS", token="", headers={"Origin": DASHBOARD})
    assert plain.status_code == 405                             # no question of a browser


def test_a_page_of_a_named_origin_may_get_a_token_and_others_may_not(behind: App) -> None:
    def sign_in(origin: str) -> int:
        return requests.post(f"{behind.url}/twocloud/tokens", auth=("nobody", "wrong"), timeout=40,
                             headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"}).status_code

    assert sign_in(DASHBOARD) == 401
    assert sign_in("https://evil.example") == 403


def test_without_the_setting_nothing_speaks_of_origins(served: App) -> None:
    answer = served.get(GZ, headers={"Origin": DASHBOARD})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["Vary"] == "Authorization, Accept-Encoding"


# ---------------------------------------------------------------- a local socket

class _Local(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=40)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(40)
        self.sock.connect(str(self._path))


def health(path: Path) -> int:
    connection = _Local(path)
    connection.request("GET", "/twocloud/health")
    return connection.getresponse().status


def test_a_local_socket_is_for_owner_and_group_alone(app: App, tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):                      # the second finds what a killed one left
        server = serve.Server(app.deployment, f"unix:{path}", 0)
        assert server.address == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        thread = threading.Thread(target=server.serve)
        thread.start()
        assert health(path) == 200
        with pytest.raises(OSError, match="another server"):
            serve.listen(f"unix:{path}", 0)
        server.close()
        thread.join(10)
        assert path.is_socket()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError):
        serve.listen(f"unix:{tmp_path}/file", 0)
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- the end

def started(app: App) -> tuple[serve.Server, threading.Thread]:
    server = serve.Server(app.deployment, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    return server, thread


def test_what_is_under_way_is_answered_and_nothing_new_begins(app: App) -> None:
    """As after SIGTERM: `Listener.drain` is what its handler calls."""
    began, free = threading.Event(), threading.Event()
    cloud = app.clouds["qcloud"]
    answers = cloud.answer

    def slow(*args: object, **more: object) -> object:
        began.set()
        assert free.wait(40)
        return answers(*args, **more)       # type: ignore[arg-type]

    cloud.answer = slow                     # type: ignore[method-assign,assignment]
    server, thread = started(app)
    app.url = f"http://{server.address}"
    idle = http.client.HTTPConnection(server.address, timeout=40)
    idle.request("GET", "/twocloud/health")
    assert idle.getresponse().read()
    received: list[requests.Response] = []
    caller = threading.Thread(target=lambda: received.append(app.get(GZ)))
    caller.start()
    assert began.wait(40)
    server._listener.drain(40)
    assert idle.sock
    assert idle.sock.recv(1) == b""         # closed
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{app.url}/twocloud/health", timeout=9)
    free.set()
    caller.join(40)
    thread.join(40)
    assert not thread.is_alive()
    assert received[0].status_code == 200
    assert len(received[0].json()["vm_servers"]) == 25
    app.session.close()
    server.close()


def test_a_request_that_never_ends_is_not_waited_for(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_TICK", 0.01)
    server, thread = started(app)
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=40) as stuck:
        stuck.sendall(b"GET /twocloud/health HTTP/1.1\r\nHost: x\r\n")             # and never the end
        server._listener.drain(0.1)
        thread.join(40)
        assert not thread.is_alive()
    server.close()
