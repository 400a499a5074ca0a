"""LitServe as its documentation shows it: ``python litserve_server.py MODEL PORT``."""

import sys

import joblib
import litserve
import numpy as np


class Api(litserve.LitAPI):
    """Rows in, labels out."""

    def setup(self, device):
        """Load the model in the worker."""
        self.model = joblib.load(sys.argv[1])

    def decode_request(self, request):
        """Return the rows of a body."""
        return np.array(request["instances"])

    def predict(self, rows):
        """Return labels."""
        return self.model.predict(rows)

    def encode_response(self, labels):
        """Return the answer."""
        return {"predictions": labels.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning")
