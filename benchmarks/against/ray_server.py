"""Ray Serve as its documentation shows it: ``python ray_server.py MODEL PORT TEMPORARY_DIRECTORY``."""

import signal
import sys
import threading

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
class Model:
    """Rows in, labels out."""

    def __init__(self, path: str) -> None:
        """Load the model in the replica."""
        self.model = joblib.load(path)

    async def __call__(self, request: Request) -> dict:
        """Return labels."""
        rows = np.array((await request.json())["instances"])
        return {"predictions": self.model.predict(rows).tolist()}


def main() -> None:
    """Serve until a signal comes."""
    over = threading.Event()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[3])
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config={"enable_access_log": False}
    )
    serve.run(Model.bind(sys.argv[1]), route_prefix="/predict")
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, lambda *_: over.set())
    over.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
