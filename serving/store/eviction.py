"""Which staged versions are too many: a pure decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from serving.store.descriptors import Cached


def surplus(cached: Sequence[Cached], in_use: Collection[str], max_versions: int, max_bytes: int) -> tuple[Cached, ...]:
    """Return the staged versions to give up, so that at most `max_versions` per model and `max_bytes` in all remain.

    The ones used last stay. Those whose digest is `in_use` always stay, even beyond the limits, and count. A file that
    several versions share counts once.
    """
    newest_first = sorted(cached, key=lambda one: one.used_ns, reverse=True)
    spared = [one for one in newest_first if one.artifact.id.digest in in_use]
    counts = Counter(one.artifact.id.model for one in spared)
    kept: list[Cached] = []
    given_up: list[Cached] = []
    for one in newest_first:
        if one.artifact.id.digest in in_use:
            continue
        counts[one.artifact.id.model] += 1
        (kept if counts[one.artifact.id.model] <= max_versions else given_up).append(one)
    references = Counter(_blobs(*spared, *kept))
    total = sum(size for _, size in references)
    while total > max_bytes and kept:
        oldest = kept.pop()
        given_up.append(oldest)
        for blob in _blobs(oldest):
            references[blob] -= 1
            total -= blob[1] if not references[blob] else 0
    return tuple(given_up)


def _blobs(*cached: Cached) -> list[tuple[str, int]]:
    return [blob for one in cached for blob in {(file.sha256, file.size) for file in one.artifact.files}]
