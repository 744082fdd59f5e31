"""The tree of errors is the one that is drawn, and complete."""

import re

from chalicelib import errors
from chalicelib.errors import TwocloudError


def tree(kind: type[TwocloudError] = TwocloudError) -> list[type[TwocloudError]]:
    return [kind, *(found for below in kind.__subclasses__() if below.__module__ == errors.__name__ for found in tree(below))]


def test_the_drawing_is_the_tree() -> None:
    drawn = {name: (int(status) if status else None, word) for name, status, word in re.findall(
        r"[├└]── (\w+)(?: +(\d{3})  (\w+))?", errors.__doc__ or "")}
    real = {kind.__name__: kind for kind in tree() if kind is not TwocloudError}
    assert set(drawn) == set(real)
    for name, (status, word) in drawn.items():
        if status:
            assert (real[name].status, real[name].word) == (status, word), name


def test_the_contracts_table() -> None:
    table = {(kind.status, kind.word) for kind in tree()}
    assert table == {(400, "invalid_parameter"), (401, "unauthorized"), (403, "forbidden"), (404, "not_found"),
                     (404, "account_not_found"), (405, "method_not_allowed"), (413, "too_large"), (429, "rate_limited"),
                     (500, "internal"), (502, "party_denied"), (502, "party_malformed"), (502, "party_error"),
                     (503, "party_throttled"), (503, "party_unavailable"), (504, "party_timeout")}


def test_no_default_text_is_empty() -> None:
    assert all(kind.default for kind in tree())
