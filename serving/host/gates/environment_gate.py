"""Gate: the libraries have the versions that the model was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from serving.domain.environment import OWN, compared_libraries, suggest_name, to_minor
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.report import GateName, Verdict
from serving.host.boosters import EXTRAS
from serving.host.find_needs import is_too_old
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.host.loading import SKLEARN, library_versions
from serving.host.model import one_line

_OTHER_LIBRARIES = ("numpy", "scipy", "pandas")


class EnvironmentGate:
    """The major.minor of scikit-learn is that of the training: another one may give wrong answers without an error.

    So are those of the other libraries whose objects fit one version only. Versions are compared with those of the
    process that this runs in, which may be in another environment than the server's. The manifest may have been written
    on another machine than the file, so both are compared.
    """

    name = GateName.ENVIRONMENT

    def check(self, context: GateContext) -> GateOutcome:
        """Compare versions; refuse another major.minor of such a library unless the settings say warn.

        After a warning, the message of every later failure of the model names both versions.
        """
        model = context.loaded_model
        if model.engine == "onnx":
            return Verdict.SKIPPED, f"the file holds a graph for {model.engine}, no objects of {SKLEARN}"
        here = library_versions()
        if model.engine != "sklearn":
            version, now = _find_trained(context, model.engine), here[model.engine]
            return _judge_booster(model.engine, version, now, _describe_place(context))
        known = _list_stated(context)
        skew = next(_find_skews(context, known, here[SKLEARN]), None)
        if skew is not None:
            return _judge_skew(context, *skew)
        notes = _list_differences(context, known, here)
        if notes:
            return Verdict.WARNED, "; ".join(notes)
        others = [name for name in compared_libraries(context.needs) if name not in (SKLEARN, *EXTRAS)]
        if not known and not others:
            return Verdict.SKIPPED, f"neither the file nor a manifest says with which {SKLEARN} it was trained"
        same = [f"{SKLEARN} {here[SKLEARN]}"] if known else []
        same += [f"{name} {context.needs.libraries[name]}" for name in others]
        return Verdict.PASSED, f"trained with {', '.join(same)}, {_describe_place(context)}"


def _list_stated(context: GateContext) -> dict[str, str]:
    """Return the versions of scikit-learn that are stated of a model that has parts of it, by who states them."""
    in_file = context.loaded_model.trained_with.get(SKLEARN)
    if in_file is None and "sklearn" not in context.needs.modules:
        return {}
    recorded = context.manifest.libraries.get(SKLEARN) if context.manifest is not None else None
    stated = {"the file says": in_file, f"{MANIFEST_NAME} says": recorded}
    known = {source: version for source, version in stated.items() if version is not None}
    if known or SKLEARN not in context.needs.libraries:
        return known
    return {context.needs.sources[SKLEARN]: context.needs.libraries[SKLEARN]}


def _find_skews(context: GateContext, known: dict[str, str], now: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield each library with another major.minor here: its name, who says so, its version in training, and here."""
    for source, version in known.items():
        if to_minor(version) != to_minor(now):
            yield SKLEARN, source, version, now
    for name in compared_libraries(context.needs):
        if name in (SKLEARN, *EXTRAS):
            continue
        version, installed = context.needs.libraries[name], _find_installed(name)
        if to_minor(version) != to_minor(installed):
            yield name, context.needs.sources[name], version, installed


def _list_differences(context: GateContext, known: dict[str, str], here: dict[str, str]) -> list[str]:
    """Return the differences of versions that are worth a warning and no refusal, each as a text."""
    recorded = context.manifest.libraries if context.manifest is not None else {}
    now = here[SKLEARN]
    notes = [
        f"trained with {SKLEARN} {version}, served by {now}: patch difference"
        for version in known.values()
        if version != now
    ][:1]
    for name in compared_libraries(context.needs):
        if name in EXTRAS and name in here:
            verdict, text = _judge_booster(name, context.needs.libraries[name], here[name], "as here")
            notes += [f"{text}: a newer one wrote it"] if verdict is Verdict.WARNED else []
    return notes + [
        f"trained with {name} {recorded[name]}, served by {here[name]}: major difference"
        for name in _OTHER_LIBRARIES
        if name in recorded and name in here and recorded[name].split(".")[0] != here[name].split(".")[0]
    ]


def _find_trained(context: GateContext, library: str) -> str | None:
    """Return the version of XGBoost or LightGBM that wrote the model, None where nothing says it."""
    return context.loaded_model.trained_with.get(library) or context.needs.libraries.get(library)


def _find_installed(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"


def _describe_place(context: GateContext) -> str:
    return "as here" if context.request.place == OWN else f"as in environment '{context.request.place}'"


def _judge_booster(name: str, version: str | None, now: str, place: str) -> GateOutcome:
    """Return the verdict for XGBoost and LightGBM: they read files of older versions, but newer files may have more."""
    if version is None:
        return Verdict.SKIPPED, f"the file does not say with which {name} it was trained; served by {now}"
    if version == now:
        return Verdict.PASSED, f"trained with {name} {now}, {place}"
    is_newer = _to_numbers(version) > _to_numbers(now)
    return (Verdict.WARNED if is_newer else Verdict.PASSED), f"trained with {name} {version}, served by {now}"


def _to_numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in to_minor(version).split(".")]


def _judge_skew(context: GateContext, library: str, source: str, version: str, now: str) -> GateOutcome:
    was, is_now = to_minor(version), to_minor(now)
    text = f"trained with {library} {version}, {source}; served by {now}: its answers may be silently wrong"
    needs = context.needs
    can_be_made = needs.libraries.get(library) == version and not is_too_old(version)
    create = f"serving environment create {suggest_name(needs, ())} --for PATH"
    remedy = f"; to serve it with {was}: {create}" if can_be_made else ""
    if context.request.environment == "warn":
        context.skew = one_line(f"trained with {library} {version}, here is {now}", 150)
        return Verdict.WARNED, f"{text}{remedy}"
    raise GateRefused(f'{text}; train it with {is_now}, serve it with {was}, or set gates.environment = "warn"{remedy}')
