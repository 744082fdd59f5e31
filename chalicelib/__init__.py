"""List any tenant's servers in any cloud, and never lie about what is known."""

from . import settings as settings  # before any library makes a TLS context

__version__ = "0.1.0"
