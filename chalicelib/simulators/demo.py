"""The demo's fleets: every simulator cloud, a tenant with an account at each, a user, a token, a switch for faults."""

from collections.abc import Mapping
from contextlib import ExitStack

from .. import parties, simulators
from ..access import accounts, tokens, users
from ..fleet.many_sources import Deployment
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


def start(deployment: Deployment, stack: ExitStack) -> dict[str, Simulator]:
    """Every simulator cloud, until the stack closes, with an account of TENANT at each."""
    clouds: dict[str, Simulator] = {}
    for name, cloud in simulators.clouds().items():
        fleets = FLEETS.get(name, {cloud.region: Fleet(30, name)})
        simulator, credentials = cloud.start(fleets, "demo-secret-key")
        clouds[name] = stack.enter_context(simulator)
        _put_account(deployment, name, credentials, simulator.url, tuple(fleets))
    return clouds


def _put_account(deployment: Deployment, party: str, credentials: dict[str, object], url: str,
                 regions: tuple[str, ...]) -> None:
    account = accounts.check(TENANT, parties.load(party), credentials, project=None, regions=regions, deep=False,
                             endpoint=url, local=True)
    accounts.put(deployment.store, deployment.sealer(), account, deployment.clock())


def ready_token(deployment: Deployment) -> str:
    user = users.User(name="demo", uid=users.new_uid(), tenants=(TENANT,), created_at=int(deployment.clock()))
    users.add(deployment.store, user)
    text, _ = tokens.issue(deployment.store, user, tokens.Limits(), 24 * _HOUR, deployment.clock(), "demo")
    return text
