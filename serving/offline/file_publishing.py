"""Publishes a model file that was made elsewhere. This process never loads the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from serving.domain.errors import PublishRefused
from serving.domain.manifest import Golden, InvalidDocument, parse_golden
from serving.offline.bare_publishing import refuse_early
from serving.offline.gated_publishing import publish_gated, refuse_unsigned
from serving.offline.keys import SigningKey
from serving.offline.offline_evaluator import Started, open_evaluator
from serving.settings import Settings
from serving.store.names import artefact_name
from serving.store.publishing import Publication, Published


def publish_file(
    path: Path,
    model: str,
    settings: Settings,
    *,
    version: str | None = None,
    golden: Path | None = None,
    metrics: Mapping[str, JsonValue] | None = None,
    breaking: bool = False,
    sign: SigningKey | None = None,
    started: Started = lambda _: None,
) -> Published:
    """Evaluate a model file as the next version of `model` (or as `version`) and publish it if no gate refuses.

    It is compared with the newest version in the store that has a signature, unless `breaking`. The published bytes
    are those that were evaluated; `sign` signs them. `started` is called with the name of each gate.
    Blocks. Raises what `check` raises, and PublishRefused, with the report when a gate refuses.
    """
    refuse_unsigned(settings, sign)
    examples = None if golden is None else read_golden(golden)
    refuse_early(settings.store.path, model, version)
    if path.is_dir():
        raise PublishRefused(f"'{path}' is a directory; name the model file in it")
    with open_evaluator(settings) as evaluator:
        artifact = evaluator.stage(path, model, version or "next")
        publication = Publication(
            model=model,
            artefact_name=artefact_name(path.suffix, artifact.format),
            artefact=path,
            version=version,
            metrics=metrics or {},
            breaking=breaking,
            golden=examples,
            sign=None if sign is None else sign.sign,
        )
        return publish_gated(evaluator, artifact.main, artifact.format, publication, settings, sign, started)


def read_golden(golden: Path) -> Golden:
    """Read golden examples from a file; raises PublishRefused. Blocks."""
    try:
        return parse_golden(golden.read_bytes())
    except OSError as error:
        reason = f"the golden examples cannot be read: '{golden}': {error.strerror}"
        raise PublishRefused(reason, "golden") from None
    except InvalidDocument as error:
        raise PublishRefused(f"'{golden}' holds no golden examples: {error}", "golden") from None
