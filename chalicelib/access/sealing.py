"""Sealing: what is written under one context can be opened under the same context alone.

A sealed account that somebody copies to another tenant or party does not open there. On one machine the seal is
AES-256-GCM with the context as additional data, under a key in a file or in a variable of the environment; on AWS it is
KMS with the context as encryption context, which also appears in the audit trail there.
https://csrc.nist.gov/pubs/sp/800/38/d/final  https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from .. import files, settings
from ..errors import Internal, InvalidParameter, SettingsError
from ..storage import amazon

if TYPE_CHECKING:
    from types_boto3_kms import KMSClient

_FILE, _KMS = b"\x01", b"\x02"              # the first byte of what is sealed names the seal
_LONGEST_KMS = 4096                         # bytes that kms:Encrypt takes
_ANOTHER = "These credentials were sealed with another key than TWOCLOUD_KEY."
_NOT_ALLOWED = "This AWS identity cannot open credentials: grant it kms:Decrypt on the key that sealed them."
_NOT_HERE = "These sealed credentials belong to another account, or were changed."


class Sealer(Protocol):
    @property
    def name(self) -> str:
        """Of the key: the same for the same key, however a setting names it."""
        ...

    def is_named(self, name: str) -> bool:
        """Whether this is the name of its key, as far as is known without asking anybody."""
        ...

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        """Raises InvalidParameter if the text is too long."""
        ...

    def open(self, sealed: bytes, context: Mapping[str, str], name: str = "") -> bytes:
        """`name`: of the key that sealed this, "" if it was not written down.

        Raises Internal if this was sealed by another key, under another context, or changed.
        """
        ...


def open_sealer(key: str, old: str = "", *, make: bool = True) -> Sealer:
    """The sealer that a checked TWOCLOUD_KEY names; what TWOCLOUD_OLD_KEY sealed opens too. `make`: a key's file that
    is missing is made. Raises SettingsError."""
    if old:
        return _Changing(open_sealer(key, make=make), open_sealer(old, make=False))
    scheme, _, rest = key.partition(":")
    if scheme == "file":
        return LocalSealer.of_file(Path(rest), make=make)
    if scheme == "env":
        return LocalSealer(_key_of(rest))
    if scheme == "kms":
        return KmsSealer(rest)
    raise SettingsError("TWOCLOUD_KEY must be set to kms:KEY in Lambda.")


def reseal(sealed: bytes, context: Mapping[str, str], old: Sealer, new: Sealer) -> bytes:
    """The same plain text under another key. From KMS to KMS it never leaves KMS (kms:ReEncryptFrom, ReEncryptTo)."""
    if isinstance(old, KmsSealer) and isinstance(new, KmsSealer):
        return new.take_over(sealed, context, old)
    return new.seal(old.open(sealed, context), context)


class _Changing:
    """While one key takes another's place: seals under the new one, opens under both."""

    def __init__(self, new: Sealer, old: Sealer) -> None:
        self._new = new
        self._old = old

    @property
    def name(self) -> str:
        return self._new.name

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        return self._new.seal(plain, context)

    def is_named(self, name: str) -> bool:
        return self._new.is_named(name)

    def open(self, sealed: bytes, context: Mapping[str, str], name: str = "") -> bytes:
        likely, other = (self._old, self._new) if self._old.is_named(name) else (self._new, self._old)
        try:
            return likely.open(sealed, context)
        except Exception as refused:        # KMS may say that the key is another, or only that it is not allowed
            with suppress(Exception):
                return other.open(sealed, context)
            raise refused from None


class LocalSealer:
    """Layout: 0x01, 4 bytes that name the key, 12 bytes of nonce, ciphertext with tag."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._name = hashlib.sha256(b"twocloud key name" + key).digest()[:4]
        self._cipher = AESGCM(key)

    @classmethod
    def of_file(cls, path: Path, *, make: bool = True) -> "LocalSealer":
        """`make`: a file that is missing is made. Raises SettingsError."""
        return cls(_key_in(path, make))

    @property
    def name(self) -> str:
        return f"file:{self._name.hex()}"

    def is_named(self, name: str) -> bool:
        return name == self.name

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        nonce = secrets.token_bytes(12)
        return _FILE + self._name + nonce + self._cipher.encrypt(nonce, plain, _canonical(context))

    def open(self, sealed: bytes, context: Mapping[str, str], name: str = "") -> bytes:
        from cryptography.exceptions import InvalidTag

        if sealed[:1] != _FILE or sealed[1:5] != self._name:
            raise Internal(_ANOTHER)
        try:
            return self._cipher.decrypt(sealed[5:17], sealed[17:], _canonical(context))
        except (InvalidTag, ValueError):
            raise Internal(_NOT_HERE) from None


class KmsSealer:
    """Layout: 0x02, KMS's ciphertext. `client` is for tests; otherwise it is made on first use."""

    def __init__(self, key: str, client: "KMSClient | None" = None) -> None:
        self._key = key
        self._made = client
        self._arn = ""

    @property
    def _client(self) -> "KMSClient":
        if self._made is None:
            self._made = amazon.client("kms", attempts=2)
        return self._made

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        if len(plain) > _LONGEST_KMS:
            raise InvalidParameter("credentials", f"The credentials are too long: KMS seals at most {_LONGEST_KMS} "
                                                  "bytes, "
                                                  "of which the digest of the settings takes 128.")
        response = self._client.encrypt(KeyId=self._key, Plaintext=plain, EncryptionContext=dict(context))
        self._arn = response["KeyId"]
        return _KMS + response["CiphertextBlob"]

    @property
    def name(self) -> str:
        """Learnt by sealing something: whoever may seal need not be allowed anything else."""
        if not self._arn:
            self.seal(b"-", {"tenant": "-", "party": "-", "purpose": "credentials"})
        return f"kms:{self._arn}"

    def is_named(self, name: str) -> bool:
        return name == f"kms:{self._key}" or (name.startswith("kms:arn:") and name.endswith(f":key/{self._key}"))

    def take_over(self, sealed: bytes, context: Mapping[str, str], old: "KmsSealer") -> bytes:
        """What `old` sealed, under this key. Raises Internal if another key sealed it."""
        client = self._client
        if sealed[:1] != _KMS:
            raise Internal(_ANOTHER)
        try:
            response = client.re_encrypt(
                CiphertextBlob=sealed[1:], SourceKeyId=old._key, SourceEncryptionContext=dict(context),
                DestinationKeyId=self._key, DestinationEncryptionContext=dict(context))
        except (client.exceptions.InvalidCiphertextException, client.exceptions.IncorrectKeyException):
            raise Internal(_NOT_HERE) from None
        self._arn = response["KeyId"]
        return _KMS + response["CiphertextBlob"]

    def open(self, sealed: bytes, context: Mapping[str, str], name: str = "") -> bytes:
        client = self._client
        if sealed[:1] != _KMS:
            raise Internal(_ANOTHER)
        try:
            return client.decrypt(KeyId=self._key, CiphertextBlob=sealed[1:],
                                  EncryptionContext=dict(context))["Plaintext"]
        except (client.exceptions.InvalidCiphertextException, client.exceptions.IncorrectKeyException):
            raise Internal(_NOT_HERE) from None
        except client.exceptions.ClientError as refused:
            if refused.response.get("Error", {}).get("Code") == "AccessDeniedException":
                raise Internal(_NOT_ALLOWED) from None
            raise


def _canonical(context: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(dict(context), order="sorted")


def _key_of(name: str) -> bytes:
    """The 32 bytes in the variable."""
    text = settings.variable(name)
    if not text:
        raise SettingsError(f"TWOCLOUD_KEY: the variable {name} is not set.")
    if key := _decoded(text.encode()):
        return key
    raise SettingsError(f"TWOCLOUD_KEY: the variable {name} does not hold a key (32 bytes in base64). Make one with: "
                        "openssl rand -base64 32")


def _decoded(text: bytes) -> bytes | None:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return None
    return key if len(key) == 32 else None


def _key_in(path: Path, make: bool) -> bytes:
    """The 32 bytes in the file."""
    try:
        files.check_owner(path, "TWOCLOUD_KEY")
        if make and not path.exists():
            files.make_folder(path.parent)
            _make_key(path)
        if files.is_exposed(path):
            raise SettingsError(f"TWOCLOUD_KEY: other users can read {path}. Run: chmod 600 {path}")
        key = _decoded(path.read_bytes())
    except OSError as problem:
        raise SettingsError(f"TWOCLOUD_KEY: {path} cannot be used: {problem}.") from None
    if key is None:
        raise SettingsError(f"TWOCLOUD_KEY: {path} does not hold a key (32 bytes in base64). Restore it from its "
                            "backup.")
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
