"""Ten answers of one shape at once, read in this process: prints by how many MB it grew. tests/unit/test_bombs.py runs
it.

Arguments: the shape's name. The answers come from a server in a process of its own, so that its memory is not counted.
"""

import gzip
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from chalicelib import parties
from chalicelib.cloud.sender import Transport
from chalicelib.errors import TwocloudError
from chalicelib.model import Account, Source, Window

MB = 1024 * 1024
AT_ONCE = 10


def _hetzner(rows: bytes) -> bytes:
    return b'{"servers":[' + rows + b'],"meta":{"pagination":{"total_entries":1}}}'


def _ec2(inner: bytes) -> bytes:
    return (
        b'<DescribeInstancesResponse xmlns="x"><reservationSet>'
        + inner
        + b"</reservationSet></DescribeInstancesResponse>"
    )


SHAPES: dict[str, tuple[str, Callable[[], bytes]]] = {       # name -> (party, the answer)
    "tiny rows": ("hetzner", lambda: _hetzner(b",".join([b'{"id":%d}' % n for n in range(3_000_000)]))),
    "as many rows as fit": ("hetzner", lambda: _hetzner(b",".join([b'{"id":%d}' % n for n in range(75_000)]))),
    "empty rows": ("hetzner", lambda: _hetzner(b"{}," * 20_000_000 + b"{}")),
    "numbers": ("hetzner", lambda: _hetzner(b'{"id":1,"volumes":[' + b"1," * 30_000_000 + b"1]}")),
    "texts": ("hetzner", lambda: _hetzner(b'{"id":1,"private_net":[{"alias_ips":[' + b'"abc",' * 700_000 + b'"a"]}]}')),
    "one long text": ("hetzner", lambda: _hetzner(b'{"id":1,"name":"' + b"x" * 60 * MB + b'"}')),
    "one long wide text": ("hetzner", lambda: _hetzner(b'{"id":1,"name":"' + b"x" * 30 * MB + '\U0001f600"}'.encode())),
    "many labels": ("hetzner", lambda: _hetzner(b'{"id":1,"labels":{'
                                                + b",".join([b'"k%d":"v"' % n for n in range(3_000_000)]) + b"}}")),
    "deep lists": ("hetzner", lambda: _hetzner(b'{"id":1,"x":' + b"[" * 30_000_000)),
    "odd rows": (
        "hetzner", lambda: _hetzner(b",".join([b'{"id":%d,"name":[],"server_type":5}' % n for n in range(100_000)]))),
    "unclosed elements": ("aws", lambda: _ec2(b"<a>" * 3_000_000)),
    "flat elements": ("aws", lambda: _ec2(b"<a/>" * 3_000_000)),
    "as many elements as fit": ("aws", lambda: _ec2(b"<a></a>" * 400_000)),
    "nested elements": ("aws", lambda: _ec2(b"<a>" * 400_000 + b"</a>" * 400_000)),
    "attributes": ("aws", lambda: _ec2(b"<a " + b" ".join([b'a%d="1"' % n for n in range(1_000_000)]) + b"/>")),
    "attributes with blanks": (
        "aws", lambda: _ec2(b"<a " + b" ".join([b'a%d = "1"' % n for n in range(1_000_000)]) + b"/>")),
    "attributes, one an element": ("aws", lambda: _ec2(b'<a b="c"></a>' * 130_000)),
    "entities": ("aws", lambda: b'<!DOCTYPE a [<!ENTITY a "' + b"a" * 100_000 + b'">]><a>' + b"&a;" * 1_000_000
                 + b"</a>"),
    "one long name": ("aws", lambda: _ec2(b"<" + b"x" * 15 * MB + b"/>")),
    "one long attribute": ("aws", lambda: _ec2(b"<a b='" + b">" * 15 * MB)),
    "elements beside": ("aws", lambda: b"<DescribeInstancesResponse>" + b"<a/>" * 790_000
                        + b"</DescribeInstancesResponse>"),
    "attributes by default": ("aws", lambda: b"<!DOCTYPE a [<!ATTLIST item " + b" ".join(
        [b"a%d CDATA 'v'" % n for n in range(2000)]) + b">]>" + _ec2(b"<item/>" * 100_000)),
    "after blanks": ("aws", lambda: b" " * 100 + _ec2(b"<a/>" * 3_000_000)),
    "UTF-16": ("aws", lambda: _ec2(b"<a/>" * 1_900_000).decode().encode("utf-16")),
    "control characters": ("aws", lambda: _ec2(b"\x01" * 15 * MB)),
    "references": ("aws", lambda: _ec2(b"&#1;" * 1_000_000)),
    "texts without an end": ("hetzner", lambda: b"[" * 120_000 + b'\\"' * 2_000_000),
    "one long element": ("aws", lambda: _ec2(b"<a>" + b"x" * 60 * MB + b"</a>")),
}


def _serve(name: str, pipe: Connection) -> None:
    body = gzip.compress(SHAPES[name][1](), 1)

    class Bomb(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bomb)
    pipe.send(server.server_port)
    server.serve_forever()


def main(name: str) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    served = context.Process(target=_serve, args=(name, theirs), daemon=True)
    served.start()
    party = parties.load(SHAPES[name][0])
    port: int = ours.recv()
    resource.setrlimit(resource.RLIMIT_AS, (3 * 1024 * MB, 3 * 1024 * MB))
    transport, words = Transport(), list[str]()
    fields = {"token": "t"} if party.name == "hetzner" else {"access_key_id": "a", "secret_access_key": "b"}
    account = Account(tenant_id="1", party=party.name, credentials=fields, endpoint=f"http://127.0.0.1:{port}")

    def listing(tenant: int) -> None:
        mine = replace(account, tenant_id=str(tenant))
        sender = transport.sender(party, mine, party.default_region, time.monotonic() + 20)
        try:
            listing = parties.list_servers(Source(str(tenant), party.name, party.default_region), mine, Window(1, 1),
                                           sender)
            words.append(str(len(listing.servers)))
        except TwocloudError as error:
            words.append(error.code)
        except BaseException as error:
            words.append(type(error).__name__)
        finally:
            sender.close()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    threads = [threading.Thread(target=listing, args=(n,)) for n in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    served.kill()
    print(grown, *sorted(set(words)))


if __name__ == "__main__":
    main(sys.argv[1])
