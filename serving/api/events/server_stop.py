"""Whether the server that runs this process's application is stopping."""

from __future__ import annotations

import signal


def is_server_stopping() -> bool:
    """Say whether the uvicorn server that has taken SIGTERM in this process waits for its requests to end.

    uvicorn tells no application that it stops before every answer is complete, and a stream never is. Its handler of
    the signal is a method of the server, whose `should_exit` is public. Any thread; False for other servers.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
