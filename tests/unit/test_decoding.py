"""The lenient reader: what is strict, what is shown, and that no answer gets it out of hand."""

import ast
import subprocess
import sys
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.cloud import decoding
from chalicelib.cloud.decoding import Strict, Whole, decode, part, read, refusal, reshape
from chalicelib.errors import PartyMalformed
from chalicelib.model import Count, Response, Text
from tests import ROOT

T = TypeVar("T")


class Disk(msgspec.Struct, gc=False):
    size: Count | None = None


class Nic(msgspec.Struct, gc=False):
    id: Text
    ip: str | None = None


class Row(msgspec.Struct, gc=False, rename={"kind": "Kind:x"}):
    id: Text
    name: str | None = None
    cpu: Count | None = None
    memory: Annotated[float, msgspec.Meta(ge=0, le=10 ** 9)] | None = None
    on: bool | None = None
    ips: list[str] | None = None
    volumes: Whole[list[str] | None] = None
    sizes: list[int] | None = None
    disks: list[Disk] | msgspec.UnsetType | None = msgspec.UNSET
    root: Disk | None = None
    nics: list[Nic] | None = None
    tags: dict[str, str] | None = None
    nets: dict[str, list[Nic]] | None = None
    kind: Literal["a", "b"] | None = None
    either: int | str | None = None
    place: tuple[str, ...] = ()
    rest: msgspec.Raw | None = None
    digits: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}\Z")] | None = None


class Page(msgspec.Struct, Generic[T]):
    total: Count
    rows: list[T]
    token: Strict[str | None] = None


def row(**fields: Any) -> Row:
    """The row that has this field, listed beside a good one, which must not change."""
    body = msgspec.json.encode(
        {"total": 2, "rows": [{"id": "good", "cpu": 2, "tags": {"k": "v"}}, {"id": "odd", **fields}]})
    page = read(Response(200, {}, body), Page[Row])
    assert page.total == 2
    assert page.rows[0] == Row(id="good", cpu=2, tags={"k": "v"})
    return page.rows[1]


@pytest.mark.parametrize(("field", "value", "shown"), [
    ("cpu", "16", 16), ("cpu", " 16 ", 16), ("cpu", "2.0", 2), ("cpu", 2.0, 2), ("cpu", 2.5, None),
    ("cpu", "2.5", None), ("cpu", -1, None),
    ("cpu", "-1", None), ("cpu", 10 ** 30, None), ("cpu", 1e308, None), ("cpu", "x", None), ("cpu", True, None),
    ("cpu", [2], None),
    ("cpu", {}, None), ("cpu", "１６", None), ("cpu", "1_6", None), ("cpu", "", None), ("cpu", "9" * 5000, None),
    ("cpu", "null", None),
    ("memory", "1.5", 1.5), ("memory", 2, 2.0), ("memory", 1e308, None), ("memory", "1e5", None),
    ("memory", "inf", None), ("memory", -1.5, None),
    ("name", 5, "5"), ("name", 1.5, "1.5"), ("name", True, "true"), ("name", [], None), ("name", {}, None),
    ("on", "true", True), ("on", "False", False), ("on", 1, None), ("on", "yes", None),
    ("ips", ["10.0.0.1", None, "10.0.0.2", {}, []], ["10.0.0.1", "10.0.0.2"]), ("ips", "10.0.0.1", None),
    ("ips", {}, None), ("ips", [5], ["5"]),
    ("volumes", ["v1", None], None), ("volumes", ["v1", 7], ["v1", "7"]), ("sizes", [1, None], None),
    ("sizes", [1, "2"], [1, 2]),
    ("disks", [{"size": 1}, None, {"size": "x"}], [Disk(1), Disk(), Disk()]), ("disks", "x", msgspec.UNSET),
    ("disks", {}, msgspec.UNSET),
    ("disks", None, None), ("disks", [5], [Disk()]), ("root", "x", Disk()), ("root", {"size": "7"}, Disk(7)),
    ("root", None, None),
    ("nics", [{"id": "n"}, None], None), ("nics", [{"id": "n", "ip": []}], [Nic("n")]), ("nics", [{"id": 5}], None),
    ("tags", {"a": None, "b": 1, "c": True, "d": [], "e": "x", "f": {}, "g": 1.5},
     {"a": "", "b": "1", "c": "true", "e": "x", "g": "1.5"}),
    ("tags", ["a"], None), ("tags", "a", None), ("nets", {"a": [{"id": "n"}], "b": "x"}, {"a": [Nic("n")]}),
    ("Kind:x", "c", None), ("either", 2.5, "2.5"), ("either", [], None), ("either", "x", "x"),
    ("place", ["a", None], ("a",)), ("place", "a", ()),
    ("digits", 10, "10"), ("digits", "１０", None), ("digits", -1, None),
])
def test_a_shown_value_is_read_or_becomes_its_default(field: str, value: object, shown: object) -> None:
    decoded = getattr(row(**{field: value}), {"Kind:x": "kind"}.get(field, field))
    assert decoded == shown
    assert type(decoded) is type(shown)


@pytest.mark.parametrize("answer", [
    {"total": "2", "rows": []}, {"total": 2.0, "rows": []}, {"total": -1, "rows": []}, {"rows": []}, {"total": 0},
    {"total": 0, "rows": {}},
    {"total": 0, "rows": None}, {"total": 1, "rows": [None]}, {"total": 1, "rows": ["x"]},
    {"total": 1, "rows": [{"id": 5}]},
    {"total": 1, "rows": [{"id": ""}]}, {"total": 1, "rows": [{"id": None}]}, {"total": 1, "rows": [{}]},
    {"total": 0, "rows": [], "token": 5},
    {"total": 0, "rows": [], "token": []}, [], "x", None, 5,
])
def test_ids_totals_tokens_and_containers_are_strict(answer: object) -> None:
    with pytest.raises(PartyMalformed):
        decode(msgspec.json.encode(answer), Page[Row])


@pytest.mark.parametrize(("text", "name"), [
    (b'"\\ud800"', "\ufffd"), (b'"a\\udc00b"', "a\ufffdb"), (b'"\\ud800\\ud800\\udc00"', "\ufffd\U00010000"),
    (b'"\\\\ud800"', "\\ud800"),
    (b'"\\\\\\ud800"', "\\\ufffd"), (b'"\\ud83d\\ude00"', "\U0001f600"), (b'"a\xffb"', "a\ufffdb"),
    (b'"\xed\xa0\x80"', "\ufffd" * 3),
    (b'"a\x07b\nc"', "a b c"), (b'"a\\u0000b"', "a\0b"), (b'"\xe4\xb8\xad"', "\u4e2d"),
])
def test_what_json_cannot_hold(text: bytes, name: str) -> None:
    assert decode(b'[{"id":"a","cpu":"1","name":' + text + b'},{"id":"b","name":"\xc3\xa9"}]', list[Row]) == [
        Row("a", name, cpu=1), Row("b", "\xe9")]


def test_numbers_that_json_cannot_hold_are_null() -> None:
    body = b'{"total":1,"rows":[{"id":"a","cpu": NaN,"memory":-Infinity,"sizes":[1,NaN],"name":"NaN"}]}'
    assert decode(body, Page[Row]).rows == [Row("a", "NaN")]


@pytest.mark.parametrize("body", [b"", b"{", b"x", b"[" * 200_000, b'{"a":' * 100_000, b"[1", b'"a', b"\xff", b"[{}",
                                  b"nul", b"<html>"])
def test_what_is_no_json_stays_malformed(body: bytes) -> None:
    with pytest.raises(PartyMalformed):
        decode(body, Page[Row])


def test_a_part_is_decoded_when_it_is_needed() -> None:
    assert part(msgspec.Raw(b'{"size":"7"}'), Disk) == Disk(7)
    assert part(msgspec.Raw(b'{"ip":"x"}'), Nic) is None
    assert part(msgspec.Raw(b"null"), Nic) is None


def test_odd_values_beyond_counting_are_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_MOST_ODD", 50)
    rows = [{"id": str(n), "cpu": "x"} for n in range(100)]
    with pytest.raises(PartyMalformed, match="too many values"):
        decode(msgspec.json.encode(rows), list[Row])


class Cat(msgspec.Struct, tag_field="type", tag="cat"):
    lives: Count | None = None


class Dog(msgspec.Struct, tag_field="type", tag="dog", forbid_unknown_fields=True):
    name: Text
    age: Count | None = None


class Nested(msgspec.Struct):
    name: str | None = None
    below: list["Nested"] | None = None


def test_tagged_structs_and_structs_that_hold_themselves() -> None:
    pets = [{"type": "cat", "lives": "9"}, {"type": "dog", "name": "d", "age": 1.5}]
    assert reshape(pets, list[Cat | Dog]) == [Cat(9), Dog("d")]
    for odd in ({"type": "cow"}, {"type": "dog", "name": 5}, {"type": "dog", "name": "d", "x": "y", "age": "1"}):
        with pytest.raises(PartyMalformed):
            reshape([odd], list[Cat | Dog])
    assert reshape({"name": 5, "below": [{"below": [{"name": {}}]}]}, Nested) == Nested("5", [Nested(None, [Nested()])])


def test_a_refusal_has_its_shape_or_is_none() -> None:
    assert refusal(Response(400, {}, b'{"id":"x"}'), Nic) == Nic("x")
    assert refusal(Response(400, {}, b"<html>"), Nic) is None


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-10 ** 20, 10 ** 30) | st.floats(allow_nan=False)
                      | st.text(max_size=5),
                      lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([field.encode_name for field in msgspec.structs.fields(Row)
                                        if field.name != "id"]), VALUES), st.booleans())
def test_whatever_a_shown_value_is_the_rows_beside_it_are_whole(fields: dict[str, Any], first: bool) -> None:
    decoded = row(**fields)
    assert decoded.id == "odd"
    assert msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(decoded, rest=None)),
                           Row) == msgspec.structs.replace(decoded, rest=None)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from([Page[Row], list[Row], dict[str, Row], list[Cat | Dog], Nested]))
def test_no_bytes_raise_anything_but_malformed(noise: bytes, shape: Any) -> None:
    for body in (noise, b'[{"id":"a","name":"' + noise + b'"}]',
                 b'{"total":1,"rows":[{"id":"a","cpu":' + noise + b"}]}"):
        try:
            decode(body, shape)
        except PartyMalformed:
            continue


# ---------------------------------------------------------------- threads

THREADS = """
import sys, threading, typing
import msgspec
from chalicelib.cloud import decoding
sys.setswitchinterval(1e-6)
for _ in range(200):
    inner = msgspec.defstruct("Inner", [(f"f{n}", int | None, None) for n in range(10)])
    outer = msgspec.defstruct("Outer", [("a", inner | None, None), *((f"g{n}", list[str] | None, None)
                                                                     for n in range(30))])
    together = threading.Barrier(8)
    def decode():
        together.wait()
        assert decoding.decode(b'[{"a": {"f1": 1}, "g29": ["y"]}]', list[outer])[0].a.f1 == 1
    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_read_a_shape_for_the_first_time_do_not_end_the_process() -> None:
    """msgspec fills in what it knows of a struct while other threads may see it half filled."""
    done = subprocess.run([sys.executable, "-c", THREADS], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_decoders_of_structs_are_made_at_import_or_one_at_a_time() -> None:
    """A module is imported by one thread; whatever else makes a decoder is in decoding.py, behind its lock."""
    plain = {"dict", "list", "tuple", "str", "float", "int", "Any", "msgspec"}
    for path in sorted((ROOT / "chalicelib").rglob("*.py")):
        if path.name in ("decoding.py", "simulator.py") or path.name.startswith("test_") or "simulators" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        inside = [call for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) for call in ast.walk(each)
                  if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)]
        for call in inside:
            assert isinstance(call.func, ast.Attribute)
            shapes = [word.value for word in call.keywords if word.arg == "type" and call.func.attr == "decode"]
            shapes += call.args[:1] if call.func.attr == "Decoder" else []
            names = {name.id for shape in shapes for name in ast.walk(shape) if isinstance(name, ast.Name)}
            assert names <= plain, f"{path.name}, line {call.lineno}: make this decoder where the module begins"
