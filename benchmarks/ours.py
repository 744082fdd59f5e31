"""Our side: a real deployment (SQLite in a temporary folder, sealed account) that asks a simulator."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from msgspec.structs import replace

from benchmarks.keys import CREDENTIALS, REGION, TENANT
from chalicelib import parties, settings
from chalicelib.access import accounts, tokens, users
from chalicelib.fleet import many_sources
from chalicelib.fleet.many_sources import Answer, Deployment
from chalicelib.http import formats


@contextmanager
def deployed(party: str, url: str, credentials: Mapping[str, object] | None = None) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="twocloud-benchmark-") as folder:
        deployment = many_sources.open_deployment(settings.load({
            "TWOCLOUD_STORE": f"sqlite:///{folder}/twocloud.db", "TWOCLOUD_KEY": f"file:{folder}/key",
            "TWOCLOUD_LOCAL": "1"}))
        try:
            accounts.put(deployment.store, deployment.sealer(), accounts.check(
                TENANT, parties.load(party), credentials or CREDENTIALS[party], project=None, regions=(), deep=False,
                endpoint=url, local=True), deployment.clock())
            _ = deployment.transport        # made, with all that it imports: a listing is timed, not a first call
            yield deployment
        finally:
            deployment.close()


def token(deployment: Deployment) -> str:
    user = users.User(name="benchmark", uid=users.new_uid(), tenants=(TENANT,), created_at=int(deployment.clock()))
    users.add(deployment.store, user)
    return tokens.issue(deployment.store, user, tokens.Limits(), 3600, deployment.clock())[0]


@contextmanager
def listing(party: str, url: str, *, limited: bool = True) -> Iterator[Callable[[], bytes]]:
    """The whole list to its JSON body. Not `limited`: our own rate limiter is off, and the deadline far."""
    if not limited:
        without_limits(party)
    seconds = many_sources.REQUEST_SECONDS if limited else 600.0
    with deployed(party, url) as deployment:
        source = many_sources.source_of(TENANT, party, REGION[party])

        def work() -> bytes:
            return body(deployment, many_sources.list_servers(deployment, source, deadline=time.monotonic() + seconds))

        yield work


def body(deployment: Deployment, answer: Answer) -> bytes:
    return formats.list_json(formats.ListBody(200, "", [*formats.rows(answer, "basic", deployment.settings.timezone)]))


def without_limits(party: str) -> None:
    """For this process: the party as if it documented no rates. Before the party is used."""
    loaded = parties.load(party)
    module = __import__(f"{parties.__name__}.{party}", fromlist=["PARTY"])
    module.PARTY = replace(loaded, limits={})
    parties.load.cache_clear()
