"""The documents say what the program does: tables and help are made from it, examples run.

`python -m tests.programs.test_docs` writes what is generated.
"""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import pytest
import yaml

from benchmarks import load
from chalicelib import __version__, cli, errors, parties, settings
from chalicelib.cli.verifying import packages_of, read_report
from chalicelib.errors import TwocloudError
from chalicelib.fleet import changes_query, query
from chalicelib.http.formats import FullRow
from chalicelib.http.formats.events import SHOWN_AS
from chalicelib.packaging import package
from tests import ROOT
from tests.canaries import watch
from tests.fixtures import App
from tests.unit.test_parties import UNSAID, WHAT

DOCUMENTS = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md",
             *sorted((ROOT / "docs").glob("*.md"))]


# ---------------------------------------------------------------- what is made

def parties_table() -> str:
    lines = ["| party | cloud | credentials | narrowest permission | regions | order and pages | grade |",
             "|---|---|---|---|---|---|---|"]
    for name in parties.names():
        party = parties.load(name)
        forms = " or ".join(", ".join(f"`{field}`" for field in form) for form in party.credentials)
        rights = ", ".join(f"`{right}`" for right in party.permissions)
        if party.deep_permissions:
            rights += "; with `--deep` " + ", ".join(f"`{right}`" for right in party.deep_permissions)
        aliases = sorted(alias for alias, code in party.aliases.items() if code == party.default_region)
        regions = f"`{party.default_region}`" + "".join(f" or `{alias}`" for alias in aliases) + ", …"
        lines.append(f"| [`{name}`](#{name}) | [{party.title}]({party.reference}) | {forms} | {rights} | {regions} | "
                     f"{party.order} "
                     f"| {grade_of(name)} |")
    return "\n".join(lines)


def grade_of(name: str, words: Mapping[str, str] = {}) -> str:
    """The party's own, or `live` with version and date where live.json in its folder holds a report that proves it."""
    path = ROOT / "chalicelib/parties" / name / "live.json"
    if path.exists() and (report := read_report(path.read_bytes(), name)).is_live:
        return f"{words.get('live', 'live')} ({report.twocloud}, {report.date})"
    grade = parties.load(name).grade
    return words.get(grade, grade)


def references_table() -> str:
    lines = ["| party | cloud | client |", "|---|---|---|"]
    lines += [f"| `{name}` | {parties.load(name).title} | {' and '.join(f'`{it}`' for it in packages)} |"
              for name in parties.names() if (packages := packages_of(name))]
    return "\n".join(lines)


def names_table(head: str = "| party | cloud | grade |", grades: Mapping[str, str] | None = None) -> str:
    rows = []
    for name in parties.names():
        party = parties.load(name)
        rows.append(f"| `{name}` | [{party.title}]({party.reference}) | {grade_of(name, grades or {})} |")
    return "\n".join([head, "|---|---|---|", *rows])


def names_table_zh() -> str:
    return names_table("| 名称 | 云 | 等级 |", {"live": "真实账号", "real software": "真实软件",
                                              "real software (simulator)": "真实软件（模拟器）", "recorded": "录制流量",
                                              "documented": "厂商文档", "bridged": "桥接"})


def sections(file: str) -> str:
    """A section for each party, from that file of its folder."""
    return "\n\n".join(f"## {name}\n\n{part_of(name, file).strip()}" for name in parties.names())


def part_of(name: str, file: str) -> str:
    path = ROOT / "chalicelib/parties" / name / file
    assert path.exists(), f"chalicelib/parties/{name}/{file} is missing; see \"Add a cloud\" in CONTRIBUTING.md"
    return path.read_text()


def fields_table() -> str:
    """Which party fills which field, from the records of its cases."""
    lines = ["| party | " + " | ".join(f"`{SHOWN_AS.get(field, field)}`" for field in UNSAID) + " |",
             "|---" * (len(UNSAID) + 1) + "|"]
    for name in parties.names():
        records = [server for case in WHAT[name]["cases"] for server in case.get("servers", ())]
        cells = ("yes" if any(field in server for server in records) else "" for field in UNSAID)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def links() -> str:
    return textwrap.fill(" · ".join(f"[{name}](#{name})" for name in parties.names()), 120, break_on_hyphens=False)


def parameters_table(parameters: Sequence[query.Parameter] = query.PARAMETERS) -> str:
    lines = ["| parameter | values | meaning |", "|---|---|---|"]
    for parameter in parameters:
        form = parameter.form
        takes = (", ".join(f"`{word}`" for word in form.words) if isinstance(form, query.Choice)
                 else f"{form.lowest} to {form.highest}" if isinstance(form, query.Number)
                 else form.takes if isinstance(form, query.Text | query.List)
                 else "an RFC 3339 time" if isinstance(form, query.Time) else "an IPv4 or IPv6 address")
        lines.append(
            f"| `{parameter.name}`{' (required)' if parameter.required else ''} | {takes} | {parameter.text} |")
    return "\n".join(lines)


def errors_table() -> str:
    def tree(kind: type[TwocloudError]) -> Iterator[type[TwocloudError]]:
        yield kind
        for below in kind.__subclasses__():
            if below.__module__ == errors.__name__:
                yield from tree(below)

    rows = {(kind.status, kind.code): kind.default for kind in tree(TwocloudError) if kind.code != "internal"
            or kind is TwocloudError}
    rows[400, "invalid_parameter"] = (
        "A parameter is bad, missing, unknown or given twice, or the party does not know the region; "
        "`parameter` names it."
    )
    rows[404, "account_not_found"] = "This tenant has no such account at this party."
    extra = {429: " `Retry-After`.", 503: " `Retry-After`.", 405: " `Allow`.", 401: " `WWW-Authenticate`."}
    return "\n".join(["| status | `error` | meaning |", "|---|---|---|"] + [
        f"| {status} | `{word}` | {text}{extra.get(status, '')} |" for (status, word), text in sorted(rows.items())])


def settings_table() -> str:
    return "\n".join(["| variable | default | meaning |", "|---|---|---|"] + [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |"
        for name, (default, meaning) in settings.SETTINGS.items()])


def below_table() -> str:
    adapters = {name: parties.load(name) for name in parties.names()}
    return "\n".join(["| party | `--discover-below` takes |", "|---|---|"] + [
        f"| `{name}` | {party.below} |" for name, party in adapters.items() if party.below])


def costs_table() -> str:
    return load.costs(json.loads((ROOT / "benchmarks/results.json").read_text())["benchmarks"]["load"]["figures"])


def commands(command: click.Command, path: tuple[str, ...] = (
        "twocloud",)) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below
            yield from commands(below, (*path, name))


def help_text() -> str:
    parts = []
    for path, command in commands(cli.twocloud):
        with click.Context(command, info_name=" ".join(path), terminal_width=100, max_content_width=100,
                           help_option_names=cli.twocloud.context_settings["help_option_names"]) as context:
            parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts)


def alarms_table() -> str:
    resources = package.merged()["Resources"]
    signs = {"GreaterThanOrEqualToThreshold": "≥", "LessThanThreshold": "<"}
    lines = ["| alarm | when | do |", "|---|---|---|"]
    for name, it in resources.items():
        if it.get("Type") == "AWS::CloudWatch::Alarm":
            alarm = it["Properties"]
            space = alarm["Namespace"] if isinstance(alarm["Namespace"], str) else "`twocloud/STACK`"
            limit = f"`{alarm['Threshold']['Ref']}`" if isinstance(alarm["Threshold"],
                                                                   dict) else f"{alarm['Threshold']:,}"
            periods, needed = alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
            often = "" if periods == 1 else f", {needed} of {periods} times"
            missing = ", or no value" if alarm["TreatMissingData"] == "breaching" else ""
            lines.append(f"| `{name}` | {space} `{alarm['MetricName']}`, "
                         f"{alarm.get('Statistic') or alarm['ExtendedStatistic']} in "
                         f"{alarm['Period'] // 60} minutes {signs[alarm['ComparisonOperator']]} "
                         f"{limit}{often}{missing} | {alarm['AlarmDescription'].strip()} |")
    return "\n".join(lines)


SAME = {"TwocloudErrors": "ErrorRate", "TwocloudScheduleLate": "ScheduleStopped", "TwocloudSnapshotStale": "ListsLate",
        "TwocloudCredentialsRefused": "CredentialsRefused"}     # alarms on AWS


def rules_table() -> str:
    rules = [rule for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
             for rule in group["rules"]]
    lines = ["| alert | AWS | when | do |", "|---|---|---|---|"]
    for rule in rules:
        aws = f"`{SAME[rule['alert']]}`" if rule["alert"] in SAME else ""
        summary = re.sub(r"{{ \$(?:labels\.)?(\w+)[^}]*}}", lambda name: name[1].upper(),
                         rule["annotations"]["summary"])
        held = f", for {rule['for']}" if "for" in rule else ""
        lines.append(f"| `{rule['alert']}` | {aws} | {summary.rstrip('.')}{held} | "
                     f"{rule['annotations']['description'].strip()} |")
    return "\n".join(lines)


MADE: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "names"): names_table,
    ("README.zh.md", "names"): names_table_zh,
    ("docs/verify.md", "references"): references_table,
    ("docs/parties.md", "parties"): parties_table,
    ("docs/parties.md", "fields"): fields_table,
    ("docs/parties.md", "sections"): lambda: sections("notes.md"),
    ("docs/keys.md", "links"): links,
    ("docs/keys.md", "sections"): lambda: sections("keys.md"),
    ("docs/api.md", "parameters"): parameters_table,
    ("docs/api.md", "changes"): lambda: parameters_table(changes_query.PARAMETERS),
    ("docs/api.md", "errors"): errors_table,
    ("docs/organisations.md", "below"): below_table,
    ("docs/settings.md", "settings"): settings_table,
    ("docs/command.md", "help"): help_text,
    ("docs/watch.md", "alarms"): alarms_table,
    ("docs/watch.md", "rules"): rules_table,
    ("docs/scale.md", "costs"): costs_table,
    ("docs/scale.md", "calls"): load.calls,
}


def block(name: str, text: str) -> re.Match[str]:
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert match, name
    return match


@pytest.mark.parametrize(("document", "name"), MADE)
def test_what_is_made_from_the_program_is_up_to_date(document: str, name: str) -> None:
    assert block(name, (ROOT / document).read_text())[1].strip() == MADE[document, name]().strip(), "run: make docs"


# ---------------------------------------------------------------- what is said

def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", document.read_text()):
            page = document.parent / target if target else document
            assert target.startswith("https://") or page.exists(), (document.name, target)
            if anchor and page.suffix == ".md":
                heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
                assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
                                  for head in heads}, (document.name, anchor)


def test_no_document_names_this_machine_or_lines_too_long() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        assert "/home/" not in text
        assert "/root" not in text
        assert "../shared" not in text
        for line in text.splitlines() if document.name != "benchmarks.md" else ():       # made by `make bench`
            assert len(line) <= 120 or line.startswith(("|", "curl", "{", "#")) or "](" in line, (document.name, line)


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed",
                                                          "Security"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_every_promise_of_the_readme_is_in_the_security_page() -> None:
    readme = re.findall(r"^\| (P\d+) \|", (ROOT / "README.md").read_text(), re.M)
    proved = re.findall(r"^\| (P\d+) ", (ROOT / "docs/security.md").read_text(), re.M)
    assert readme == proved
    assert len(readme) == 15


def test_files_that_the_documents_name_are_there() -> None:
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:tests|docs|chalicelib|chalicelib.simulators|benchmarks)/[\w/.]+\.\w+)`",
                               document.read_text()):
            assert (ROOT / name).exists() or "/x/" in name, (document.name, name)
    drawn = re.search(r"```\n(app\.py.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert drawn
    for path in (ROOT / "chalicelib").iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            assert path.name in drawn[1], path.name


def test_make_targets_that_the_documents_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        for name in re.findall(r"`make ([a-z-]+)|^\$? ?make ([a-z-]+)", document.read_text(), re.M):
            assert (name[0] or name[1]) in targets, (document.name, name)


def test_make_help_lists_every_target() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    listed = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True,
                            timeout=60, check=True).stdout
    assert re.findall(r"^make ([a-z-]+) +\S", listed, re.M) == targets
    assert len(targets) == len(listed.splitlines())


# ---------------------------------------------------------------- examples run

def sh_blocks(document: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def bash(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWOCLOUD_")}
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=90,
                          cwd=folder,
                          env={**clean, "PATH": path, **environment})


@pytest.mark.slow
def test_the_readmes_own_clouds(app: App, tmp_path: Path) -> None:
    """As it stands, except for a simulator in place of Tencent's cloud, and a free port."""
    cloud = app.clouds["qcloud"]
    (script,) = (text for text in sh_blocks("README.md") if "account put" in text)
    ports = set(re.findall(r"(?:--port |127\.0\.0\.1:)(\d+)", script))
    assert len(ports) == 1
    assert not ports & {"8000", "8001"}     # a demo that still runs and its switch
    keys = {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}       # type: ignore[attr-defined]
    (tmp_path / "keys.secret").write_text(json.dumps(keys))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = script.replace("keys.json", "keys.secret").replace("account put 123 qcloud",
                                                                f"account put 123 qcloud --endpoint {cloud.url}")
    script = script.replace(ports.pop(), port)
    done = bash(f"trap 'kill %1' EXIT\n{script}\necho; echo $TWOCLOUD_TOKEN >&2", tmp_path, TWOCLOUD_LOCAL="1")
    watch(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.strip().splitlines()[-1])["vm_servers"]) == 25
    assert "ok" in done.stdout


def test_the_apis_examples(served: App, tmp_path: Path) -> None:
    served.user("bob", password="password")
    for script in (script for script in sh_blocks("docs/api.md") if "format=" not in script
                   and "while [" not in script):
        done = bash(script.replace("ann:password", "bob:password"), tmp_path, URL=served.url,
                    TWOCLOUD_TOKEN=served.token)
        assert done.returncode == 0, (script, done.stderr)
        for answer in done.stdout.replace("}{", "}\n{").splitlines():
            body = json.loads(answer)
            assert body["code"] == 200
            if "token" in body:
                watch(body["token"])


def test_the_commands_examples(served: App, tmp_path: Path) -> None:
    (script,) = sh_blocks("docs/command.md")
    here = served.deployment.settings
    done = bash(script, tmp_path, URL=served.url, HOME=str(tmp_path), XDG_CONFIG_HOME="", TWOCLOUD_STORE=here.store,
                TWOCLOUD_KEY=here.key)
    (tmp_path / ".config/twocloud/config.toml").unlink()
    rows = done.stdout.splitlines()
    assert done.returncode == 0, done
    assert rows[0].split() == ["NAME", "ID", "LAN"], done
    assert len(rows) == 26, done


def test_the_examples_of_formats(served: App, tmp_path: Path) -> None:
    scripts = [script for script in sh_blocks("docs/api.md") if "format=" in script]
    shown = [bash(script, tmp_path, URL=served.url, TWOCLOUD_TOKEN=served.token).stdout for script in scripts]
    rows, lines, targets, inventory = shown
    assert rows.startswith("instance_name,instance_id,")
    assert len(rows.splitlines()) == len(lines.splitlines()) + 1 == 26
    assert all(json.loads(line)["instance_id"] for line in lines.splitlines())
    assert all(set(group) == {"targets", "labels"} and group["targets"][0].endswith(":9100")
               for group in json.loads(targets))
    assert len(json.loads(inventory)["_meta"]["hostvars"]) == 25


def test_labels_and_variables_that_the_documents_name_are_there() -> None:
    # that each of them is scraped, test_prometheus.py holds
    metrics = re.findall(r"(?m)^\| `twocloud_(\w+)` \|", (ROOT / "docs/watch.md").read_text())
    for document in DOCUMENTS:
        text = document.read_text()
        for name in re.findall(r"__meta_twocloud_(\w+)|\btwocloud_([a-z_0-9]+)", text):
            assert (name[0] or name[1]) in (*FullRow.__struct_fields__, "tag_", "tag_team", *metrics), (
                document.name, name)


def test_the_readmes_first_answer_is_the_demos() -> None:
    text = block("answer", (ROOT / "README.md").read_text())[1]
    first = json.loads(re.sub(r",\s*…\s*\]\}", "]}", text.split("```json\n")[1].split("```")[0]))
    process = subprocess.Popen([sys.executable, "-m", "chalicelib", "demo", "--port", "0"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline() if process.stdout else ""
        watch(line.split("'")[1].split(":")[0])
        pattern = re.search(r"^(curl -u .*)$", (ROOT / "README.md").read_text(), re.M)
        assert pattern
        assert re.fullmatch(re.escape(pattern[1]).replace("tc_…", "tc_[0-9A-Za-z]{36}").replace("8000", r"\d+"),
                            line.strip())
        shown = json.loads(subprocess.run(line.replace("curl", "curl -sS"), shell=True, capture_output=True, timeout=30,
                                          check=True).stdout)
        assert shown["vm_servers"][0] == first["vm_servers"][0]
        assert list(shown) == list(first)
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    for (document, name), make in MADE.items():
        text = (ROOT / document).read_text()
        match = block(name, text)
        (ROOT / document).write_text(f"{text[:match.start(1)]}{make()}\n{text[match.end(1):]}")
