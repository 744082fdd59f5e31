"""openstacksdk judges what we read in a clouds.yaml."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from chalicelib.parties.openstack import clouds_yaml
from tests.canaries import secret
from tests.programs.test_terminal import run_here as run

from ...errors import InvalidParameter
from .. import openstack

config = pytest.importorskip("openstack.config")
AUTH = {"auth_url": "https://keystone.example:5000/v3", "username": "ann", "project_name": "demo",
        "user_domain_name": "Firma Süd", "project_domain_name": "Default"}
FILE = """
x-shared: &shared
  region_name: Berlin
  interface: internal
clouds:
  plain:
    region_name: Berlin
    auth: {auth_url: "https://keystone.example:5000/v3", username: ann, password: SECRET, project_name: demo,
           user_domain_name: Firma Süd, project_domain_name: Default}
  merged:
    <<: *shared
    auth_type: password
    auth:
      auth_url: https://keystone.example/identity
      username: "ann"
      password: SECRET
      project_id: 0123456789abcdef0123456789abcdef
      user_domain_id: default
      project_domain_id: default
  credential:
    auth_type: v3applicationcredential
    interface: publicURL
    regions: [GRA11, {name: SBG5, values: {networks: []}}]
    auth: {auth_url: "https://auth.example/v3", application_credential_id: 5ac8, application_credential_secret: SECRET}
  beside:
    username: ann
    password: SECRET
    auth_url: https://keystone.example:5000
    tenant_name: demo
    endpoint_type: adminURL
  credential beside a user:
    auth: {auth_url: "https://auth.example/v3", application_credential_id: 5ac8, application_credential_secret: SECRET,
           user_domain_name: Default, project_domain_id: default}
    auth_type: v3applicationcredential
"""


@pytest.mark.parametrize("name", ["plain", "merged", "credential", "beside", "credential beside a user"])
def test_the_sdk_reads_the_same(name: str, tmp_path: Path) -> None:
    password = secret("clouds")
    file = tmp_path / "clouds.yaml"
    file.write_text(FILE.replace("SECRET", password))
    ours = clouds_yaml.read(file.read_text(), name)
    sdk = config.OpenStackConfig(config_files=[str(file)], secure_files=[], vendor_files=[], load_envvars=False,
                                 load_yaml_config=True)
    theirs = sdk.get_one(cloud=name).config
    file.unlink()
    auth: dict[str, Any] = theirs["auth"]
    mine = dict(ours.credentials)
    expected = {key: auth.get(key) for key in ("auth_url", "username", "password", "project_id", "project_name",
                                               "application_credential_id", "application_credential_secret")}
    domain = auth.get("user_domain_id") or auth.get("user_domain_name")
    assert {key: mine.get(key) for key in expected} == expected
    assert mine.get("user_domain") == (domain if "username" in mine else None)
    assert mine.get("interface", "public") == (theirs["interface"] or "public").removesuffix("URL")
    assert list(ours.regions) == [region["name"] for region in sdk._get_regions(name) if region["name"]]
    openstack.PARTY.examine and openstack.PARTY.examine(mine)


@pytest.mark.parametrize(("value", "text"), [
    ("007", "007"), ("1e3", "1e3"), ("0x1F", "0x1F"), ("no", "no"), ("2026-01-01", "2026-01-01"), ("1:30", "1:30"),
    ("'quo''ted'", "quo'ted"), ("\"a\\u00fc\"", "aü")])
def test_a_value_is_its_text(value: str, text: str) -> None:
    """Also where YAML would make a number, a date or a truth of an unquoted password."""
    auth = f"{{auth_url: 'https://k', username: ann, password: {value}}}"
    cloud = clouds_yaml.read(f"clouds: {{a: {{auth: {auth}}}}}", None)
    assert cloud.credentials["password"] == text


CLOUD = {"auth": {**AUTH, "password": "p"}}


def file_of(**clouds: Any) -> str:
    return json.dumps({"clouds": clouds})


def cloud_of(without: tuple[str, ...] = (), auth: dict[str, Any] = {}, **more: Any) -> str:
    fields = {key: value for key, value in CLOUD["auth"].items() if key not in without}
    return file_of(a={"auth": {**fields, **auth}, **more})


@pytest.mark.parametrize(("text", "name", "message"), [
    (file_of(a=CLOUD, b=CLOUD), None, "several clouds: a, b"),
    (file_of(a=CLOUD, b=CLOUD), "c", "no cloud of this name. It holds: a, b"),
    (file_of(a=CLOUD), "c", "no cloud of this name. It holds: a"),
    (file_of(), None, "no cloud below"), ("clouds: [a]", None, "no cloud below"), ("- a", None, "no cloud below"),
    ("", None, "no cloud below"), ("a: [", None, "YAML (line 1)"), ("a: 1\n---\nb: 2", None, "YAML (line 2)"),
    ("clouds: {a: !!python/object/apply:os.system ['true']}", None, "YAML"), ("[" * 3000, None, "YAML"),
    ("public-clouds: {a: {auth: {auth_url: x}}}", None, "clouds-public.yaml"),
    (file_of(a="text"), None, "must have fields"), (file_of(a={"auth": "text"}), None, "must have fields"),
    (cloud_of(("password",)), None, "secure.yaml"), (cloud_of(("username",)), None, "neither a username nor"),
    (cloud_of(("auth_url",)), None, "secure.yaml"), (cloud_of(("auth_url",), profile="ovh"), None, "of a vendor"),
    (cloud_of(("username",), {"user_id": "u"}), None, "username and user_domain_name"),
    (cloud_of(("username", "password"), {"application_credential_name": "n"}), None, "application_credential_id"),
    (cloud_of((), {"application_credential_id": "n"}), None, "application_credential_secret"),
    (cloud_of(auth_type="v3oidcpassword"), None, "auth_type"), (cloud_of(cert="/c.pem"), None, "client certificate")])
def test_what_cannot_be_used_says_what_to_do(text: str, name: str | None, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        clouds_yaml.read(text, name)
    assert message in refused.value.text


def test_the_command_takes_the_file(tmp_path: Path) -> None:
    """Its regions count if none is passed; what has no effect is said; nothing of the secret is shown."""
    password = secret("clouds")
    (tmp_path / "clouds.yaml").write_text(FILE.replace("SECRET", password))
    put = ("account", "put", "123", "openstack", "--credentials-file", "clouds.yaml")
    several, missing = run(tmp_path, *put), run(tmp_path, *put, "--os-cloud", "gone")
    assert "Choose one" in several.stderr
    assert "It holds: plain," in missing.stderr
    assert (several.returncode, missing.returncode) == (2, 2)
    done = run(tmp_path, *put, "--os-cloud", "credential")
    assert done.returncode == 0, done.stderr
    shown = json.loads(run(tmp_path, "account", "show", "123", "openstack", "-o", "json").stdout)
    assert shown["regions"] == ["GRA11", "SBG5"]
    again = run(tmp_path, *put, "--os-cloud", "merged", "--region", "Here", "--replace")
    assert again.returncode == 0, again.stderr
    shown = json.loads(run(tmp_path, "account", "show", "123", "openstack", "-o", "json").stdout)
    assert shown["regions"] == ["Here"]
    rotated = run(tmp_path, "account", "rotate", "123", "openstack", "--no-check", "--credentials-file", "clouds.yaml",
                  "--os-cloud", "plain")
    assert rotated.returncode == 0, rotated.stderr
    shown = json.loads(run(tmp_path, "account", "show", "123", "openstack", "-o", "json").stdout)
    assert shown["regions"] == ["Here"]
    for one in (several, missing, done, again, rotated):
        assert password not in one.stdout + one.stderr
    (tmp_path / "clouds.yaml").unlink()


@pytest.mark.parametrize(("arguments", "text", "code", "message"), [
    (("openstack",), cloud_of(cacert="/etc/ca.pem"), 2, "Pass that file with --ca-file"),
    (("openstack",), cloud_of(verify=False), 0, "always checks them"),
    (("openstack",), "clouds: {a: {verify: no, auth: {auth_url: 'https://k', username: a, password: p}}}", 0, "always"),
    (("openstack",), cloud_of(compute_endpoint_override="https://x"), 0, "pass `--endpoint`"),
    (("openstack",), cloud_of(interface="secret"), 2, "must be one of public, internal, admin"),
    (("openstack",), cloud_of(auth={"auth_url": "http://keystone.example"}), 2, "--allow-http"),
    (("openstack", "--os-cloud", "a"), json.dumps({"auth_url": "https://k"}), 2, "JSON object"),
    (("qcloud", "--os-cloud", "a"), cloud_of(), 2, "openstack alone"), (("qcloud",), "clouds: {}", 2, "JSON object"),
    (("openstack",), "{\"auth_url\": ", 2, "not one JSON object")])
def test_options_and_files_that_do_not_fit(arguments: tuple[str, ...], text: str, code: int, message: str,
                                           tmp_path: Path) -> None:
    done = run(tmp_path, "account", "put", "123", *arguments, stdin=text)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_without_pyyaml_the_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    done = run(tmp_path, "account", "put", "123", "openstack", stdin=textwrap.dedent(FILE))
    assert (done.returncode, "pyyaml~=6.0" in done.stderr) == (2, True), done.stderr
