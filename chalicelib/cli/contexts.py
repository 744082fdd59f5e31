"""Which server the command asks: --url, --context, the environment, the file of contexts, or none but the store.

The file holds tokens as they are, as such files do: it must be its owner's alone, or it is not read. A token goes to
the URL that it was kept with and to no other.
"""

import ipaddress
import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

import click

from .. import files, settings
from ..errors import NotFound, SettingsError
from .output import Identifier, Network, hint, kept, list_options, output_option, read_secret, show

LOCAL = "local"                             # the store itself; no context can have this name
_TOKEN = re.compile(r"tc_[0-9A-Za-z]{36}", re.ASCII)


@dataclass(frozen=True, slots=True)
class There:
    """A server to ask. `chosen`: by what."""

    url: str
    token: str = field(repr=False)
    chosen: str


@dataclass(frozen=True, slots=True)
class _File:
    current: str
    contexts: dict[str, dict[str, str]] = field(repr=False)


def there(url: str | None) -> There | None:
    """The server to ask; None: the store. --url, --context, TWOCLOUD_URL, TWOCLOUD_CONTEXT, the file's current."""
    given, name = settings.client(), kept("context")
    if url and name:
        raise click.UsageError("Give --url or --context, not both.")
    if not name and (address := url or given.url):
        chosen = "--url" if url else "TWOCLOUD_URL"
        check_url(address, chosen)
        return There(address.rstrip("/"), given.token, chosen)
    name, chosen = (name, "--context") if name else (given.context, "TWOCLOUD_CONTEXT")
    if name == LOCAL:
        return None
    found = read(given.config)
    if not name:
        name, chosen = found.current, f"current in {given.config}"
    if not name or name == LOCAL:
        return None
    if name not in found.contexts:
        known = ", ".join([LOCAL, *sorted(found.contexts)])
        raise click.UsageError(f"{chosen}: there is no context {name[:64]!r}; there are {known}.")
    context = found.contexts[name]
    check_url(context["url"], f"context {name}")
    return There(context["url"].rstrip("/"), context["token"], f"context {name} ({chosen})")


def check_url(url: str, what: str) -> None:
    """https, or http on this machine: a token must not travel in the open."""
    try:
        address = urlsplit(url)
        host = address.hostname or ""
        _ = address.port
    except ValueError:
        raise Network(f"{what}: this is no address; it is https://HOST[:PORT].") from None
    extra = "@" in address.netloc or address.query or address.fragment
    if address.scheme not in ("http", "https") or not host or extra:
        raise Network(f"{what}: an address is https://HOST[:PORT], without user or query.")
    if address.scheme == "http" and not on_loopback(host):
        raise Network(f"{what}: it must be https, or http on this machine: a token must not travel in the open. "
                      "Put TLS before the server, or an SSH tunnel between.")


def on_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# ---------------------------------------------------------------- the file

def read(path: Path) -> _File:
    """Raises SettingsError if others may read it, or if it does not have its form."""
    import tomllib

    try:
        with path.open("rb") as file:
            if files.is_exposed(path):
                raise SettingsError(f"{path} holds tokens and others may read it; run: chmod 600 {path}")
            found = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):             # the latter where there is no home
        return _File("", {})
    except OSError as problem:
        raise SettingsError(f"{path} cannot be read: {problem.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise SettingsError(f"{path} is not TOML{_where(problem)}; correct it by hand.") from None
    current, contexts = found.pop("current", ""), found.pop("context", {})
    if found or not isinstance(current, str) or not isinstance(contexts, dict) or not all(
            map(_is_context, cast(dict[str, Any], contexts).values())):
        raise SettingsError(f"{path} holds something else than current and [context.NAME] with url and token.")
    return _File(current, cast(dict[str, dict[str, str]], contexts))


def _where(problem: Exception) -> str:
    """The place alone: the line may hold a token."""
    place = re.search(r"\(at (line \d+, column \d+)\)", str(problem))
    return f" ({place[1]})" if place else ""


def _is_context(found: object) -> bool:
    return isinstance(found, dict) and cast(dict[str, object], found).keys() == {"url", "token"} and all(
        isinstance(value, str) for value in cast(dict[str, object], found).values())


def _write(path: Path, made: _File) -> None:
    """Aside, then in its place: nobody reads half a file, and it is never wider than its owner's."""
    lines = ["# written by `twocloud context`; keep it to yourself: chmod 600", f"current = {json.dumps(made.current)}"]
    for name, context in sorted(made.contexts.items()):
        lines += ["", f"[context.{json.dumps(name)}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in context.items()]
    if path == settings.NO_HOME:
        raise SettingsError("This user has no home folder: set HOME, XDG_CONFIG_HOME or TWOCLOUD_CONFIG.")
    try:
        path = path.resolve()               # a link to where it is kept stays a link
        files.make_folder(path.parent)
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as problem:
        raise SettingsError(f"{path} cannot be written: {problem.strerror}.") from None


def _change(change: Callable[[_File], _File]) -> None:
    path = settings.client().config
    _write(path, change(read(path)))


# ---------------------------------------------------------------- the commands

def complete_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    with suppress(SettingsError):
        return [name for name in (LOCAL, *read(settings.client().config).contexts) if name.startswith(incomplete)]
    return []


@click.group()
def context() -> None:
    """The servers that the command asks, with their tokens: add, use, list, show, remove.

    They are kept in ~/.config/twocloud/config.toml, which must be yours alone (mode 0600). `local` is the store of
    this machine. First counts --url or --context, then TWOCLOUD_URL with TWOCLOUD_TOKEN, then TWOCLOUD_CONTEXT, then
    what `use` chose, then the store.
    """


@context.command()
@click.argument("name", type=Identifier())
@click.option("--url", required=True, metavar="URL", help="https://HOST[:PORT], or http on this machine.")
@click.option("--token-file", type=click.File("rb"), metavar="F", help="Read the token from a file.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
def add(name: str, url: str, token_file: IO[bytes] | None, token_stdin: bool) -> None:
    """Add a server, or put it anew. The first one is used from then on."""
    if name == LOCAL:
        raise click.UsageError(f"{LOCAL} is the store of this machine; choose another name.")
    if bool(token_file) == token_stdin:
        raise click.UsageError("Give --token-file or --token-stdin.")
    try:
        check_url(url, "--url")
    except Network as refused:              # nothing was asked yet: it is the option that is wrong
        raise click.UsageError(refused.message) from None
    token = read_secret(token_file, "the token", 1024)
    if not _TOKEN.fullmatch(token):
        raise click.UsageError("This is no token of twocloud: tc_ and 36 letters and digits. Was it copied whole?")
    _change(lambda file: _File(file.current or name, {**file.contexts, name: {"url": url.rstrip("/"), "token": token}}))
    hint(f"Context {name} added. Try it: twocloud doctor --context {name}")


def _row(name: str, file: _File) -> dict[str, Any]:
    url = file.contexts[name]["url"] if name != LOCAL else None
    return {"name": name, "current": name == (file.current or LOCAL), "url": url}


@context.command("list")
@list_options
def list_contexts(output: str) -> None:
    """All contexts. Tokens are never shown."""
    found = read(settings.client().config)
    show(output, [_row(name, found) for name in (LOCAL, *sorted(found.contexts))])


@context.command()
@click.argument("name", type=Identifier(), shell_complete=complete_names)
def use(name: str) -> None:
    """Ask this server from now on; `local`: the store."""
    def choose(file: _File) -> _File:
        if name != LOCAL:
            _known(file, name)
        return _File(name, file.contexts)

    _change(choose)
    hint(f"Context {name} is used from now on.")


@context.command("show")
@click.argument("name", required=False, metavar="[NAME]", type=Identifier(), shell_complete=complete_names)
@output_option
def show_context(name: str | None, output: str) -> None:
    """One context, or the current one. Its token is never shown."""
    found = read(settings.client().config)
    name = name or found.current or LOCAL
    if name != LOCAL:
        _known(found, name)
    show(output, _row(name, found))


@context.command()
@click.argument("name", type=Identifier(), shell_complete=complete_names)
def remove(name: str) -> None:
    """Remove a context with its token. The token itself lives on: revoke it where it was issued."""
    def without(file: _File) -> _File:
        _known(file, name)
        return _File("" if file.current == name else file.current,
                     {known: context for known, context in file.contexts.items() if known != name})

    _change(without)
    hint(f"Context {name} removed. Its token lives on until it is revoked.")


def _known(file: _File, name: str) -> None:
    if name not in file.contexts:
        raise NotFound(f"There is no context {name}.")
