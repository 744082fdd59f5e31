"""Secrets that are watched: whatever the tests leave behind is searched for every one of them at the end."""

import base64
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

known: set[str] = set()
_WINDOW = 16
_WORD = re.compile(rb"[A-Za-z0-9+/_%=.-]{16,}")


def secret(label: str = "x") -> str:
    """A new secret that must be seen nowhere; `label` tells where it came from, in letters."""
    return watch(f"canary{label}{secrets.token_hex(12)}")


def watch(text: str) -> str:
    known.add(text)
    return text


def _spellings(text: str) -> set[bytes]:
    """Raw, hex, URL-quoted, JSON-escaped, and base64 at each of its three alignments."""
    raw = text.encode()
    spellings = {raw, raw.hex().encode(), raw.hex().upper().encode(), quote(text, safe="").encode(),
                 json.dumps(text)[1:-1].encode()}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        spellings.add(coded[4 if shift else 0:-4])          # without the groups that also hold neighbours
        spellings.add(base64.urlsafe_b64encode(b"\0" * shift + raw)[4 if shift else 0:-4])
    return spellings


def leaks(folder: Path) -> Iterator[str]:
    """Where below the folder a watched secret stands; files named *.secret are what tests hand in, and tests/rows of a
    copy of this repository is as public as the repository.

    A run knows thousands of secrets and leaves hundreds of megabytes: one is looked for only at the windows of long
    words, and by its first bytes.
    """
    begins, others = defaultdict[bytes, list[tuple[bytes, str]]](list), list[tuple[bytes, str]]()
    for text in known:
        for spelling in _spellings(text):
            if _WORD.fullmatch(spelling):
                begins[spelling[:_WINDOW]].append((spelling, text))
            else:                           # short, or with other signs: some passwords
                others.append((spelling, text))
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".secret"
                       and p.parts[-3:-1] != ("tests", "rows")):
        content = path.read_bytes()
        texts = {text for spelling, text in others if spelling in content}
        for word in set(_WORD.findall(content)):
            for at in range(len(word) - _WINDOW + 1):
                for spelling, text in begins.get(word[at:at + _WINDOW], ()):
                    if word.startswith(spelling, at):
                        texts.add(text)
        yield from sorted(f"{path.relative_to(folder)}: {text[:14]}…" for text in texts)
