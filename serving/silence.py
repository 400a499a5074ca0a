"""Loads onnxruntime with its telemetry turned off. This is the only module that imports it.

Its official builds from 1.29 on write an identifier of the machine and a database of model use below the home
directory, and send them to its makers. Only the environment turns all of that off, and only before the import. Every
zygote has `SILENCE` in its environment, too: code that comes with a model may import onnxruntime by itself.
"""

from __future__ import annotations

import os
from typing import Any

SILENCE = {"ORT_DISABLE_TELEMETRY": "1"}


def load_onnxruntime() -> Any:
    """Return the module `onnxruntime`. The first call imports it, which blocks.

    Releases from 1.21 to 1.31 start no thread when they are silenced. The nursery of workers relies on that, and a test
    says so; no zygote does, because another environment may have another release.
    """
    os.environ.update(SILENCE)
    import onnxruntime  # noqa: PLC0415

    return onnxruntime
