"""Sealing: what is written under one context can be opened under the same context alone.

A sealed account that somebody copies to another tenant or party does not open there. On one machine the seal is
AES-256-GCM with the context as additional data, under a key in a file; on AWS it is KMS with the context as
encryption context, which also appears in the audit trail there.
https://csrc.nist.gov/pubs/sp/800/38/d/final  https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
"""

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from chalicelib.errors import Internal, InvalidParameter, SettingsError

if TYPE_CHECKING:
    from types_boto3_kms import KMSClient

_FILE, _KMS = b"\x01", b"\x02"              # the first byte of what is sealed names the seal


class Sealer(Protocol):
    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes: ...

    def open(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """Raises Internal if this was sealed by another key, under another context, or changed."""
        ...


def open_sealer(key: str) -> Sealer:
    """The sealer that a checked TWOCLOUD_KEY names. Raises SettingsError."""
    scheme, _, rest = key.partition(":")
    if scheme == "file":
        return FileSealer(Path(rest))
    if scheme == "kms":
        return KmsSealer(rest)
    raise SettingsError("TWOCLOUD_KEY must be set to kms:KEY in Lambda.")


class FileSealer:
    """Layout: 0x01, 4 bytes that name the key, 12 bytes of nonce, ciphertext with tag."""

    def __init__(self, path: Path) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = _key_in(path)
        self._name = hashlib.sha256(b"twocloud key name" + key).digest()[:4]
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        nonce = secrets.token_bytes(12)
        return _FILE + self._name + nonce + self._cipher.encrypt(nonce, plain, _canonical(context))

    def open(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        from cryptography.exceptions import InvalidTag

        if sealed[:1] != _FILE or sealed[1:5] != self._name:
            raise Internal("These credentials were sealed with another key than TWOCLOUD_KEY names.")
        try:
            return self._cipher.decrypt(sealed[5:17], sealed[17:], _canonical(context))
        except (InvalidTag, ValueError):
            raise Internal("These sealed credentials do not belong here, or were changed.") from None


class KmsSealer:
    """Layout: 0x02, KMS's ciphertext. `client` is for tests; otherwise it is made on first use."""

    def __init__(self, key: str, client: "KMSClient | None" = None) -> None:
        self._key = key
        self._made = client

    @property
    def _client(self) -> "KMSClient":
        if self._made is None:
            import boto3
            from botocore.config import Config

            self._made = boto3.client("kms", config=Config(          # type: ignore[reportUnknownMemberType]
                connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 2}))
        return self._made

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        if len(plain) > 4096:
            raise InvalidParameter("credentials", "KMS seals at most 4096 bytes of credentials.")
        return _KMS + self._client.encrypt(KeyId=self._key, Plaintext=plain,
                                           EncryptionContext=dict(context))["CiphertextBlob"]

    def open(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        client = self._client
        if sealed[:1] != _KMS:
            raise Internal("These credentials were sealed with another key than TWOCLOUD_KEY names.")
        try:
            return client.decrypt(KeyId=self._key, CiphertextBlob=sealed[1:],
                                  EncryptionContext=dict(context))["Plaintext"]
        except (client.exceptions.InvalidCiphertextException, client.exceptions.IncorrectKeyException):
            raise Internal("These sealed credentials do not belong here, or were changed.") from None


def _canonical(context: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(dict(context), order="sorted")


def _key_in(path: Path) -> bytes:
    """The 32 bytes in the file, which is made if it is missing."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SettingsError(f"TWOCLOUD_KEY: others may read {path}; run: chmod 600 {path}")
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except OSError as problem:
        raise SettingsError(f"TWOCLOUD_KEY: {path} cannot be used: {problem}.") from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SettingsError(f"TWOCLOUD_KEY: {path} does not hold a key (32 bytes in base64).")
    return key


def _make_key(path: Path) -> None:
    """Write aside, then link: of two processes that start together one wins, and both read its key."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
