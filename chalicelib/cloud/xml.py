"""Answers in XML, read one item at a time, so that a large one never stands in memory as a whole.

expat stops entities that multiply, and `answer_size` refuses an answer that declares any. A character that XML cannot
hold, raw or as a reference, gets U+FFFD in its place. Answers are UTF-8, whatever they declare: `answer_size` counts
their bytes.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from .decoding import reading

T = TypeVar("T")

_DEEPEST = 50                               # elements within elements: parties have a dozen
_PIECE = 16_384                             # bytes that are parsed at a time,
_SHARE = 8                                  # or so much of what was parsed: expat reads what has no end again each time
_BESIDE = 1000                              # elements beside the items and what holds them: parties have a few
_START = 1024                               # bytes within which the root has begun
_MOST_ODD = 100_000                         # characters that are replaced
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r")
_FORBIDDEN = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|&#(?:x0*(?:1?[0-8bcefBCEF]|1[9adAD]|0)|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));")


# What comes before the namespace that an answer's root gives to all tags. Without it, EC2's are read a tenth faster.
_VALUE = rb"""(?:"[^"<>]*+"|'[^'<>]*+')"""
_NAMESPACE = re.compile(rb"(\s*+(?:<\?xml[^<>]*+>\s*+)?+<[^<>\s:?!]++(?:\s++(?!xmlns=)[^<>\s=]++=" + _VALUE
                        + rb")*+)\s++xmlns=" + _VALUE)


def local(tag: str) -> str:
    """A tag without its namespace."""
    return tag.rpartition("}")[2]


def parse(body: bytes) -> Element:
    """A small answer. Raises PartyMalformed."""
    with reading():
        return ElementTree.fromstring(body, _parser(body))      # noqa: S314  expat stops entity bombs: a test


def items(body: bytes, path: Sequence[str], read: Callable[[Element, str], T]) -> tuple[list[T], Element]:
    """What `read(element, namespace)` makes of each element below this path, and the root, in which these are empty.

    `path`: tags without a namespace, the root's first. `namespace`: of the element, as it stands before its tag; "" if
    it is the one that the root gives to all. Raises PartyMalformed if the root is another one.
    """
    with reading():
        try:
            return _items(body, path, read)
        except SyntaxError:
            return _items(_cleaned(body), path, read)


def _parser(body: bytes, target: ElementTree.TreeBuilder | None = None) -> "ElementTree.XMLParser[Element]":
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in body[:2]:           # UTF-16, which expat reads unasked
        raise ValueError
    return ElementTree.XMLParser(target=target, encoding="utf-8")           # noqa: S314


def _cleaned(body: bytes) -> bytes:
    """Without the characters that XML cannot hold."""
    if len(body) - len(body.translate(None, _CONTROLS)) > _MOST_ODD:            # a small object each
        raise ValueError
    return _FORBIDDEN.sub("\ufffd".encode(), body, count=_MOST_ODD)


def _items(body: bytes, path: Sequence[str], read: Callable[[Element, str], T]) -> tuple[list[T], Element]:
    """A piece of the answer after the other becomes a tree, which the parser, in C, makes alone; then what is complete
    is read and leaves the tree. An event for each element would take as long as all the rest."""
    rows: list[T] = []
    builder = ElementTree.TreeBuilder()
    top = builder.start("", {})             # where the root hangs, so that it is in reach before it ends
    parser, start = _parser(body, builder), _NAMESPACE.match(body, 0, _START)
    if start:
        parser.feed(start[1])
    at = start.end() if start else 0
    while at < len(body):
        piece = body[at:at + max(_PIECE, at // _SHARE)]
        parser.feed(piece)
        at += len(piece)
        _check_depth(top)
        _take(top, path, read, rows, ended=False)
    parser.close()
    _take(top, path, read, rows, ended=True)
    (root,) = top
    if local(root.tag) != path[0]:
        raise ValueError
    return rows, root


def _check_depth(element: Element) -> None:
    """Of what is open, which are the last elements of their parents: what ended within the piece is no deeper than the
    piece is long, and nothing walks down it."""
    for _ in range(_DEEPEST + 1):
        if not len(element):
            return
        element = element[-1]
    raise ValueError


def _take(parent: Element, path: Sequence[str], read: Callable[[Element, str], T], rows: list[T], *,
          ended: bool) -> None:
    """Read the items below the parent. Not `ended`: its last element may still grow. Of several elements on the path
    beside each other, such as reservations, those that were read leave as well."""
    name, *below = path
    fitting = [element for element in parent if local(element.tag) == name]
    if len(parent) - len(fitting) > _BESIDE:                    # which are looked at after each piece
        raise ValueError
    for element in fitting:
        whole = ended or element is not parent[-1]
        if below:
            _take(element, below, read, rows, ended=whole)
        else:
            items = element[:] if whole else element[:-1]
            rows += [read(item, item.tag[:item.tag.find("}") + 1]) for item in items]
            del element[:len(items)]
    if len(fitting) > 1:
        gone = {*fitting[:-1]}
        parent[:] = [element for element in parent if element not in gone]
