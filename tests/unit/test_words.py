"""The turns that style keeps out of the texts that people read, and out of the names of variables; a file that is clean
stays clean."""

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
VERBS = {"asked", "asks", "found", "given", "got", "heard", "left", "said", "says", "seen", "told"}
PROGRAMS = ("app.py", "chalicelib/**/*.py", "tests/**/*.py", "benchmarks/**/*.py", "deploy/**/*.py",
            "clients/**/plugins/**/*.py")
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
    hits = [f"{text[max(0, hit.start() - 40):hit.end() + 20]!r}: write {better}"
            for pattern, better in turns.items() for hit in re.finditer(pattern, text)]
    assert hits == []


def verbs(tree: ast.AST) -> set[tuple[int, str]]:
    """Names by what happened to the thing: variables, parameters, fields of classes, members of enumerations,
    attributes that are set, and names of arguments in calls."""
    names = set[tuple[int, str]]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add((node.lineno, node.id))
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            names.add((node.lineno, node.arg))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add((node.lineno, node.attr))
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add((node.lineno, node.name))
    return {(line, name) for line, name in names if name.strip("_").lower() in VERBS}


@pytest.mark.parametrize("pattern", PROGRAMS)
def test_variables_are_named_by_what_they_hold(pattern: str) -> None:
    paths = sorted(ROOT.glob(pattern))
    assert paths
    assert [f"{path.relative_to(ROOT)}:{line}: {name}: name what it holds (answer, rows, names, ...)"
            for path in paths for line, name in sorted(verbs(ast.parse(path.read_text())))] == []


@pytest.mark.parametrize(("program", "names"), [
    ("def f():\n    found = 1", {"found"}), ("def f(asked): pass", {"asked"}), ("x = lambda told: told", {"told"}),
    ("def f():\n    for said, b in c: pass", {"said"}), ("def f():\n    with a as seen: pass", {"seen"}),
    ("def f():\n    try: pass\n    except E as got: pass", {"got"}), ("def f():\n    [left for left in a]", {"left"}),
    ("def f():\n    return (given := 1)", {"given"}), ("def f():\n    self.found = f(asked=1)", {"found", "asked"}),
    ("class C:\n    found: int = 0", {"found"}), ("def f():\n    class C:\n        seen: int", {"seen"}),
    ("class C(StrEnum):\n    LEFT = 'l'", {"LEFT"}), ("class C:\n    def __init__(s): s._told = {}", {"_told"}),
    ("f(b.found, 'asked', found_at=1).seen", set()), ("match a:\n    case {'x': got}: pass", {"got"}),
])
def test_the_check_reads_every_form_of_a_variable(program: str, names: set[str]) -> None:
    assert {name for _, name in verbs(ast.parse(program))} == names
