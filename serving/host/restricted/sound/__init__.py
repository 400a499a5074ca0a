"""Checks for each kind of object whose numbers compiled code uses without a check: sizes that agree, indices in range.

There is one module for each kind of compiled code. Each has a table from the full name of a class to its check, which
raises `Unsound`. A check also applies to subclasses. Checks call methods of the class, not of the object, and require
arrays of exact type, because an attribute from a file may imitate either. All checks only compute, in any thread.
"""

from __future__ import annotations

from typing import Any

from serving.host.restricted.sound import (
    booster_states,
    cluster_centers,
    encoders,
    neighbour_search,
    output_columns,
    random_numbers,
    sklearn_trees,
    sparse_layouts,
    support_vectors,
    vocabularies,
)
from serving.host.restricted.sound.requirements import Check, find_checks, run_checks

_CHECKS: dict[str, Check] = {
    **booster_states.CHECKS,
    **cluster_centers.CHECKS,
    **encoders.CHECKS,
    **neighbour_search.CHECKS,
    **output_columns.CHECKS,
    **random_numbers.CHECKS,
    **sparse_layouts.CHECKS,
    **support_vectors.CHECKS,
    **sklearn_trees.CHECKS,
    **vocabularies.CHECKS,
}


def find_problem(part: Any) -> str | None:
    """Return in a few words what is wrong with one object, None if no check finds anything. Does not let it answer."""
    return run_checks(find_checks(type(part), _CHECKS), part)


def find_problem_in_answers(part: Any) -> str | None:
    """Return what is wrong with the answers of one object, or None. Call it only for models without other problems."""
    return run_checks(find_checks(type(part), sklearn_trees.ANSWER_CHECKS), part)
