"""Gate: the libraries have the versions that the model was trained with."""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME
from serving.domain.report import GateName, Verdict
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.host.loading import SKLEARN, library_versions
from serving.host.model import describe_skew

_OTHER_LIBRARIES = ("numpy", "scipy", "pandas")


class EnvironmentGate:
    """The major.minor of scikit-learn is that of the training: another one may give wrong answers without an error.

    The manifest may have been written on another machine than the file, so both are compared.
    """

    name = GateName.ENVIRONMENT

    def check(self, context: GateContext) -> GateOutcome:
        """Compare versions; refuse another major.minor of scikit-learn unless the settings say warn.

        After a warning, the message of every later failure of the model names both versions.
        """
        model = context.loaded_model
        if model.engine == "onnx":
            return Verdict.SKIPPED, f"the file holds a graph for {model.engine}, no objects of {SKLEARN}"
        here = library_versions()
        if model.engine != "sklearn":
            return _judge_other_library(model.engine, model.trained_with.get(model.engine), here[model.engine])
        recorded = context.manifest.libraries if context.manifest is not None else {}
        stated = {
            "the file says": model.trained_with.get(SKLEARN),
            f"{MANIFEST_NAME} says": recorded.get(SKLEARN),
        }
        known = {source: version for source, version in stated.items() if version is not None}
        if not known:
            return Verdict.SKIPPED, f"neither the file nor a manifest says with which {SKLEARN} it was trained"
        now = here[SKLEARN]
        for source, version in known.items():
            if _cut_to_minor(version) != _cut_to_minor(now):
                return _judge_skew(context, source, version, now)
        notes = [
            f"trained with {SKLEARN} {version}, served by {now}: patch difference"
            for version in known.values()
            if version != now
        ][:1]
        notes += [
            f"trained with {name} {recorded[name]}, served by {here[name]}: major difference"
            for name in _OTHER_LIBRARIES
            if name in recorded and recorded[name].split(".")[0] != here[name].split(".")[0]
        ]
        return (
            (Verdict.WARNED, "; ".join(notes)) if notes else (Verdict.PASSED, f"trained with {SKLEARN} {now}, as here")
        )


def _judge_other_library(name: str, version: str | None, now: str) -> GateOutcome:
    """Return the verdict for XGBoost and LightGBM: they read files of older versions, but newer files may have more."""
    if version is None:
        return Verdict.SKIPPED, f"the file does not say with which {name} it was trained; served by {now}"
    if version == now:
        return Verdict.PASSED, f"trained with {name} {now}, as here"
    is_newer = [int(part) for part in _cut_to_minor(version)] > [int(part) for part in _cut_to_minor(now)]
    return (Verdict.WARNED if is_newer else Verdict.PASSED), f"trained with {name} {version}, served by {now}"


def _cut_to_minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _judge_skew(context: GateContext, source: str, version: str, now: str) -> GateOutcome:
    was, is_now = ".".join(_cut_to_minor(version)), ".".join(_cut_to_minor(now))
    text = f"trained with {SKLEARN} {version}, {source}; served by {now}: its answers may be silently wrong"
    if context.request.environment == "warn":
        context.skew = describe_skew(version, now)
        return Verdict.WARNED, text
    raise GateRefused(f'{text}; train it with {is_now}, serve it with {was}, or set gates.environment = "warn"')
