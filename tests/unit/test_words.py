"""The turns that style keeps out of the texts that people read; a file that is clean stays clean."""

import ast
import re
from pathlib import Path

import pytest

from tests import ROOT

TURNS = {                                   # pattern -> what to write in its place
    r"\banew\b": "again, or replace",
    r"\bthereof\b": "of it",
    r"\bwherein\b": "where",
    r"\bis taken\b": "is accepted",
    r"\bwill do\b": "is accepted",
    r"\bof whom\b": "name the subject",
    r"\bends it all\b": "Press Ctrl-C to stop",
    r"\bthousand million\b": "billion, or the number",
    r"\bkept lists?\b": "snapshot",
    r"\blast good (list|one)s?\b": "snapshot, stale snapshot",
    r"\bjournal\b(?!_mode)": "log",
    r"\bstand-?ins?\b": "simulator",
    r"\bbut (at|with)\b": "except",
    r"\bWho (asks|may|would|rather)\b": "name the subject",
    r"\bnobody is hammered\b": "say the limit",
    r"\byoung\b": "fresh, or a number of seconds",
    r"\b(?<!as far )as they are\b": "unchanged, or name the form",
}
OUTSIDE_TESTS = {r"\b(told|said)\b": "returned, stated, logged, shown"}
PATTERNS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "app.py", "chalicelib/**/*.py", "deploy/*.py",
            "benchmarks/*.py", "clients/**/plugins/**/*.py", "chalicelib/http/console/*.js",
            "chalicelib/http/console/*.html", "chalicelib/parties/*/*.md", "tests/**/*.py")
FILES = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)} - {Path(__file__)})


def texts(path: Path) -> str:
    """A page whole; of a program its strings, docstrings and comments, and the names of its functions as sentences."""
    whole = path.read_text()
    if path.suffix != ".py":
        return whole
    nodes = list(ast.walk(ast.parse(whole)))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = [node.name.replace("_", " ") for node in nodes if isinstance(node, ast.FunctionDef)]
    comments = re.findall(r"(?:^|\s{2,})# (.*)$", whole, re.MULTILINE)
    return "\n".join([*strings, *names, *comments])


def test_the_list_names_files() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES])
def test_no_turn_that_people_stop_at(path: Path) -> None:
    text = " ".join(texts(path).split())
    turns = TURNS if "/test_" in path.as_posix() or ROOT / "tests" in path.parents else TURNS | OUTSIDE_TESTS
    found = [f"{text[max(0, hit.start() - 40):hit.end() + 20]!r}: write {better}"
             for pattern, better in turns.items() for hit in re.finditer(pattern, text)]
    assert found == []
