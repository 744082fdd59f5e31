"""Simulators behind TLS, with an authority of their own: for those who, like Lambda's functions, take nothing else."""

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .server import Simulator


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, its own authority, good for a month; the files of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "twocloud simulators")])
    now = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(30))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256()))
    pem, secret = folder / "simulators.pem", folder / "simulators.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return pem, secret


def authority(folder: Path, name: str) -> tuple[Path, Callable[..., tuple[Path, Path]]]:
    """The PEM file of an authority, and what issues a certificate for hosts: the files of certificate and key. With
    `days` below 0 it has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)

    def sign(subject: x509.Name, public: ec.EllipticCurvePublicKey, days: int, *more: x509.ExtensionType) -> bytes:
        made = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(60))
                .not_valid_after(now + datetime.timedelta(days)))
        for extension in more:
            made = made.add_extension(extension, isinstance(extension, x509.BasicConstraints))
        return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(*hosts: str, days: int = 30) -> tuple[Path, Path]:
        own = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
                 for host in hosts]
        pem, secret = folder / f"{name}-{hosts[0]}{days}.pem", folder / f"{name}-{hosts[0]}{days}.key"
        pem.write_bytes(sign(x509.Name([]), own.public_key(), days, x509.SubjectAlternativeName(names)))
        secret.write_bytes(own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return pem, secret

    file = folder / f"{name}.pem"
    file.write_bytes(sign(issuer, key.public_key(), 365, x509.BasicConstraints(ca=True, path_length=None)))
    return file, issue


def wrap(simulator: Simulator, pem: Path, key: Path) -> str:
    """Let it speak TLS from now on; its new address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    simulator.speak_tls(context)
    return simulator.url
