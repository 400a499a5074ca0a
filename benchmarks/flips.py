"""What becomes of single-bit flips of a forest's file: ``python -m benchmarks.flips [COUNT] [SEED]``.

Prints one line for each outcome. With a manifest none of them is ever loaded: the digest differs.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from tests.hostile.flips import counted, digests, forest_file, outcomes

COUNT = 600


def main(arguments: list[str]) -> int:
    """Flip, load, ask, print. Blocks for some seconds."""
    count, seed = ([int(each) for each in arguments] + [COUNT, 0][len(arguments) :])[:2]
    raw = forest_file()
    with tempfile.TemporaryDirectory() as directory:
        counts = counted(outcomes(raw, count, Path(directory) / "file", seed))
    for kind, number in counts.items():
        print(f"{kind:20} {number:5}")
    is_seen = hashlib.sha256(raw).hexdigest() not in digests(raw, count, seed)
    print(f"{'seen by a manifest':20} {count if is_seen else 0:5}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
