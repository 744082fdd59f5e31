"""Clients of Amazon's own services, for the store, the key and the queue; parties do not come this way.

botocore alone: boto3 above it costs a fifth of a cold start more and gives nothing that is used here.
"""

import threading
from functools import cache
from typing import Any

_making = threading.Lock()                  # botocore's sessions make one client at a time


def client(service: str, attempts: int, seconds: int = 2) -> Any:
    """With AWS's usual settings for region and credentials. `attempts`: tries of each call, the first included;
    `seconds`: for the answer to each."""
    from botocore.config import Config

    # botocore's own limits are 60 s each; a request to us is answered within 25 s
    with _making:
        return session().create_client(service, config=Config(
            connect_timeout=max(1, seconds / 10), read_timeout=seconds,
            retries={"mode": "standard", "total_max_attempts": attempts}))


@cache
def session() -> Any:
    """One for all clients: it keeps what it has read of their descriptions."""
    from botocore.session import Session  # slow to import; who keeps all on one machine never pays for it

    return Session()
