"""What each kind of object must be whose numbers compiled code follows unchecked: sizes that agree, indices in range.

One module for each kind of code; each has a table from the full name of a class to its check, which raises `Unsound`. A
check holds for the subclasses, too. Methods are taken from the class and arrays by exact type: what a file holds may
look like either. All compute only; any thread.
"""

from __future__ import annotations

from typing import Any

from serving.host.restricted.sound import (
    booster_options,
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
from serving.host.restricted.sound.requirements import Check, checks_of, outcome_of

_CHECKS: dict[str, Check] = {
    **booster_options.CHECKS,
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


def problem_of(part: Any) -> str | None:
    """Return in a few words what is wrong with one object, None where nothing is known to be. Asks nothing of it."""
    return outcome_of(checks_of(type(part), _CHECKS), part)


def problem_in_use(part: Any) -> str | None:
    """Return what is wrong with the answers of one object. Only where `problem_of` found nothing in all of a model."""
    return outcome_of(checks_of(type(part), sklearn_trees.TRIALS), part)
