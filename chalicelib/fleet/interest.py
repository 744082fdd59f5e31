"""Which sources are being read: one small row each, so that the schedule refreshes them more often."""

from math import inf

from ..model import Source
from ..storage import snapshots, store
from ..storage.store import Entry, Row
from .deployment import Deployment
from .lookup import logged

_NOTED_SECONDS = 600                        # a source that is read is written down again after this
_LIFE = 30 * 86_400                         # and forgotten after this
_NAMED = 3                                  # sources that a line of the log names
_REMEMBERED = 4096                          # sources beyond which a process forgets what is over


def note_reading(deployment: Deployment, *sources: Source) -> None:
    """Write down that the sources are read: one small row each, in ten minutes at most."""
    now, noted = deployment.clock(), deployment.noted
    keys = [key for key in map(snapshots.key_of, sources) if now - noted.get(key, 0.0) >= _NOTED_SECONDS]
    if keys and len(noted) >= _REMEMBERED:
        for old in [known for known, at in list(noted.items()) if now - at >= _NOTED_SECONDS]:
            noted.pop(old, None)
    noted.update(dict.fromkeys(keys, now))  # before they are, so that of many callers one writes
    rows = [Entry("interest", key, b"%d" % now, store.new_version(), int(now) + _LIFE) for key in keys]
    with logged(", ".join(keys[:_NAMED])), store.beside():
        if len(rows) == 1:
            deployment.store.put("interest", rows[0].key, rows[0].value, expires=rows[0].expires)
        elif rows:
            deployment.store.write(rows)


def last_read(row: Row | None) -> float:
    """When a source was last read (Unix time), by its row; -inf: not in the last month, or the row is damaged."""
    try:
        return float(row.value) if row else -inf
    except ValueError:
        return -inf


def forget_reading(deployment: Deployment, source: Source) -> None:
    """The party has no such region: stop refreshing it."""
    key = snapshots.key_of(source)
    deployment.noted.pop(key, None)
    with logged(key), store.beside():
        deployment.store.delete("interest", key)
