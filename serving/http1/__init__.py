"""HTTP/1.1 between a socket and the application: uvicorn's protocol with a short way for predictions, within limits.

`connection` is one connection, `connection_state` its state. `heads` says what the head of a request must be, `limits`
what connections may take together, `flow` when they are read, `write_queue` when they are written to.
"""

from serving.http1.connection import HttpConnection

__all__ = ["HttpConnection"]
