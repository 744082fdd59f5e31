"""twocloud serve, twocloud demo."""

from dataclasses import replace

import click

from chalicelib.cli.output import Network, Port, deployment, say


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=Port(), help="0: any free port.")
def serve(host: str, port: int) -> None:
    """The API on this machine over the configured store, answering as the deployed gateway does."""
    from chalicelib import serve as server  # the other commands need no web server

    here = deployment()
    here = replace(here, settings=replace(here.settings, local=True))
    try:
        bound = server.Server(here, host, port)
    except OSError as problem:
        raise Network(f"cannot listen on {host}:{port}: {problem.strerror}") from None
    say(f"twocloud listens on http://{bound.address}/twocloud/servers")
    bound.run()
    here.close()


@click.command()
@click.option("--port", default=8000, show_default=True, type=Port(), help="0: any free port.")
def demo(port: int) -> None:
    """Serve, with stand-in clouds and a ready tenant, user and token; nothing is kept."""
    from standins import demo as stage  # stand-ins are no part of the deployed package

    stage.run(port)
