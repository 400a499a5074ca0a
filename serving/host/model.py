"""The interface of a loaded model, the same for every file format, and the errors it raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from sklearn.exceptions import NotFittedError

from serving.domain import text
from serving.domain.errors import InvalidInput, ModelFailed, ServingError
from serving.domain.signature import Signature
from serving.rows.batch import Batch, Prediction

_PATH = re.compile(r"(?:file://)?(?:[A-Za-z]:)?(?:[\\/][\w.@+-]+){2,}[\\/]?")


class LoadRefused(ServingError):
    """The file, or the object, cannot be served. The message is one line that says why and what to do."""


class NotVouched(LoadRefused):
    """The file does more than known models do. It may be harmless, but no trusted key or setting vouches for it."""


class NotAnEstimator(LoadRefused):
    """The object is not a fitted estimator; the message begins with what it is."""


class LoadedModel(Protocol):
    """A model in this process. Only one thread may use it at a time."""

    @property
    def name(self) -> str:
        """A name for people: the class of the estimator."""
        ...

    @property
    def engine(self) -> str:
        """The library that computes the answers: ``sklearn``, ``xgboost``, ``lightgbm`` or ``onnx``."""
        ...

    @property
    def trained_with(self) -> Mapping[str, str]:
        """The library versions in the file itself; empty when it contains none."""
        ...

    @property
    def signature(self) -> Signature:
        """The contract between the model and its clients."""
        ...

    def answer(self, method: str, batch: Batch) -> Prediction:
        """Answer one batch whose columns are the features of `signature`; blocks. `batch` is neither kept nor changed.

        Raises InvalidInput when the model refuses the rows, and ModelFailed when it raises anything else or does not
        give one answer for each row.
        """
        ...

    def make_rows(self, rows: int, *, with_nulls: bool = False) -> Batch:
        """Make up rows like those of the training. Deterministic: the same rows each time.

        `with_nulls` sets every nullable value of the first row to null, and some in the other rows.
        """
        ...


def one_line(message: str, most_characters: int = text.MAX_LINE_CHARACTERS) -> str:
    """Return `message` as one line without file paths, which clients must not see: see `serving.domain.text`."""
    return text.one_line(_PATH.sub("...", message), most_characters)


def describe_exception(error: BaseException) -> str:
    """Return the class and message of an exception as one line."""
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def describe_skew(version: str, here: str) -> str | None:
    """Name the versions of scikit-learn in training and here; None where major.minor are the same."""
    if version.split(".")[:2] == here.split(".")[:2]:
        return None
    return text.one_line(f"trained with scikit-learn {version}, here is {here}", 150)


def add_skew(message: str, skew: str | None) -> str:
    """Add the versions in `skew`, which may be the reason, to the message of a failure that does not name them."""
    return message if skew is None or skew in message else f"{message} ({skew})"


def classify_error(error: BaseException, skew: str | None = None) -> InvalidInput | ModelFailed:
    """Return what `error`, raised by a model, means: refused rows or a failed model. `skew` names possible reasons.

    scikit-learn refuses rows with ValueError and TypeError; every other exception is a failure of the model.
    """
    if isinstance(error, (ValueError, TypeError)) and not isinstance(error, NotFittedError):
        return InvalidInput(add_skew(one_line(f"the model refused the rows: {error}"), skew))
    return ModelFailed(add_skew(describe_exception(error), skew))
