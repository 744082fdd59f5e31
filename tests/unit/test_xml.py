"""Items of an XML answer: the same as from the whole tree, wherever the pieces of the answer end, and none stays."""

from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.cloud import xml
from chalicelib.errors import PartyMalformed

PATH = ("r", "a", "i")
NODES: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(("", "text", " ", "é", "&lt;")),
    lambda inner: st.builds(lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>", st.sampled_from("raix"),
                            st.lists(inner, max_size=4)), max_leaves=30)


def copied(element: Element) -> Any:
    """All that is in an element, without what follows it."""
    return element.tag, element.text, [(copied(child), child.tail) for child in element]


def read(body: str, piece: int) -> tuple[list[Any], Element]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xml, "_PIECE", piece)
        return xml.items(body.encode(), PATH, lambda element, ns: (ns, copied(element)))


@settings(max_examples=300)
@given(st.lists(NODES, max_size=6), st.integers(1, 60),
       st.sampled_from(("", ' xmlns="urn:x"', """ a='1 xmlns="' xmlns='urn:x' b="2\"""", '\n xmlns=""')))
def test_items_are_those_of_the_whole_tree(parts: list[str], piece: int, ns: str) -> None:
    body = f"<r><a><i>{''.join(parts)}</i>{''.join(parts)}</a>{''.join(parts)}</r>"
    fitting = [below for above in ElementTree.fromstring(body).findall("a") for below in above.findall("i")]
    rows, root = read(f'<?xml version="1.0"?>\n{body.replace("<r>", f"<r{ns}>", 1)}', piece)
    assert rows == [("", copied(item)) for element in fitting for item in element]
    assert not [item for element in root.findall("a/i") for item in element]


@pytest.mark.parametrize("body", [
    '<p:r xmlns:p="urn:x"><p:a><p:i><p:x/></p:i></p:a></p:r>',
    '<p:r xmlns:p="urn:x"><a xmlns="urn:x"><i><x/></i></a></p:r>',
    '<r><a xmlns="urn:x"><i><x/></i></a></r>',
    '<r xmlns="urn:y" xmlns:p="urn:x"><a xmlns="urn:x"><p:i><x/></p:i></a></r>',
])
def test_a_namespace_that_is_not_the_roots_stands_before_its_tags(body: str) -> None:
    rows, _ = read(body, 16)
    assert rows == [("{urn:x}", ("{urn:x}x", None, []))]


def test_what_was_read_leaves_the_tree() -> None:
    count = 500
    rows, root = read(f"<r><a>{'<x/><i><x>1</x><x>2</x></i>' * count}</a><token>t</token></r>", 100)
    assert len(rows) == 2 * count
    assert len(root.findall("a/i")) == 1
    assert root.findtext("token") == "t"


@pytest.mark.parametrize("body", ["<r><a></r>", "<r>", "", "<x><a/></x>", "<r/><r/>", "<r>" + "<x>" * 60,
                                  "<r>" + "<x/>" * 1100 + "</r>"])
def test_another_shape_is_malformed(body: str) -> None:
    with pytest.raises(PartyMalformed):
        read(body, 20)


@pytest.mark.parametrize("declared", ["zlib_codec", "gbk", "utf-7", "utf-16", "nothing"])
def test_an_answer_is_utf_8_whatever_it_declares(declared: str) -> None:
    rows, _ = read(f'<?xml version="1.0" encoding="{declared}"?><r><a><i><x>é</x></i></a></r>', 50)
    assert [text for _, (_, text, _) in rows] == ["é"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_malformed(encoding: str) -> None:
    with pytest.raises(PartyMalformed):
        xml.items("<r><a/></r>".encode(encoding), PATH, lambda element, ns: ns)
    with pytest.raises(PartyMalformed):
        xml.parse("<r/>".encode(encoding))


def test_a_few_forbidden_characters_are_replaced_and_many_are_malformed() -> None:
    rows, _ = read("<r><a><i><x>a\x01&#2;b</x></i></a></r>", 50)
    assert [text for _, (_, text, _) in rows] == ["a\ufffd\ufffdb"]
    with pytest.raises(PartyMalformed):
        read("<r><a><i><x>" + "\x01" * 200_000 + "</x></i></a></r>", 50_000)
