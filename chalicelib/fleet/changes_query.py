"""The parameters of a query for changes: those of a query for servers that say whose, and its own.

Errors are InvalidParameter, which names the parameter.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from .query import PARAMETERS as OF_SERVERS
from .query import Choice, List, Parameter, Query, Time, once_each, parse, read_values

KINDS = ("appeared", "changed", "vanished")
FORMATS = ("json", "csv", "ndjson")
_ALL = ("party", "account", "region")       # what these name is `all` unless they are given
_SHARED = [parameter for parameter in OF_SERVERS if parameter.name in ("tenant_id", *_ALL, "f", "t")]
_OWN = (
    Parameter("since", Time(), "Only what changed after this time (RFC 3339).", True),
    Parameter("kind", List(Choice(KINDS), "appeared, changed or vanished"),
              "Only changes of this kind, several separated by commas, or `all`. Default: all."),
    Parameter("format", Choice(FORMATS), "The format of the answer. Default: json."),
)
_TEXTS = {"f": "Position of the first change wanted, counted from 1, the oldest. Default: 1.",
          "t": "Position of the last change wanted, included; at least `f`. Default: to the end."}


def _here(parameter: Parameter) -> Parameter:
    """A parameter of servers as it stands in a query for changes."""
    if parameter.name in _ALL and parameter.required:
        return replace(parameter, required=False, text=f"{parameter.text} Default: all.")
    return replace(parameter, text=_TEXTS.get(parameter.name, parameter.text))


PARAMETERS: tuple[Parameter, ...] = (*map(_here, _SHARED), *_OWN)


def parse_changes(pairs: Sequence[tuple[str, str]]) -> Query:
    """The query of (name, value) pairs, percent-decoded; its `changed_since` is the time. Raises InvalidParameter."""
    values = once_each(pairs, PARAMETERS)
    own = read_values(values, _OWN)
    shared = {**{parameter.name: "all" for parameter in _SHARED if parameter.name in _ALL}, **values}
    query = parse([*((parameter.name, shared[parameter.name]) for parameter in _SHARED if parameter.name in shared),
                   ("changed_since", values["since"])])
    names = [parameter.name for parameter in PARAMETERS if parameter.name not in ("f", "t")]
    return replace(query, format=own.get("format", "json"), kinds=own.get("kind"), view="full",
                   parameters={name: values[name] for name in names if name in values})
