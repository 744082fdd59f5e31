"""The house's rules, read from the source: who imports whom, and what only one room does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [                                  # a room may import rooms below it, and its neighbours where named
    {"app", "cli", "serve", "__main__"},
    {"api", "authorizer", "connections"},
    {"openapi", "formats", "console"},
    {"schedule", "rotation", "copying"},
    {"inventory"},
    {"freshness"},
    {"deployment"},
    {"query"},
    {"tokens", "users", "accounts", "regions"},
    {"snapshots"},
    {"parties"},
    {"paging", "transport", "memory", "reading"},
    {"stores", "seal"},
    {"settings", "journal", "amazon", "files"},
    {"model"},
    {"errors"},
]
NEIGHBOURS = {("tokens", "users"), ("openapi", "formats"), ("formats", "formats"), ("serve", "app"), ("cli", "serve"), ("cli", "cli"), ("parties", "parties"),
              ("stores", "stores"), ("__main__", "cli")}
FILES = sorted([ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")])


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "chalicelib" and len(parts) > 1 else parts[0]


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "chalicelib" else [node.module]
            yield from ((name, node.lineno) for name in names)


def floor(name: str) -> int:
    return next(n for n, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_a_room_imports_only_what_lies_below(path: Path) -> None:
    mine = room(module_of(path))
    if mine == "chalicelib":
        return
    for name, line in imported(path):
        if not name.startswith(("chalicelib.", "app")) or name == "chalicelib.__version__" or name.startswith("apt"):
            continue
        theirs = room(name)
        assert floor(theirs) > floor(mine) or (mine, theirs) in NEIGHBOURS, f"{path.name}:{line} imports {name}"


def test_every_room_stands_on_a_floor() -> None:
    known = set().union(*FLOORS)
    assert {room(module_of(path)) for path in FILES} - {"chalicelib"} == known


def using(*words: str) -> set[str]:
    """Modules in whose code (not comments or docstrings) one of these dotted names stands."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(words):
                found.add(module_of(path))
            if isinstance(node, ast.Name) and node.id in words:
                found.add(module_of(path))
    return found


def importing(*names: str) -> set[str]:
    return {module_of(path) for path in FILES for name, _ in imported(path) if name.split(".")[0] in names}


def test_only_one_room_does_it() -> None:
    assert using("os.environ", "os.getenv", "getenv") == {"chalicelib.settings"}
    assert importing("chalice") == {"app", "chalicelib.authorizer"}
    assert importing("urllib3", "ssl", "http") == {"chalicelib.transport"}
    assert importing("socket") == {"chalicelib.transport", "chalicelib.serve", "chalicelib.connections"}    # one calls, two listen
    assert importing("requests") == {"chalicelib.transport", "chalicelib.cli.remote"}  # the command asks our own server
    assert importing("sqlite3") == {"chalicelib.stores.sqlite"}
    assert importing("boto3") == set()      # botocore below it does; the functions start sooner without
    assert importing("waitress") == {"chalicelib.serve", "chalicelib.connections"}
    assert {m for m in importing("click", "rich") if not m.startswith("chalicelib.cli")} == set()
    assert {m for m in importing("standins") if not m.startswith("chalicelib.cli")} == set()


def test_what_an_adapter_may_not_do() -> None:
    adapters = {module_of(path) for path in FILES if module_of(path).startswith("chalicelib.parties.")}
    assert adapters
    for words in (("print", "open"), ("os", "os.path"), ("time.sleep",), ("logging",), ("random",)):
        assert not using(*words) & adapters, words
    assert not importing("os", "pathlib", "logging", "requests", "socket", "threading2") & adapters
    for path in FILES:
        if module_of(path) in adapters:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ExceptHandler):
                    named = ast.unparse(node.type) if node.type else ""
                    assert named and "Exception" not in named.replace("DecodeError", ""), f"{path.name}:{node.lineno}"


def test_no_inheritance_but_the_tree_of_errors_and_what_frameworks_ask_for() -> None:
    allowed = {"Protocol", "ValueError", "NamedTuple", "StrEnum", "Generic[T]", "Generic[_T]", "msgspec.Struct", "Chalice", "logging.Formatter", "threading.local",
               "BasicRow", "socket.socket", "ssl.SSLSocket", "HTTPAdapter", "HTTPConnectionPool", "HTTPSConnectionPool", "_Sent",
               "HTTPConnection", "HTTPSConnection", "waitress.task.ErrorTask", "connections.Channel", "Unauthorized", "Error",
               "_Parser", "_Channel", "_Task", "_Server", "_Dispatcher",               # of waitress
               "click.ParamType[int]", "click.ParamType[str]", "click.ClickException", "click.Group"}
    for path in FILES:
        if path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    assert ast.unparse(base) in allowed | {"TwocloudError"}, f"{path.name}: {node.name}({ast.unparse(base)})"


def test_names_that_say_nothing_are_not_used() -> None:
    for path in FILES:
        stem = path.stem.lower()
        assert not any(word in stem for word in ("manager", "helper", "util", "common", "base", "service", "handler")), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert not any(word in node.name for word in ("Manager", "Helper", "Util", "Base", "Service", "Data", "Info")), node.name
