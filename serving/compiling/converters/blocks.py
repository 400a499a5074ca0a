"""Rows in a graph, as one part of a model passes them to the next: blocks of columns, each block one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from onnx import TensorProto

from serving.compiling.drawing import Drawing, NotCompilable
from serving.domain.signature import Dtype


@dataclass(frozen=True, slots=True)
class Block:
    """One tensor of shape (rows, width): float64 for numbers, bool or strings otherwise."""

    name: str
    width: int
    dtype: Dtype = Dtype.NUMBER


@dataclass(frozen=True, slots=True)
class Rows:
    """The input of a part, or the output of a transformer. Selecting and joining draws only the nodes needed."""

    drawing: Drawing
    blocks: tuple[Block, ...]

    @property
    def width(self) -> int:
        """The number of columns."""
        return sum(block.width for block in self.blocks)

    def draw_matrix(self) -> str:
        """Draw one float64 tensor (rows, width); bools become 0 and 1. Raises NotCompilable for strings."""
        parts = [self._as_numbers(block) for block in self.blocks if block.width]
        if not parts:
            raise NotCompilable("a part of the model gets no columns at all")
        return parts[0] if len(parts) == 1 else self.drawing.draw_node("Concat", *parts, axis=1)

    def select_columns(self, places: Sequence[int]) -> Rows:
        """Return the columns at `places`, in that order."""
        owners = [(index, within) for index, block in enumerate(self.blocks) for within in range(block.width)]
        chosen = [owners[place] for place in places]
        blocks = [
            self._cut_block(self.blocks[index], [within for _, within in run])
            for index, run in groupby(chosen, key=lambda pair: pair[0])
        ]
        return Rows(self.drawing, tuple(blocks))

    def split_columns(self) -> list[Block]:
        """Return each column as a block of its own."""
        return [self.select_columns([place]).blocks[0] for place in range(self.width)]

    def with_matrix(self, name: str, width: int) -> Rows:
        """Return rows made of one float64 tensor."""
        return Rows(self.drawing, (Block(name, width),))

    def append_columns(self, others: Sequence[Rows]) -> Rows:
        """Return these columns and those of `others`, side by side."""
        return Rows(self.drawing, self.blocks + tuple(block for other in others for block in other.blocks))

    def _cut_block(self, block: Block, within: list[int]) -> Block:
        if within == list(range(block.width)):
            return block
        places = self.drawing.add_constant(np.array(within, dtype=np.int64))
        return Block(self.drawing.draw_node("Gather", block.name, places, axis=1), len(within), block.dtype)

    def _as_numbers(self, block: Block) -> str:
        if block.dtype is Dtype.BOOL:
            return self.drawing.draw_node("Cast", block.name, to=TensorProto.DOUBLE)
        if block.dtype is not Dtype.NUMBER:
            raise NotCompilable("text reaches a part of the model that computes with numbers")
        return block.name
