"""One door on 127.0.0.1 before the laboratory's Keystone, Nova and Cinder, each behind a path, as operators build them.

Keystone is at /identity, Nova at /compute, Cinder at /volume. `bend` changes what logins answer; the addresses in it
are already those of the door. Nothing else is changed, so that Nova and Keystone themselves say what they make of it.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import requests

Token = dict[str, Any]


class Front:
    """Runs for as long as the block. `keystone`, `nova`, `cinder`: where they are."""

    def __init__(self, keystone: str, nova: str, cinder: str) -> None:
        self.bend: Callable[[Token], Token] = lambda token: token
        self.calls: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.behind = {"identity": keystone, "compute": nova, "volume": cinder}

    def __enter__(self) -> "Front":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> requests.Response | None:
        """None: nothing is behind this path."""
        self.calls.append(f"{method} {urlsplit(path).path}")
        _, service, *rest = path.split("/")
        service, mark, query = service.partition("?")
        if service not in self.behind:
            return None
        return requests.request(method, "/".join((self.behind[service], *rest)) + mark + query, data=body, timeout=120,
                                allow_redirects=False, headers={
            name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")})

    def said(self, response: requests.Response) -> bytes:
        """The body of an answer, with our addresses for those behind."""
        if "json" not in response.headers.get("Content-Type", ""):
            return response.content
        text = response.text
        for name, url in self.behind.items():
            text = text.replace(url, f"{self.url}/{name}")
        if response.status_code == 201 and "X-Subject-Token" in response.headers:
            text = json.dumps({"token": self.bend(json.loads(text)["token"])})
        return text.encode()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            response = front.forward(self.command, self.path, dict(self.headers), body)
            page = b"<html><body>404</body></html>" if response is None else front.said(response)
            self.send_response(404 if response is None else response.status_code)
            for name, value in ({} if response is None else response.headers).items():
                if name.lower() not in ("content-length", "transfer-encoding", "content-encoding", "connection", "date",
                                        "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
