"""twocloud demo: simulator clouds, tenants with accounts at them, the API, and one line to paste."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from .. import log
from ..fleet import many_sources
from ..http import serve
from ..settings import Settings
from ..simulators.demo import COMPANY, TENANT, Switch, ready_token, start
from ..simulators.server import Simulator
from .output import Network, Port


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=Port(), help="Port to listen on; 0: any free port.")
def demo(host: str, port: int) -> None:
    """Serve simulated clouds, with ready tenants, a user and a token. Nothing is saved.

    The clouds and the switch for them listen on this machine only, whatever --host says.
    """
    if host.startswith("unix:"):
        raise click.UsageError("--host must be an address: the printed lines are for a browser and curl.")
    log.start()
    with serve.until_stopped(), ExitStack() as stack:           # the folder with its key goes, whenever it is ended
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="twocloud-demo-"))
        deployment = many_sources.open_deployment(Settings(
            store=f"sqlite:///{Path(folder).resolve()}/demo.db", key=f"file:{folder}/key", timezone=ZoneInfo("UTC"),
            max_age=0, stale_if_error=86_400, history=30, local=True, in_lambda=False))
        stack.callback(deployment.close)
        clouds = start(deployment, stack)
        try:
            server = serve.Server(deployment, host, port)
        except OSError as problem:
            raise Network(f"Cannot listen on {host}:{port}: {problem.strerror}. Choose another with --host and "
                          "--port.") from None
        switch = stack.enter_context(_switch(clouds, port + 1 if port else 0))
        address = re.sub(r"^(0\.0\.0\.0|\[::\])(?=:)", "127.0.0.1", server.address)      # one that can be called
        curl = f"curl -u '{ready_token(deployment)}:password' 'http://{address}/twocloud/servers"
        click.echo(f"{curl}?party=qcloud&tenant_id={TENANT}&region=gz&f=1&t=10'")
        click.echo("Paste the line above into another terminal. All clouds at once: party=all&region=all\n"
                   f"All tenants of the token, with two accounts and an organisation of tenant {COMPANY}:\n"
                   f"{curl}?party=all&tenant_id=all&region=all'\n"
                   f"In a browser, with the token and tenant {TENANT}: http://{address}/twocloud/\n"
                   f"Switch a cloud off: curl -X POST {switch.url}/qcloud/off (or /on)\n"
                   "Press Ctrl-C to stop.", err=True)
        server.run()


def _switch(clouds: Mapping[str, Sequence[Simulator]], port: int) -> Switch:
    try:
        return Switch(clouds, port)
    except (OSError, OverflowError):        # somebody else's port
        return Switch(clouds, 0)
