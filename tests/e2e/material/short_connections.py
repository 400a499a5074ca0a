"""A server whose workers end connections of gRPC after half a second: otherwise a test would wait for them."""

import sys

from serving.api.grpc import listener
from serving.cli import main

listener.SHARED_CONNECTION_SECONDS = 0.5

if __name__ == "__main__":
    sys.exit(main())
