"""Files of this machine: planted ones, any umask, mounted secrets, users without a home."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from chalicelib import files
from chalicelib.access.sealing import LocalSealer
from chalicelib.cli import contexts
from chalicelib.errors import SettingsError
from tests import ROOT
from tests.canaries import secret

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root: other users' files cannot be made here")


def run(folder: Path, *arguments: str, uid: int | None = None, umask: int = -1,
        **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=100,
                          user=uid, umask=umask,
                          env={**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}, check=False)


@as_root
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_another_user_planted_is_refused(tmp_path: Path, kind: str) -> None:
    planted = tmp_path / ".twocloud"
    if kind == "folder":
        planted.mkdir()
    elif kind == "file":
        planted.touch()
    else:
        (tmp_path / "elsewhere").mkdir()
        planted.symlink_to("elsewhere")
    os.chown(planted, 4242, 4242, follow_symlinks=False)
    done = run(tmp_path, "-m", "chalicelib", "account", "list")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "belongs to another user (uid 4242)" in done.stderr


def test_everything_is_the_owners_alone_under_any_umask(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "chalicelib", "user", "add", "ann", umask=0, TWOCLOUD_STORE="sqlite:///a/b/c/store.db")
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o600}


@pytest.mark.parametrize(("mode", "fixed", "good"), [(0o440, True, True), (0o444, True, True), (0o466, True, False),
                                                     (0o440, False, False), (0o400, False, True)])
def test_a_mounted_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, fixed: bool, good: bool) -> None:
    key, config = tmp_path / "key", tmp_path / "config.toml"
    LocalSealer.of_file(key)
    config.write_text('current = ""\n')
    for path in (key, config):
        path.chmod(mode)
    monkeypatch.setattr(files.os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY if fixed else 0))
    for use in (lambda: LocalSealer.of_file(key, make=False), lambda: contexts.read(config)):
        if good:
            use()
        else:
            with pytest.raises(SettingsError, match="chmod 600"):
                use()


AS_NOBODY = """
import os, sys
import chalicelib.cli, chalicelib.storage.sqlite, chalicelib.fleet.many_sources, chalicelib.cli.listing, zoneinfo
import encodings.idna, difflib, csv, chalicelib.http.formats, chalicelib.cli.users, chalicelib.cli.contexts
import tomllib, rich.console, rich.table
os.setgroups([]); os.setgid(4242); os.setuid(4242)
sys.exit(chalicelib.cli.main(sys.argv[1:]))
"""


@as_root
def test_a_user_without_home_or_name() -> None:
    """What the interpreter needs is loaded before: its own files may be closed to others, as pytest's folders are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, 4242, 4242)
        for line, code in ((("user", "add", "ann"), 0), (("user", "list", "-o", "json"), 0),
                           (("context", "list", "-o", "json"), 0),
                           (("context", "use", "local"), 2)):
            done = run(folder, "-c", AS_NOBODY, *line)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
        assert "no home folder. Set HOME" in done.stderr
        assert (folder / ".twocloud").stat().st_uid == 4242


def test_no_context_writes_down_tls_keys(tmp_path: Path) -> None:
    code = ("import chalicelib, ssl, requests, requests.adapters, certifi; from chalicelib.cloud import sockets\n"
            "from botocore.httpsession import create_urllib3_context as theirs\n"
            "from urllib3.util.ssl_ import create_urllib3_context as ours\n"
            "made = [ssl.create_default_context(), theirs(), ours(), sockets.Adapter(certifi.where())._tls] if "
            "hasattr(sockets, 'Adapter')"
            " else [ssl.create_default_context(), theirs(), ours()]\n"
            "made += [it for it in [getattr(requests.adapters, '_preloaded_ssl_context', None)] if it]\n"
            "print({it.keylog_filename for it in made})")
    done = run(tmp_path, "-c", code, SSLKEYLOGFILE=str(tmp_path / "keys"))
    assert done.stdout == "{None}\n", done.stderr
    assert not (tmp_path / "keys").exists(), done.stderr


SERVE_AS_NOBODY = AS_NOBODY.replace("import os, sys\n",
                                    "import os, sys\nimport app, chalicelib.http.serve, chalicelib.cli.serving\n"
                                    "import chalicelib.cloud.sender, idna\n")


@as_root
def test_serve_runs_for_a_user_without_home_or_name() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, 4242, 4242)
        kept = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen([sys.executable, "-c", SERVE_AS_NOBODY, "serve", "--port", "0"], cwd=folder, env=kept,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout
                shown = ""
                while "listens on" not in shown:
                    shown = process.stdout.readline()
                    assert shown, "it ended"
                url = shown.split("listens on ")[1].split("/twocloud")[0].strip()
                assert requests.get(f"{url}/twocloud/health", timeout=20).status_code == 200
                assert requests.get(f"{url}/twocloud/servers", timeout=20).status_code == 401
                assert (folder / ".twocloud").stat().st_uid == 4242
            finally:
                process.terminate()
                rest = process.communicate(timeout=20)[0]
        assert process.returncode == 0, rest
        assert "Traceback" not in rest, rest


MOUNTED = """
set -e
mount --bind secrets secrets
mount -o remount,bind,ro secrets
exec "$@"
"""


@as_root
@pytest.mark.parametrize(("mode", "code"), [(0o440, 0), (0o444, 0), (0o466, 2)])
def test_a_key_on_a_real_read_only_mount(tmp_path: Path, mode: int, code: int) -> None:
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here: read-only mounts were not tried")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    LocalSealer.of_file(secrets / "key")
    (secrets / "config.toml").write_text('current = ""\n')
    for path in secrets.iterdir():
        path.chmod(mode)
    (tmp_path / "keys.json").write_text(json.dumps({"secret_id": "AKIDmounted", "secret_key": secret("mounted")}))
    kept = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1",
            "TWOCLOUD_KEY": f"file:{secrets}/key", "TWOCLOUD_CONFIG": f"{secrets}/config.toml"}
    for mounted, line in ((True, ("account", "put", "123", "qcloud", "--credentials-file", "keys.json")),
                          (True, ("context", "list")),
                          (False, ("context", "list"))):
        command = [sys.executable, "-m", "chalicelib", *line]
        done = subprocess.run([unshare, "-m", "sh", "-c", MOUNTED, "sh", *command] if mounted else command,
                              cwd=tmp_path, env=kept,
                              capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == (code if mounted else 2), done.stderr
        assert done.returncode == 0 or "chmod 600" in done.stderr
    (tmp_path / "keys.json").unlink()
