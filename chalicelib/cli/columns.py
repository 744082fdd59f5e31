"""--columns and --sort: which columns are shown, and in which order the rows come."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import click

Key = tuple[object, ...]


def chosen(wanted: str, known: Mapping[str, str] | Sequence[str]) -> list[str]:
    """The names in a comma list. `known`: the columns, or a map of every name of a column to the name to use."""
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        _check("--columns", name, known)
    return list(dict.fromkeys(_canonical(name, known) for name in names))


def in_order(rows: Sequence[Mapping[str, Any]], order: str, known: Mapping[str, str] | Sequence[str]) -> list[Any]:
    """Sort by `COLUMN` or `COLUMN:desc`: numbers in texts as numbers, addresses as addresses, missing values last."""
    column, _, direction = order.partition(":")
    _check("--sort", column, known)
    if direction not in ("", "asc", "desc"):
        raise click.UsageError("Give --sort as COLUMN, COLUMN:asc or COLUMN:desc.")
    column = _canonical(column, known)
    present = [row for row in rows if row.get(column) not in (None, "", [], {})]
    missing = [row for row in rows if row.get(column) in (None, "", [], {})]
    return [*sorted(present, key=lambda row: natural(row[column]), reverse=direction == "desc"), *missing]


def natural(value: object) -> Key:
    """The sort key of a value: web-2 before web-10, 10.0.0.9 before 10.0.0.10, a list by its first element."""
    if isinstance(value, list | tuple):
        return natural(cast(Sequence[object], value)[0]) if value else ()
    if isinstance(value, bool | int | float):
        return 0, value
    text = str(value)
    try:
        address = ipaddress.ip_address(text.partition(",")[0])
        return 1, address.version, int(address), text
    except ValueError:
        parts = re.split(r"([0-9]+)", text.casefold())
        return 2, tuple((0, int(part), "") if n % 2 else (1, 0, part) for n, part in enumerate(parts) if part), text


def _canonical(name: str, known: Mapping[str, str] | Sequence[str]) -> str:
    return known[name] if isinstance(known, Mapping) else name


def _check(option: str, name: str, known: Mapping[str, str] | Sequence[str]) -> None:
    if name not in known:
        raise click.UsageError(f"{option}: no column {name[:40]!r}. Columns: {', '.join(known)}.")
