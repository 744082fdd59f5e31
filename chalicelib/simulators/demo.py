"""The demo's tenants with accounts at every simulator cloud, a user, a token, a switch for faults.

The first tenant has one account at each cloud. The second has what those clouds show more (`Cloud.demo`): several
accounts at one cloud, and an organisation. No cloud is named here.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from .. import parties, simulators
from ..access import accounts, tokens, users
from ..fleet.many_sources import Deployment
from ..model import DEFAULT_ACCOUNT, Discovery
from .faults import Answer
from .fleet import Fleet
from .server import Call, Simulator

TENANT, COMPANY = "123", "456"
_HOUR = 3600
_DAYS = 120                                 # in which the machines were created
_SECRET = "demo-secret-key"


class Switch(Simulator):
    """`POST /PARTY/off` makes a cloud hang up on every call, `POST /PARTY/on` ends that."""

    def __init__(self, clouds: Mapping[str, Sequence[Simulator]], port: int) -> None:
        self.clouds = clouds
        super().__init__(port)

    def operation(self, call: Call) -> str:
        return call.path

    def answer(self, call: Call) -> Answer:
        name, _, wanted = call.path[1:].partition("/")
        if name not in self.clouds or wanted not in ("on", "off"):
            return _state(404, f"POST /PARTY/off or /PARTY/on. Parties: {', '.join(self.clouds)}")
        if call.method != "POST":
            return _state(405, "Use POST.")
        for cloud in self.clouds[name]:
            cloud.forget()
            if wanted == "off":
                cloud.fail("reset")
        return _state(200, f"{name} is {wanted}")


def _state(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain"}, f"{text}\n".encode())


def start(deployment: Deployment, stack: ExitStack) -> dict[str, list[Simulator]]:
    """Every simulator cloud, until the stack closes, with accounts of TENANT and COMPANY. party -> its simulators."""
    made: dict[str, list[Simulator]] = {}
    begin = datetime.fromtimestamp(deployment.clock(), UTC).replace(hour=6, minute=0, second=0, microsecond=0)
    begin -= timedelta(days=_DAYS + 1)

    def place(fleets: Mapping[str, Fleet], *where: str) -> dict[str, Fleet]:
        """No two of them have a machine in common, and none is old: people look at the ids and the dates."""
        return {region: fleet.as_if("/".join((*where, region)), begin, _DAYS) for region, fleet in fleets.items()}

    def put(party: str, start: tuple[Simulator, dict[str, object]], tenant_id: str, name: str = DEFAULT_ACCOUNT,
            regions: Sequence[str] = (), discovery: Discovery | None = None) -> None:
        simulator, credentials = start
        made.setdefault(party, []).append(stack.enter_context(simulator))
        account = accounts.check(tenant_id, parties.load(party), credentials, project=None, regions=tuple(regions),
                                 deep=False, endpoint=simulator.url, local=True, name=name, discovery=discovery)
        accounts.put(deployment.store, deployment.sealer(), account, deployment.clock())

    for party, cloud in simulators.clouds().items():
        shown = cloud.demo(party)
        put(party, cloud.start(place(shown.fleets, party), _SECRET), TENANT, regions=tuple(shown.fleets))
        for name, fleets in shown.accounts.items():
            put(party, cloud.start(place(fleets, party, name), _SECRET), COMPANY, name, tuple(fleets))
        if cloud.organise and shown.branches:
            regions = dict.fromkeys(region for branch in shown.branches for region in branch.fleets)
            branches = [replace(branch, fleets=place(branch.fleets, party, branch.name)) for branch in shown.branches]
            put(party, cloud.organise(branches, _SECRET), COMPANY, regions=(*regions,), discovery=Discovery())
    return made


def ready_token(deployment: Deployment) -> str:
    user = users.User(name="demo", uid=users.new_uid(), tenants=(TENANT, COMPANY), created_at=int(deployment.clock()))
    users.add(deployment.store, user)
    text, _ = tokens.issue(deployment.store, user, tokens.Limits(), 24 * _HOUR, deployment.clock(), "demo")
    return text
