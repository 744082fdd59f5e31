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
@given(st.lists(NODES, max_size=6), st.integers(1, 60), st.sampled_from(("", "urn:x")))
def test_items_are_those_of_the_whole_tree(parts: list[str], piece: int, ns: str) -> None:
    body = f'<r xmlns="{ns}"><a><i>{"".join(parts)}</i>{"".join(parts)}</a>{"".join(parts)}</r>'
    before = f"{{{ns}}}" if ns else ""
    fitting = [below for above in ElementTree.fromstring(body).findall(f"{before}a")
               for below in above.findall(f"{before}i")]
    rows, root = read(body, piece)
    assert rows == [(before, copied(item)) for element in fitting for item in element]
    assert not [item for element in root.findall(f"{before}a/{before}i") for item in element]


def test_what_was_read_leaves_the_tree() -> None:
    count = 500
    rows, root = read(f"<r><a>{'<x/><i><x>1</x><x>2</x></i>' * count}</a><token>t</token></r>", 100)
    assert len(rows) == 2 * count
    assert len(root.findall("a/i")) == 1
    assert root.findtext("token") == "t"


@pytest.mark.parametrize("body", ["<r><a></r>", "<r>", "", "<x><a/></x>", "<r/><r/>", "<r>" + "<x>" * 60])
def test_another_shape_is_malformed(body: str) -> None:
    with pytest.raises(PartyMalformed):
        read(body, 20)
