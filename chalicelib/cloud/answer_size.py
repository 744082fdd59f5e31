"""How much memory an answer may take, estimated before it is decoded, and permits for those that take much."""

import re
import threading
import time

from ..errors import PartyMalformed, PartyThrottled
from .sockets import current

BYTE_CAP = 16 * 1024 * 1024                 # of one answer, decoded; Azure's pages end there, others are smaller
LONGEST_REFUSAL = 256 * 1024               # bytes
LIGHT = 2 * 1024 * 1024                    # bytes, and bytes of objects: answers up to here take no permit
_MOST_OBJECTS = 16 * 1024 * 1024            # bytes that the objects of one JSON answer may take, estimated
_MOST_ELEMENTS = 48 * 1024 * 1024           # the same of an XML answer, of which only the servers outlive its reading
_MOST_ATTRIBUTES = 10_000                   # of an XML answer beyond one an element, and elements without an end
_SURELY_LIGHT = 2 * LIGHT // 150            # bytes of JSON: if each were an object, no permit would be needed
_HEAVY = 2                                  # large answers held at once in this process, of one tenant one
_TEXT = re.compile(rb'"[^"]*"?')            # where no escapes are; one without an end too, so that no sign is met twice
_XML = re.compile(rb"[\xef\xbb\xbf\s]*<")
_DOCUMENT_TYPE = b"<!DOCTYPE"               # no declaration stands elsewhere
_ATTRIBUTE = re.compile(rb"""=[ \t\r\n]*["']""")
_BLOCK = 32_768                             # bytes without a sign, where a tag may be too long:
_LONG_TAG = re.compile(rb"<[^<>]{65536}|=\s*(?:\"[^\"<]{65536}|'[^'<]{65536})")      # expat gathers it in memory
_LONG_TEXT = re.compile(rb'"[^"\\]{1000000}')       # one wide character makes each of the others as wide


class RoomForAnswers:
    """Permits for answers that take much memory: a few at once, and never more than one of a tenant's."""

    def __init__(self) -> None:
        self._tenants: set[str] = set()
        self._changed = threading.Condition()

    def take(self, tenant: str) -> None:
        """Wait for a permit until this thread's call has to end.

        Raises PartyMalformed if the tenant's own answer is in the way, else PartyThrottled.
        """
        with self._changed:
            while tenant in self._tenants or len(self._tenants) >= _HEAVY:
                if not self._changed.wait(max(0.0, current.deadline - time.monotonic())):
                    if tenant in self._tenants:
                        raise PartyMalformed("The party's answers are too large to be read in time.")
                    raise PartyThrottled("Too many large answers of clouds are being read at once. Retry later.")
            self._tenants.add(tenant)

    def release(self, tenant: str) -> None:
        with self._changed:
            self._tenants.discard(tenant)
            self._changed.notify_all()


class Permit:
    """One answer's; it takes one once the answer is known to be large, and gives it back when the answer is dropped."""

    def __init__(self, room: RoomForAnswers, tenant: str) -> None:
        self._room = room
        self._tenant = tenant
        self._taken = False

    def take(self) -> None:
        if not self._taken:
            self._room.take(self._tenant)
            self._taken = True

    def __call__(self) -> None:
        if self._taken:
            self._taken = False
            self._room.release(self._tenant)

    release = __del__ = __call__

    def bounded(self, body: bytes) -> bool:
        """Whether the answer's objects will fit; if they will be many, after a permit was taken for them."""
        size = room_of(body)
        if size is None:
            return False
        if size > 2 * LIGHT:
            self.take()
        return True


def room_of(body: bytes) -> int | None:
    """How many bytes the objects of an answer will take at most, by counts at the speed of memory; None: too many.

    JSON: an object or list is some 150 bytes, a scalar 60; the signs may also stand inside texts (a start-up script),
    which are looked through only where the quick count is too high. XML: a tag is 60, an attribute 240. No cloud
    declares entities or attributes, sends elements without an end by the thousand, or more attributes than elements
    (vSphere names the type of each).
    """
    if _XML.match(body):
        tags, ends, attributes = body.count(b"<"), body.count(b"</"), body.count(b"=")
        if attributes > _MOST_ATTRIBUTES:   # the sign alone is counted faster, and most answers have few
            attributes = sum(1 for _ in _ATTRIBUTE.finditer(body))
        endless = tags - 2 * ends
        if endless > _MOST_ATTRIBUTES:
            endless -= body.count(b"/>")
        if (attributes > _MOST_ATTRIBUTES + ends or endless > _MOST_ATTRIBUTES or _has_long_tag(body)
                or (_DOCUMENT_TYPE in body and (b"<!ENTITY" in body or b"<!ATTLIST" in body))):
            return None
        size = 60 * tags + 240 * attributes
        return size if size <= _MOST_ELEMENTS else None
    if len(body) <= _SURELY_LIGHT:          # most answers: nothing to count
        return 150 * len(body)
    if len(body) > LIGHT and _LONG_TEXT.search(body):
        return None
    size = _objects(body)
    if size > _MOST_OBJECTS and 30 * (body.count(b'"') - body.count(b'\\"')) <= 2 * _MOST_OBJECTS:
        bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        size -= sum(_objects(text[0]) for text in _TEXT.finditer(bare))
    return size if size <= _MOST_OBJECTS else None


def _has_long_tag(xml: bytes) -> bool:
    return any(xml.find(b"<", at, at + _BLOCK) < 0 for at in range(0, len(xml) - _BLOCK, _BLOCK)) and bool(
        _LONG_TAG.search(xml))


def _objects(json: bytes) -> int:
    return 150 * (json.count(b"{") + json.count(b"[")) + 60 * json.count(b",")
