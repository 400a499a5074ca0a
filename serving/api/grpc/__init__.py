"""The Open Inference Protocol over gRPC, on a port of its own: ``listener.py`` is the way in.

Nothing outside this package imports gRPC, and this package is imported only if `server.grpc_port` is set: the libraries
are an extra.
"""

import os

os.environ.setdefault("GRPC_DNS_RESOLVER", "native")  # before it is imported: its other one reads whom to ask for names
