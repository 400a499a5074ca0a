"""The interface that a proof needs of a model: its answers, and what is known about its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serving.host.input_columns import InputColumn
from serving.host.model import LoadedModel


class Provable(LoadedModel, Protocol):
    """A model that says what it knows of its columns."""

    @property
    def columns(self) -> Sequence[InputColumn]:
        """What is known of each feature, in the order of the signature."""
        ...
