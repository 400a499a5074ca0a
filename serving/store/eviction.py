"""Decides which staged versions the cache gives up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from serving.domain.artifact import StagedFile
from serving.store.descriptors import Cached


def choose_surplus(
    cached: Sequence[Cached],
    in_use: Collection[str],
    max_versions: int,
    max_bytes: int,
    bytes_of: Callable[[StagedFile], int] = lambda file: file.size,
) -> tuple[Cached, ...]:
    """Return the staged versions to give up, so that at most `max_versions` per model and `max_bytes` in all remain.

    Least recently used versions go first. Versions whose digest is `in_use` count, and stay even beyond the limits. A
    file that several versions share counts once; `bytes_of` returns how many bytes of disk a file takes.
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
    references = Counter(file.sha256 for one in [*spared, *kept] for file in _list_contents(one))
    taken = {file.sha256: bytes_of(file) for one in [*spared, *kept] for file in _list_contents(one)}
    total = sum(taken.values())
    while total > max_bytes and kept:
        oldest = kept.pop()
        given_up.append(oldest)
        for file in _list_contents(oldest):
            references[file.sha256] -= 1
            total -= taken[file.sha256] if not references[file.sha256] else 0
    return tuple(given_up)


def _list_contents(cached: Cached) -> list[StagedFile]:
    """Return the files of a version, each content once."""
    return list({file.sha256: file for file in cached.artifact.files}.values())
