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
    """A file, or an object, that cannot be served. The message is one line that says why and what to do."""


class NotVouched(LoadRefused):
    """A file that does more than known models do. It may be sound, but no trusted key or setting vouches for it."""


class NotAnEstimator(LoadRefused):
    """An object that is no fitted estimator; the message begins with what it is instead."""


class LoadedModel(Protocol):
    """A model in this process. Not for several threads at once."""

    @property
    def name(self) -> str:
        """What it is, for people: the class of the estimator."""
        ...

    @property
    def engine(self) -> str:
        """What computes the answers: ``sklearn`` or ``onnx``."""
        ...

    @property
    def trained_with(self) -> Mapping[str, str]:
        """Library versions the file itself says it was made with; empty when it does not say."""
        ...

    @property
    def signature(self) -> Signature:
        """The contract it is served under."""
        ...

    def answer(self, method: str, batch: Batch) -> Prediction:
        """Answer one batch laid out by `signature`; blocks. `batch` is neither kept nor changed.

        Raises InvalidInput when the model refuses the rows, ModelFailed for anything else it raises or when it does
        not give one answer for each row.
        """
        ...

    def sample(self, rows: int, *, with_nulls: bool = False) -> Batch:
        """Make up rows like those it was trained on, the same ones each time. Deterministic.

        `with_nulls` leaves out every nullable value in the first row and some in the others.
        """
        ...


def one_line(message: str, most_characters: int = text.MAX_LINE_CHARACTERS) -> str:
    """Return `message` fit for an answer: see `serving.domain.text`, and without paths of this machine."""
    return text.one_line(_PATH.sub("...", message), most_characters)


def told(error: BaseException) -> str:
    """Return the class and message of an exception as one line."""
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def describe_skew(version: str, here: str) -> str | None:
    """Name the scikit-learn that a model was trained with and the one here; None where major.minor are the same."""
    if version.split(".")[:2] == here.split(".")[:2]:
        return None
    return text.one_line(f"trained with scikit-learn {version}, here is {here}", 150)


def add_skew(message: str, skew: str | None) -> str:
    """Return the message of a failure with the versions in `skew`, which may be why, where it does not have them."""
    return message if skew is None or skew in message else f"{message} ({skew})"


def refusal_or_failure(error: BaseException, skew: str | None = None) -> InvalidInput | ModelFailed:
    """Say whose fault it is that a model raised `error`; `skew` names versions that may be the reason.

    scikit-learn refuses rows with ValueError and TypeError; everything else is the model's own failure.
    """
    if isinstance(error, (ValueError, TypeError)) and not isinstance(error, NotFittedError):
        return InvalidInput(add_skew(one_line(f"the model refused the rows: {error}"), skew))
    return ModelFailed(add_skew(told(error), skew))
