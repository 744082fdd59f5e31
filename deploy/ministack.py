"""AWS emulated by programs that we did not write: moto in this process, MiniStack as a server of its own, Amazon's
runtime client (awslambdaric) around a function."""

import importlib.metadata
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# the keys of our table in DynamoDB, as the template makes them
TABLE: dict[str, Any] = {
    "BillingMode": "PAY_PER_REQUEST",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]}
_MINISTACK = Path(__file__).parent.parent / ".tools/ministack/bin/ministack"


def start(folder: Path, port: int = 0, rights: bool = False) -> tuple[subprocess.Popen[bytes], str]:
    """A MiniStack that answers, and its URL; on a free port if none is named.

    `rights`: policies are enforced; the key "test" is the account's own, which may do anything.
    """
    if not _MINISTACK.exists():
        raise RuntimeError("MiniStack is missing: run `make test`, which installs it")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        port = free.getsockname()[1]
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SFTP_ENABLED": "0",
                   "IOT_MTLS_ENABLED": "0", "MINISTACK_ACCOUNT_ID": "123456789012", "HOME": str(folder),
                   "AUTH": str(rights).lower(), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen([_MINISTACK], stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process, f"http://127.0.0.1:{port}"
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((folder / "ministack.log").read_text()) from None
                time.sleep(0.05)
    except BaseException:
        stop(process)
        raise


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def ministack(folder: Path, port: int = 0, rights: bool = False) -> Generator[str]:
    """The URL of a MiniStack that lives as long as the block."""
    process, url = start(folder, port, rights)
    try:
        yield url
    finally:
        stop(process)


# ---------------------------------------------------------------- one function under Amazon's own runtime client

class Function:
    """A handler in an unpacked zip, in a process that sees this zip, awslambdaric and the standard library alone.

    One execution environment: one event at a time. `python` runs it; one of another version than ours needs `client`, a
    folder with an awslambdaric of its own. `started`: seconds from the process's start to its first poll, once it is
    ready. `took`: seconds of the last event, from the poll that got it to its answer.
    The Runtime API is four HTTP calls: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
    """

    def __init__(self, task: Path, handler: str, variables: dict[str, str], timeout: int, folder: Path,
                 python: str = sys.executable, client: Path | None = None) -> None:
        self._timeout = timeout
        self._todo: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._done: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._ready = threading.Event()
        self.started = self.took = self._handed_at = 0.0
        self._server = _Server(("127.0.0.1", 0), self._runtime_api())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        if client is None:
            client = folder / "awslambdaric"
            if not client.exists():
                _links("awslambdaric", client)
        self.log = folder / f"{handler}.log"
        start = (f"import sys; sys.path[:0] = [{str(task)!r}, {str(client)!r}]; "
                 "from awslambdaric.__main__ import main; main(sys.argv)")
        self._begun = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [python, "-I", "-S", "-c", start, handler], cwd=task, stdout=log, stderr=log,
                env={"PATH": "/usr/bin:/bin", "LANG": "en_US.UTF-8", "TZ": ":UTC", "LAMBDA_TASK_ROOT": str(task),
                     "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_address[1]}", "_HANDLER": handler,
                     "AWS_LAMBDA_FUNCTION_NAME": handler, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                     "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "AWS_REGION": "us-east-1",
                     "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "testing",
                     "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true", **variables})
        self.pid = self._process.pid

    def wait(self) -> None:
        """Until it polls for its first event. Raises RuntimeError if it does not come so far."""
        until = time.monotonic() + 60
        while not self._ready.wait(0.1):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(self.log.read_text())

    def invoke(self, event: dict[str, Any]) -> Any:
        """What the handler returned. Raises RuntimeError with what it raised, or that its time is up or it died."""
        self.wait()
        self._todo.put((str(uuid.uuid4()), json.dumps(event).encode()))
        until = time.monotonic() + self._timeout
        while True:
            try:
                how, output = self._done.get(timeout=0.1)
                break
            except queue.Empty:
                if not self.alive:
                    raise RuntimeError(self.log.read_text()) from None
                if time.monotonic() > until:
                    self._process.kill()
                    self._process.wait()
                    raise RuntimeError(f"Task timed out after {self._timeout} seconds") from None
        if how != "response":
            raise RuntimeError(f"{output.get('errorType')}: {output.get('errorMessage')}")
        return output

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._todo.put(None)
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Function":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _runtime_api(self) -> type[BaseHTTPRequestHandler]:
        function = self

        class RuntimeApi(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1                   # an answer in one piece, or Nagle's algorithm holds the second for 40 ms
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if not function._ready.is_set():
                    function.started = time.perf_counter() - function._begun
                    function._ready.set()
                if job := function._todo.get():
                    deadline = int((time.time() + function._timeout) * 1000)
                    function._handed_at = time.perf_counter()
                    self._answer(200, job[1], {
                        "Lambda-Runtime-Aws-Request-Id": job[0], "Lambda-Runtime-Deadline-Ms": str(deadline),
                        "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:f"})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                function.took = time.perf_counter() - function._handed_at
                function._done.put((self.path.rpartition("/")[2], json.loads(body)))
                self._answer(202, b"{}", {})

            def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response_only(status)
                sent = {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
                for name, value in sent.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *_: object) -> None:
                pass

        return RuntimeApi


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A function that was ended is no news."""


def _links(name: str, folder: Path) -> None:
    """A folder with this distribution and those that it needs, and nothing else of this environment."""
    folder.mkdir(parents=True, exist_ok=True)
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
        link = folder / top
        if not link.exists():
            link.symlink_to(str(distribution.locate_file(top)))
    for needed in distribution.requires or []:
        if "extra" not in needed:
            _links(re.split(r"[^A-Za-z0-9_.-]", needed)[0], folder)
