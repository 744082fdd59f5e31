"""Every example in the documents is run or parsed by a test, or stands in one list here with the reason why not."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures import App
from tests.programs.test_docs import DOCUMENTS, ROOT, bash, block

# document, kind, what the block holds -> the test that runs it, or why none does
RUN = {
    ("README.md", "console", "make run"): "test_docs.py::test_the_readmes_first_answer_is_the_demos",
    ("README.md", "sh", ""): "test_docs.py::test_the_readmes_own_clouds",
    ("README.zh.md", "console", ""): "test_examples.py::test_the_chinese_page_is_in_step",
    ("README.zh.md", "sh", ""): "test_examples.py::test_the_chinese_page_is_in_step",
    ("docs/api.md", "sh", "$URL"): "test_docs.py::test_the_apis_examples",
    ("docs/api.md", "sh", "format="): "test_docs.py::test_the_examples_of_formats",
    ("docs/api.md", "sh", "while ["): "test_examples.py::test_the_client_in_curl",
    ("docs/api.md", "python", ""): "test_examples.py::test_the_client_in_python",
    ("docs/api.md", "go", ""): "test_examples.py::test_the_client_in_go",
    ("docs/recipes.md", "sh", "/servers"): "clients/test_by_hand.py::test_lines_of_the_docs",
    ("docs/recipes.md", "sh", "openapi-generator"): "clients/test_by_hand.py::test_generated_sdks",
    ("docs/recipes.md", "sh", "terraform"): "clients/test_by_hand.py::test_terraform_reads_it",
    ("docs/recipes.md", "python", "import requests"): "clients/test_by_hand.py::test_programs_of_the_docs",
    ("docs/recipes.md", "python", "import pandas"): "clients/test_by_hand.py::test_pandas",
    ("docs/recipes.md", "python", "_client"): "clients/test_by_hand.py::test_generated_sdks",
    ("docs/recipes.md", "js", "await fetch"): "clients/test_by_hand.py::test_programs_of_the_docs",
    ("docs/ansible.md", "sh", "ansible-galaxy"): "clients/test_demo.py::test_ansible_as_its_page_says",
    ("docs/ansible.md", "sh", "--graph"): "clients/test_demo.py::test_ansible_as_its_page_says",
    ("docs/ansible.md", "sh",
     "twocloud.sh"): "clients/test_ansible.py::test_the_plugin_and_the_script_say_the_same_of_hostile_names",
    ("docs/prometheus.md", "sh", "umask"): "clients/test_demo.py::test_promtool_as_its_page_says",
    ("docs/prometheus.md", "console", "promtool"): "clients/test_demo.py::test_promtool_as_its_page_says",
    ("docs/watch.md", "sh", "token issue"): "test_prometheus.py::test_the_metrics_are_scraped_as_their_page_says",
    ("docs/spreadsheets.md", "sh", "servers.csv"): "clients/test_by_hand.py::test_the_table_of_the_spreadsheet_page",
    ("docs/command.md", "sh", ""): "test_docs.py::test_the_commands_examples",
    ("docs/operate.md", "sh", "account rotate"): "test_operate.py::test_credentials",
    ("docs/operate.md", "sh", "account list\ntwocloud account reseal"): "test_operate.py::test_a_files_key",
    ("docs/operate.md", "sh", "key-2"): "test_operate.py::test_a_files_key",
    ("docs/operate.md", "sh", "--grace"): "test_operate.py::test_passwords_and_tokens",
    ("docs/operate.md", "sh", "VACUUM"): "test_operate.py::test_a_backup_of_a_file_that_is_written_to",
    ("docs/operate.md", "sh", "aws kms"): "test_operate_aws.py::test_another_key_of_kms",
    ("docs/operate.md", "sh", "redeploy OldKeyArn="): "test_operate_aws.py::test_another_key_of_kms",
    ("docs/operate.md", "sh", "restore-table"): "test_operate_aws.py::test_restore_a_table",
    ("docs/operate.md", "sh", "redeploy TableName="): "test_operate_aws.py::test_restore_a_table",
    ("docs/operate.md", "sh", "--to-key"): "test_operate_aws.py::test_from_one_machine_to_aws",
    ("docs/operate.md", "sh", "redeploy"): "test_operate_aws.py::test_an_upgrade_and_the_way_back_under_readers",
    ("docs/keys.md", "sh", "account put"): "test_examples.py::test_a_key_is_handed_over",
    ("docs/organisations.md", "sh", "create-stack-set"): "test_organisations.py::test_amazons_lines_work_as_pasted",
    ("docs/organisations.md", "sh", "create-user"): "test_organisations.py::test_amazons_lines_work_as_pasted",
    ("docs/organisations.md", "sh", "account check acme"): "test_organisations.py::test_an_organisation_is_stored",
    ("docs/organisations.md", "sh", ""): "test_organisations.py::test_every_member_is_listed_and_named",
    ("docs/private-clouds.md", "console",
     "--ca-file"): "test_private_clouds.py::test_options_alone_list_a_cloud_behind_a_proxy_and_an_authority",
    ("docs/private-clouds.md", "console",
     "--proxy"): "test_private_clouds.py::test_options_alone_list_a_cloud_behind_a_proxy_and_an_authority",
    ("docs/private-clouds.md", "console",
     "--os-cloud"): "test_private_clouds.py::test_a_clouds_yaml_and_options_list_an_openstack",
    ("docs/private-clouds.md", "console", "--allow-http"): "test_private_clouds.py::test_plain_http_is_seen",
    ("docs/postgresql.md", "sh", "pip install"): "test_postgres.py::test_without_the_extra_the_store_says_which",
    ("docs/postgresql.md", "sh", "createdb"): "test_postgresql.py::test_a_database_is_made_as_its_page_says",
    ("docs/postgresql.md", "sh",
     "--refresh"): "test_postgresql.py::test_two_processes_list_a_source_once_and_one_revokes_for_both",
    ("docs/postgresql.md", "sh", "store copy"): "test_postgresql.py::test_a_file_moves_to_the_database_and_back",
    ("docs/postgresql.md", "sh", "pg_dump"): "test_postgresql.py::test_a_dump_is_restored",
    ("docs/postgresql.md", "sh", "pg_restore"): "test_postgresql.py::test_a_dump_is_restored",
    ("docs/assistants.md", "sh", "claude mcp"): "test_mcp.py::test_the_lines_of_the_page_name_the_same_command",
    ("docs/verify.md", "sh", ""): "test_verify.py::test_both_lists_agree_at_the_simulator",
    ("docs/apply.md", "sh", "apply -f"): "test_apply.py::test_the_file_of_the_docs",
    ("docs/apply.md", "console", "--watch"): "test_apply.py::test_watch_follows_the_file_and_its_secrets",
    ("docs/deploy.md", "console",
     "uvx"): "test_deploy.py::test_nothing_changes_before_it_is_applied_and_then_the_api_answers",
    ("docs/install.md", "sh", "pip wheel"): "test_install.py::test_the_page_builds_the_wheel",
    ("docs/install.md", "sh", "secrets/twocloud-key"): "test_container.py::test_its_parts_work_together",
    ("docs/install.md", "sh", "doctor"): "test_install.py::test_the_pages_check",
    ("docs/deploy.md", "console",
     "deploy-emulator"): "test_stack.py::test_make_deploy_emulators_line_works_as_pasted",
    ("docs/deploy.md", "sh", "stack_output"): "test_stack.py::test_the_pages_commands_work",
    ("CONTRIBUTING.md", "sh", "parties/newcloud"): "test_new_cloud.py::test_a_new_cloud_is_one_folder_and_make_docs",
    ("CONTRIBUTING.md", "sh", "-k newcloud"): "test_new_cloud.py::test_the_tests_of_all_clouds_pass_for_a_new_one",
    ("CONTRIBUTING.md", "sh",
     "make docs\npython"): "test_new_cloud.py::test_the_tests_of_all_clouds_pass_for_a_new_one",
}
NOT_RUN = {
    ("CONTRIBUTING.md", "sh", "make test"): "these run this test, among others; their names are held by test_docs.py",
    ("docs/install.md", "console", "docker build"): "needs Docker; test_container.py follows the Containerfile",
    ("docs/install.md", "console", "monitoring"): "needs Docker; test_container.py starts the parts by hand",
    ("docs/assistants.md", "console", "context add"): "the reader's own token; test_contexts.py runs the same command",
    ("docs/settings.md", "nginx", ""): "nginx need not be here; what its headers do is held by test_forwarding.py",
    ("docs/install.md", "console", "helm"): "needs a cluster; test_helm.py renders what these lines install",
    ("docs/install.md", "console", "systemctl"): "needs systemd and root; the unit's command is run by test_systemd.py",
    ("docs/deploy.md", "console", "aws "): "needs an AWS account",
    ("docs/api.md", "sh", "tc_…"): "the reader's own token; the blocks below it run with the tests'",
    ("docs/recipes.md", "sh", "tc_…"): "the reader's own token; the blocks below it run with the tests'",
    ("docs/spreadsheets.md", "sh", "tc_…"): "the reader's own token; the blocks below it run with the tests'",
    ("docs/spreadsheets.md", "sh", "soffice --headless"): "LibreOffice is large; it was run by hand",
    ("docs/console.md", "sh", "make run"): "what it starts is what test_the_readmes_first_answer_is_the_demos asks",
    ("docs/organisations.md", "console",
     ""): "az and gcloud need an account; the roles beside them are held by test_organisations.py",
    ("docs/watch.md", "sh", "jq"): "jq need not be here; the fields that it reads are held by test_watch.py",
    ("docs/private-clouds.md", "console", "openssl"): "needs a cloud with an authority of its own",
    ("docs/private-clouds.md", "console", "aws lambda"): "needs an AWS account",
    ("docs/keys.md", "console",
     ""): "the vendors' own commands need an account at each; the policies beside them are held by test_keys.py",
}


def examples() -> Iterator[tuple[Path, str, str]]:
    for page in DOCUMENTS:
        for kind, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            yield page, kind, text


def rule_of(page: Path, kind: str, text: str) -> tuple[str, str, str] | None:
    """The longest that fits."""
    fits = [rule for rule in (*RUN, *NOT_RUN) if rule[:2] == (page.relative_to(ROOT).as_posix(), kind)
            and rule[2] in text]
    return max(fits, key=lambda rule: len(rule[2]), default=None)


def test_every_example_is_run_or_says_why_not() -> None:
    used = set()
    for page, kind, text in examples():
        if kind in ("json", "yaml", "ini", "text", ""):         # parsed below; nothing to run
            continue
        rule = rule_of(page, kind, text)
        assert rule, f"{page.name}: name the test that runs this, or why none does:\n{text}"
        used.add(rule)
    assert used == {*RUN, *NOT_RUN}
    assert not RUN.keys() & NOT_RUN.keys()
    for test in RUN.values():
        file, name = test.split("::")
        assert f"def {name}(" in next((ROOT / "tests").rglob(Path(file).name)).read_text(), test


def test_what_is_written_as_json_yaml_or_ini_is_that() -> None:
    for page, kind, text in examples():
        if kind == "json":
            json.loads(re.sub(r",\s*…\s*\]", "]", text))
        elif kind == "yaml":
            assert isinstance(yaml.safe_load(text), dict), page.name
        elif kind == "ini":
            configparser.ConfigParser().read_string(text)


# ---------------------------------------------------------------- the clients of docs/api.md

def client(kind: str, holds: str = "") -> str:
    (example,) = (text for page, language, text in examples()
                  if page.name == "api.md" and language == kind and holds in text)
    return example


@pytest.fixture
def half(served: App) -> App:
    """One of the two clouds is down from the start."""
    served.clouds["aws"].fail("503")
    return served


def test_the_client_in_curl(half: App, tmp_path: Path) -> None:
    done = bash(client("sh", "while ["), tmp_path, URL=half.url, TWOCLOUD_TOKEN=half.token)
    assert done.returncode == 0, done.stderr
    *servers, failed, status, refused = done.stdout.splitlines()
    assert len({json.loads(line)["instance_id"] for line in servers}) == 25
    assert json.loads(failed)["party"] == "aws"
    # whether curl makes an empty file depends on its version
    unchanged = tmp_path / "unchanged.json"
    assert status == "304"
    assert (not unchanged.exists() or unchanged.read_bytes() == b"")
    assert len(json.loads((tmp_path / "servers.json").read_bytes())["vm_servers"]) == 25
    assert json.loads(refused.split("curl ended")[0])["error"] == "forbidden"
    assert refused.endswith("curl ended with 22")


def test_the_client_in_python(half: App, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(client("python"))
    shown = subprocess.run([sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                           check=True,
                           env={**os.environ, "URL": half.url, "TWOCLOUD_TOKEN": half.token}).stdout
    sizes, fleet, again, refused = shown.splitlines()
    assert sizes == "[10, 10, 5]"
    assert fleet == "False [('aws', 'party_unavailable')]"
    assert again == "304"
    assert re.fullmatch(r"403 forbidden: .* \(request [0-9a-f-]{36}\)", refused)


def test_the_client_in_python_waits_as_it_is_told(served: App, tmp_path: Path) -> None:
    """The party has no room for two calls: the API says Retry-After once, and the client comes again."""
    served.clouds["qcloud"].fail("throttle", None, (1, 2))
    script = re.sub(r"\nfleet = .*", "", client("python"),
                    flags=re.DOTALL).replace("time.sleep(", "print('told', ") + "\n"
    (tmp_path / "client.py").write_text(script)
    shown = subprocess.run([sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                           check=True,
                           env={**os.environ, "URL": served.url, "TWOCLOUD_TOKEN": served.token}).stdout
    assert re.fullmatch(r"told \d+\n\[10, 10, 5\]\n", shown), shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_client_in_go(half: App, tmp_path: Path) -> None:
    own = ROOT / ".tools/go/bin/go"
    program = str(own) if own.exists() else shutil.which("go")
    if not program:
        warnings.warn("The client in Go is not tried: `make test` installs Go into .tools/go", stacklevel=1)
        pytest.skip("run `make test`, which installs Go")
    (tmp_path / "main.go").write_text(client("go"))
    # of the standard library, compiled by `make test`: minutes
    cache = ROOT / ".tools/go/cache"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GOTOOLCHAIN": "local", "GOPROXY": "off",
                   "CGO_ENABLED": "0",
                   "GOCACHE": str(cache if own.exists() else tmp_path / "cache"), "URL": half.url,
                   "TWOCLOUD_TOKEN": half.token}

    def go(*words: str) -> str:
        return subprocess.run([program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=300, check=True).stdout

    go("vet", "main.go")
    *numbers, complete, failed, unchanged, refused = go("run", "main.go").splitlines()
    assert numbers == ["10", "10", "5"]
    assert complete == "false"
    assert failed == "aws party_unavailable"
    assert unchanged == "true"
    assert re.fullmatch(r"403 forbidden: .* \(request [0-9a-f-]{36}\)", refused)


# ---------------------------------------------------------------- the keys page, the Chinese page, the picture

def test_a_key_is_handed_over(app: App, tmp_path: Path) -> None:
    """As it stands, with a program in place of the editor and a simulator in place of the cloud."""
    cloud = app.clouds["qcloud"]
    (script,) = (text for page, kind, text in examples() if page.name == "keys.md" and kind == "sh")
    keys = {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}       # type: ignore[attr-defined]
    (tmp_path / "typed.secret").write_text(json.dumps(keys))
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\ncp {tmp_path}/typed.secret \"$1\"\n")
    editor.chmod(0o755)
    script = script.replace("123 qcloud --region", f"123 qcloud --endpoint {cloud.url} --region")
    script = script.replace("twocloud account check", "stat -c %a keys.json; twocloud account check")
    done = bash(script, tmp_path, TWOCLOUD_LOCAL="1", EDITOR=str(editor))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("600\n")
    assert "ok" in done.stdout
    assert not (tmp_path / "keys.json").exists()


def test_the_chinese_page_is_in_step() -> None:
    """The same headings, blocks, promises, parties and links; the English one is what is tried."""
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))

    def shape(text: str) -> dict[str, Any]:
        return {"headings": re.findall(r"^#+ ", text, re.M), "blocks": re.findall(r"```.*?```", text, re.DOTALL),
                "promises": re.findall(r"^\| (P\d+) ", text, re.M), "made": re.findall(r"<!-- (\w+) -->", text),
                "parties": re.findall(r"^\| `(\w+)` \| (\S.*?) \|", block("names", text)[1], re.M),
                "links": sorted({re.sub(r"/\w+\.png$", "/picture", link)
                                 for link in re.findall(r"\]\((?!README)([^)]+)\)", text)})}

    assert shape(english) == shape(chinese)
    assert "](README.zh.md)" in english
    assert "](README.md)" in chinese
    assert len(re.findall(r"[一-鿿]", chinese)) > 900


@pytest.mark.slow
def test_the_picture_is_of_todays_program() -> None:
    if not shutil.which("jq"):
        warnings.warn("The picture in the README is not held against the program: there is no jq on this machine",
                      stacklevel=1)
        pytest.skip("no jq on this machine")
    from tests import picture

    assert picture.draw() == picture.PATH.read_text(), "run: make docs"
    assert len(picture.PATH.read_bytes()) < 60_000
    assert not re.search(r"href|url\((?!#)|@import|<script", picture.PATH.read_text())          # nothing is fetched


def test_what_the_comparison_calls_measured_is() -> None:
    match = re.search(r"takes ([\d.]+) of Libcloud's time and ([\d.]+) of its memory",
                      (ROOT / "docs/compare.md").read_text().replace("\n", " "))
    matches = re.findall(r"^\| 5,000 EC2 servers, (?:wall time|peak memory), ours / Libcloud.*? \| ([\d.]+) \|",
                         (ROOT / "docs/benchmarks.md").read_text(), re.M)
    assert match
    assert list(match.groups()) == matches
