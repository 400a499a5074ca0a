"""The active reference: the one immutable value in ``app.state`` that says which servable answers for each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Protocol

from serving.domain.errors import NothingActive, UnknownModel, UnknownVersion
from serving.plane.servable import Lease, Servable


class Role(Enum):
    """A version by its part in the reference, for callers that do not know its name."""

    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """What answers for one model: the active servable, and every loaded one by version (the active one included).

    The loaded ones are in the order of their last activation.
    """

    active: Servable | None = None
    loaded: Mapping[str, Servable] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ActiveReference:
    """Every model the service knows. Never changed, only replaced."""

    models: Mapping[str, ModelReference] = field(default_factory=lambda: MappingProxyType({}))


class HoldsActive(Protocol):
    """The part of ``app.state`` that this module uses."""

    active: ActiveReference


def activate(state: HoldsActive, reference: ActiveReference) -> None:
    """Make `reference` the one that answers from now on. Only the plane calls it; it waits for nothing."""
    state.active = reference


def find(state: HoldsActive, model: str, version: str | Role | None = None) -> Servable:
    """Return the servable that answers for `model`, or the loaded `version` of it; reads the active reference once.

    PREVIOUS is the loaded version that was active last before the one that is now.

    Event loop thread only. The servable may be freed as soon as the loop turns, so a caller that waits takes a `lease`
    instead. Raises UnknownModel, UnknownVersion or NothingActive.
    """
    reference = state.active.models.get(model)
    if reference is None:
        raise UnknownModel.for_name(model)
    if version is Role.PREVIOUS:
        standbys = [one for one in reference.loaded.values() if one is not reference.active]
        if not standbys:
            raise UnknownVersion(f"no version of '{model}' is loaded beside the active one")
        return standbys[-1]
    if version is not None:
        servable = reference.loaded.get(version)
        if servable is None:
            loaded = ", ".join(sorted(reference.loaded)) or "none"
            raise UnknownVersion(f"version '{version}' of '{model}' is not loaded (loaded: {loaded})")
        return servable
    if reference.active is None:
        raise NothingActive(f"'{model}' has no active version yet; GET /models/{model} says why")
    return reference.active


def lease(state: HoldsActive, model: str, version: str | None = None) -> Lease:
    """Take a lease on what `find` returns, and raise what it raises. Event loop thread only.

    Finding and leasing are one step on that thread, so a servable is never freed in between.
    """
    return find(state, model, version).lease()
