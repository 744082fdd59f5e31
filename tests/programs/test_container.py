"""The Containerfile and compose.yaml: the image is made line by line and run, the composition's parts are started by
hand, and every file, command, option, setting and port that they name exists.

No image can be pulled here, so nothing runs in Docker or Podman: docs/limits.md says so.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import requests
import yaml

from chalicelib import cli, settings
from chalicelib.cli.applying import apply
from chalicelib.cli.serving import serve
from tests import canaries
from tests.container import instructions
from tests.postgres import Postgres
from tests.programs import MISSING, ROOT, block, run

CONTAINERFILE = ROOT / "Containerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
TWOCLOUD = COMPOSE["services"]["twocloud"]


def image(word: str) -> list[str]:
    return [rest for name, rest in instructions(CONTAINERFILE.read_text()) if name == word]


# ---------------------------------------------------------------- the image

@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_image_is_built_and_runs_read_only_as_nobody() -> None:
    if os.geteuid():
        pytest.skip(f"{MISSING}root, who may mount what the Containerfile's lines write to")
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w /mnt/m && mount -t "
             "overlay overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, timeout=60).returncode:
        pytest.skip(f"{MISSING}overlay file systems")
    done = subprocess.run(["unshare", "--mount", sys.executable, "-m", "tests.container"], cwd=ROOT, text=True,
                          capture_output=True, timeout=500)
    if "No matching distribution" in done.stderr or "NewConnectionError" in done.stderr:
        pytest.skip(f"{MISSING}a package index, to build the image from")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["health"]["status"] == "ok"
    assert (report["healthy"], report["unhealthy"], report["exit"]) == (0, 1, 0)
    assert report["user"] != 0
    assert "Read-only file system" in report["touch"]
    assert "No module named pip" in report["pip"]
    assert report["psycopg"] == ""            # every extra is in it
    assert {"key", "twocloud.db"} <= set(report["files"])
    assert {it["check"]: it["state"] for it in json.loads(report["doctor"])}["store"] == "ok"


def test_the_images_command_is_the_programs() -> None:
    (command,), (entry,) = image("CMD"), image("ENTRYPOINT")
    assert json.loads(entry) == ["twocloud"]
    name, *options = json.loads(command)
    assert name == "serve"
    with click.Context(serve, help_option_names=cli.twocloud.context_settings["help_option_names"]) as context:
        serve.parse_args(context, options)
        assert str(context.params["port"]) in image("EXPOSE")
        assert f":{context.params['port']}/twocloud/health" in image("HEALTHCHECK")[0]
    named = {part.partition("=")[0] for rest in image("ENV") for part in shlex.split(rest)}
    assert {name for name in named if name.startswith("TWOCLOUD_")} <= set(settings.SETTINGS)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image("USER")[0])


def test_it_installs_nothing_without_a_hash() -> None:
    installs = re.findall(r"\bpip\b[^&]*? install [^&]*", " ".join(image("RUN")))
    assert len(installs) == 3
    for line in installs:
        assert ("--require-hashes" in line and "--only-binary :all:" in line) or "--no-index --no-deps" in line, line
    for name in ("container", "build"):
        lock = (ROOT / f"requirements/{name}.txt").read_text()
        assert lock.count("==") <= lock.count("--hash=")
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/container.txt").read_text(), re.MULTILINE))
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/local.txt").read_text(), re.MULTILINE))
    assert versions.keys() >= tested.keys()
    assert {"psycopg", "pyyaml", "apache-libcloud"} <= versions.keys()


def test_the_context_holds_what_is_copied_and_no_secrets() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for rest in image("COPY") if not rest.startswith("--from") for name in shlex.split(rest)[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


# ---------------------------------------------------------------- the composition

def test_it_fits_the_schema_of_compose() -> None:
    schema = next((ROOT / ".tools/manifests").glob("lib/python3*/site-packages/compose/config/compose_spec.json"), None)
    if not schema:
        pytest.skip(f"{MISSING}the schema of Compose (make .tools/manifests/ready)")
    valid = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    assert [error.message for error in valid.iter_errors(COMPOSE)] == []
    assert list(valid.iter_errors({"services": {"twocloud": {**TWOCLOUD, "red_only": True}}}))


def test_what_it_names_is_there() -> None:
    services = COMPOSE["services"]
    assert (ROOT / TWOCLOUD["build"]["dockerfile"]).exists()
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source != "./fleet":         # which people make who declare accounts: docs/apply.md
                there = (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
                assert there, volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), service
    named = {name for name in TWOCLOUD["environment"] if name.startswith("TWOCLOUD_")}
    assert named <= set(settings.SETTINGS)
    assert TWOCLOUD["ports"][0].endswith(f":{image('EXPOSE')[0]}")
    scrape = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"twocloud:{image('EXPOSE')[0]}"]}]
    mounted = {volume.split(":")[1] for volume in services["prometheus"]["volumes"]}
    assert set(scrape["rule_files"]) <= mounted
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{services['prometheus']['secrets'][0]}"
    (source,) = yaml.safe_load((ROOT / "deploy/compose/datasource.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((ROOT / "deploy/compose/dashboards.yaml").read_text())["providers"]
    assert any(volume.split(":")[1].startswith(provider["options"]["path"])
               for volume in services["grafana"]["volumes"])


def test_what_follows_the_declaration_is_the_same_image_over_the_same_store() -> None:
    fleet = COMPOSE["services"]["fleet"]
    assert (fleet["image"], fleet["environment"]) == (TWOCLOUD["image"], TWOCLOUD["environment"])
    command, *options = fleet["command"]
    with click.Context(apply) as context:
        apply.parse_args(context, options)
        folder, _, _ = context.params["source"].rpartition("/")
        assert context.params["pause"]
    assert command == "apply"
    assert fleet["volumes"] == [f"./fleet:{folder}:ro"]         # a folder: a mounted file is never replaced
    assert "profiles" in fleet


def test_promtool_reads_its_configuration(tmp_path: Path) -> None:
    text = (ROOT / "deploy/compose/prometheus.yml").read_text()
    (tmp_path / "token").write_text("token")
    text = text.replace("/etc/prometheus/alerts.yaml", str(ROOT / "deploy/prometheus/alerts.yaml"))
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/metrics-token", str(tmp_path / "token")))
    done = run(["promtool", "check", "config", "prometheus.yml"], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_its_parts_work_together(tmp_path: Path) -> None:
    """The lines of the page make the key and the password; serve runs on a real PostgreSQL that demands it, with the
    image's command and compose.yaml's environment; its metrics answer the token as Prometheus sends it."""
    secret_lines = block("install.md", "sh", "secrets/twocloud-key").split("docker ")[0]
    done = run(["bash", "-euc", secret_lines], tmp_path)
    assert done.returncode == 0, done.stderr
    password = canaries.watch((tmp_path / ".env").read_text().strip().partition("POSTGRES_PASSWORD=")[2])
    assert len(password) >= 20
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    key = tmp_path / "secrets/twocloud-key"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    with Postgres() as database:
        database.run(f"ALTER USER twocloud PASSWORD '{password}'")
        (database.folder / "data/pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        environment = {"PGPASSWORD": password, "PATH": os.environ["PATH"], "HOME": "/"}
        subprocess.run([database.bin / "psql", "-c", "SELECT pg_reload_conf()", database.url], env=environment,
                       check=True, capture_output=True, timeout=60)
        key.chmod(0o600)                    # here no read-only mount stands before it
        # the name stays, or twocloud would take the database for one of this machine, where TLS is not asked for
        url = f"{TWOCLOUD['environment']['TWOCLOUD_STORE']}&hostaddr=127.0.0.1&port={database.port}"
        environment |= {"TWOCLOUD_STORE": url, "TWOCLOUD_KEY": f"file:{key}"}
        command = Path(sys.executable).with_name("twocloud")
        options = json.loads(image("CMD")[0])
        options[options.index("--port") + 1], options[options.index("--host") + 1] = "0", "127.0.0.1"
        process = subprocess.Popen([command, *options], cwd=tmp_path, env=environment, text=True,
                                   stderr=subprocess.PIPE)
        try:
            assert process.stderr
            address = re.search(r"http://[\d.:]+", process.stderr.readline())
            assert address
            for words in (["user", "add", "prometheus", "--tenant", "*"],
                          ["token", "issue", "--user", "prometheus", "--ttl", "365d"]):
                done = subprocess.run([command, *words], cwd=tmp_path, env=environment, text=True, capture_output=True,
                                      timeout=60)
                assert done.returncode == 0, done.stderr
            token = canaries.watch(done.stdout.strip())
            metrics = requests.get(f"{address[0]}/twocloud/metrics", timeout=60,
                                   headers={"Authorization": f"Bearer {token}"})
            assert metrics.status_code == 200, metrics.text
            wrong = subprocess.run([command, "user", "list"], cwd=tmp_path, text=True, capture_output=True, timeout=60,
                                   env={**environment, "PGPASSWORD": "wrong"})
            assert wrong.returncode != 0
        finally:
            process.terminate()
            process.communicate(timeout=60)
        key.unlink()
        (tmp_path / ".env").unlink()


def test_a_mounted_key_may_be_readable_by_all(tmp_path: Path) -> None:
    """As compose mounts it: read-only, and with the mode that the page gives it."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip(f"{MISSING}root, who may mount a key read-only")
    lines = block("install.md", "sh", "secrets/twocloud-key").split("docker ")[0]
    assert run(["bash", "-euc", lines], tmp_path).returncode == 0
    mounted = f"mount --bind {tmp_path}/secrets /mnt && mount -o remount,bind,ro /mnt && exec"
    code = "from chalicelib.access import sealing; sealing.open_sealer('file:/mnt/twocloud-key', make=False)"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", f'{mounted} "$0" "$@"', sys.executable, "-c", code],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
