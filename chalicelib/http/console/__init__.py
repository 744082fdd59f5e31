"""The pages for people: the console and the API's reference, each one file that loads nothing else.

A page is its HTML with the styles and scripts of this folder put in, on its first request. The Content-Security-Policy
names the two by their hashes: whatever else gets into a page, through a machine's name say, does not run. No page holds
data or needs a token; its script asks the API like any other caller.
"""

import hashlib
import re
from base64 import b64encode
from functools import cache
from pathlib import Path

import msgspec

_FOLDER = Path(__file__).parent
_SCRIPTS = {                                # in this order: they share one scope
    "console.html": ("texts.js", "elements.js", "fleet.js", "search.js", "exports.js", "link.js", "asking.js",
                     "notices.js", "overview.js", "table.js", "facets.js", "drawer.js", "addresses.js", "changes.js",
                     "signin.js", "main.js"),
    "reference.html": ("elements.js", "reference.js"),
}
_STYLES = {"console.html": ("colours.css", "console.css", "overview.css", "changes.css", "responsive.css"),
           "reference.html": ("colours.css", "reference.css")}
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
}


class Page(msgspec.Struct, frozen=True):
    body: bytes
    headers: dict[str, str]


@cache
def page(name: str) -> Page:
    """`name`: of its HTML file."""
    style, script = _tight(_joined(_STYLES[name])), _joined(_SCRIPTS[name])
    text = re.sub(r"\n\s+", "\n", (_FOLDER / name).read_text("utf-8"))
    text = text.replace("<style></style>", f"<style>{style}</style>")
    text = text.replace('<script type="module"></script>', f'<script type="module">{script}</script>')
    body = text.encode()
    return Page(body, {**HEADERS, "Content-Security-Policy": _policy(style, script),
                       "ETag": f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'})


def _joined(names: tuple[str, ...]) -> str:
    """The files, without indentation, line breaks and, in scripts, blanks that mean nothing, and what is written for
    maintainers: a third of the bytes. No text in them has a line break or a comment in it."""
    text = "\n".join((_FOLDER / name).read_text("utf-8") for name in names)
    text = re.sub(r"/\*.*?\*/ ?", "", text, flags=re.DOTALL)
    lines = (re.sub(r"\s+// .*$", "", line).strip() for line in text.splitlines())
    if names[0].endswith(".js"):            # in a style a blank between selectors is one of them
        lines = map(_without_blanks, lines)
    text = "\n".join(line for line in lines if line and not line.startswith("//"))
    return re.sub(r"(?<=[;{,(])\n|\n(?=[})?:.&|])", "", text)


def _without_blanks(line: str) -> str:
    """A line of script without blanks beside signs. A line that holds another quote than `"`, or a slash, stays: where
    its texts and patterns end is for a parser to say."""
    if any(sign in line for sign in "`'/\\"):
        return line
    code_and_texts = re.split(r'("[^"]*")', line)
    code_and_texts[::2] = [re.sub(r" ?([{}()\[\];,:?<>=&|!*]+) ?", r"\1", code) for code in code_and_texts[::2]]
    return "".join(code_and_texts)


def _tight(style: str) -> str:
    """The styles without blanks that mean nothing. No string in them holds one beside these signs."""
    return re.sub(r"(?<=:) |\s*([{};,])\s*", r"\1", style).replace(";}", "}")


def _policy(style: str, script: str) -> str:
    return "; ".join((
        "default-src 'none'", f"script-src '{_hash(script)}'", f"style-src '{_hash(style)}'", "connect-src 'self'",
        "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'"))


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
