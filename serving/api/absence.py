"""Why no version answers for a model: it is unknown, on its way, refused or unloaded."""

from __future__ import annotations

from serving.api.services import AppState
from serving.domain.errors import NothingActive, UnknownModel, UnknownVersion
from serving.domain.state import State
from serving.domain.status import ModelStatus
from serving.plane.active_reference import Asked, Label, find
from serving.plane.servable import Servable
from serving.settings import TokenScope

_REFUSED = {State.REJECTED, State.QUARANTINED}


def find_explained(state: AppState, model: str, version: Asked = None) -> Servable:
    """Return what `serving.plane.active_reference.find` returns; its errors have the texts of `explain`."""
    try:
        return find(state, model, version)
    except (UnknownModel, UnknownVersion, NothingActive) as error:
        raise explain(error, state, model, version.name if isinstance(version, Label) else None) from None


def explain(error: Exception, state: AppState, model: str | None, label: str | None = None) -> Exception:
    """Return an error that says whether a model is unknown, on its way, refused or unloaded; None: the default one.

    The same for the version that `label` names, if that was asked for.
    """
    if isinstance(error, UnknownVersion):
        return _explain_label(error, state, model, label)
    if not isinstance(error, UnknownModel | NothingActive):
        return error
    is_any = isinstance(error, NothingActive)  # what is asked for is then the only model there is, if no name is given
    known = _known_model(state, model, is_any=is_any)
    if known is not None and known.unloaded:
        return _say_unloaded(known)
    if isinstance(error, UnknownModel) and not state.status.has_started:
        return NothingActive("the service is still starting; try again shortly")
    if known is None:
        return error
    # the reason belongs to what reading is for: it is told where reading needs no token
    why = _refusal_of(known) if state.services.access.is_open(TokenScope.READ) else None
    return NothingActive(f"'{known.name}' has no active version{why or ' yet'}; GET /models/{known.name} says why")


def _explain_label(
    error: UnknownVersion, state: AppState, model: str | None, label: str | None
) -> UnknownVersion | NothingActive:
    known = _known_model(state, model, is_any=False)
    version = known.labels.get(label) if known is not None and label is not None else None
    if known is None or version is None:
        return error
    if known.unloaded:
        return _say_unloaded(known)
    what = f"label '{label}' of '{known.name}' names version '{version}', which is not loaded"
    return NothingActive(f"{what}; GET /models/{known.name} says why")


def _say_unloaded(model: ModelStatus) -> NothingActive:
    return NothingActive(f"'{model.name}' is unloaded; POST /v2/repository/models/{model.name}/load loads it again")


def _known_model(state: AppState, name: str | None, *, is_any: bool) -> ModelStatus | None:
    models = state.status.models
    name = name or state.services.settings.server.default_model
    if name is None and is_any and len(models) == 1:
        (name,) = models
    return None if name is None else models.get(name)


def _refusal_of(model: ModelStatus) -> str | None:
    """Return which version was refused last and why; None while another one is being evaluated."""
    is_hopeless = model.active is None and model.target is None and model.versions
    if not is_hopeless or not {version.state for version in model.versions} <= _REFUSED:
        return None
    newest, *others = model.versions
    more = f" (and {len(others)} older)" if others else ""
    how = "is in quarantine" if newest.state is State.QUARANTINED else f"was refused: {newest.reason or 'no reason'}"
    return f": version '{newest.version}'{more} {how}"
