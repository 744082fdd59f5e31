"""twocloud serve."""

import threading
import uuid
from dataclasses import replace

import click

from .. import log
from ..fleet import schedule
from ..fleet.many_sources import Deployment
from .output import Duration, Network, Port, deployment, say


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=Port(), help="Port to listen on; 0: any free port.")
@click.option("--refresh", "pause", type=Duration(), metavar="TIME",
              help="Refresh snapshots that are due, this often: 30s, 5m. Default: never.")
def serve(host: str, port: int, pause: int | None) -> None:
    """Serve the API on this machine over the configured store, as the deployed gateway does."""
    from ..http import serve as server  # the other commands need no web server

    if pause is not None and pause < 1:
        raise click.UsageError("--refresh must be at least 1s.")
    here = deployment()
    log.calls.disabled = False
    here = replace(here, settings=replace(here.settings, local=True))
    here.sealer()                           # a key that cannot be used stops the start, not the first request
    try:
        bound = server.Server(here, host, port)
    except OSError as problem:
        raise Network(f"Cannot listen on {host}:{port}: {problem.strerror}. Choose another with --host and "
                      "--port.") from None
    stopped = threading.Event()
    with server.until_stopped():
        say(f"twocloud listens on http://{bound.address}/twocloud/servers")
        if pause:
            threading.Thread(target=_refresh, args=(here, pause, stopped), daemon=True, name="twocloud-refresh").start()
        bound.run()
    stopped.set()
    here.close()


def _refresh(here: Deployment, pause: int, stopped: threading.Event) -> None:
    """Do what the schedule and the queue do on AWS. A run that fails as a whole is logged; the next one tries again."""
    while not stopped.wait(pause):
        with log.about(run_id=str(uuid.uuid4())):
            try:
                survey = schedule.survey(here)
                for _ in schedule.run(here, survey.due):
                    if stopped.is_set():
                        return
                schedule.finish(here, survey, max(pause, schedule.RUN_EVERY))    # a run may take longer than the pause
            except Exception:
                log.failure(run="refresh")
