"""What CloudWatch makes of a line by a metric filter's pattern, for no emulator runs them: moto and MiniStack keep the
filters and count nothing, and AWS's own TestMetricFilter needs AWS.

The part of the grammar for JSON that our patterns use, and nothing else:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    { selector op value }       selector: $.name(.name)*; op: = != < > <= >=; value: "text" (* stands for any
    characters)
                                or a number; a text and a number are never equal; a field that is missing matches
                                nothing
    a && b, a || b, (a)         && binds closer
Whatever else a pattern holds is refused.
"""

import json
import operator
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

_TOKEN = re.compile(r'\s*(?:(?P<selector>\$(?:\.[A-Za-z_][A-Za-z0-9_]*)+)|(?P<text>"[^"\\]*")|'
                    r'(?P<number>-?[0-9]+(?:\.[0-9]+)?)|'
                    r'(?P<sign>&&|\|\||!=|<=|>=|=|<|>|[(){}]))')
_OPERATORS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le,
              ">=": operator.ge}
_MISSING = object()
Test = Callable[[Any], bool]


def matches(pattern: str, line: str) -> bool:
    """A line that is no JSON object matches no pattern of this kind. Raises ValueError for a pattern beyond the
    grammar."""
    test = _Parser(pattern).whole()
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and test(event)


def value(source: str, line: str) -> float | None:
    """What a matching line adds to the metric; None: nothing, for there is no number."""
    number = _select(source, json.loads(line)) if source.startswith("$") else float(source)
    return float(number) if isinstance(number, int | float) and not isinstance(number, bool) else None


def _select(selector: str, event: Any) -> Any:
    for name in selector.split(".")[1:]:
        if not isinstance(event, dict) or name not in event:
            return _MISSING
        event = event[name]
    return event


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._tokens, at = pattern, list[tuple[str, str]](), 0
        while pattern[at:].strip():
            match = _TOKEN.match(pattern, at)
            if not match or not match.lastgroup:
                raise ValueError(f"not in the grammar: {pattern[at:]}")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()

    def whole(self) -> Test:
        self._take("sign", "{")
        test = self._any()
        self._take("sign", "}")
        if self._tokens:
            raise ValueError(f"more than one expression: {self._pattern}")
        return test

    def _any(self) -> Test:
        tests = [self._all()]
        while self._next("||"):
            tests.append(self._all())
        return lambda event: any(test(event) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._next("&&"):
            tests.append(self._one())
        return lambda event: all(test(event) for test in tests)

    def _one(self) -> Test:
        if self._next("("):
            test = self._any()
            self._take("sign", ")")
            return test
        selector, sign = self._take("selector"), self._take("sign")
        if sign not in _OPERATORS:
            raise ValueError(f"no comparison: {sign}")
        if self._tokens and self._tokens[0][0] == "number":
            number = float(self._take("number"))
            return lambda event: isinstance(field := _select(selector, event),
                                            int | float) and _OPERATORS[sign](field, number)
        text = self._take("text")[1:-1]
        if sign not in ("=", "!="):
            raise ValueError(f"texts have no order: {self._pattern}")
        shape = re.sub(r"[\[?]", "[\\g<0>]", text)               # only * is special
        return lambda event: isinstance(field := _select(selector, event),
                                        str) and fnmatchcase(field, shape) == (sign == "=")

    def _next(self, sign: str) -> bool:
        if self._tokens and self._tokens[0] == ("sign", sign):
            self._tokens.pop(0)
            return True
        return False

    def _take(self, kind: str, wanted: str | None = None) -> str:
        if not self._tokens or self._tokens[0][0] != kind or wanted not in (None, self._tokens[0][1]):
            raise ValueError(f"{wanted or kind} is missing: {self._pattern}")
        return self._tokens.pop(0)[1]
