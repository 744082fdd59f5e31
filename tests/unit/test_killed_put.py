"""`account put --replace` killed between any two of its writes: the old account stands or the new one, nothing of
both."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.errors import TwocloudError
from chalicelib.fleet import changes, circuit_breaker, lookup, many_sources
from chalicelib.model import Account, Source
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import snapshots
from chalicelib.storage.store import Store
from tests.canaries import secret
from tests.fixtures import App, Clock

SOURCE = Source("123", "qcloud", "ap-guangzhou")


class Killed(BaseException):
    """As kill -9 does: nothing after it runs."""


class Dying:
    """A store that dies at its n-th write, before it or after it."""

    def __init__(self, store: Store, at: int, after: bool) -> None:
        self._store, self._at, self._after, self.writes = store, at, after, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name not in ("put", "delete", "write"):
            return real

        def write(*arguments: Any, **more: Any) -> Any:
            self.writes += 1
            if self.writes == self._at and not self._after:
                raise Killed
            done = real(*arguments, **more)
            if self.writes == self._at:
                raise Killed
            return done

        return write


def history(app: App, clock: Clock) -> None:
    """The earlier account: two listings with a server that vanished in between, and a breaker that is open."""
    cloud = app.clouds["qcloud"]
    assert isinstance(cloud, Qcloud)
    many_sources.list_servers(app.deployment, SOURCE)
    clock.forward(60)
    cloud.fleets["ap-guangzhou"] = Fleet(20)
    many_sources.list_servers(app.deployment, SOURCE)
    clock.forward(60)
    cloud.fail("503")
    for _ in range(10):
        with pytest.raises(TwocloudError):
            many_sources.list_servers(app.deployment, SOURCE)
    assert circuit_breaker.health(app.deployment, SOURCE).open_until > clock()


def other(url: str) -> tuple[Account, dict[str, str]]:
    keys = {"secret_id": "AKIDother", "secret_key": secret("other")}
    return accounts.check("123", parties.load("qcloud"), keys, project=None, regions=(), deep=False, endpoint=url,
                          local=True), keys


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_each_write(app: App, clock: Clock, after: bool) -> None:
    began = clock()
    history(app, clock)
    store, sealer = app.deployment.store, app.deployment.sealer()
    with store.moment() as there:
        rows = list(there.walk())
    with Qcloud({}, {"ap-guangzhou": Fleet(3, "other")}) as cloud:
        account, keys = other(cloud.url)
        cloud.keys[keys["secret_id"]] = keys["secret_key"]
        at = 0
        while True:
            at += 1
            with store.moment() as there:
                now = [(it.kind, it.key) for it in there.walk()]
            for kind, key in now:
                store.delete(kind, key)
            store.write(rows)
            before = accounts.find(store, "123", "qcloud")
            dying: Any = Dying(store, at, after)
            try:
                accounts.put(dying, sealer, account, clock(), replace=True)
                finished = True
            except Killed:
                finished = False
            row = accounts.find(store, "123", "qcloud")
            if row.revision == before.revision:
                assert not finished
                assert row == before
                continue
            listed = changes.list_changes(lookup.Lookup(app.deployment, lookup.ANY_AGE).plan(SOURCE), began)
            assert listed.answer.total == 3, at
            assert listed.vanished == [], at
            assert not {name for name in listed.fields if not name.startswith("other")} or listed.fields == {}, at
            if finished:
                break
        assert at > 5


def test_changes_of_0_1_0_are_shown_if_they_can_only_be_this_accounts(app: App, clock: Clock,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = app.clouds["qcloud"]
    assert isinstance(cloud, Qcloud)
    real: Callable[..., Any] = msgspec.structs.replace
    with monkeypatch.context() as old:      # as version 0.1.0 wrote them
        old.setattr(snapshots.msgspec.structs, "replace", lambda it,
                    **more: real(it, **{**more, **({"revision": ""} if isinstance(it, snapshots.Change) else {})}))
        began = clock()
        many_sources.list_servers(app.deployment, SOURCE)
        clock.forward(60)
        cloud.fleets["ap-guangzhou"] = Fleet(20)
        many_sources.list_servers(app.deployment, SOURCE)
    assert len(changes.list_changes(lookup.Lookup(app.deployment, lookup.ANY_AGE).plan(SOURCE), began).vanished) == 5
    row = accounts.find(app.deployment.store, "123", "qcloud")
    head = snapshots.find(app.deployment.store, SOURCE, row.revision)
    assert head
    assert snapshots.changes(app.deployment.store, SOURCE, began - 1, real(head, since=clock())) == []
    assert len(snapshots.changes(app.deployment.store, SOURCE, began - 1, head)) == 1
