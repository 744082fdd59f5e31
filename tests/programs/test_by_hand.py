"""curl, HTTPie, wget, requests, fetch, pandas, Terraform and generated SDKs: the lines of the docs as they stand."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chalicelib.simulators.fleet import Machines
from tests.fixtures import GZ, App
from tests.programs import MISSING, ROOT, VENV, block, blocks, program, run
from tests.programs.test_ansible import machine
from tests.unit.test_formats import HOSTILE

LINES = [line for document in ("README.md", "docs/api.md", "docs/recipes.md") for text in blocks(document, "sh")
         for line in text.replace("\\\n", "").splitlines() if re.match(r"(curl|http|wget) .*/servers", line)
         and "&f=" not in line and "format=" not in line]


def there(app: App, token: str | None = None) -> dict[str, str]:
    return {"URL": app.url, "TWOCLOUD_TOKEN": app.token if token is None else token}


@pytest.mark.parametrize("line", dict.fromkeys(LINES))
def test_lines_of_the_docs(served: App, tmp_path: Path, line: str) -> None:
    """A list with the token, an exit that is not 0 with a wrong one; nothing is asked for at a terminal."""
    program(line.split()[0])
    line = re.sub(r"http://127\.0\.0\.1:80[08]0", served.url, line)
    done = run(["bash", "-euc", line], tmp_path, there(served))
    if "> servers.json" in line:
        done.stdout = (tmp_path / "servers.json").read_text()
    body = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert body["code"] == 200, done.stderr
    assert "changed_since" in line or body["vm_servers"], done.stderr
    refused = run(["bash", "-euc", line], tmp_path, there(served, "tc_wrong"))
    assert refused.returncode == {"curl": 22, "http": 4, "wget": 6}[line.split()[0]], refused
    assert not refused.stdout or "vm_servers" not in json.loads(refused.stdout)


def test_there_is_a_line_for_each_program() -> None:
    assert {line.split()[0] for line in LINES} == {"curl", "http", "wget"}
    assert len(set(LINES)) > 5


def test_what_the_docs_say_of_exits(served: App, tmp_path: Path) -> None:
    served.clouds["qcloud"].fail("reset")
    url = f'"$URL/twocloud/servers?{GZ}&on_error=fail"'
    done = run(["bash", "-euc", f'curl -sS --fail-with-body -u "$TWOCLOUD_TOKEN:" {url}'], tmp_path, there(served))
    assert done.returncode == 22
    assert json.loads(done.stdout)["error"] == "party_unavailable"
    program("http")
    done = run(["bash", "-euc", f'http --ignore-stdin --check-status -a "$TWOCLOUD_TOKEN:" {url}'], tmp_path,
               there(served))
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"] == "party_unavailable"
    served.clouds["qcloud"].forget()
    (tmp_path / "netrc.secret").write_text(f"machine 127.0.0.1 login {served.token} password x\n")
    done = run(["bash", "-euc", f'curl -sf --compressed --netrc-file netrc.secret "$URL/twocloud/servers?{GZ}"'],
               tmp_path, there(served))
    assert len(json.loads(done.stdout)["vm_servers"]) == 25


@pytest.mark.parametrize(("language", "holds", "command"), [
    ("python", "import requests", ["python", "-c"]), ("js", "await fetch", ["node", "--input-type=module", "-e"])],
                         ids=["requests", "node"])
def test_programs_of_the_docs(served: App, tmp_path: Path, language: str, holds: str, command: list[str]) -> None:
    if command[0] == "python":
        _installed("requests")
    program(command[0])
    text = block("recipes.md", language, holds)
    done = run([*command, text], tmp_path, there(served))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 25, done.stderr
    refused = run([*command, text], tmp_path, there(served, "tc_wrong"))
    assert refused.returncode == 1
    assert "Credentials missing or not valid" in refused.stderr
    assert "request id " in refused.stderr
    assert not refused.stdout


@pytest.mark.slow
def test_pandas(served: App, tmp_path: Path) -> None:
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(                      # type: ignore[attr-defined]
        [machine(0, "007"), machine(1, "1e5"), machine(2, "NA"), machine(3, "x", state="stopped")])
    _installed("pandas")
    text = block("recipes.md", "python", "import pandas").replace("party=all",
                                                                  "party=qcloud").replace("region=all", "region=gz")
    done = run(
        ["python", "-c",
         f"{text}\nprint(list(fleet.instance_name), fleet.tenant_id[0] == '123', fleet.create_at.dtype)"], tmp_path,
        there(served))
    assert done.returncode == 0, done.stderr
    assert "['007', '1e5', 'NA', 'x'] True datetime64" in done.stdout, done.stdout
    assert re.search(r"qcloud\s+ACTIVE\s+3\s+24\n\s+SHUTOFF\s+1\s+8", done.stdout), done.stdout
    refused = run(["python", "-c", text], tmp_path, there(served, "tc_wrong"))
    assert refused.returncode == 1
    assert "HTTP Error 401" in refused.stderr


def _installed(package: str) -> None:
    if not list(VENV.glob(f"lib/python*/site-packages/{package}")):
        pytest.skip(f"{MISSING}{package}")


def test_terraform_reads_it(served: App, tmp_path: Path) -> None:
    program("terraform")
    done = run(["bash", "-euo", "pipefail", "-c", block("recipes.md", "sh", "terraform")], tmp_path,
               {**there(served), "CHECKPOINT_DISABLE": "1"})
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r'"ins-\w{8}"', done.stdout)) == 25
    assert "null" not in done.stdout
    (tmp_path / "servers.json").unlink()
    refused = run(["bash", "-euo", "pipefail", "-c", block("recipes.md", "sh", "terraform")], tmp_path,
                  there(served, "tc_wrong"))
    assert refused.returncode == 22
    assert not refused.stdout


def test_the_table_of_the_spreadsheet_page(served: App, tmp_path: Path) -> None:
    """With hostile names; while a cloud is off; past the age of the stale snapshot there is no file at all."""
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(                      # type: ignore[attr-defined]
        [machine(number, name.replace("\x00", "")) for number, name in enumerate(HOSTILE)])
    plain, headers = (text.replace("party=all", "party=qcloud").replace("region=all", "region=gz")
                      for text in blocks("docs/spreadsheets.md", "sh") if "servers.csv \"" in text)
    done = run(["bash", "-euc", plain], tmp_path, there(served))
    first = (tmp_path / "servers.csv").read_bytes()
    rows = list(csv.DictReader(io.StringIO(first.decode(), newline=""), strict=True))
    assert done.returncode == 0
    assert len(rows) == len(HOSTILE)
    assert b"\r\n" in first
    assert not any(cell[:1] in tuple("=+-@\t\r\n＝＋－＠") for row in rows for cell in row.values() if cell)
    served.clouds["qcloud"].fail("reset")
    done = run(["bash", "-euc", headers], tmp_path, there(served))
    lines = block("spreadsheets.md", "text", "Cache-Status").splitlines()
    assert (tmp_path / "servers.csv").read_bytes() == first, done.stdout
    assert lines[1] in done.stdout.splitlines(), done.stdout
    assert "Age: 0" in done.stdout, done.stdout
    (tmp_path / "servers.csv").unlink()
    done = run(["bash", "-euc", plain.replace("format=csv", "format=csv&on_error=fail")], tmp_path, there(served))
    assert done.returncode == 22
    assert not (tmp_path / "servers.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("generator", [
    "openapi-python-client", pytest.param("openapi-generator", marks=pytest.mark.slow)])
def test_generated_sdks(served: App, tmp_path: Path, generator: str) -> None:
    """Made from what serve gives, without a warning that something is left out, and used: a list, an error, full
    records, a token."""
    for name in ("java", "openapi-generator-cli") if generator == "openapi-generator" else (generator,):
        program(name)
    document, *commands = block("recipes.md", "sh", "openapi.json").splitlines()
    command = next(line for line in commands if line.startswith(f"{generator}-cli " if generator == "openapi-generator"
                                                                else f"{generator} "))
    made = run(["bash", "-euc", f"{document}\n{command}"], tmp_path, there(served))
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr
    assert "Warning(s) encountered" not in made.stdout + made.stderr, made.stdout[-3000:] + made.stderr
    program_text = block("recipes.md", "python", f"# {generator}\n")
    served.user("bob", password="password")
    paths = {"PYTHONPATH": str(tmp_path / "openapi_out"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(["python", "-c", program_text + MORE[generator]], tmp_path, {**there(served), **paths})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first = served.get(GZ).json()["vm_servers"][0]["instance_name"]
    assert lines[0] == f"25 {first}"
    assert re.fullmatch(r"400 invalid_parameter \S.* [0-9a-f-]{36}", lines[1])
    assert lines[2:] == ["qcloud ap-guangzhou", "401 unauthorized", "200 True"]


# a full record, a wrong token, a token with the user's password
MORE = {
    "openapi-python-client": """
from fleet_client.api.tokens import issue_token
from fleet_client.models import TokenRequest
found = list_servers.sync(client=client, party="qcloud,aws", tenant_id="123", region="all", max_age=60)
full = next(row for row in found.vm_servers if row.party == "qcloud")
print(full.party.value, full.region)
wrong = AuthenticatedClient(base_url=os.environ["URL"], token="tc_wrong")
refused = list_servers.sync(client=wrong, party="qcloud", tenant_id="123", region="gz")
print(refused.code, refused.error)
password = base64.b64encode(b"bob:password").decode()
login = AuthenticatedClient(base_url=os.environ["URL"], token=password, prefix="Basic")
issued = issue_token.sync(client=login, body=TokenRequest(duration=60))
print(issued.code, issued.token.startswith("tc_"))
""",
    "openapi-generator": """
from openapi_client import TokensApi, TokenRequest
from openapi_client.exceptions import UnauthorizedException
found = servers.list_servers("qcloud,aws", "123", "all", max_age=60).actual_instance
full = next(row.actual_instance for row in found.vm_servers if row.actual_instance.party == "qcloud")
print(full.party, full.region)
try:
    wrong = Configuration(host=os.environ["URL"], username="tc_wrong", password="")
    ServersApi(ApiClient(wrong)).list_servers("qcloud", "123", "gz")
except UnauthorizedException as refusal:
    print(refusal.data.code, refusal.data.error)
login = TokensApi(ApiClient(Configuration(host=os.environ["URL"], username="bob", password="password")))
issued = login.issue_token(TokenRequest(duration=60))
print(issued.code, issued.token.startswith("tc_"))
""",
}


@pytest.mark.slow
def test_a_program_that_is_not_here_is_named_at_the_end(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider",
                           f"--basetemp={tmp_path}/x", f"{__file__}::test_terraform_reads_it"],
                          cwd=ROOT, env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, capture_output=True, text=True,
                          timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"=+ tests skipped, and why =+\nnot on this machine: terraform\n", done.stdout), done.stdout
