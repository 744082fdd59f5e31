"""Secrets that are watched: whatever the tests leave behind is searched for every one of them at the end."""

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

known: set[str] = set()


def secret(label: str = "x") -> str:
    """A new secret that must be seen nowhere; `label` tells where it came from, in letters."""
    return watch(f"canary{label}{secrets.token_hex(12)}")


def watch(text: str) -> str:
    known.add(text)
    return text


def _spellings(text: str) -> set[bytes]:
    """Raw, hex, URL-quoted, JSON-escaped, and base64 at each of its three alignments."""
    raw = text.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), quote(text, safe="").encode(),
             json.dumps(text)[1:-1].encode()}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        found.add(coded[4 if shift else 0:-4])          # without the groups that also hold neighbours
        found.add(base64.urlsafe_b64encode(b"\0" * shift + raw)[4 if shift else 0:-4])
    return found


def leaks(folder: Path) -> Iterator[str]:
    """Where below the folder a watched secret stands; files named *.secret are what tests hand in."""
    spelt = {spelling: text for text in known for spelling in _spellings(text)}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".secret"):
        content = path.read_bytes()
        if b"canary" not in content and not any(spelling in content for spelling in spelt):
            continue
        for spelling, text in spelt.items():
            if spelling in content:
                yield f"{path.name}: {text[:14]}…"
