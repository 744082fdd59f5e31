"""The one place where a party's JSON becomes typed structs: strict where a list depends on it, lenient elsewhere.

`read_strictly` comes first; almost every answer ends there. If that fails, `read_leniently` decodes it part by part:

- A field **without a default is strict**: ids, totals, the containers of the list, whose a server is. If it cannot be
  read, neither can its struct. `Strict[T]` says the same of a field that may be missing (page tokens, totals that some
  versions omit).
- A field **with a default is a shown value**. A number as text is read (`"16"`, `"2.0"`), 2.0 is 2, and a number where
  text is expected is its text. Whatever else has the wrong type, or is outside its bounds, becomes the default.
- **A list of structs** keeps its length. An element that is not an object becomes the struct of all defaults, so that
  a sum over it is unknown and not smaller; if that struct has strict fields, the list becomes its field's default.
- **A list of texts** loses its odd elements, also null. `Whole[list[str]]` does not: it becomes the default, as every
  list of numbers does, because a list of disks that lost one claims a wrong sum.
- **A map of texts** (tags) shows numbers and booleans as their JSON text and null as "", and loses lists and objects.
- Text that JSON cannot hold (bytes that are not UTF-8, half of a surrogate pair) gets U+FFFD in its place, a raw
  control character a blank, and the numbers NaN and Infinity are null.

So a struct alone says what is strict. `msgspec.Raw` leaves a part undecoded until somebody needs it: `part` reads it.
The lenient pass descends only into what does not decode, and gives up (PartyMalformed) after `_MOST_ODD` odd values:
the time and memory that it takes stay near those of the strict pass.
"""

import codecs
import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import inspect

from ..errors import PartyMalformed
from ..model import Response

T = TypeVar("T")
Strict = Annotated[T, msgspec.Meta(extra={"strict": True})]        # a field with a default that must be readable
Whole = Annotated[T, msgspec.Meta(extra={"whole": True})]          # a list that is useless without any one element

Nested = msgspec.Raw | msgspec.UnsetType    # a part of a row that is read when somebody needs it; default UNSET

_MOST_ODD = 100_000                         # values of one answer that the lenient pass looks at, one by one
_MOST_VALUES = 300_000                      # of an answer that is read leniently: a thousand machines have as many
_LONGEST_NUMBER = 40                        # characters
_making = threading.Lock()
_UNREADABLE = (SyntaxError, ValueError, RecursionError)      # a bad XML is a SyntaxError


@contextmanager
def reading() -> Generator[None, None, None]:
    """Turn whatever goes wrong while reading a party's answer into PartyMalformed."""
    try:
        yield
    except _UNREADABLE:
        raise PartyMalformed() from None


def read(response: Response, shape: type[T], *, strict: bool = True) -> T:
    """Decode a JSON answer into this shape; not `strict`: numbers may be texts everywhere. Raises PartyMalformed."""
    try:
        return decode(response.body, shape, strict=strict)
    except PartyMalformed:
        if response.permit:                 # the error's traceback would hold the answer, and with it the permit
            response.permit()
        raise


def decode(body: bytes, shape: type[T], *, strict: bool = True) -> T:
    """`read` for an answer's bytes."""
    with suppress(*_UNREADABLE):
        return read_strictly(body, shape, strict)
    if body.count(b",") > _MOST_VALUES:     # before memory is spent on its parts
        raise PartyMalformed()
    with reading():
        return read_leniently(body, shape, strict)


def part(raw: msgspec.Raw, shape: type[T]) -> T | None:
    """A part that its struct holds as msgspec.Raw, in this shape; None if it cannot be read."""
    try:
        return read_strictly(raw, shape)
    except _UNREADABLE:
        with suppress(*_UNREADABLE):
            return read_leniently(bytes(raw), shape)
    return None


def nested(raw: Nested, item: type[T], *, one: bool = False) -> list[T] | None:
    """A list inside a row, [] if it is missing or null; None if it cannot be read, since less would be wrong.

    `one`: it is no list but the only element of one.
    """
    if raw is msgspec.UNSET or bytes(raw) == b"null":
        return []
    if not one:
        return part(raw, list[item])
    inner = part(raw, item)
    return None if inner is None else [inner]


def reshape(value: object, shape: type[T]) -> T:
    """What was decoded without a shape, in this shape. Raises PartyMalformed."""
    with reading():
        return decode(msgspec.json.encode(value), shape)


def refusal(response: Response, shape: type[T]) -> T | None:
    """What an answer that may be a refusal says, in the shape of the party's refusals; None if it has another."""
    with suppress(*_UNREADABLE):
        return read_strictly(response.body, shape)
    return None


def read_strictly(body: bytes | msgspec.Raw, shape: type[T], strict: bool = True) -> T:
    """Every value must be what the shape says. Raises what `reading` catches if one is not."""
    value: T = _decoder(shape, strict).decode(body)
    return value


@cache
def _decoder(shape: Any, strict: bool) -> Any:
    """One at a time: if two threads make a struct's first decoder at once, msgspec 0.22 ends the whole process."""
    with _making:
        return msgspec.json.Decoder(shape, strict=strict)


# ---------------------------------------------------------------- bytes that are not JSON

_LONE = re.compile(                         # half of a surrogate pair, escaped; an even number of backslashes before it
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})")
_NO_NUMBER = re.compile(rb"(?<=[:,\[\s])(?:NaN|-?Infinity)(?=\s*[,\]}])")
_RAW_CONTROLS = bytes.maketrans(bytes(range(32)), b" " * 32)


def _cleaned(body: bytes) -> bytes:
    """Proper JSON, as far as single characters and numbers are in its way."""
    if not body.isascii():
        body = _utf8(body)
    try:
        _decoder(msgspec.Raw, True).decode(body)
        return body
    except ValueError:
        body = body.translate(_RAW_CONTROLS)
        body = _LONE.sub(rb"\1\\ufffd", body, count=_MOST_ODD)
        return _NO_NUMBER.sub(b"null", body, count=_MOST_ODD)


def _utf8(body: bytes) -> bytes:
    """In pieces, because as one text it would take four times the room."""
    decoder, pieces = codecs.getincrementaldecoder("utf-8")("replace"), list[bytes]()
    for at in range(0, len(body), 65536):
        pieces.append(decoder.decode(body[at:at + 65536]).encode())
    pieces.append(decoder.decode(b"", final=True).encode())
    return b"".join(pieces)


# ---------------------------------------------------------------- the lenient pass

class _Odd(ValueError):
    """This value cannot be read; whoever holds it decides what that means."""


class _Budget(msgspec.Struct):
    remaining: int

    def take(self) -> None:
        self.remaining -= 1
        if self.remaining < 0:
            raise PartyMalformed("The party's answer holds too many values that cannot be read.")


_Reader = Callable[[Any, _Budget], Any]     # (msgspec.Raw or bytes, budget) -> value; raises _Odd


def read_leniently(body: bytes, shape: type[T], strict: bool = True) -> T:
    """Shown values that cannot be read are their fields' defaults. Raises what `reading` catches where a strict one
    cannot be read."""
    value: T = _reader(inspect.type_info(shape), True, strict)(_cleaned(body), _Budget(_MOST_ODD))
    return value


def _reader(kind: inspect.Type, hard: bool, strict: bool, whole: bool = False) -> _Reader:
    """`hard`: nothing but what the type says. `strict`: msgspec's own, False takes numbers as texts everywhere."""
    match kind:
        case inspect.Metadata():
            return _reader(kind.type, hard or _says("strict", kind), strict, whole or _says("whole", kind))
        case inspect.StructType():
            return _of_struct(kind, hard, strict)
        case inspect.UnionType():
            return _of_union(kind, hard, strict, whole)
        case inspect.ListType() | inspect.VarTupleType():
            return _of_list(kind, hard, strict, whole)
        case inspect.DictType():
            return _of_dict(kind, hard, strict)
        case _:
            return _of_scalar(kind, hard, strict)


def _first(raw: Any) -> str:
    """The first character tells which kind of JSON value it is."""
    return chr(memoryview(raw)[0]) if len(memoryview(raw)) else ""


def _decoded(raw: Any, shape: Any, strict: bool = True) -> Any:
    try:
        return _decoder(shape, strict).decode(raw)
    except ValueError:
        raise _Odd from None


# ---------------------------------------------------------------- structs

def _of_struct(kind: inspect.StructType, hard: bool, strict: bool) -> _Reader:
    def read_struct(raw: Any, budget: _Budget) -> Any:
        shape = _struct(kind.cls, strict)   # not before: a struct may hold itself
        if not hard and _first(raw) != "{" and not any(field.required for field in shape.fields):
            return kind.cls()
        return shape.read(raw, budget)

    return read_struct


class _Field(msgspec.Struct, frozen=True):
    name: str
    required: bool
    hard: bool
    read: _Reader


class _Struct(msgspec.Struct, frozen=True):
    """`parts`: decodes the struct with each of its fields left as it is; fields that it does not have are skipped."""

    cls: Any
    strict: bool
    fields: tuple[_Field, ...]
    parts: Any

    def read(self, raw: Any, budget: _Budget) -> Any:
        try:
            return _decoder(self.cls, self.strict).decode(raw)
        except ValueError:
            budget.take()
        row, values = _decoded(raw, self.parts), dict[str, Any]()
        for field in self.fields:
            value = getattr(row, field.name)
            if value is msgspec.UNSET:
                if field.required:
                    raise _Odd
                continue
            try:
                values[field.name] = field.read(value, budget)
            except _Odd:
                if field.hard:
                    raise
        try:
            return self.cls(**values)
        except (TypeError, ValueError):     # its __post_init__ refuses
            raise _Odd from None


@cache
def _struct(cls: Any, strict: bool) -> _Struct:
    kind = cast(inspect.StructType, inspect.type_info(cls))
    fields = tuple(_Field(field.name, field.required, hard := field.required or _says("strict", field.type),
                          _reader(field.type, hard, strict)) for field in kind.fields)
    parts = msgspec.defstruct("Parts", [
        (field.name, msgspec.Raw | msgspec.UnsetType, msgspec.field(default=msgspec.UNSET, name=field.encode_name))
        for field in kind.fields], tag_field=kind.tag_field, tag=kind.tag,
        forbid_unknown_fields=kind.forbid_unknown_fields, array_like=kind.array_like)
    return _Struct(cls, strict, fields, parts)


def _says(word: str, kind: inspect.Type) -> bool:
    # msgspec declares `extra` as a plain dict: pyright does not know what is in it, the cast says it
    return isinstance(kind, inspect.Metadata) and word in cast(Mapping[str, object], kind.extra or {})  # pyright: ignore[reportUnknownMemberType]


# ---------------------------------------------------------------- unions, lists, maps

def _of_union(kind: inspect.UnionType, hard: bool, strict: bool, whole: bool) -> _Reader:
    members = [(_starts(member), _reader(member, hard, strict, whole)) for member in kind.types]

    def read_union(raw: Any, budget: _Budget) -> Any:
        first = _first(raw)
        for _, read in sorted(members, key=lambda member: first not in member[0]):     # its own kind before others
            try:
                return read(raw, budget)
            except _Odd:
                continue
        raise _Odd

    return read_union


def _starts(kind: inspect.Type) -> str:
    """The characters that a JSON value of this type starts with."""
    match kind:
        case inspect.Metadata():
            return _starts(kind.type)
        case inspect.NoneType():
            return "n"
        case inspect.StructType() | inspect.DictType():
            return "{"
        case inspect.ListType() | inspect.VarTupleType() | inspect.TupleType():
            return "["
        case inspect.BoolType():
            return "tf"
        case inspect.IntType() | inspect.FloatType():
            return "-0123456789"
        case _:
            return '"'


def _of_list(kind: inspect.ListType | inspect.VarTupleType, hard: bool, strict: bool, whole: bool) -> _Reader:
    item = _reader(kind.item_type, hard, strict)
    thinned = not hard and not whole and isinstance(_plain(kind.item_type), inspect.StrType)
    least, most = kind.min_length or 0, kind.max_length

    def read_list(raw: Any, budget: _Budget) -> Any:
        elements: list[Any] = []
        for element in _decoded(raw, list[msgspec.Raw]):
            try:
                elements.append(item(element, budget))
            except _Odd:
                if not thinned:
                    raise
        if len(elements) < least or (most is not None and len(elements) > most):
            raise _Odd
        return tuple(elements) if isinstance(kind, inspect.VarTupleType) else elements

    return read_list


def _of_dict(kind: inspect.DictType, hard: bool, strict: bool) -> _Reader:
    value = _reader(kind.value_type, hard, strict)
    held = _plain(kind.value_type)
    texts = not hard and isinstance(held, inspect.StrType)
    thinned = texts or (not hard and isinstance(held, inspect.ListType))
    keys = dict[_shape(kind.key_type), msgspec.Raw]

    def read_dict(raw: Any, budget: _Budget) -> Any:
        items: dict[Any, Any] = {}
        for key, element in _decoded(raw, keys).items():
            try:
                items[key] = "" if texts and _first(element) == "n" else value(element, budget)
            except _Odd:
                if not thinned:
                    raise
        return items

    return read_dict


def _plain(kind: inspect.Type) -> inspect.Type:
    return _plain(kind.type) if isinstance(kind, inspect.Metadata) else kind


# ---------------------------------------------------------------- scalars

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.0{1,18})?", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)


def _of_scalar(kind: inspect.Type, hard: bool, strict: bool) -> _Reader:
    shape = _shape(kind)
    kindly = None if hard else _KINDLY.get(type(kind))

    def read_scalar(raw: Any, budget: _Budget) -> Any:
        try:
            return _decoder(shape, strict).decode(raw)
        except ValueError:
            budget.take()
        if kindly is None or len(memoryview(raw)) > _LONGEST_NUMBER:
            raise _Odd
        try:
            return msgspec.convert(kindly(bytes(raw).decode()), shape)
        except (msgspec.ValidationError, ValueError, OverflowError):
            raise _Odd from None

    return read_scalar


def _int(json: str) -> int:
    text = json.strip('"').strip()
    if _WHOLE_NUMBER.fullmatch(text):
        return int(text.partition(".")[0])
    number = _float(json) if '"' in json else float(json)
    if not number.is_integer() or abs(number) > 2 ** 53:
        raise _Odd
    return int(number)


def _float(json: str) -> float:
    text = json.strip('"').strip()
    if not _NUMBER.fullmatch(text):
        raise _Odd
    return float(text)


def _bool(json: str) -> bool:
    return {'"true"': True, '"false"': False}[json.lower()] if json.lower() in ('"true"', '"false"') else _refuse()


def _refuse() -> bool:
    raise _Odd


def _text(json: str) -> str:
    """A number or a boolean as its text. null, lists and objects are none."""
    if json[:1] in "n[{":
        raise _Odd
    return json.strip('"')


_KINDLY: Mapping[type[inspect.Type], Callable[[str], object]] = {
    inspect.IntType: _int, inspect.FloatType: _float, inspect.BoolType: _bool, inspect.StrType: _text}


def _shape(kind: inspect.Type) -> Any:
    """The type that msgspec made this of."""
    match kind:
        case inspect.IntType() | inspect.FloatType():
            of: Any = int if isinstance(kind, inspect.IntType) else float
            bounds = {name: bound for name in ("gt", "ge", "lt", "le") if (bound := getattr(kind, name)) is not None}
            return Annotated[of, msgspec.Meta(**bounds)] if bounds else of
        case inspect.StrType():
            return Annotated[str, msgspec.Meta(min_length=kind.min_length, max_length=kind.max_length,
                                               pattern=kind.pattern)]
        case inspect.Metadata():
            return _shape(kind.type)
        case inspect.LiteralType():
            return Literal[kind.values]
        case inspect.EnumType():
            return kind.cls
        case inspect.ListType():
            return list[_shape(kind.item_type)]
        case inspect.DictType():
            return dict[_shape(kind.key_type), _shape(kind.value_type)]
        case inspect.UnionType():
            return _either([_shape(member) for member in kind.types])
        case inspect.StructType():
            return kind.cls
        case _:
            return _PLAIN[type(kind)]


def _either(shapes: list[Any]) -> Any:
    either = shapes[0]
    for shape in shapes[1:]:
        either = either | shape
    return either


_PLAIN: Mapping[type[inspect.Type], Any] = {
    inspect.AnyType: Any, inspect.BoolType: bool, inspect.NoneType: None, inspect.RawType: msgspec.Raw}
