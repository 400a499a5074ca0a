"""HTTP/1.1 between a socket and the application: uvicorn's protocol with a short way for predictions, and with bounds.

`protocol` is one connection; `bounded` what it may take, within the limits of `bounds`; `deadlines` says when it has
had its time; `writes` sends.
"""

from serving.http1.protocol import PredictionProtocol

__all__ = ["PredictionProtocol"]
