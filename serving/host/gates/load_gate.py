"""Gate: the file can be loaded, and the object in it can be served."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from serving.domain.report import GateName, Verdict
from serving.domain.version import Format
from serving.host.gates.gate import GateContext, GateOutcome
from serving.host.loading import Trust, load_model
from serving.host.model import LoadedModel, NotVouched, one_line

_PYTHON = (Format.JOBLIB, Format.PICKLE, Format.SKOPS)
_SHOWN, _NAME_CHARACTERS = 5, 60


class LoadGate:
    """Loading gives a fitted estimator; the server and the sandbox limit the time and the memory for it."""

    name = GateName.LOAD

    def check(self, context: GateContext) -> GateOutcome:
        """Load the artefact and derive its signature; raises LoadRefused with the reason if that fails."""
        begin = monotonic()
        context.model = model = load_candidate(context)
        if context.compiler is not None and context.why_unvouched is None:
            from serving.compiling.compile_model import why_not_compilable  # noqa: PLC0415  (needs onnx)

            if why_not_compilable(model) is None:
                context.compiler.prepare()
        took = f"loaded {model.name} in {monotonic() - begin:.3g} s"
        left_out: Sequence[str] = getattr(model, "left_out", ())  # only a graph has outputs without a method
        if left_out:
            took = f"{took}; no method answers with {describe_outputs(left_out)}"
        if context.why_unwatched is not None:
            took = f"{took}; the model is not watched: {context.why_unwatched}"
        if context.why_unvouched is not None:
            return Verdict.WARNED, f"{took}; {context.why_unvouched}"
        return Verdict.PASSED, took


def describe_outputs(names: Sequence[str]) -> str:
    """Return the first of these names of outputs, which come from a file, as part of a line."""
    shown = ", ".join(repr(one_line(name, _NAME_CHARACTERS)) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the output{'s' if len(names) > 1 else ''} {shown}{more}"


def load_candidate(context: GateContext) -> LoadedModel:
    """Load the candidate with the trust of the settings; if only `security.trust = "any"` allows it, note that."""
    request = context.request
    declared = context.manifest.signature if context.manifest is not None else None
    columns = () if declared is not None else context.named_columns
    known = Trust(
        pickle_trusted=request.pickle_trusted,
        skops_trusted=request.skops_trusted,
        max_expansion=request.max_expansion,
        is_restricted=request.trust != "signed",  # by now the provenance gate has seen the signature
        is_final=request.trust != "any",
    )
    try:
        return load_model(request.main.path, request.format, known, declared, columns, context.note_read)
    except NotVouched as error:
        if request.trust != "any" or request.format not in _PYTHON:
            raise
        context.why_unvouched = f"loaded without knowing what it runs, because security.trust is any: {error}"
    return load_model(
        request.main.path, request.format, Trust(is_restricted=False), declared, columns, context.note_read
    )
