"""Gate: the file can be loaded, and what it holds can be served."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from serving.compiling.compile_model import why_not_compilable
from serving.domain.report import GateName, Verdict
from serving.domain.version import Format
from serving.host.gates.gate import Context, Outcome
from serving.host.loading import Trust, load_model
from serving.host.model import LoadedModel, NotVouched, one_line

_PYTHON = (Format.JOBLIB, Format.PICKLE, Format.SKOPS)
_SHOWN, _NAME_CHARACTERS = 5, 60


class Load:
    """Loading survives and gives a fitted estimator; deadline and memory limit are the process's."""

    name = GateName.LOAD

    def check(self, context: Context) -> Outcome:
        """Load the artefact and find out its signature; LoadRefused says why it cannot be."""
        begin = monotonic()
        context.model = model = load_candidate(context)
        if context.compiler is not None and context.unvouched is None and why_not_compilable(model) is None:
            context.compiler.prepare()
        took = f"loaded {model.name} in {monotonic() - begin:.3g} s"
        left_out: Sequence[str] = getattr(model, "left_out", ())  # only a graph has outputs that are no method's
        if left_out:
            took = f"{took}; no method answers with {describe_outputs(left_out)}"
        if context.unwatched is not None:
            took = f"{took}; what it does is not watched: {context.unwatched}"
        if context.unvouched is not None:
            return Verdict.WARNED, f"{took}; {context.unvouched}"
        return Verdict.PASSED, took


def describe_outputs(names: Sequence[str]) -> str:
    """Return the first of some outputs' names, which come from a file, as part of a line."""
    shown = ", ".join(repr(one_line(name, _NAME_CHARACTERS)) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the output{'s' if len(names) > 1 else ''} {shown}{more}"


def load_candidate(context: Context) -> LoadedModel:
    """Load as far as the file is trusted; what only `security.trust = "any"` lets in is loaded then, and noted."""
    request = context.request
    declared = context.manifest.signature if context.manifest is not None else None
    columns = () if declared is not None else context.columns
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
        context.unvouched = f"loaded without knowing what it runs, as security.trust is any: {error}"
    return load_model(
        request.main.path, request.format, Trust(is_restricted=False), declared, columns, context.note_read
    )
