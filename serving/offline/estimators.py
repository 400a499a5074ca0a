"""Publishing a fitted estimator from the process that trained it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.domain.errors import InvalidInput, PublishRefused
from serving.domain.manifest import Golden
from serving.domain.rows import rows_to_batch
from serving.domain.signature import Method
from serving.offline.instances import plain_value, to_instances
from serving.offline.keys import load_key
from serving.store import publishing
from serving.store.publishing import Publication, Published

if TYPE_CHECKING:
    from serving.host.model import LoadedModel


def publish(
    estimator: Any,
    model: str,
    *,
    version: str | None = None,
    store: Path | str = "model_store",
    golden: Any = None,
    X: Any = None,
    metrics: Mapping[str, Any] | None = None,
    breaking: bool = False,
    sign: Path | str | None = None,
) -> Published:
    """Publish a fitted estimator as the next version of `model` (or as `version`) and say where it went.

    `golden` are rows the model must answer alike wherever it is served: an array, a DataFrame, or a list of instances
    as a client would send them; what it answers is found out here. `X` is a sample of the rows it was trained on, for
    the dtypes and for what may be missing. `metrics` go to the manifest as they are. `breaking` says that clients of
    the version before may not understand this one. `sign` is the file of the private key to sign with, which
    ``serving keygen`` makes. A server that watches the store takes the version up by itself.

    Blocks for the answers and the disk. Raises PublishRefused, LoadRefused for what cannot be served, KeyRefused for
    the key; warns when others can read it.
    """
    from serving.host.describe import examine  # noqa: PLC0415  (scikit-learn: not for those who only check a file)
    from serving.host.loading import dump, library_versions  # noqa: PLC0415

    key = None if sign is None else load_key(Path(sign))
    if key is not None and key.exposure is not None:
        warnings.warn(key.exposure, stacklevel=2)
    with warnings.catch_warnings(action="ignore"):
        described = examine(estimator, X=X)
    publication = Publication(
        model=model,
        artefact_name="model.joblib",
        artefact=lambda file: dump(estimator, file),
        version=version,
        libraries=library_versions(),
        signature=described.signature,
        metrics={name: plain_value(value) for name, value in (metrics or {}).items()},
        breaking=breaking,
        golden=None if golden is None else _golden(described, golden),
        sign=None if key is None else key.sign,
    )
    return publishing.publish(Path(store), publication, datetime.now(UTC))


def _golden(model: LoadedModel, rows: Any) -> Golden:
    """Return rows with the model's own answers, by its default method and as probabilities."""
    signature = model.signature
    instances = to_instances(rows, signature)
    methods: list[Method] = [signature.default_method]
    if "predict_proba" in signature.methods and "predict_proba" not in methods:
        methods.append("predict_proba")
    try:
        batch = rows_to_batch(signature, instances)
        first, second = ({method: model.answer(method, batch).by_row() for method in methods} for _ in range(2))
    except InvalidInput as error:
        raise PublishRefused(f"the golden rows cannot be answered: {error}") from None
    # a model that answers the same rows in two ways cannot be held to either
    return Golden(instances=instances, expected=first, deterministic=repr(first) == repr(second))
