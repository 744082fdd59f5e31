"""The command `twocloud`: data to standard output, all else to standard error, secrets never as arguments.

Exit codes: 0 ok, 1 `doctor` found a failure, 2 usage or a bad setting, 3 network, 4 refused (4xx), 5 failed (5xx),
130 interrupted. A command's module is imported when it is called, so that help and completion come at once.
"""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from .. import __version__, log
from ..errors import Conflict, SettingsError, TwocloudError
from . import contexts
from .output import deployment, everywhere, keep, say, start_journal

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

USAGE, REFUSED, FAILED, INTERRUPTED = 2, 4, 5, 130
COMMANDS = {                                # name: where it is (its first line of help, for the list of all)
    "account": ("accounts:account", "A tenant's account at a party: put, check, list, remove."),
    "changes": ("listing:changes", "What appeared, changed (which fields) and vanished since a time."),
    "completion": ("completion:completion", "Print what teaches a shell to complete this command's words."),
    "context": ("contexts:context", "The servers that the command asks, with their tokens."),
    "demo": ("demo:demo", "Serve, with simulated clouds and a ready tenant, user and token."),
    "doctor": ("doctor:doctor", "Check settings, store, key, clock, accounts; say what to do."),
    "explain": ("explain:explain", "Ask as `servers` does, and tell how the answer came about."),
    "parties": ("listing:parties_command", "What each party needs: credential fields, narrowest permission, regions."),
    "refresh": ("listing:refresh_command", "List sources now and keep the lists."),
    "serve": ("serving:serve", "The API on this machine over the configured store."),
    "servers": ("servers:servers", "The servers of one tenant at one party in one region, or many."),
    "store": ("stores:store", "Where everything is kept, as a whole."),
    "tenant": ("accounts:tenant", "A tenant as a whole."),
    "token": ("tokens:token", "What callers show: issue, list, rotate, revoke."),
    "user": ("users:user", "Who may ask for tokens, and how wide they can be."),
}


class _Commands(click.Group):
    """Its commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        _with_options_everywhere(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Click itself ends with 1 where the reader of a pipe has seen enough."""
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found
        except BrokenPipeError:
            _hush()
            return None
        except OSError:                                         # the disk is full
            _hush()
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem  # for shells alone

        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


def _with_options_everywhere(command: click.Command) -> None:
    """--color, --context and their like are taken after any command, too; the help of all shows them once."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _with_options_everywhere(below)
    elif not any(parameter.name == "debug" for parameter in command.params):
        hidden = click.Command("", params=[])
        for option in _everywhere:
            option(hidden)
        for parameter in hidden.params:
            assert isinstance(parameter, click.Option)
            parameter.hidden = True
            command.params.append(parameter)


_everywhere = (
    click.option("--context", metavar="NAME", expose_value=False, callback=keep("context"),
                 shell_complete=contexts.complete_names, help="The server to ask, by its context; local: the store."),
    *everywhere,
)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="--context, --color, --quiet and --debug may stand after any command, too. Settings: "
                      "TWOCLOUD_STORE, TWOCLOUD_KEY, TWOCLOUD_TIMEZONE, TWOCLOUD_LOCAL; TWOCLOUD_URL with "
                      "TWOCLOUD_TOKEN, TWOCLOUD_CONTEXT. Exit codes: 0 ok, 1 doctor found a failure, 2 usage, "
                      "3 network, 4 refused, 5 failed.")
@click.version_option(__version__, prog_name="twocloud", message="%(prog)s %(version)s")
def twocloud() -> None:
    """List any tenant's servers in any cloud, and never lie about what is known."""


for _option in reversed(_everywhere):
    twocloud = _option(twocloud)


def _hush() -> None:
    """What could not be written is not tried again at the end of the process."""
    with suppress(OSError, ValueError):                         # a stdout that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Make every text writable: a character that the locale's encoding lacks is written as an escape."""
    for number in range(3):                 # no file of ours may take the place of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    streams: list[object] = [sys.stdout, sys.stderr]            # None where it is closed, whatever typeshed says
    if streams[0] is None:
        closed = os.open(os.devnull, os.O_RDONLY)               # `>&-`: a command that prints data fails
        sys.stdout = io.TextIOWrapper(io.FileIO(closed, "w"), "utf-8", write_through=True)
    if streams[1] is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8")
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. One clear line on standard error for whatever goes wrong."""
    _open_streams()
    try:
        twocloud.main(arguments, prog_name="twocloud", standalone_mode=False)
        return 0
    except click.ClickException as problem:
        problem.show(sys.stderr)
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except TwocloudError as error:
        say(f"twocloud: {error.text}")
        if isinstance(error, SettingsError):
            return USAGE
        return REFUSED if isinstance(error, Conflict) or error.status < 500 else FAILED
    except Exception as problem:                                # the store is out of reach, the disk is full, …
        start_journal()
        log.failure()
        say(f"twocloud: {type(problem).__name__}: {problem}")
        return FAILED
    finally:
        if deployment.cache_info().currsize:                    # nobody waits for a party that hangs
            deployment().close()
            deployment.cache_clear()
