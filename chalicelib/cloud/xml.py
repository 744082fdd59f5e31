"""Answers in XML, read one item at a time, so that a large one never stands in memory as a whole.

expat stops entities that multiply, and `answer_size` refuses an answer that declares any. A character that XML cannot
hold, raw or as a reference, gets U+FFFD in its place.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from .decoding import reading

T = TypeVar("T")

_DEEPEST = 50                               # elements within elements: parties have a dozen
_FORBIDDEN = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|&#(?:x0*(?:1?[0-8bcefBCEF]|1[9adAD]|0)|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));")


def local(tag: str) -> str:
    """A tag without its namespace."""
    return tag.rpartition("}")[2]


def parse(body: bytes) -> Element:
    """A small answer. Raises PartyMalformed."""
    with reading():
        return ElementTree.fromstring(body)                     # noqa: S314  expat stops entity bombs: a test


def items(body: bytes, path: Sequence[str], read: Callable[[Element, str], T]) -> tuple[list[T], Element]:
    """What `read(element, namespace)` makes of each element below this path, and the root, in which these are empty.

    `path`: tags without a namespace, the root's first. `namespace`: of the element, as it stands before its tag. Raises
    PartyMalformed if the root is another one.
    """
    with reading():
        try:
            return _items(body, path, read)
        except SyntaxError:
            return _items(_FORBIDDEN.sub("\ufffd".encode(), body), path, read)


def _items(body: bytes, path: Sequence[str], read: Callable[[Element, str], T]) -> tuple[list[T], Element]:
    rows: list[T] = []
    events: Any = ElementTree.iterparse(io.BytesIO(body), ("start", "end"))      # noqa: S314
    depth, on_path, length = 0, 0, len(path)                    # `on_path`: so many of those above are the path's
    element: Element
    for event, element in events:
        if event == "start":
            if depth == on_path < length and local(element.tag) == path[depth]:
                on_path += 1
            depth += 1
            if depth > _DEEPEST:
                raise ValueError
            continue
        depth -= 1
        if depth == length == on_path:
            rows.append(read(element, element.tag[:element.tag.find("}") + 1]))
            element.clear()
        elif depth < on_path:
            on_path = depth
    root = cast(Element, events.root)
    if local(root.tag) != path[0]:
        raise ValueError
    return rows, root
