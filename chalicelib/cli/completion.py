"""Shell completion, from what is on this machine: makes no network call and creates no store."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from .. import settings

_MOST = 200                                 # suggestions


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the shell completion script.

    \b
    To install it:
    bash (4.4 or newer), in ~/.bashrc:    eval "$(twocloud completion bash)"
    zsh, in ~/.zshrc after compinit:      eval "$(twocloud completion zsh)"
    fish: twocloud completion fish > ~/.config/fish/completions/twocloud.fish
    """
    made = get_completion_class(shell)
    assert made
    root = context.find_root()
    script = made(root.command, {}, "twocloud", "_TWOCLOUD_COMPLETE")
    click.echo(script.source_template % script.source_vars())   # source() would run the shell to see its version


def parties(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ..parties import names

    return _listed([*names(), "all"], incomplete, many=parameter.name == "party")


def regions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The regions of the parties named before it on the line, or of all stored accounts."""
    names = list[str]()
    parties_typed = context.params.get("party") or context.params.get("party_names")
    named = parties_typed.split(",") if isinstance(parties_typed, str) else list(parties_typed or ())
    from .. import parties as known

    for name in named:
        if name in known.names():
            party = known.load(name)
            names += [*party.aliases, *party.aliases.values(), party.default_region]
    with suppress(Exception):
        names += [region for row in _accounts() if not named or row.party in named for region in row.regions]
    return _listed([*sorted(set(names)), "all"], incomplete, many=True)


def kinds(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ..fleet.changes_query import KINDS

    return _listed([*KINDS, "all"], incomplete, many=True)


def tenants(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    with suppress(Exception):               # completion must not print an error into the line
        return _listed(sorted({row.tenant_id for row in _accounts()}), incomplete)
    return []


def accounts(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of the accounts of the tenant and the party that stand before it on the line, if they do."""
    tenant, party = context.params.get("tenant_id"), context.params.get("party")
    with suppress(Exception):
        return _listed(sorted({row.account for row in _accounts() if tenant in (None, row.tenant_id)
                               and party in (None, row.party)}), incomplete)
    return []


def users(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ..access.users import every

    return _of_store(lambda store: [user.name for user in every(store)], incomplete)


def token_ids(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ..access.tokens import every

    return _of_store(lambda store: [token.token_id for token in every(store)], incomplete)


def _of_store(read: Callable[[Any], list[str]], incomplete: str) -> list[str]:
    with suppress(Exception):
        for store in _store():
            return _listed(sorted(read(store)), incomplete)
    return []


def _accounts() -> Iterator[Any]:
    from ..access.accounts import every

    for store in _store():
        yield from every(store)


def _store() -> Iterator[Any]:
    """The local store if it exists: completion creates none."""
    import time

    from ..storage.store import open_store

    url = settings.load().store
    if url.startswith("sqlite:///") and Path(url.removeprefix("sqlite:///")).is_file():
        store = open_store(url, time.time)
        try:
            yield store
        finally:
            store.close()


def _listed(words: list[str], incomplete: str, *, many: bool = False) -> list[str]:
    """The words that complete `incomplete`. `many`: it is a comma list, and its last word is completed."""
    before, comma, last = incomplete.rpartition(",") if many else ("", "", incomplete)
    return [before + comma + word for word in words if word.startswith(last)][:_MOST]
