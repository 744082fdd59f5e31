"""The tree of errors is the one that is drawn, and complete."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib import errors
from chalicelib.errors import TwocloudError


def tree(kind: type[TwocloudError] = TwocloudError) -> list[type[TwocloudError]]:
    return [kind, *(subclass for below in kind.__subclasses__() if below.__module__ == errors.__name__
                    for subclass in tree(below))]


def test_the_drawing_is_the_tree() -> None:
    drawn = {name: (int(status) if status else None, word) for name, status, word in re.findall(
        r"[├└]── (\w+)(?: +(\d{3})  (\w+))?", errors.__doc__ or "")}
    real = {kind.__name__: kind for kind in tree() if kind is not TwocloudError}
    assert set(drawn) == set(real)
    for name, (status, word) in drawn.items():
        if status:
            assert (real[name].status, real[name].code) == (status, word), name


def test_the_contracts_table() -> None:
    table = {(kind.status, kind.code) for kind in tree()}
    assert table == {(400, "invalid_parameter"), (401, "unauthorized"), (403, "forbidden"), (404, "not_found"),
                     (404, "account_not_found"), (405, "method_not_allowed"), (409, "list_changed"),
                     (413, "too_large"), (429, "rate_limited"),
                     (500, "internal"), (502, "party_denied"), (502, "party_malformed"), (502, "party_error"),
                     (503, "party_throttled"), (503, "party_unavailable"), (504, "party_timeout")}


def test_no_default_text_is_empty() -> None:
    assert all(kind.default for kind in tree())


# ---------------------------------------------------------------- one text, two ways out

# What only an answer over HTTP has, or only the command: a text goes out by both.
_ONE_WAY = re.compile(
    r"Retry-After|\bAllow\b|\bX-[A-Z]|\bheaders?\b|\bHTTP\b|%[0-9A-F]{2}|\bstatus code\b|(?<![\w`])--[a-z]|exit code")
# Modules whose errors go out by one way alone.
_HTTP_ALONE = {"serve.py", "authorizer.py"}
_COMMAND_ALONE = {"cli", "rotation.py", "copying.py", "settings.py", "sealing.py", "accounts.py", "storage",
                  "simulators"}


def _made(kind: type[errors.TwocloudError]) -> errors.TwocloudError:
    if kind is errors.RateLimited:
        return errors.RateLimited(7)
    if kind is errors.MethodNotAllowed:
        return errors.MethodNotAllowed("GET, HEAD")
    if kind is errors.InvalidParameter:
        return errors.InvalidParameter("f", "f is missing.")
    return kind()


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_an_errors_own_text_fits_an_answer_and_the_command(kind: type[errors.TwocloudError]) -> None:
    text = _made(kind).text
    assert text.endswith((".", ")")), text
    assert not _ONE_WAY.search(text), text


def _raised(path: Path) -> Iterator[tuple[int, str]]:
    """Every text in the call that makes one of our errors, in whatever statement."""
    kinds = {kind.__name__ for kind in tree()} | {"Verdict"} | ({"ValueError"} if path.name == "query.py" else set())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and (getattr(node.func, "id", "") in kinds
                                           or getattr(node.func, "attr", "") in kinds):
            for part in [*node.args, *(word.value for word in node.keywords)]:
                for text in ast.walk(part):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield node.lineno, text.value


def test_every_raised_text_fits_an_answer_and_the_command() -> None:
    root, count = Path(errors.__file__).parent, 0
    for path in sorted(root.rglob("*.py")):
        if path.name.startswith("test_") or {path.relative_to(root).parts[0],
                                             path.name} & (_HTTP_ALONE | _COMMAND_ALONE):
            continue
        for line, text in _raised(path):
            count += 1
            assert not _ONE_WAY.search(text), f"{path.name}:{line}: {text}"
    assert count > 130


def test_when_to_come_again_stands_in_the_text() -> None:
    assert errors.RateLimited(7).text == "Too many requests. Retry in 7 s."
    assert errors.RateLimited(7, "Wait. Retry in 7 s, or pay.").text == "Wait. Retry in 7 s, or pay."
    assert errors.MethodNotAllowed("GET, HEAD").text == (
        "This path does not support this method. It supports: GET, HEAD.")
