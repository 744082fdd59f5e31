"""Files on this machine that must be their owner's alone: the store, the key, the contexts."""

import os
import stat
from pathlib import Path

from .errors import SettingsError


def make_folder(path: Path) -> None:
    """Make the folder and each one missing above it for the owner alone, whatever the umask. Raises OSError."""
    for folder in reversed([it for it in (path, *path.parents) if not it.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")


def is_exposed(path: Path) -> bool:
    """Whether others may read or change the file. On a read-only mount (a mounted secret) its mode cannot be changed,
    so that only the right to write counts there. Raises OSError."""
    fixed = os.statvfs(path).f_flag & os.ST_RDONLY
    return bool(stat.S_IMODE(path.stat().st_mode) & (0o022 if fixed else 0o077))


def check_owner(path: Path, setting: str) -> None:
    """Refuse what another user planted in the current folder: a file, its folder, or a link in their place. A path
    that is absolute was chosen by the operator. Raises SettingsError."""
    for it in () if path.is_absolute() else (*reversed(path.parents), path):
        if it != Path() and os.path.lexists(it) and it.lstat().st_uid not in (0, os.geteuid()):
            raise SettingsError(f"{setting}: {it} belongs to another user (uid {it.lstat().st_uid}). Remove it, or "
                                "name another place with an absolute path.")
