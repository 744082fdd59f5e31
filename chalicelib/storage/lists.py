"""Which lists an answer over several sources was made of: a row for each such answer that is another one.

The row (kind `list`) says for each source, in their order, which of its lists it was. Its id is a digest of them and of
what the query names: the same lists have the same id, and another query's id fits none. It opens nothing: whoever reads
a list is checked as ever. Of one source the id is the list's own, and there is no row.
"""

import base64
import hashlib
import zlib
from collections.abc import Sequence

import msgspec

from .store import LARGEST, Place, Row, Store

LIFE = 86_400                               # seconds for which a row lasts
_SEVERAL = "all"                            # in place of a tenant; no tenant has that name
Parts = Sequence[tuple[str, str]]           # (the source's key, its list's id)
_decode = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode


def id_of(scope: Sequence[Sequence[str]], parts: Parts) -> str:
    """32 letters, digits, `_` and `-`."""
    return base64.urlsafe_b64encode(hashlib.sha256(msgspec.msgpack.encode((scope, parts))).digest()[:24]).decode()


def place_of(tenants: Sequence[str], list_id: str) -> Place:
    """Where the row is; `tenants`: as the query names them."""
    owner = tenants[0] if len(tenants) == 1 else _SEVERAL
    return "list", f"{owner}/{list_id}"


def write(store: Store, tenants: Sequence[str], list_id: str, parts: Parts, now: float) -> bool:
    """False: there are too many for a row."""
    kind, key = place_of(tenants, list_id)
    value = zlib.compress(msgspec.msgpack.encode(parts), 1)
    if len(value) > LARGEST:
        return False
    store.put(kind, key, value, expires=int(now) + LIFE)
    return True


def read(row: Row | None) -> list[tuple[str, str]] | None:
    """None: there is none that can be read."""
    try:
        return _decode(zlib.decompress(row.value)) if row else None
    except (ValueError, zlib.error):
        return None


def forget(store: Store, tenant_id: str, prefixes: tuple[str, ...]) -> None:
    """Take away what names a source of the tenant whose key starts so."""
    for owner in (tenant_id, _SEVERAL):
        store.delete("list", *[key for key, row in store.list("list", f"{owner}/")
                               if any(source.startswith(prefixes) for source, _ in read(row) or ())])
