"""A private cloud at the command: options, what the commands show of them, what doctor finds, and no password."""

import json
from pathlib import Path
from typing import Any

import pytest

from chalicelib.parties.openstack.simulator import Openstack
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators import tls
from chalicelib.simulators.fleet import Fleet
from tests import proxy
from tests.canaries import secret
from tests.programs.test_doctor import doctor
from tests.programs.test_terminal import GZ
from tests.programs.test_terminal import run_here as run


def test_options_alone_list_a_cloud_behind_a_proxy_and_an_authority(tmp_path: Path) -> None:
    pem, issue = tls.authority(tmp_path, "company")
    key, password = secret("private"), secret("proxy")
    with Qcloud({"AKIDprivate": key}, {"ap-guangzhou": Fleet(4)}) as cloud, proxy.Proxy(f"ann:{password}") as through:
        tls.wrap(cloud, *issue("127.0.0.1"))
        keys = json.dumps({"secret_id": "AKIDprivate", "secret_key": key, "proxy_user": "ann",
                           "proxy_password": password})
        put = ("account", "put", "123", "qcloud", "--endpoint", cloud.url, "--ca-file", str(pem), "--proxy",
               through.url)
        done = run(tmp_path, *put, "--check", stdin=keys, TWOCLOUD_LOCAL="0")
        assert done.returncode == 0, done.stderr
        shown = run(tmp_path, "account", "show", "123", "qcloud", "-o", "json", TWOCLOUD_LOCAL="0")
        row = json.loads(shown.stdout)
        assert (row["ca_file"], row["proxy"], row["allow_http"]) == (["CN=company"], through.url, False)
        listed = run(tmp_path, "servers", *GZ, "-o", "json", TWOCLOUD_LOCAL="0")
        assert len(json.loads(listed.stdout)["vm_servers"]) == 4
        explained = run(tmp_path, "explain", *GZ, TWOCLOUD_LOCAL="0")
        assert f"through the proxy {through.url}" in explained.stdout
        checks = doctor(tmp_path, code=0, TWOCLOUD_LOCAL="0")
        assert "CN=company, until" in checks["authorities"]["text"]
        assert checks["proxy"]["text"] == f"accounts: {through.url} accepts connections"
        new = json.dumps({"secret_id": "AKIDprivate", "secret_key": key, "proxy_user": "ann", "proxy_password": "old"})
        refused = run(tmp_path, "account", "rotate", "123", "qcloud", stdin=new, TWOCLOUD_LOCAL="0")
        assert refused.returncode == 5
        assert "The proxy refused its user and password" in refused.stderr
        assert run(tmp_path, "account", "rotate", "123", "qcloud", stdin=keys, TWOCLOUD_LOCAL="0").returncode == 0
        for it in (done, shown, listed, explained, refused):
            assert password not in it.stdout + it.stderr
    broken = doctor(tmp_path, code=1, TWOCLOUD_LOCAL="0")
    assert "The proxy cannot be reached" in broken["proxy"]["text"]
    assert "proxy" not in doctor(tmp_path, "--offline", code=0, TWOCLOUD_LOCAL="0")


def test_a_clouds_yaml_and_options_list_an_openstack(tmp_path: Path) -> None:
    """Behind an authority of its own and a proxy, with a catalogue whose internal addresses are plain http and name
    neither a version nor a region."""
    pem, issue = tls.authority(tmp_path, "company")
    key, password = secret("openstack"), secret("proxy")
    fleets = {"RegionOne": Fleet(5, "private")}
    with Openstack({("ann", "default"): key}, {}, fleets, regions=("RegionOne",)) as keystone, Openstack(
            {}, {}, fleets, regions=("RegionOne",)) as inside, proxy.Proxy(f"ann:{password}") as through:
        tls.wrap(keystone, *issue("127.0.0.1"))
        inside.tokens, inside.scopes = keystone.tokens, keystone.scopes
        keystone.bend = lambda catalog: [{"type": entry["type"], "endpoints": [
            {"interface": "internal", "region_id": None, "url": f"{inside.url}/{name}-RegionOne"},
            {"interface": "public", "region_id": None, "url": f"https://192.0.2.1/{name}"}]}
            for entry, name in zip(catalog[1:], ("compute", "volume"), strict=True)]
        file = tmp_path / "clouds.yaml"
        file.write_text(json.dumps({"clouds": {"other": {}, "corp": {
            "interface": "internal", "region_name": "RegionOne", "cacert": str(pem), "auth": {
                "auth_url": f"{keystone.url}/identity", "username": "ann", "password": key, "project_name": "demo",
                "user_domain_name": "Default", "proxy_user": "ann", "proxy_password": password}}}}))
        put = ("account", "put", "123", "openstack", "--credentials-file", "clouds.yaml", "--os-cloud", "corp",
               "--check", "--proxy", through.url)
        for missing in ((), ("--ca-file", str(pem))):
            refused = run(tmp_path, *put, *missing, TWOCLOUD_LOCAL="0")
            assert (refused.returncode, ("--allow-http" if missing else "--ca-file") in refused.stderr) == (
                5 if missing else 2, True), refused.stderr
        done = run(tmp_path, *put, "--ca-file", str(pem), "--allow-http", TWOCLOUD_LOCAL="0")
        file.unlink()
        assert done.returncode == 0, done.stderr
        listed = run(tmp_path, "servers", "--party", "openstack", "--tenant", "123", "--region", "all", "-o", "json",
                     TWOCLOUD_LOCAL="0")
        assert len(json.loads(listed.stdout)["vm_servers"]) == 5, listed.stderr
        assert {it.operation for it in inside.calls} >= {"ListServersDetailed", "ListServers", "ListVolumesDetailed"}
        assert {it.method for it in through.requests} == {"CONNECT", "GET"}


def test_the_settings_of_the_deployment_in_doctor(tmp_path: Path) -> None:
    pem, issue = tls.authority(tmp_path, "company")
    expired, _ = issue("old.example", days=-1)
    soon, _ = issue("soon.example", days=20)
    for file, state in ((pem, "ok"), (soon, "warn"), (expired, "fail")):
        assert doctor(tmp_path, code=int(state == "fail"), TWOCLOUD_CA_FILE=str(file))["authorities"]["state"] == state
    missing = doctor(tmp_path, code=1, TWOCLOUD_CA_FILE="/none.pem")
    assert "cannot be read" in missing["authorities"]["text"]
    with proxy.Proxy() as through:
        assert doctor(tmp_path, code=0, TWOCLOUD_PROXY=through.url)["proxy"]["state"] == "ok"
    assert doctor(tmp_path, code=1, TWOCLOUD_PROXY=through.url)["proxy"]["state"] == "fail"
    ignored = doctor(tmp_path, code=0, HTTPS_PROXY="http://proxy.example:3128")["proxy"]
    assert (ignored["state"], ignored["text"][:36]) == ("ok", "HTTPS_PROXY is set but not used. If ")


def test_plain_http_is_seen(tmp_path: Path) -> None:
    keys = json.dumps({"secret_id": "A", "secret_key": "k"})
    put = ("account", "put", "123", "qcloud", "--endpoint", "http://cloud.invalid")
    refused = run(tmp_path, *put, stdin=keys)
    assert (refused.returncode, "`--allow-http` permits" in refused.stderr) == (2, True)
    assert run(tmp_path, *put, "--allow-http", stdin=keys).returncode == 0
    (row,) = json.loads(run(tmp_path, "account", "list", "-o", "json").stdout)
    assert row["allow_http"]
    assert "--allow-http" in doctor(tmp_path, "--offline", code=0)["plain http"]["text"]
    assert "plain http is allowed" in run(tmp_path, "explain", *GZ).stdout


@pytest.mark.parametrize(("options", "more", "text"), [
    (("--proxy", "http://ann:pw@proxy.example:1"), {}, "which no argument may hold"),
    (("--proxy", "socks5://proxy.example:1"), {}, "must be http://HOST:PORT"),
    (("--ca-file", "none.pem"), {}, "No such file"), (("--ca-file", "empty.pem"), {}, "no PEM certificate"),
    (("--ca-file", "."), {}, "directory"), ((), {"proxy_user": "ann"}, "need `--proxy`")])
def test_options_that_are_refused_store_nothing(options: tuple[str, ...], more: dict[str, Any], text: str,
                                                tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    keys = json.dumps({"secret_id": "A", "secret_key": "k", **more})
    done = run(tmp_path, "account", "put", "123", "qcloud", *options, stdin=keys)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr
    assert "pw@" not in done.stderr
    assert run(tmp_path, "account", "list", "-o", "json").stdout.strip() == "[]"
