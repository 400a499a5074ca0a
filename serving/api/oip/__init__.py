"""The Open Inference Protocol, version 2: what KServe, Triton and MLServer clients speak.

`tensors` and `specs` know neither JSON nor HTTP; gRPC uses them too. `rest` is the dialect of predictions,
`oip_metadata` and `oip_repository` are the routes beside it.

https://github.com/open-inference/open-inference-protocol and, for the extensions (binary tensors, statistics, model
repository), https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""

from __future__ import annotations
