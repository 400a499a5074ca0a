"""Evaluates a file in a host of another environment, and asks that host for predictions."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import sandbox
from serving.domain.report import Evaluation
from serving.domain.version import Format, digest_of
from serving.hosting.evaluating import evaluate_candidate
from serving.hosting.zygote import HostProcess, Zygote
from serving.rows.batch import Batch, Tensor
from serving.wire.evaluation import EvaluationFile, EvaluationRequest
from serving.wire.frames import FrameKind
from serving.wire.payloads import decode_answer, encode_batch
from serving.wire.stream import receive_frame, send_frame


def fit_models(python: Path, program: str, place: Path) -> Path:
    """Run a program that fits and saves models into `place` with the Python of another environment; return `place`."""
    subprocess.run([python, "-I", "-c", program, str(place)], check=True)
    return place


@contextmanager
def run_zygote(python: Path, scratch: Path) -> Iterator[Zygote]:
    """Run the zygote of another environment for the length of a block."""
    running = Zygote(sandbox.scrub_environment(os.environ), scratch, str(python))
    running.start()
    yield running
    running.stop()


def make_request(path: Path, **fields: Any) -> EvaluationRequest:
    """Return the request to evaluate a joblib file by every gate; `fields` replace its fields."""
    raw = path.read_bytes()
    file = EvaluationFile(name=path.name, sha256=hashlib.sha256(raw).hexdigest(), size=len(raw), path=str(path))
    asked: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "digest": digest_of([(file.name, file.sha256)]),
        "format": Format.JOBLIB,
        "main": file,
        "files": (file,),
        "quiet_seconds": 0.5,
        **fields,
    }
    return EvaluationRequest(**asked)


def evaluate(host: HostProcess, path: Path, **fields: Any) -> Evaluation:
    """Evaluate a joblib file by every gate in a host of another environment; see `make_request`."""
    return evaluate_candidate(host, make_request(path, **{"place": "there", **fields}), 60)


def ask(host: HostProcess, method: str, batch: Batch) -> Tensor:
    """Return the answer to a batch, of the first output."""
    header, buffers = encode_batch(method, batch)
    sock, _ = host.channels[0]
    send_frame(sock, FrameKind.PREDICT, 1, header, buffers)
    frame = receive_frame(sock)
    assert frame is not None
    assert frame.kind is FrameKind.PREDICTION, bytes(frame.header)
    return decode_answer(frame.header, frame.payload, batch.rows).tensors[0]
