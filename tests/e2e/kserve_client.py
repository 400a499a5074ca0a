"""KServe's client, run in an environment of its own: ``python kserve_client.py URL MODEL VALUE``.

Asks again and again, in JSON and in binary, until the model answers VALUE; prints every answer on a line.
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig  # type: ignore[import-not-found]


async def main(url: str, model: str, last: float) -> None:
    """Ask until the last version answers."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, model)
    is_binary, value = False, None
    while value != last:
        rows = InferInput("rows", [2, 2], "FP32")
        rows.set_data_from_numpy(np.zeros((2, 2), np.float32), binary_data=is_binary)
        found = await client.infer(url, InferRequest(infer_inputs=[rows], model_name=model), model_name=model)
        assert found.model_name == model  # it drops the version, which is in the answer
        first, second = found.outputs[0].as_numpy().tolist()
        assert first == second
        value, is_binary = first, not is_binary
        print(value, flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
