"""Which sources are being read: one small row each, so that the schedule refreshes them more often."""

from ..model import Source
from ..storage import snapshots, store
from .deployment import Deployment
from .lookup import logged

_NOTED_SECONDS = 600                        # a source that is read is written down again after this
_LIFE = 30 * 86_400                         # and forgotten after this
_REMEMBERED = 4096                          # sources beyond which a process forgets what is over


def note_reading(deployment: Deployment, source: Source) -> None:
    """Write down that the source is read: one small write in ten minutes at most."""
    key, now = snapshots.key_of(source), deployment.clock()
    if now - deployment.noted.get(key, 0.0) < _NOTED_SECONDS:
        return
    if len(deployment.noted) >= _REMEMBERED:
        for old in [known for known, at in list(deployment.noted.items()) if now - at >= _NOTED_SECONDS]:
            deployment.noted.pop(old, None)
    deployment.noted[key] = now             # before it is, so that of many callers one writes
    with logged(key), store.beside():
        deployment.store.put("interest", key, b"%d" % now, expires=int(now) + _LIFE)


def forget_reading(deployment: Deployment, source: Source) -> None:
    """The party has no such region: stop refreshing it."""
    key = snapshots.key_of(source)
    deployment.noted.pop(key, None)
    with logged(key), store.beside():
        deployment.store.delete("interest", key)
