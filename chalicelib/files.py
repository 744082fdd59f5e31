"""Files that only their owner may access: the store, the key, the contexts."""

import os
import stat
from pathlib import Path

from .errors import SettingsError


def make_folder(path: Path) -> None:
    """Create the folder and its missing parents with mode 0700, whatever the umask. Raises OSError."""
    for folder in reversed([it for it in (path, *path.parents) if not it.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")


def is_exposed(path: Path) -> bool:
    """Whether other users can read or change the file. On a read-only mount (a mounted secret) the mode cannot be
    changed, so only write permission counts there. Windows has no such modes: there a user's own folders are closed to
    others. Raises OSError."""
    if not hasattr(os, "statvfs"):
        return False
    fixed = os.statvfs(path).f_flag & os.ST_RDONLY
    return bool(stat.S_IMODE(path.stat().st_mode) & (0o022 if fixed else 0o077))


def check_owner(path: Path, setting: str) -> None:
    """Refuse a file, folder or link that another user put into the current folder. An absolute path is accepted: the
    operator chose it. Windows has no such owners. Raises SettingsError."""
    for it in () if path.is_absolute() or not hasattr(os, "geteuid") else (*reversed(path.parents), path):
        if it != Path() and os.path.lexists(it) and it.lstat().st_uid not in (0, os.geteuid()):
            raise SettingsError(f"{setting}: {it} belongs to another user (uid {it.lstat().st_uid}). Remove it, or "
                                "give an absolute path.")
