"""twocloud serve."""

import os
import signal
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click
from msgspec.structs import replace

from .. import log
from ..errors import Internal
from ..fleet import schedule
from ..fleet.counters import Counters, SharedMemory
from ..fleet.many_sources import Deployment
from .output import Duration, Network, Port, deployment, say

if TYPE_CHECKING:
    from ..http import serve as server


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, or unix:PATH: a socket "
              "that its owner and group may use.")
@click.option("--port", default=8000, show_default=True, type=Port(), help="Port to listen on; 0: any free port.")
@click.option("--refresh", "pause", type=Duration(), metavar="TIME",
              help="Refresh snapshots that are due, this often: 30s, 5m. Default: never.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64),
              help="Processes that serve; as many as there are cores use them all.")
def serve(host: str, port: int, pause: int | None, workers: int) -> None:
    """Serve the API on this machine over the configured store, as the deployed gateway does.

    SIGTERM and Ctrl-C answer what is under way, for up to 25 seconds; a second one stops at once. If a worker dies, all
    end (exit 5).
    """
    from ..http import serve as server  # the other commands need no web server

    if pause is not None and pause < 1:
        raise click.UsageError("--refresh must be at least 1s.")
    if workers > 1 and not hasattr(os, "fork"):
        raise click.UsageError("--workers needs a system with processes that fork; start several servers instead.")
    here = deployment()
    here = replace(here, settings=replace(here.settings, local=True))
    here.sealer()                           # a key that cannot be used stops the start, not the first request
    try:
        bound = server.listen(host, port)
    except OSError as problem:
        raise Network(f"Cannot listen on {host}{'' if host.startswith('unix:') else f':{port}'}: {problem.strerror}. "
                      "Choose another with --host and --port.") from None
    address = server.address_of(bound)
    with server.until_stopped():
        say(f"twocloud listens on {address if address.startswith('unix:') else f'http://{address}/twocloud/servers'}")
        if workers == 1:
            _serve(here, bound, pause)
            return
        here.close()                        # connections and threads do not survive a fork
        shared = SharedMemory(workers)

        def work(number: int) -> None:
            deployment.cache_clear()        # the parent's is closed
            mine = replace(deployment(), settings=here.settings)
            _serve(mine, bound, pause if number == 0 else None, Counters(shared, number))

        _in_processes(workers, work)


def _serve(here: Deployment, bound: "server.Bound", pause: int | None, counters: Counters | None = None) -> None:
    """Until SIGTERM or Ctrl-C."""
    from ..http import serve as server

    log.calls.disabled = log.audits.disabled = False
    running, stopped = server.Server(here, "", 0, bound, counters), threading.Event()
    if pause:
        threading.Thread(target=_refresh, args=(here, pause, stopped), daemon=True, name="twocloud-refresh").start()
    try:
        running.run()
    finally:
        stopped.set()
        here.close()


def _in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run `work` with 0, 1, … in a process each, until SIGTERM or Ctrl-C has ended them all, or one has ended by
    itself, which ends the others. They end with this process, whatever ended it."""
    theirs, mine = os.pipe()                # its other end is closed when this process is gone
    workers = set[int]()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)

    for number in range(count):
        worker = os.fork()
        if not worker:
            os.close(mine)
            threading.Thread(target=_end_with, args=(theirs,), daemon=True, name="twocloud-parent").start()
            _run_to_the_end(work, number)
        workers.add(worker)
    os.close(theirs)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    died = None
    while workers:
        worker, status = os.wait()
        workers.discard(worker)
        if not stopping:
            died = os.waitstatus_to_exitcode(status)
            stop()
    if died is not None:
        raise Internal(f"A worker ended by itself (status {died}), so the others ended, too.")


def _end_with(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _run_to_the_end(work: Callable[[int], None], number: int) -> NoReturn:
    """Nothing that the parent holds is ended here: no exit handler, no context."""
    code = 5
    try:
        work(number)
        code = 0
    except Exception:
        log.failure(run="worker")
    finally:
        os._exit(code)


def _refresh(here: Deployment, pause: int, stopped: threading.Event) -> None:
    """Do what the schedule and the queue do on AWS. A run that fails as a whole is logged; the next one tries again."""
    while not stopped.wait(pause):
        with log.about(run_id=str(uuid.uuid4())):
            try:
                survey = schedule.survey(here)
                for _ in schedule.run(here, survey.messages):
                    if stopped.is_set():
                        return
                schedule.finish(here, survey, max(pause, schedule.RUN_EVERY))    # a run may take longer than the pause
            except Exception:
                log.failure(run="refresh")
