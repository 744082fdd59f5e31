"""The command `twocloud`: data to standard output, all else to standard error, secrets never as arguments.

Exit codes: 0 ok, 2 usage or a bad setting, 3 network, 4 refused (4xx), 5 failed (5xx), 130 interrupted.
"""

import sys
from collections.abc import Sequence

import click

from chalicelib import __version__, journal
from chalicelib.cli import accounts, listing, serving, stores, tokens, users
from chalicelib.errors import Conflict, SettingsError, TwocloudError

USAGE, REFUSED, FAILED, INTERRUPTED = 2, 4, 5, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
             epilog="Settings: TWOCLOUD_STORE, TWOCLOUD_KEY, TWOCLOUD_TIMEZONE, TWOCLOUD_LOCAL, TWOCLOUD_TOKEN. "
                    "Exit codes: 0 ok, 2 usage, 3 network, 4 refused, 5 failed.")
@click.version_option(__version__, prog_name="twocloud", message="%(prog)s %(version)s")
def twocloud() -> None:
    """List any tenant's servers in any cloud, and never lie about what is known."""


for _command in (serving.serve, serving.demo, listing.servers, listing.changes, listing.refresh_command,
                 listing.parties_command, users.user, tokens.token,
                 accounts.account, accounts.tenant, stores.store):
    twocloud.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. One clear line on standard error for whatever goes wrong."""
    try:
        twocloud.main(arguments, prog_name="twocloud", standalone_mode=False)
        return 0
    except click.ClickException as problem:
        problem.show(sys.stderr)
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:                                     # `| head` has seen enough
        sys.stderr.close()
        return 0
    except TwocloudError as error:
        click.echo(f"twocloud: {error.text}", err=True)
        if isinstance(error, SettingsError):
            return USAGE
        return REFUSED if isinstance(error, Conflict) or error.status < 500 else FAILED
    except Exception as problem:                                # the store is out of reach, the disk is full, …
        journal.failure()
        click.echo(f"twocloud: {type(problem).__name__}: {problem}", err=True)
        return FAILED
