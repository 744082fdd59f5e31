"""Which columns are shown and in which order rows stand: --columns, --sort."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import click

Key = tuple[object, ...]


def chosen(asked: str, known: Mapping[str, str] | Sequence[str]) -> list[str]:
    """The names of a comma list. `known`: the columns that there are, or these with their other names."""
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        _check("--columns", name, known)
    return list(dict.fromkeys(_canonical(name, known) for name in names))


def in_order(rows: Sequence[Mapping[str, Any]], asked: str, known: Mapping[str, str] | Sequence[str]) -> list[Any]:
    """By `COLUMN` or `COLUMN:desc`: numbers in texts as numbers, addresses as addresses, what is not there last."""
    column, _, way = asked.partition(":")
    _check("--sort", column, known)
    if way not in ("", "asc", "desc"):
        raise click.UsageError("--sort takes COLUMN, COLUMN:asc or COLUMN:desc.")
    column = _canonical(column, known)
    there = [row for row in rows if row.get(column) not in (None, "", [], {})]
    missing = [row for row in rows if row.get(column) in (None, "", [], {})]
    return [*sorted(there, key=lambda row: natural(row[column]), reverse=way == "desc"), *missing]


def natural(value: object) -> Key:
    """web-2 before web-10; 10.0.0.9 before 10.0.0.10; a list by its first."""
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
        raise click.UsageError(f"{option}: there is no column {name[:40]!r}; there are {', '.join(known)}.")
