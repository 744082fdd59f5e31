"""What can go wrong between a party and us, done for real on a socket.

Each fault gets the wire and the proper answer, and does what it likes with both. FAULTS names, for each, the error
word that a caller of twocloud must see if the fault happens on every try; None: the answer is still good.
"""

import gzip
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = "Whatever"

    def head(self, **more: str) -> bytes:
        """The status line and headers; a header set to "" is left out. `_` in names of `more` is `-`."""
        headers = {**self.headers, "Content-Length": str(len(self.body)),
                   **{name.replace("_", "-"): value for name, value in more.items()}}
        lines = [f"HTTP/1.1 {self.status} {self.reason}"] + [f"{k}: {v}" for k, v in headers.items() if v]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Wire:
    """A connection to misuse. Everything stops when `stopped` is set."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self.stopped = stopped

    def send(self, data: bytes) -> bool:
        try:
            self.sock.sendall(data)
            return not self.stopped.is_set()
        except OSError:
            return False

    def drip(self, data: bytes, seconds: float = 0.25) -> None:
        for at in range(len(data)):
            if not self.send(data[at:at + 1]) or self.stopped.wait(seconds):
                return

    def hang(self) -> None:
        """Until the other side gives up."""
        self.sock.settimeout(0.1)
        while not self.stopped.is_set():
            try:
                if not self.sock.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Fault = Callable[[Wire, Answer], None]


def _whole(answer: Answer, **headers: str) -> bytes:
    """A proper answer that also says that the connection ends with it, as it does after every fault."""
    return answer.head(Connection="close", **headers) + answer.body


def _hang(wire: Wire, answer: Answer) -> None:
    wire.hang()


def _slow_headers(wire: Wire, answer: Answer) -> None:
    wire.drip(answer.head())


def _slow_body(wire: Wire, answer: Answer) -> None:
    if wire.send(answer.head(Connection="close")):
        wire.drip(answer.body, max(0.25, 12.0 / max(1, len(answer.body) - 1)))          # "{}" takes long, too


def _endless_continue(wire: Wire, answer: Answer) -> None:
    while wire.send(b"HTTP/1.1 100 Continue\r\n\r\n") and not wire.stopped.wait(0.05):
        pass


def _endless_headers(wire: Wire, answer: Answer) -> None:
    if wire.send(b"HTTP/1.1 200 OK\r\n"):
        number = 0
        while wire.send(f"X-{number}: y\r\n".encode()):
            number += 1


def _endless_line(wire: Wire, answer: Answer) -> None:
    if wire.send(b"HTTP/1.1 200 OK\r\nX-Long: "):
        while wire.send(b"y" * 65536):
            pass


def _endless_chunks(wire: Wire, answer: Answer) -> None:
    if wire.send(answer.head(Content_Length="", Transfer_Encoding="chunked")):
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        while wire.send(chunk):
            pass


def _reset(wire: Wire, answer: Answer) -> None:
    wire.reset()


def _close(wire: Wire, answer: Answer) -> None:
    wire.sock.shutdown(socket.SHUT_RDWR)


def _reset_body(wire: Wire, answer: Answer) -> None:
    wire.send(answer.head() + answer.body[:len(answer.body) // 2])
    wire.stopped.wait(0.05)                 # so that the first half is read before the reset overtakes it
    wire.reset()


def _cut_body(wire: Wire, answer: Answer) -> None:
    wire.send(answer.head() + answer.body[:len(answer.body) // 2])


def _cut_unframed(wire: Wire, answer: Answer) -> None:
    wire.send(answer.head(Content_Length="", Connection="close") + answer.body[:len(answer.body) // 2])


def _cut_head(wire: Wire, answer: Answer) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Ty")


def _bad_chunk(wire: Wire, answer: Answer) -> None:
    wire.send(answer.head(Content_Length="", Transfer_Encoding="chunked") + b"zz\r\n" + answer.body)


def _bad_status_line(wire: Wire, answer: Answer) -> None:
    wire.send(b"HTTP/1.1 wonderful\r\n\r\n")


def _no_http(wire: Wire, answer: Answer) -> None:
    wire.send(b"SSH-2.0-OpenSSH_9.2p1\r\n")


@cache
def _packed() -> bytes:
    """300 MB of blanks as gzip. One million is compressed and repeated, so that a busy machine needs no seconds."""
    part, packer = b" " * 1_000_000, zlib.compressobj(9, zlib.DEFLATED, -15)
    block, crc = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH), 0
    for _ in range(300):
        crc = zlib.crc32(part, crc)
    return gzip.compress(b"")[:10] + block * 300 + b"\3\0" + struct.pack("<II", crc, 300_000_000)


def _bomb(wire: Wire, answer: Answer) -> None:
    body = _packed()
    wire.send(Answer(200, answer.headers, body).head(Content_Encoding="gzip") + body)


def _bad_gzip(wire: Wire, answer: Answer) -> None:
    wire.send(_whole(answer, Content_Encoding="gzip"))


def _redirect(wire: Wire, answer: Answer) -> None:
    moved = Answer(302, {"Location": "http://127.0.0.1:9/", "Content-Type": "text/html"}, b"moved")
    wire.send(_whole(moved))


def _cookie(wire: Wire, answer: Answer) -> None:
    wire.send(_whole(answer, Set_Cookie="session=stolen; Path=/"))


def _status(status: int, **headers: str) -> Fault:
    def fault(wire: Wire, answer: Answer) -> None:
        wire.send(_whole(Answer(status, {"Content-Type": "text/html"}, b"<html>sorry</html>"), **headers))

    return fault


def _body(body: bytes) -> Fault:
    def fault(wire: Wire, answer: Answer) -> None:
        wire.send(_whole(Answer(200, answer.headers, body)))

    return fault


FAULTS: dict[str, tuple[Fault, str | None]] = {
    "hang": (_hang, "party_timeout"),
    "slow headers": (_slow_headers, "party_timeout"),
    "slow body": (_slow_body, "party_timeout"),
    "endless continue": (_endless_continue, "party_timeout"),
    "endless headers": (_endless_headers, "party_malformed"),
    "endless line": (_endless_line, "party_malformed"),
    "endless chunks": (_endless_chunks, "party_malformed"),
    "reset": (_reset, "party_unavailable"),
    "close": (_close, "party_unavailable"),
    "reset in the body": (_reset_body, "party_malformed"),
    "cut body": (_cut_body, "party_malformed"),
    "cut body without length": (_cut_unframed, "party_malformed"),
    "cut head": (_cut_head, "party_malformed"),
    "bad chunk": (_bad_chunk, "party_malformed"),
    "bad status line": (_bad_status_line, "party_malformed"),
    "no http": (_no_http, "party_malformed"),
    "bomb": (_bomb, "party_malformed"),
    "bad gzip": (_bad_gzip, "party_malformed"),
    "redirect": (_redirect, "party_malformed"),
    "cookie": (_cookie, None),
    "empty body": (_body(b""), "party_malformed"),
    "html": (_body(b"<!DOCTYPE html><html><body>Welcome to Hotel WiFi</body></html>"), "party_malformed"),
    "null": (_body(b"null"), "party_malformed"),
    "list": (_body(b"[]"), "party_malformed"),
    "object": (_body(b"{}"), "party_malformed"),
    "empty xml": (_body(b"<a/>"), "party_malformed"),
    "deep json": (_body(b"[" * 100_000), "party_malformed"),
    "deep xml": (_body(b"<a>" * 100_000), "party_malformed"),
    "xml bomb": (_body(b'<!DOCTYPE a [<!ENTITY b "' + b"c" * 1000 + b'"><!ENTITY d "' + b"&b;" * 1000
                       + b'"><!ENTITY e "' + b"&d;" * 1000 + b'">]><a>&e;</a>'), "party_malformed"),
    "not utf-8": (_body(b'{"Response": "\xff\xfe"}'), "party_malformed"),
    "400": (_status(400), "party_malformed"),
    "401": (_status(401), "party_denied"),
    "403": (_status(403), "party_denied"),
    "404": (_status(404), "party_malformed"),
    "429": (_status(429), "party_throttled"),
    "429 for six hours": (_status(429, Retry_After="21600"), "party_throttled"),
    "500": (_status(500), "party_error"),
    "502": (_status(502), "party_unavailable"),
    "503": (_status(503), "party_unavailable"),
    "504": (_status(504), "party_unavailable"),
    "599": (_status(599), "party_error"),
}
LATE = ("hang", "slow headers", "slow body", "endless continue")       # these take as long as we let them
# no adapter sees these, as no answer comes of them: the sender meets each one (tests/unit/test_transport.py)
UNSEEN = ("endless headers", "endless line", "endless chunks", "reset", "close", "reset in the body", "cut body",
          "bad chunk", "bad status line", "no http", "bomb", "bad gzip", "redirect")
PASSING = ("reset", "close", "429", "500", "502", "503", "504")        # once, then good: the caller sees nothing
