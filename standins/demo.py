"""The demo: stand-in clouds, a tenant with an account at each, a user, a token, the API, and one line to paste."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

import click

import standins
from chalicelib import accounts, inventory, journal, parties, serve, tokens, users
from chalicelib.cli.output import Network
from chalicelib.inventory import Deployment
from chalicelib.settings import Settings
from standins.fleet import Fleet, seed_machine

TENANT = "123"
FLEETS = {                                  # the others have thirty machines in one region
    "qcloud": {"ap-guangzhou": Fleet(25, "demo", first=seed_machine()), "ap-shanghai": Fleet(310, "demo")},
    "aws": {"us-east-1": Fleet(40, "demo"), "eu-west-1": Fleet(7, "demo")},
}
_HOUR = 3600


def run(port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; nothing is kept."""
    journal.start()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="twocloud-demo-"))
        deployment = inventory.open_deployment(Settings(
            store=f"sqlite:///{Path(folder).resolve()}/demo.db", key=f"file:{folder}/key", timezone=ZoneInfo("UTC"),
            max_age=0, stale_if_error=86_400, history=30, local=True, token="", in_lambda=False))
        stack.callback(deployment.close)
        for name, cloud in standins.clouds().items():
            fleets = FLEETS.get(name, {cloud.region: Fleet(30, name)})
            standin, credentials = cloud.start(fleets, "demo-secret-key")
            stack.enter_context(standin)
            put_account(deployment, name, credentials, standin.url, tuple(fleets))
        try:
            server = serve.Server(deployment, "127.0.0.1", port)
        except OSError as problem:
            raise Network(f"cannot listen on port {port}: {problem.strerror}; try another port") from None
        url = f"http://{server.address}/twocloud/servers"
        click.echo(f"curl -u '{ready_token(deployment)}:password' "
                   f"'{url}?party=qcloud&tenant_id={TENANT}&region=gz&f=1&t=10'")
        click.echo("Paste the line above into another terminal. All clouds at once: party=all&region=all. "
                   "Ctrl-C ends it all.", err=True)
        server.run()


def put_account(deployment: Deployment, party: str, credentials: dict[str, object], url: str,
                regions: tuple[str, ...]) -> None:
    account = accounts.check(TENANT, parties.load(party), credentials, project=None, regions=regions, deep=False,
                             endpoint=url, local=True)
    accounts.put(deployment.store, deployment.sealer(), account, deployment.clock())


def ready_token(deployment: Deployment) -> str:
    user = users.User(name="demo", uid=users.new_uid(), tenants=(TENANT,), created_at=int(deployment.clock()))
    users.add(deployment.store, user)
    text, _ = tokens.issue(deployment.store, user, tokens.Limits(), 24 * _HOUR, deployment.clock(), "demo")
    return text
