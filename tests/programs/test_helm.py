"""The Helm chart: Helm itself renders it, Kubernetes' own schemas check what comes out, and what its pods run is run.

No cluster is here, so nothing was installed into one: docs/limits.md says so.
"""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from chalicelib import __version__, cli, settings
from chalicelib.access import declared
from chalicelib.cli.applying import apply
from chalicelib.cli.serving import serve
from chalicelib.http import api
from tests import canaries
from tests.fixtures import App
from tests.programs import MISSING, ROOT, block
from tests.programs.test_container import image

CHART = ROOT / "deploy/helm/twocloud"
BIN = ROOT / ".tools/manifests/bin"
SMALL: dict[str, Any] = {"image": {"repository": "registry.example.org/twocloud"}, "key": {"secret": "twocloud"}}
ACCOUNTS = [{"tenant": "123", "party": "qcloud", "regions": ["gz", "ap-shanghai"], "secret": "qcloud-key"},
            {"tenant": "123", "party": "qcloud", "account": "lab", "secret": "lab-key", "entry": "lab.json"}]
USERS = {"ann+ci@example.com": {"tenants": ["123"], "secret": "ann"}, "bob": {"tenants": ["*"], "disabled": True}}
LARGE: dict[str, Any] = {
    "image": {"repository": "registry.example.org/twocloud", "digest": f"sha256:{'0' * 64}", "pullSecrets": [
        {"name": "registry"}]},
    "key": {"secret": "twocloud", "entry": "seal"}, "replicas": 3, "accounts": ACCOUNTS,
    "users": USERS, "apply": {"prune": True},
    "postgresql": {"url": "postgresql://twocloud@db.example.org/twocloud?sslmode=verify-full", "secret": "db"},
    "settings": {"TWOCLOUD_MAX_AGE": "60", "TWOCLOUD_TIMEZONE": "Asia/Shanghai"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}, "podAnnotations": {"c": "d"},
    "serviceMonitor": {"enabled": True, "secret": "metrics", "labels": {"release": "prometheus"}},
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {"matchLabels": {"name": "web"}}}]},
    "nodeSelector": {"kubernetes.io/arch": "arm64"}, "tolerations": [{"key": "x", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname"}]}}}


def helm(*words: str | Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    program = BIN / "helm"
    try:
        return subprocess.run([program, *words, CHART, "--values", "-"], input=json.dumps(values), text=True,
                              capture_output=True, timeout=100, env={"PATH": os.environ["PATH"], "HOME": "/nowhere"})
    except OSError:
        pytest.skip(f"{MISSING}helm (make .tools/manifests/ready; Linux on x86-64 only)")


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind -> the object."""
    done = helm("template", "twocloud", "--namespace", "fleet", values=values)
    assert done.returncode == 0, done.stderr
    objects = [it for it in yaml.safe_load_all(done.stdout) if it]
    assert len({it["kind"] for it in objects}) == len(objects)
    return {it["kind"]: it for it in objects}


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", [SMALL, LARGE], ids=["small", "large"])
def test_helm_finds_no_fault_in_it(values: dict[str, Any]) -> None:
    done = helm("lint", "--strict", values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("values", "kinds"), [
    (SMALL, {"Deployment", "Service", "PersistentVolumeClaim"}),
    (LARGE, {"Deployment", "Service", "PodDisruptionBudget", "ServiceMonitor", "NetworkPolicy", "ConfigMap"})],
    ids=["small", "large"])
def test_kubernetes_schemas_accept_what_it_makes(values: dict[str, Any], kinds: set[str], tmp_path: Path) -> None:
    objects = rendered(values)
    assert objects.keys() == kinds
    monitor = objects.pop("ServiceMonitor", None)               # not Kubernetes' own; its operator's form
    if monitor:
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["path"] == "/twocloud/metrics"
        assert endpoint["path"] in api.ROUTES
        assert endpoint["authorization"]["credentials"] == {"name": "metrics", "key": "token"}
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
    for kind, it in objects.items():
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(it))
    check = [BIN / "kubernetes-validate", "--strict"]
    done = subprocess.run([*check, *sorted(tmp_path.glob("*.yaml"))], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystm"] = True
    (tmp_path / "Deployment.yaml").write_text(yaml.safe_dump(objects["Deployment"]))
    assert subprocess.run([*check, tmp_path / "Deployment.yaml"], capture_output=True, timeout=100).returncode != 0


def test_its_selectors_and_ports_meet() -> None:
    objects = rendered(LARGE)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [objects["Service"]["spec"]["selector"],
                 *(objects[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")),
                 objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= objects["Service"]["metadata"][
        "labels"].items()
    container = pod(objects)["containers"][0]
    assert [port["name"] for port in container["ports"]] == ["http"]
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert [str(container["ports"][0]["containerPort"])] == image("EXPOSE")


@pytest.mark.parametrize("values", [SMALL, LARGE], ids=["small", "large"])
def test_its_pods_have_no_rights(values: dict[str, Any]) -> None:
    spec = pod(rendered(values))
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    user, group = map(int, image("USER")[0].split(":"))
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (user, group)
    assert spec["terminationGracePeriodSeconds"] > 25           # a request under way may take that long
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts.keys() <= {volume["name"] for volume in spec["volumes"]}
        assert mounts["key"]["readOnly"]
    assert "db" not in {volume.get("secret", {}).get("secretName") for volume in spec["volumes"]}


def test_what_it_runs_is_the_program() -> None:
    spec = pod(rendered(LARGE))
    container = spec["containers"][0]
    name, *options = container["args"]
    assert name == "serve"
    with click.Context(serve, help_option_names=cli.twocloud.context_settings["help_option_names"]) as context:
        serve.parse_args(context, options)
        assert context.params["port"] == container["ports"][0]["containerPort"]
    named = {entry["name"] for entry in container["env"]}
    assert named - {"PGPASSWORD"} <= set(settings.SETTINGS)
    assert {"TWOCLOUD_STORE", "TWOCLOUD_KEY", "TWOCLOUD_MAX_AGE", "PGPASSWORD"} <= named
    assert container["startupProbe"]["httpGet"]["path"] in api.OPEN_ROUTES
    assert container["readinessProbe"]["httpGet"]["path"] in api.OPEN_ROUTES
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


@pytest.mark.parametrize(("change", "text"), [
    ({"replicas": 2}, "several replicas need one store: set postgresql.url"),
    ({"image": {}}, "image.repository: name the image"),
    ({"key": {}}, "key.secret: name the Secret"),
    ({"serviceMonitor": {"enabled": True}}, "serviceMonitor.secret"),
    ({"replica": 2}, "'replica' not allowed"),
    ({"settings": {"PASSWORD": "x"}}, "invalid propertyName 'PASSWORD'"),
    ({"apply": {"watch": "often"}}, "does not match pattern"),
    ({"users": {"ann": {"password": "x"}}}, "'password' not allowed"),
    ({"accounts": [{"tenant": "a b", "party": "aws", "secret": "x"}]}, "does not match pattern"),
    ({"postgresql": {"url": "mysql://x"}}, "does not match pattern")])
def test_wrong_values_are_refused_with_a_sentence(change: dict[str, Any], text: str) -> None:
    done = helm("template", "twocloud", values={**SMALL, **change})
    assert done.returncode != 0
    assert text in done.stderr


def declaration(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return json.loads(objects["ConfigMap"]["data"]["fleet.json"])


def test_it_declares_accounts_and_users_and_mounts_what_they_name() -> None:
    objects = rendered(LARGE)
    made, spec = declaration(objects), pod(objects)
    assert [(it["party"], it.get("account"), it.get("regions")) for it in made["tenants"]["123"]] == [
        ("qcloud", None, ["gz", "ap-shanghai"]), ("qcloud", "lab", None)]
    assert made["users"]["bob"] == {"tenants": ["*"], "disabled": True}
    jsonschema.validate(made, json.loads(declared.schema()))
    sources = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    files = [it["credentials"]["file"] for it in made["tenants"]["123"]]
    files.append(made["users"]["ann+ci@example.com"]["password"]["file"])
    expected = [("qcloud-key", "keys.json"), ("lab-key", "lab.json"), ("ann", "password")]
    (first,), (_, watching) = spec["initContainers"], spec["containers"]
    for container in (first, watching):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts["/etc/twocloud"] == "fleet"
        for file, (secret, entry) in zip(files, expected, strict=True):
            folder, _, name = file.rpartition("/")
            source = sources[mounts[folder]]
            assert (source["secretName"], source["items"]) == (secret, [{"key": entry, "path": name}])
    assert not any("subPath" in mount for mount in watching["volumeMounts"])    # it would never change
    assert watching["args"] == [*first["args"], "--watch", "30s"]
    assert "--prune" in first["args"]
    command, *options = watching["args"]
    with click.Context(apply) as context:
        apply.parse_args(context, options)
    assert command == "apply"


def test_a_pod_never_takes_one_secret_for_another() -> None:
    """A running pod may see a newer declaration than it has mounts: places are named by what is in them."""
    def places(accounts: list[dict[str, Any]]) -> dict[str, str]:
        return {it.get("account", "default"): it["credentials"]["file"]
                for it in declaration(rendered({**SMALL, "accounts": accounts}))["tenants"]["123"]}

    both, one = places(ACCOUNTS), places(ACCOUNTS[1:])
    assert one["lab"] == both["lab"] != both["default"]
    same = [{**ACCOUNTS[0], "account": "again"}, ACCOUNTS[0]]
    assert len(set(places(same).values())) == 1
    assert rendered({**SMALL, "accounts": same})


def test_without_a_watch_a_new_declaration_starts_the_pods_again() -> None:
    def template(**changes: Any) -> dict[str, Any]:
        objects = rendered({**SMALL, "accounts": ACCOUNTS, "apply": {"watch": ""}, **changes})
        assert len(pod(objects)["containers"]) == 1
        return objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    assert template()["twocloud/fleet"] != template(users={"ann": {}})["twocloud/fleet"]
    assert template(podAnnotations={"a": "b"})["a"] == "b"


@pytest.mark.slow
def test_its_init_container_stores_accounts_and_rotates_them_later(app: App, tmp_path: Path) -> None:
    """The rendered words as they stand, except for where things are mounted. A wrong file stops the pod."""
    objects = rendered({**SMALL, "accounts": ACCOUNTS[:1], "users": USERS})
    (container,) = pod(objects)["initContainers"]
    (key, secret) = app.clouds["qcloud"].keys.popitem()       # type: ignore[attr-defined]
    app.clouds["qcloud"].keys[key] = secret                   # type: ignore[attr-defined]
    made = declaration(objects)
    account, ann = made["tenants"]["123"][0]["credentials"], made["users"]["ann+ci@example.com"]["password"]
    account["file"], ann["file"] = "keys.secret", "ann.secret"
    file = tmp_path / "keys.secret"
    file.write_text(json.dumps({"secret_id": key, "secret_key": secret}))
    (tmp_path / "ann.secret").write_text(canaries.secret("ann"))
    (tmp_path / "fleet.json").write_text(json.dumps(made))
    words = ["twocloud", *(word.replace("/etc/twocloud", str(tmp_path)) for word in container["args"])]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path),
                   "TWOCLOUD_STORE": f"sqlite:///{tmp_path}/twocloud.db", "TWOCLOUD_KEY": f"file:{tmp_path}/key"}

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    def stored() -> dict[str, Any]:
        (account,) = json.loads(run(["twocloud", "account", "list", "-o", "json"]).stdout)
        return account

    first = run(words)
    assert first.returncode == 0, first.stderr
    before = stored()
    assert set(before["regions"]) == {"ap-guangzhou", "ap-shanghai"}
    assert "3 unchanged" in run(words).stderr
    file.write_text(json.dumps({"secret_id": key, "secret_key": canaries.secret("next")}))
    again = run(words)
    assert again.stdout.startswith("~ change account 123 qcloud (credentials)"), again.stderr
    assert stored()["regions"] == before["regions"]
    file.write_text("{}")
    assert run(words).returncode == 2
    assert stored()["regions"] == before["regions"]
    file.unlink()
    (tmp_path / "ann.secret").unlink()


def test_the_page_installs_what_the_chart_has() -> None:
    page = block("install.md", "console", "helm install")
    (line,) = [it for it in page.replace("\\\n", "").splitlines() if "helm install" in it]
    words = shlex.split(line.removeprefix("$ "))
    options = [word for name, word in pairwise(words) if name == "--set"]
    values: dict[str, Any] = {}
    for part in options:
        name, _, value = part.partition("=")
        section, _, entry = name.partition(".")
        values.setdefault(section, {})[entry] = value
    assert (ROOT / words[words.index("install") + 2]).resolve() == CHART
    assert rendered(values)
    assert f"--from-file={values['key'].get('entry', 'key')}" in page
