"""Whatever a host may answer, every protocol writes it or refuses it by name: there is nothing that nobody foresaw.

What a host answers has been checked for rows, sizes and plain values, not for fitting the signature: a model may give
what it likes, and a host may be an enemy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.api.answers import encode, encode_under, is_small
from serving.api.formats import arrow, csv, npy
from serving.api.grpc.infer import _write as write_grpc
from serving.api.grpc.inference_pb2 import ModelInferRequest
from serving.api.oip.infer_body import Infer
from serving.api.oip.rest import _write as write_oip
from serving.api.oip.specs import tensors_of
from serving.api.tensorflow.tensorflow_dialects import _classes, _numbers, _plain
from serving.domain.errors import ServingError
from serving.domain.signature import METHODS, Feature, Method, ModelKind, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Prediction, why_not_an_answer

BOUNDED = settings(max_examples=300, deadline=None, derandomize=True, database=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
)
dtypes = st.sampled_from(["?", "i1", "u1", "<i4", "<i8", "<u8", "<f2", "<f4", "<f8"])
signatures = st.builds(
    Signature,
    features=st.just((Feature(name="a"),)),
    methods=st.just(METHODS),
    kind=st.sampled_from(ModelKind),
    outputs=st.integers(0, 3),
    classes=st.none()
    | st.lists(st.lists(st.integers(0, 9) | st.text(max_size=2), max_size=3).map(tuple), max_size=3).map(tuple),
)


@st.composite
def answers(draw: Any) -> Answer:
    """Make answers that pass `why_not_an_answer`, and nothing else."""
    rows = draw(st.integers(1, 3))
    arrays = st.integers(0, 3).flatmap(
        lambda more: hnp.arrays(dtypes, st.tuples(st.just(rows), *[st.integers(0, 3)] * more))
    )
    cells = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=5,
    )
    lists = st.lists(cells, min_size=rows, max_size=rows)
    several = st.lists(hnp.arrays(dtypes, st.tuples(st.just(rows), st.integers(0, 3))) | lists, min_size=2, max_size=3)
    tensors = tuple(draw(several | st.tuples(arrays | lists)))
    reason = why_not_an_answer(tensors, rows)
    if reason is not None:
        return draw(st.nothing())
    method: Method = draw(st.sampled_from(METHODS))
    return Answer("m", "1", method, rows, Prediction(tensors), draw(st.booleans()) if rows == 1 else False)


WRITERS: dict[str, Callable[[Answer, Signature], Any]] = {
    "native": lambda answer, _: encode(answer),
    "mlflow": lambda answer, _: encode_under("predictions", answer.prediction),
    "csv": csv.write,
    "npy": npy.write,
    "arrow": arrow.write,
    "open inference": lambda answer, signature: write_oip(Infer([], {}), "1", answer, signature),
    "open inference, binary": lambda answer, signature: write_oip(
        Infer([], {}, is_binary=True), "1", answer, signature
    ),
    "tensorflow predict": lambda answer, _: _plain("predictions", answer),
    "tensorflow classify": lambda answer, signature: _classes(
        answer, signature.model_copy(update={"classes": signature.classes or ((0, 1),)})
    ),
    "tensorflow regress": _numbers,
    "grpc": lambda answer, signature: write_grpc(ModelInferRequest(id="1"), answer, signature),
    "grpc, raw": lambda answer, signature: write_grpc(
        ModelInferRequest(id="1", raw_input_contents=[b"x"]), answer, signature
    ),
    "tensors": tensors_of,
    "size": lambda answer, _: is_small(answer),
}


@given(answers(), signatures)
@BOUNDED
def test_every_answer_is_written_or_refused(answer: Answer, signature: Signature) -> None:
    """In one test, because making an answer up takes ten times as long as writing it in every way."""
    for name, write in WRITERS.items():
        try:
            with contextlib.suppress(ServingError), np.errstate(all="ignore"):
                write(answer, signature)
        except Exception as error:
            error.add_note(f"written as: {name}")
            raise


@pytest.mark.parametrize(
    ("tensors", "is_inline"),
    [
        ((np.zeros(1),), True),
        ((np.zeros((1, 20_000)),), True),
        ((np.zeros((1, 20_001)),), False),
        ((np.zeros((1, 3)), np.zeros((1, 20_000))), False),
        ((["a"],), True),
        (([[0.0] * 20_001],), False),
    ],
)
def test_one_row_of_very_many_values_is_not_written_on_the_event_loop(
    tensors: tuple[Any, ...], *, is_inline: bool
) -> None:
    """Four million numbers took it a fifth of a second."""
    assert is_small(Answer("m", "1", "predict", 1, Prediction(tensors), False)) is is_inline
