"""AWS emulated by programs that we did not write: moto in this process, MiniStack as a server of its own."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MINISTACK = Path(__file__).parent.parent / ".venv-ministack/bin/ministack"


@contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """The URL of a MiniStack that lives as long as the block."""
    if not _MINISTACK.exists():
        raise RuntimeError("MiniStack is missing: run `make test`, which installs it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SFTP_ENABLED": "0",
                   "IOT_MTLS_ENABLED": "0", "MINISTACK_ACCOUNT_ID": "123456789012", "HOME": str(folder)}
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen([_MINISTACK], stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((folder / "ministack.log").read_text()) from None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
