"""Why no version answers for a model: it is unknown, on its way, refused or unloaded."""

from __future__ import annotations

from serving.api.services import AppState
from serving.domain.errors import NothingActive, UnknownModel
from serving.domain.state import State
from serving.domain.status import ModelStatus
from serving.plane.active_reference import Asked, find
from serving.plane.servable import Servable
from serving.settings import TokenScope

_REFUSED = {State.REJECTED, State.QUARANTINED}


def find_explained(state: AppState, model: str, version: Asked = None) -> Servable:
    """Return what `serving.plane.active_reference.find` returns; its errors have the texts of `explain`."""
    try:
        return find(state, model, version)
    except (UnknownModel, NothingActive) as error:
        raise explain(error, state, model) from None


def explain(error: Exception, state: AppState, model: str | None) -> Exception:
    """Return an error that says whether a model is unknown, on its way, refused or unloaded; None: the default one."""
    if not isinstance(error, UnknownModel | NothingActive):
        return error
    is_any = isinstance(error, NothingActive)  # what is asked for is then the only model there is, if no name is given
    known = _known_model(state, model, is_any=is_any)
    if known is not None and known.unloaded:
        return NothingActive(f"'{known.name}' is unloaded; POST /v2/repository/models/{known.name}/load loads it again")
    if isinstance(error, UnknownModel) and not state.status.has_started:
        return NothingActive("the service is still starting; try again shortly")
    if known is None:
        return error
    # the reason belongs to what reading is for: it is told where reading needs no token
    why = _refusal_of(known) if state.services.access.is_open(TokenScope.READ) else None
    return NothingActive(f"'{known.name}' has no active version{why or ' yet'}; GET /models/{known.name} says why")


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
