"""What goes to a terminal: colours, text that cannot move the cursor, tables that fit its width.

In a file or a pipe a table has its full width: nothing is cut, wrapped or coloured.
"""

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import click

from .. import log, settings

_GAP = 2                                    # cells between two columns
_LONG = 24                                  # columns wider than this many cells may be wrapped,
_NARROW = 12                                # down to this many
_COLOURS = {"ACTIVE": "green", "ok": "green", "ERROR": "red", "failed": "red", "fail": "red", "vanished": "red",
            "UNKNOWN": "yellow", "stale": "yellow", "warn": "yellow", "changed": "yellow", "appeared": "green"}
_COLOURED = ("status", "state", "what")     # columns whose words have colours
_VARIATIONS = re.compile("[\ufe00-\ufe0f]")  # of the glyph before; terminals disagree on its width then


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a table is drawn. `width` and `height` in cells, None: no limit; `colour`: it may be coloured."""

    width: int | None = None
    height: int | None = None
    colour: bool = False


def screen() -> Screen:
    """Standard output."""
    size = shutil.get_terminal_size() if sys.stdout.isatty() else None
    return Screen(size.columns if size else None, size.lines if size else None, coloured(sys.stdout))


def coloured(stream: IO[str]) -> bool:
    """Whether to colour: --color decides, else NO_COLOR and FORCE_COLOR, else whether it is a terminal."""
    context = click.get_current_context(silent=True)
    option = context.meta.get("twocloud.color", "auto") if context else "auto"
    if option != "auto":
        return option == "always"
    wanted = settings.client().colours
    return stream.isatty() if wanted is None else wanted


def lively(stream: IO[str]) -> bool:
    """Whether lines can be overwritten: a terminal that is not dumb."""
    return stream.isatty() and not settings.client().dumb


def plain(text: str) -> str:
    """One line of printable characters; the others, which could control the terminal, become U+FFFD."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in _VARIATIONS.sub("", text))


def harmless(text: str, encoding: str = "utf-8") -> str:
    """JSON text with control characters, and those that `encoding` lacks, written as JSON escapes."""
    shown = log.escaped(text, keep="\n")
    try:
        shown.encode(encoding)
        return shown
    except UnicodeEncodeError:
        return "".join(c if _fits(c, encoding) else log.escape(c) for c in shown)


def _fits(c: str, encoding: str) -> bool:
    return c.encode(encoding, "ignore") != b""


def cell(value: object) -> str:
    """One value as text for a person."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, list):
        return plain(",".join(map(str, cast(list[object], value))))
    if isinstance(value, dict):
        return plain(",".join(f"{k}={v}" for k, v in cast(dict[str, object], value).items()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(str(value))


def coloured_word(text: str, *, colour: bool) -> str:
    return click.style(text, fg=_COLOURS[text.strip()]) if colour and text.strip() in _COLOURS else text


# ---------------------------------------------------------------- tables

def draw(rows: Sequence[Mapping[str, Any]], names: Sequence[str], to: Screen, *, header: bool = True,
         spare: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """(lines, names of the columns left out for lack of room). `spare`: columns to leave out first, in this order;
    then from the right. Id columns are never left out, cut or wrapped, so that ids can be copied."""
    from rich.cells import cell_len  # for the commands that draw a table

    table = {name: [cell(row.get(name)) for row in rows] for name in names}
    natural = {name: max([*map(cell_len, cells), cell_len(name)]) for name, cells in table.items()}
    least = {name: width if width <= _LONG or _is_id(name) else _NARROW for name, width in natural.items()}
    shown, dropped = list(names), list[str]()
    order = [*spare, *[name for name in reversed(names) if name not in spare]]
    if to.width is not None:
        for name in [name for name in order if name in shown and not _is_id(name)]:
            if len(shown) == 1 or _total(least, shown) <= to.width:
                break
            shown.remove(name)
            dropped.append(name)
    widths = natural if to.width is None else _shared(natural, least, shown, to.width)
    lines = list[str]()
    if header:
        titles = [_padded(name.upper(), widths[name], cell_len) for name in shown]
        line = (" " * _GAP).join(titles).rstrip()
        lines.append(click.style(line, bold=True) if to.colour else line)
    for n in range(len(rows)):
        pieces = [wrapped(table[name][n], widths[name]) for name in shown]
        for row in range(max(map(len, pieces))):
            texts = [_padded(piece[row] if row < len(piece) else "", widths[name], cell_len)
                     for name, piece in zip(shown, pieces, strict=True)]
            texts[-1] = texts[-1].rstrip()
            lines.append((" " * _GAP).join(
                coloured_word(text, colour=to.colour and name in _COLOURED)
                for name, text in zip(shown, texts, strict=True)).rstrip())
    return lines, [name for name in names if name in dropped]


def _is_id(name: str) -> bool:
    return name == "id" or name.endswith(("instance_id", "token_id"))


def _total(widths: Mapping[str, int], shown: Sequence[str]) -> int:
    return sum(widths[name] for name in shown) + _GAP * (len(shown) - 1)


def _shared(natural: Mapping[str, int], least: Mapping[str, int], shown: Sequence[str], most: int) -> dict[str, int]:
    """Each column's width: its least, plus an even share of the rest, the narrowest columns first."""
    widths = {name: least[name] for name in shown}
    remaining = most - _total(widths, shown)
    wanting = sorted((name for name in shown if natural[name] > widths[name]), key=lambda name: natural[name])
    for n, name in enumerate(wanting):
        more = max(0, min(natural[name] - widths[name], remaining // (len(wanting) - n)))
        widths[name] += more
        remaining -= more
    return widths


def _padded(text: str, width: int, measure: Callable[[str], int]) -> str:
    return text + " " * (width - measure(text))


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` cells, broken after a comma or a blank where possible."""
    from rich.cells import cell_len, chop_cells

    if cell_len(text) <= width:
        return [text]
    lines, line = list[str](), ""
    for word in re.findall(r"[^ ,]*[ ,]+|[^ ,]+", text):
        if line and cell_len(line) + cell_len(word.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += word
        if cell_len(line.rstrip()) > width:
            *full, line = chop_cells(line.rstrip(), width)
            lines += full
    return [*lines, line.rstrip()]
