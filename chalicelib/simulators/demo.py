"""The demo: simulator clouds, a tenant with an account at each, a user, a token, the API, and one line to paste."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from .. import log, parties, simulators
from ..access import accounts, tokens, users
from ..cli.output import Network
from ..fleet import many_sources
from ..fleet.many_sources import Deployment
from ..http import serve
from ..settings import Settings
from .faults import Answer
from .fleet import Fleet, seed_machine
from .server import Call, Simulator

TENANT = "123"
FLEETS = {                                  # the others have thirty machines in one region
    "qcloud": {"ap-guangzhou": Fleet(25, "demo", first=seed_machine()), "ap-shanghai": Fleet(310, "demo")},
    "aws": {"us-east-1": Fleet(40, "demo"), "eu-west-1": Fleet(7, "demo")},
}
_HOUR = 3600


class Switch(Simulator):
    """`POST /PARTY/off` makes a cloud hang up on every call, `POST /PARTY/on` ends that."""

    def __init__(self, clouds: Mapping[str, Simulator], port: int) -> None:
        self.clouds = clouds
        super().__init__(port)

    def operation(self, call: Call) -> str:
        return call.path

    def answer(self, call: Call) -> Answer:
        name, _, wanted = call.path[1:].partition("/")
        if name not in self.clouds or wanted not in ("on", "off"):
            return _told(404, f"POST /PARTY/off or /PARTY/on. Parties: {', '.join(self.clouds)}")
        if call.method != "POST":
            return _told(405, "Use POST.")
        self.clouds[name].forget()
        if wanted == "off":
            self.clouds[name].fail("reset")
        return _told(200, f"{name} is {wanted}")


def _told(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain"}, f"{text}\n".encode())


def _switch(clouds: Mapping[str, Simulator], port: int) -> Switch:
    try:
        return Switch(clouds, port)
    except (OSError, OverflowError):        # somebody else's port
        return Switch(clouds, 0)


def run(port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; nothing is kept."""
    log.start()
    with serve.until_stopped(), ExitStack() as stack:           # the folder with its key goes, whenever it is ended
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="twocloud-demo-"))
        deployment = many_sources.open_deployment(Settings(
            store=f"sqlite:///{Path(folder).resolve()}/demo.db", key=f"file:{folder}/key", timezone=ZoneInfo("UTC"),
            max_age=0, stale_if_error=86_400, history=30, local=True, in_lambda=False))
        stack.callback(deployment.close)
        clouds: dict[str, Simulator] = {}
        for name, cloud in simulators.clouds().items():
            fleets = FLEETS.get(name, {cloud.region: Fleet(30, name)})
            simulator, credentials = cloud.start(fleets, "demo-secret-key")
            clouds[name] = stack.enter_context(simulator)
            put_account(deployment, name, credentials, simulator.url, tuple(fleets))
        try:
            server = serve.Server(deployment, "127.0.0.1", port)
        except OSError as problem:
            raise Network(f"cannot listen on port {port}: {problem.strerror}; try another port") from None
        switch = stack.enter_context(_switch(clouds, port + 1 if port else 0))
        url = f"http://{server.address}/twocloud/servers"
        click.echo(f"curl -u '{ready_token(deployment)}:password' "
                   f"'{url}?party=qcloud&tenant_id={TENANT}&region=gz&f=1&t=10'")
        click.echo("Paste the line above into another terminal. All clouds at once: party=all&region=all\n"
                   f"In a browser, with the token and tenant {TENANT}: http://{server.address}/twocloud/\n"
                   f"Switch a cloud off: curl -X POST {switch.url}/qcloud/off (or /on)\n"
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
