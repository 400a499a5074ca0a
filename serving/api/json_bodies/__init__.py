"""The one reader of JSON bodies, small and large, for every protocol.

`cutter.read_json` parses a body. In a large one a `LongArray` stands for each long array: its elements are still text,
and are parsed piece by piece when they are read. `strict_json` says which JSON is allowed, and has the texts of
refusals; `brackets` finds arrays in a text before it is parsed; `number_reader` reads plain numbers without Python
objects; `row_changes` has the changes that protocols make to rows that come in pieces.
"""

from __future__ import annotations
