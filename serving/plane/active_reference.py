"""The active reference: the one immutable value in ``app.state`` that says which servable answers for each model.

One number says for the whole service which generation of it answers: what control has committed. With several workers
it lies in memory that all of them share (`serving.wire.shared_words`), and each request reads it once, when it is
admitted: a worker whose reference is older switches to the one that it has prepared first. So all workers switch at the
instant at which that number is written, whether or not they have heard of it otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Protocol

from serving.domain.errors import NothingActive, Unavailable, UnknownModel, UnknownVersion
from serving.plane.servable import Lease, Servable
from serving.plane.served_split import ServedSplit

MOST_LOOKS = 8  # for another one to be of use, a whole swap has to happen between two of them


class Role(Enum):
    """A version by its part in the reference, for callers that do not know its name."""

    ACTIVE = "active"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Label:
    """A version by an operator's name for it.

    `otherwise` is what a caller means by this name as long as no operator has set it; None: nothing.
    """

    name: str
    otherwise: str | Role | None = None


Asked = str | Role | Label | None
"""A version by its name, its part or its label; None: what answers for requests that name none."""


@dataclass(frozen=True, slots=True)
class ModelReference:
    """What answers for one model: the active servable, and every loaded one by version (the active one included).

    The loaded ones are in the order of their last activation. `split` says how requests that name no version are shared
    while there is a rollout. `labels` has what answers for each label that operators have set, None while nothing does.
    """

    active: Servable | None = None
    loaded: Mapping[str, Servable] = field(default_factory=lambda: MappingProxyType({}))
    split: ServedSplit | None = None
    labels: Mapping[str, Servable | None] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ActiveReference:
    """Every model the service knows. Never changed, only replaced.

    `generation` is its plan's; `committed` has one item, the generation that answers now in the whole service.
    """

    models: Mapping[str, ModelReference] = field(default_factory=lambda: MappingProxyType({}))
    generation: int = 0
    committed: Sequence[int] = (0,)


class HoldsActive(Protocol):
    """The part of ``app.state`` that this module uses. `prepared` is what answers after the next commit."""

    active: ActiveReference
    prepared: ActiveReference


def activate(state: HoldsActive, reference: ActiveReference) -> None:
    """Make `reference` the one that answers from now on. Only the plane calls it; it waits for nothing."""
    state.active = reference


def read(state: HoldsActive) -> ActiveReference:
    """Return the reference that answers now in the whole service. Any thread; waits for nothing.

    A commit that this process has not been told of yet holds already. Nothing is committed before every worker has
    prepared it, so it is the prepared reference; or the active one again, if this process is told of it meanwhile and
    prepares the one after. Raises Unavailable in a process that has failed to prepare: control goes on without it.
    """
    reference = state.active
    if reference.committed[0] == reference.generation:
        return reference
    for _ in range(MOST_LOOKS):
        for reference in (state.prepared, state.active):
            if reference.committed[0] == reference.generation:
                return reference
    raise Unavailable("this process does not know yet which versions answer now; try again")


def settle(state: HoldsActive) -> None:
    """Make the reference that answers now the active one, if it was only prepared: nobody will tell this process of
    its commit any more. Event loop thread only, while no control tells this process anything.
    """
    with suppress(Unavailable):
        activate(state, read(state))


def find(state: HoldsActive, model: str, version: Asked = None) -> Servable:
    """Return what `find_in` finds in the reference that answers now, which is read once. Event loop thread only.

    The servable may be freed as soon as the loop turns, so a caller that waits takes a `lease` instead.
    """
    return find_in(read(state), model, version)


def find_in(reference: ActiveReference, model: str, version: Asked = None) -> Servable:
    """Return the servable that answers for `model`, or the loaded `version` of it.

    PREVIOUS is the loaded version that was active last before the one that is now.

    Raises UnknownModel, UnknownVersion or NothingActive; Unavailable for a label on a version that is not loaded.
    """
    found = reference.models.get(model)
    if found is None:
        raise UnknownModel.for_name(model)
    if isinstance(version, Label):
        labelled = found.labels.get(version.name)
        if labelled is not None:
            return labelled
        version = _read_unanswered(version, model, found)
    if version is Role.PREVIOUS:
        arriving = None if found.split is None else found.split.new
        standbys = [one for one in found.loaded.values() if one not in (found.active, arriving)]
        if not standbys:
            raise UnknownVersion(f"no version of '{model}' is loaded beside the active one")
        return standbys[-1]
    if version is not None and version is not Role.ACTIVE:
        servable = found.loaded.get(version)
        if servable is None:
            loaded = ", ".join(sorted(found.loaded)) or "none"
            raise UnknownVersion(f"version '{version}' of '{model}' is not loaded (loaded: {loaded})")
        return servable
    if found.active is None:
        raise NothingActive(f"'{model}' has no active version yet; GET /models/{model} says why")
    return found.active


def _read_unanswered(label: Label, model: str, found: ModelReference) -> str | Role:
    """Return what a label means that no operator has set; raises UnknownVersion if it means nothing.

    Raises Unavailable for one that is set, on a version that is not loaded.
    """
    if label.name in found.labels:
        what = f"label '{label.name}' of '{model}' names a version that is not loaded"
        raise Unavailable(f"{what}; GET /models/{model} says why")
    otherwise = label.otherwise
    if otherwise is None or (isinstance(otherwise, str) and otherwise not in found.loaded):
        labels = ", ".join(found.labels) or "none"
        raise UnknownVersion(f"'{model}' has no label {label.name[:120]!r} (it has: {labels})")
    return otherwise


def lease(state: HoldsActive, model: str, version: str | None = None) -> Lease:
    """Take a lease on what `find` returns, and raise what it raises. Event loop thread only.

    Finding and leasing are one step on that thread, so a servable is never freed in between.
    """
    return find(state, model, version).lease()
