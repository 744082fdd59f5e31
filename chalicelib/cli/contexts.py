"""Which server the command queries: --url, --context, the environment, the contexts file, or none (the store).

The contexts file holds tokens in plain text, so it is read only if nobody but its owner can read it. A token is sent
only to the URL that it was saved with.
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

LOCAL = "local"                             # the store on this machine; no context can have this name
_TOKEN = re.compile(r"tc_[0-9A-Za-z]{36}", re.ASCII)


@dataclass(frozen=True, slots=True)
class There:
    """A server to query. `chosen`: the option, variable or context that chose it."""

    url: str
    token: str = field(repr=False)
    chosen: str


@dataclass(frozen=True, slots=True)
class _File:
    current: str
    contexts: dict[str, dict[str, str]] = field(repr=False)


def there(url: str | None) -> There | None:
    """The server to query, None for the store, by the order that the help of `context` states."""
    environment, name = settings.client(), kept("context")
    if url and name:
        raise click.UsageError("Give --url or --context, not both.")
    if not name and (address := url or environment.url):
        chosen = "--url" if url else "TWOCLOUD_URL"
        check_url(address, chosen)
        return There(address.rstrip("/"), environment.token, chosen)
    name, chosen = (name, "--context") if name else (environment.context, "TWOCLOUD_CONTEXT")
    if name == LOCAL:
        return None
    file = read(environment.config)
    if not name:
        name, chosen = file.current, f"current in {environment.config}"
    if not name or name == LOCAL:
        return None
    if name not in file.contexts:
        known = ", ".join([LOCAL, *sorted(file.contexts)])
        raise click.UsageError(f"{chosen}: no context {name[:64]!r}. Contexts: {known}.")
    context = file.contexts[name]
    check_url(context["url"], f"context {name}")
    return There(context["url"].rstrip("/"), context["token"], f"context {name} ({chosen})")


def check_url(url: str, what: str) -> None:
    """Raise Network unless the URL is https, or http on loopback: a token must not travel unencrypted."""
    try:
        address = urlsplit(url)
        host = address.hostname or ""
        _ = address.port
    except ValueError:
        raise Network(f"{what}: not a valid URL. Give https://HOST[:PORT].") from None
    extra = "@" in address.netloc or address.query or address.fragment
    if address.scheme not in ("http", "https") or not host or extra:
        raise Network(f"{what}: the URL must be https://HOST[:PORT], without user or query.")
    if address.scheme == "http" and not on_loopback(host):
        raise Network(f"{what}: plain http is accepted on this machine only, because it would send the token "
                      "unencrypted. Use https, or an SSH tunnel to the server.")


def on_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# ---------------------------------------------------------------- the file

def read(path: Path) -> _File:
    """Read the contexts file. Raises SettingsError if others may read it, or if its form is wrong."""
    import tomllib

    try:
        with path.open("rb") as file:
            if files.is_exposed(path):
                raise SettingsError(f"{path} holds tokens and others may read it; run: chmod 600 {path}")
            fields = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):             # the latter where there is no home
        return _File("", {})
    except OSError as problem:
        raise SettingsError(f"{path} cannot be read: {problem.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise SettingsError(f"{path} is not TOML{_where(problem)}. Correct it by hand.") from None
    current, contexts = fields.pop("current", ""), fields.pop("context", {})
    if fields or not isinstance(current, str) or not isinstance(contexts, dict) or not all(
            map(_is_context, cast(dict[str, Any], contexts).values())):
        raise SettingsError(f"{path} must hold only `current` and [context.NAME] tables with url and token. Correct it "
                            "by hand.")
    return _File(current, cast(dict[str, dict[str, str]], contexts))


def _where(problem: Exception) -> str:
    """The line and column of a TOML error, without the text there: it may hold a token."""
    place = re.search(r"\(at (line \d+, column \d+)\)", str(problem))
    return f" ({place[1]})" if place else ""


def _is_context(context: object) -> bool:
    return isinstance(context, dict) and cast(dict[str, object], context).keys() == {"url", "token"} and all(
        isinstance(value, str) for value in cast(dict[str, object], context).values())


def _write(path: Path, made: _File) -> None:
    """Write a new file with mode 0600 and rename it, so that nobody reads half a file or another's token."""
    lines = ["# written by `twocloud context`; holds tokens, keep it private: chmod 600", "current = "
                                                                                          f"{json.dumps(made.current)}"]
    for name, context in sorted(made.contexts.items()):
        lines += ["", f"[context.{json.dumps(name)}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in context.items()]
    if path == settings.NO_HOME:
        raise SettingsError("This user has no home folder. Set HOME, XDG_CONFIG_HOME or TWOCLOUD_CONFIG.")
    try:
        path = path.resolve()               # a symbolic link stays a link
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
    """Manage contexts: twocloud servers and their tokens.

    Contexts are saved in ~/.config/twocloud/config.toml, which must be readable by you alone (mode 0600). The context
    `local` is the store on this machine. The first of these that is set decides: --url or --context; TWOCLOUD_URL with
    TWOCLOUD_TOKEN; TWOCLOUD_CONTEXT; the context chosen by `use`; the store.
    """


@context.command()
@click.argument("name", type=Identifier())
@click.option("--url", required=True, metavar="URL", help="https://HOST[:PORT], or http on this machine.")
@click.option("--token-file", type=click.File("rb"), metavar="F", help="Read the token from a file.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
def add(name: str, url: str, token_file: IO[bytes] | None, token_stdin: bool) -> None:
    """Add or replace a server. The first one becomes the current context."""
    if name == LOCAL:
        raise click.UsageError(f"The name {LOCAL} means the store on this machine. Choose another name.")
    if bool(token_file) == token_stdin:
        raise click.UsageError("Give --token-file or --token-stdin.")
    try:
        check_url(url, "--url")
    except Network as refused:              # nothing was sent yet: the option is wrong
        raise click.UsageError(refused.message) from None
    token = read_secret(token_file, "the token", 1024)
    if not _TOKEN.fullmatch(token):
        raise click.UsageError("Not a valid twocloud token: it must be tc_ and 36 letters and digits. Was it "
                               "truncated?")
    _change(lambda file: _File(file.current or name, {**file.contexts, name: {"url": url.rstrip("/"), "token": token}}))
    hint(f"Context {name} added. Check it: twocloud doctor --context {name}")


def _row(name: str, file: _File) -> dict[str, Any]:
    url = file.contexts[name]["url"] if name != LOCAL else None
    return {"name": name, "current": name == (file.current or LOCAL), "url": url}


@context.command("list")
@list_options
def list_contexts(output: str) -> None:
    """List all contexts. Tokens are never shown."""
    file = read(settings.client().config)
    show(output, [_row(name, file) for name in (LOCAL, *sorted(file.contexts))])


@context.command()
@click.argument("name", type=Identifier(), shell_complete=complete_names)
def use(name: str) -> None:
    """Make NAME the current context; `local`: the store on this machine."""
    def choose(file: _File) -> _File:
        if name != LOCAL:
            _known(file, name)
        return _File(name, file.contexts)

    _change(choose)
    hint(f"Current context: {name}.")


@context.command("show")
@click.argument("name", required=False, metavar="[NAME]", type=Identifier(), shell_complete=complete_names)
@output_option
def show_context(name: str | None, output: str) -> None:
    """Show one context, or the current one. Its token is never shown."""
    file = read(settings.client().config)
    name = name or file.current or LOCAL
    if name != LOCAL:
        _known(file, name)
    show(output, _row(name, file))


@context.command()
@click.argument("name", type=Identifier(), shell_complete=complete_names)
def remove(name: str) -> None:
    """Remove a context and its copy of the token. The token stays valid: revoke it where it was issued."""
    def without(file: _File) -> _File:
        _known(file, name)
        return _File("" if file.current == name else file.current,
                     {known: context for known, context in file.contexts.items() if known != name})

    _change(without)
    hint(f"Context {name} removed. Its token stays valid until it is revoked.")


def _known(file: _File, name: str) -> None:
    if name not in file.contexts:
        raise NotFound(f"No context {name}. `twocloud context list` shows them.")
