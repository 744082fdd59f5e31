"""List any tenant's servers in any cloud, and never lie about what is known."""

__version__ = "0.1.0"
