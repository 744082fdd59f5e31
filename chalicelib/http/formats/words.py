"""Names for programs that take only letters, digits and underscores."""

import re
from collections.abc import Collection

_OTHER = re.compile(r"[^A-Za-z0-9_]")


def word(text: str) -> str:
    """`text` in letters, digits and underscores of ASCII: an underscore for each other character of ASCII, the code
    point for the rest (`团` becomes `u56e2`), so that names in any script stay apart."""
    return _OTHER.sub(lambda match: "_" if match[0].isascii() else f"u{ord(match[0]):04x}", text)


def unique(name: str, taken: Collection[str], last: dict[str, int]) -> str:
    """The name, or with the first number from 2 that makes it a new one. `last`: what was given to each name so far,
    so that thousands that meet take no time."""
    number, free = last.get(name, 1), name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    last[name] = number
    return free
