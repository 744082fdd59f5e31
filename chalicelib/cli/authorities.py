"""What people want to know of certificates: whose they are, and when they expire."""

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """`subject`: as RFC 4514 writes it, "unreadable" if it cannot be read. `expires_at`: in UTC."""

    subject: str
    expires_at: datetime


def authorities_in(pem: str) -> list[Authority]:
    """The certificates of a text in PEM."""
    if not pem:
        return []
    from cryptography import x509  # slow to import, and most accounts have no authorities

    try:
        with warnings.catch_warnings():     # of serial numbers that no standard allows
            warnings.simplefilter("ignore")
            return [Authority(it.subject.rfc4514_string(), it.not_valid_after_utc)
                    for it in x509.load_pem_x509_certificates(pem.encode())]
    except ValueError:                      # OpenSSL reads some that this library does not
        return [Authority("unreadable", datetime.max.replace(tzinfo=UTC))]
