"""The project's rules, read from the source: who imports whom, and what only one room does."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import ROOT

FLOORS = [                                  # a room imports only rooms on the floors below it, and itself
    {"tests"},
    {"benchmarks"},
    {"deploy"},
    {"app", "cli", "__main__"},
    {"packaging"},
    {"simulators", "references"},
    {"serve"},
    {"http"},
    {"fleet"},
    {"access"},
    {"parties"},
    {"cloud"},
    {"storage"},
    {"concurrency", "files"},
    {"settings", "log"},
    {"model"},
    {"route"},
    {"errors"},
]
ENTRIES = {"app", "cli", "__main__"}        # which know one another: the command starts all of them
EVERYWHERE = sorted([ROOT / "app.py", *(path for folder in ("chalicelib", "deploy", "benchmarks", "tests")
                                        for path in (ROOT / folder).rglob("*.py"))])


def room(module: str) -> str:
    """chalicelib.parties.aws.simulator is of the simulators, chalicelib.parties.aws.test_aws of the tests."""
    parts = module.split(".")
    if parts[0] != "chalicelib" or len(parts) < 2:
        return parts[0]
    if parts[1] == "parties" and len(parts) > 3:
        if parts[3] == "reference":
            return "references"
        return "simulators" if parts[3] == "simulator" else "tests" if parts[3].startswith("test_") else "parties"
    return "serve" if parts[1:] in (["http", "serve"], ["http", "connections"]) else parts[1]


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in EVERYWHERE}
FILES = [path for path in EVERYWHERE if room(module_of(path)) not in ("tests", "benchmarks", "deploy", "simulators",
                                                                       "references")]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path, *, at_start: bool = False) -> Iterator[tuple[str, int]]:
    """The modules, by their whole names. `at_start`: without those that a function imports when it is called."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in tree(path).body if at_start else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield (name if (name := f"{source}.{alias.name}") in MODULES else source), node.lineno


def floor(name: str) -> int:
    return next(n for n, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda path: module_of(path))
def test_a_room_imports_only_what_lies_below(path: Path) -> None:
    mine = room(module_of(path))
    if mine == "chalicelib":
        return
    for name, line in imported(path):
        if name not in MODULES or name == "chalicelib":
            continue
        theirs = room(name)
        assert floor(theirs) > floor(mine) or mine == theirs or {
            mine, theirs} <= ENTRIES, f"{path.name}:{line} imports {name}"


def test_every_room_stands_on_a_floor() -> None:
    known = set().union(*FLOORS)
    assert {room(module_of(path)) for path in EVERYWHERE} - {"chalicelib"} == known


def test_the_first_line_of_a_room_and_of_a_module_says_what_it_is() -> None:
    assert [module_of(path) for path in EVERYWHERE if not (ast.get_docstring(tree(path)) or "").strip()] == []


def test_no_modules_import_one_another() -> None:
    graph = {module_of(path): {name for name, _ in imported(path, at_start=True) if name in MODULES} - {module_of(path)}
             for path in FILES}
    ending = {name: wanted & graph.keys() for name, wanted in graph.items()}
    while ends := [name for name, wanted in ending.items() if not wanted]:
        for name in ends:
            del ending[name]
        ending = {name: wanted - set(ends) for name, wanted in ending.items()}
    assert not ending, ending


@cache
def words_of(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The dotted names in its code, and the plain ones."""
    nodes = list(ast.walk(tree(path)))
    return (frozenset(ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)),
            frozenset(node.id for node in nodes if isinstance(node, ast.Name)))


def using(*words: str) -> set[str]:
    """Modules in whose code (not comments or docstrings) one of these dotted names stands."""
    paths = set()
    for path in FILES:
        dotted, plain = words_of(path)
        if plain & set(words) or any(name.startswith(words) for name in dotted):
            paths.add(module_of(path))
    return paths


def importing(*names: str) -> set[str]:
    return {module_of(path) for path in FILES for name, _ in imported(path) if name.split(".")[0] in names}


def test_only_one_room_does_it() -> None:
    assert using("os.environ", "os.getenv", "getenv") == {"chalicelib.settings"}
    assert importing("chalice") == {"app", "chalicelib.http.authorizer"}
    assert importing("urllib3", "ssl", "http") == {f"chalicelib.cloud.{name}"
                                                   for name in ("sockets", "sender", "failures")}
    # one calls, two listen
    assert importing("socket") == {*(f"chalicelib.cloud.{name}" for name in ("sockets", "sender", "failures")),
                                   "chalicelib.http.serve", "chalicelib.http.connections"}
    # the command asks our own server
    assert importing("requests") == {*(f"chalicelib.cloud.{name}" for name in ("sockets", "sender", "failures")),
                                     "chalicelib.cli.remote"}
    assert importing("prometheus_client") == {"chalicelib.http.metrics"}           # which is imported on first use
    assert importing("sqlite3") == {"chalicelib.storage.sqlite"}
    assert importing("boto3") == set()      # botocore below it does; the functions start sooner without
    assert importing("waitress") == {"chalicelib.http.serve", "chalicelib.http.connections"}
    assert {m for m in importing("click", "rich") if not m.startswith("chalicelib.cli")} == set()


def test_an_answer_without_a_party_imports_nothing_that_calls_one(tmp_path: Path) -> None:
    """A function that starts cold answers sooner by as long as these take."""
    code = ("import sys, app\nfrom chalicelib.http import api\n"
            "request = api.HttpRequest('GET', '', [], {}, b'', 'r', float('inf'))\n"
            "answer = api.answer(app._deployment, '/twocloud/health', request)\n"
            "print(answer.status, *sorted({'requests', 'urllib3', 'ssl', 'certifi', 'botocore'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={"TWOCLOUD_STORE": f"sqlite:///{tmp_path / 'store.db'}",
                               "TWOCLOUD_KEY": f"file:{tmp_path / 'key'}"})
    assert done.stdout == "200\n"


def test_what_an_adapter_may_not_do() -> None:
    adapters = {module_of(path) for path in FILES if module_of(path).startswith("chalicelib.parties.")}
    assert adapters
    for words in (("print", "open"), ("os.",), ("time.sleep",), ("logging",), ("random",)):
        assert not using(*words) & adapters, words
    assert not importing("os", "pathlib", "logging", "requests", "socket", "threading2") & adapters
    for path in FILES:
        if module_of(path) in adapters:
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.ExceptHandler):
                    named = ast.unparse(node.type) if node.type else ""
                    assert named, f"{path.name}:{node.lineno}"
                    assert "Exception" not in named.replace("DecodeError", ""), f"{path.name}:{node.lineno}"


def test_no_inheritance_but_the_tree_of_errors_and_what_frameworks_ask_for() -> None:
    allowed = {"Protocol", "ValueError", "NamedTuple", "TypedDict", "StrEnum", "Generic[T]", "Generic[_T]",
               "msgspec.Struct", "Chalice", "logging.Formatter", "threading.local",
               "BasicRow", "socket.socket", "ssl.SSLSocket", "HTTPAdapter", "HTTPConnectionPool", "HTTPSConnectionPool",
               "_Sent",
               "HTTPConnection", "HTTPSConnection", "psycopg.Connection[tuple[Any, ...]]",
               "waitress.task.ErrorTask", "connections.Channel", "Unauthorized",
               "Error",
               "_Parser", "_Channel", "_Task", "_Server", "_Dispatcher",               # of waitress
               "click.ParamType[int]", "click.ParamType[str]", "click.ClickException", "click.Group"}
    for path in FILES:
        if path.name == "errors.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    assert ast.unparse(base) in allowed | {
                        "TwocloudError"}, f"{path.name}: {node.name}({ast.unparse(base)})"


def test_names_that_say_nothing_are_not_used() -> None:
    for path in FILES:
        stem = path.stem.lower()
        assert not any(word in stem for word in ("manager", "helper", "util", "common", "base", "service",
                                                 "handler")), path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                assert not any(word in node.name for word in ("Manager", "Helper", "Util", "Base", "Service", "Data",
                                                              "Info")), node.name
