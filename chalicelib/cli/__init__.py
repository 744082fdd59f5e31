"""The command `twocloud`: data to standard output, all else to standard error, secrets never as arguments.

Exit codes: 0 ok, 1 `doctor` or `verify` found a failure, 2 usage or a bad setting, 3 network, 4 refused (4xx),
5 failed (5xx), 130 interrupted. A command's module is imported when it is called, so that help and completion come at
once.
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
from .output import deployment, everywhere, in_options, keep, say, start_log

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

USAGE, REFUSED, FAILED, INTERRUPTED = 2, 4, 5, 130
COMMANDS = {                                # name: where it is (its first line of help, for the list of all)
    "account": ("accounts:account", "Manage a tenant's accounts at parties: put, check, list, rotate, remove."),
    "apply": ("applying:apply", "Make accounts and users as a file declares them."),
    "changes": ("changes:changes", "List what appeared, changed (from what to what) and vanished since a time."),
    "completion": ("completion:completion", "Print the shell completion script."),
    "context": ("contexts:context", "Manage contexts: twocloud servers and their tokens."),
    "deploy": ("deploying:deploy", "Build the API for AWS and show what would change there."),
    "demo": ("demo:demo", "Serve simulated clouds, with a ready tenant, user and token."),
    "doctor": ("doctor:doctor", "Check settings, store, key, clock and accounts; say what to do."),
    "explain": ("explain:explain", "Run a query and explain where each list came from, and why."),
    "me": ("me:me", "Show the user, and the tenants and accounts that the token opens."),
    "mcp": ("mcp:mcp_command", "Give an assistant read-only tools, over the Model Context Protocol."),
    "parties": ("listing:parties_command", "Show what each party needs: credential fields, permission, regions."),
    "refresh": ("listing:refresh_command", "List sources now and save the snapshots."),
    "serve": ("serving:serve", "Serve the API on this machine over the configured store."),
    "servers": ("servers:servers", "List a tenant's servers, from one source or many."),
    "store": ("stores:store", "Copy the whole store."),
    "tenant": ("accounts:tenant", "Remove a tenant and all that belongs to it."),
    "token": ("tokens:token", "Manage the tokens that callers send: issue, list, rotate, revoke."),
    "user": ("users:user", "Manage users and what their tokens may access."),
    "verify": ("verifying:verify", "Compare a source's list with the one of the vendor's own client."),
}


class _Commands(click.Group):
    """A group that imports each command when it is called."""

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
        """Run the command. A reader that closes the pipe is no failure; Click itself would exit with 1."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
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

        items = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


def _with_options_everywhere(command: click.Command) -> None:
    """Accept --color, --context and the other global options after any command too; only the main help shows them."""
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            _with_options_everywhere(subcommand)
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
                 shell_complete=contexts.complete_names, help="Query the server of this context; local: the store on "
                                                              "this machine."),
    *everywhere,
)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="You can also give --context, --color, --quiet and --debug after a command. Settings: "
                      "TWOCLOUD_STORE, TWOCLOUD_KEY, TWOCLOUD_TIMEZONE, TWOCLOUD_LOCAL; TWOCLOUD_URL with "
                      "TWOCLOUD_TOKEN, TWOCLOUD_CONTEXT. Exit codes: 0 ok, 1 doctor or verify found a failure, "
                      "2 usage, 3 network, 4 refused, 5 failed.")
@click.version_option(__version__, prog_name="twocloud", message="%(prog)s %(version)s")
def twocloud() -> None:
    """List any tenant's servers in any cloud, and never lie about what is known.

    A party is a cloud as the API names it: aws, azure, qcloud; `twocloud parties` lists them.
    """


for _option in reversed(_everywhere):
    twocloud = _option(twocloud)


def _hush() -> None:
    """Drop the output that could not be written, so that Python does not try again when the process ends."""
    with suppress(OSError, ValueError):                         # a stdout that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Make every text writable: characters that the locale's encoding lacks are written as escapes."""
    for number in range(3):                 # otherwise a file that we open would get a closed stream's number
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    streams: list[object] = [sys.stdout, sys.stderr]            # None where it is closed, whatever typeshed says
    if streams[0] is None:
        closed = os.open(os.devnull, os.O_RDONLY)               # `>&-`: commands that print data fail
        sys.stdout = io.TextIOWrapper(io.FileIO(closed, "w"), "utf-8", write_through=True)
    if streams[1] is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8")
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _without_typed(problem: click.ClickException) -> str:
    """The message, without what may be a secret that was typed in a wrong place: standard error is often a log."""
    if problem.message.startswith("Got unexpected extra argument"):
        return "Unexpected extra arguments. Give secrets on standard input or in a file."
    if isinstance(problem, click.BadParameter) and problem.param and isinstance(problem.param.type, click.File):
        return problem.message.rpartition("': ")[2]
    return problem.message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Any error is one clear line on standard error."""
    _open_streams()
    try:
        twocloud.main(arguments, prog_name="twocloud", standalone_mode=False)
        return 0
    except click.ClickException as problem:
        vars(problem)["message"] = _without_typed(problem)          # Final for others, not for what is shown last
        problem.show(sys.stderr)
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except TwocloudError as error:
        say(f"twocloud: {in_options(error.text)}")
        if isinstance(error, SettingsError):
            return USAGE
        return REFUSED if isinstance(error, Conflict) or error.status < 500 else FAILED
    except Exception as problem:                                # the store is out of reach, the disk is full, …
        start_log()
        log.failure()
        say(f"twocloud: {type(problem).__name__}: {problem}")
        return FAILED
    finally:
        if deployment.cache_info().currsize:                    # do not wait for a party that hangs
            deployment().close()
            deployment.cache_clear()
