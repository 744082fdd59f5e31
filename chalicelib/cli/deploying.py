"""twocloud deploy."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .output import Network, hint, output_option, say, show

if TYPE_CHECKING:
    from ..packaging import stack as stacks

_PROCESSORS = ("arm64", "x86_64")
_FRAMEWORK = ("chalice", "yaml", "pip")     # what the extra `aws` brings


class Parameter(click.ParamType[str]):
    """NAME=VALUE, of a parameter of the stack."""

    name = "parameter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.match(r"[A-Za-z0-9]{1,255}=", value):
            self.fail("must be NAME=VALUE, such as Timezone=Asia/Shanghai", param, ctx)
        return value


@click.command()
@click.option("--stack", "name", default="twocloud", show_default=True, metavar="NAME", help="The stack.")
@click.option("-p", "--parameter", "named", type=Parameter(), multiple=True, metavar="NAME=VALUE",
              help="A parameter of the stack. Those that you do not name keep their values.")
@click.option("--parameters", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="More parameters, as one JSON object; for secrets.")
@click.option("--architecture", type=click.Choice(_PROCESSORS), default="arm64", show_default=True,
              help="The functions' processor.")
@click.option("--bucket", metavar="NAME", help="S3 bucket for the code, in the same region. Default: "
              "twocloud-ACCOUNT-REGION, which is created.")
@click.option("--role", metavar="ARN", help="Role with which CloudFormation works. Default: your own rights.")
@click.option("--apply", "change_set", metavar="CHANGE_SET", help="Execute this change set, and build nothing.")
@click.option("--yes", is_flag=True, help="Execute the new change set at once, without a review.")
@click.option("--link", is_flag=True, help="Store the files and print a link that creates the stack; make no change "
              "set.")
@click.option("--package", "folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Only build, into this folder; call nothing at AWS.")
@click.option("--python", metavar="PROGRAM", help="Python of one of Lambda's versions, which compiles. Default: this "
              "one, or the first on the PATH.")
@output_option
def deploy(name: str, named: tuple[str, ...], file: Path | None, architecture: str, bucket: str | None,
           role: str | None, change_set: str | None, yes: bool, link: bool, folder: Path | None, python: str | None,
           output: str) -> None:
    """Build the API for AWS and show what would change there. Nothing changes until --apply.

    Stores the package in S3 and makes a change set of CloudFormation, which you or an administrator can review and
    execute. Account, region and credentials are those of AWS's own settings (AWS_PROFILE, AWS_DEFAULT_REGION). Needs
    the extra `aws`: "FILE[aws]" where you install twocloud from FILE.
    """
    if sum(map(bool, (change_set, yes, link, folder))) > 1:
        raise click.UsageError("Choose one of --apply, --yes, --link and --package.")
    from ..packaging import stack as stacks

    parameters = {**_of_file(file), **{it.partition("=")[0]: it.partition("=")[2] for it in named}}
    try:
        if change_set:
            _applied(stacks.Account().apply(name, change_set), output)
            return
        if folder:
            _build(folder, python, architecture)
            return
        account = stacks.Account()
        hint(f"Account {account.number}, region {account.region}.")         # before a build that would be in vain
        with tempfile.TemporaryDirectory(prefix="twocloud-deploy-") as made:
            _build(Path(made), python, architecture)
            url = account.upload(Path(made), bucket)
        if link:
            click.echo(account.launch_link(url, name, parameters))
            return
        proposal = account.propose(name, url, parameters, role)
        if proposal is None:
            say("Nothing would change.")
        elif yes:
            _applied(account.apply(name, proposal.name), output)
        else:
            _review(account, name, proposal, output)
    except stacks.Unreachable as problem:
        raise Network(str(problem)) from None


def _build(folder: Path, python: str | None, architecture: str) -> None:
    try:
        from ..packaging import package

        hint("Building the package.")
        package.build(folder, python or package.an_interpreter(), architecture)
    except ModuleNotFoundError as problem:
        if problem.name not in _FRAMEWORK:
            raise
        raise click.UsageError(f"The extra `aws` is missing ({problem.name}). Install twocloud with it: "
                               '"FILE[aws]" in place of FILE.') from None


def _of_file(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (OSError, ValueError):
        raise click.UsageError(f"{file} does not hold one JSON object whose values are texts.") from None


def _review(account: "stacks.Account", stack: str, proposal: "stacks.Proposal", output: str) -> None:
    rows = [{"action": it.action, "type": it.type, "name": it.name, "replacement": it.replacement}
            for it in proposal.changes]
    if output == "json":
        show(output, {"name": proposal.name, "change_set": proposal.arn, "creates": proposal.creates, "changes": rows})
    else:
        show(output, rows)
    if lost := [it.name for it in proposal.changes if it.loses]:
        say(f"Removed or replaced: {', '.join(lost)}. Check what they hold.")
    say(f"Nothing has changed yet. Review it here: {account.page_of(proposal)}\n"
        f"To apply: twocloud deploy --stack {stack} --apply {proposal.name}")


def _applied(outputs: Mapping[str, str], output: str) -> None:
    show(output, dict(sorted(outputs.items())))
