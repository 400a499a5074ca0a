"""Publishes a fitted estimator from the process that trained it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from serving.domain.errors import InvalidInput, ModelFailed, PublishRefused
from serving.domain.manifest import Golden
from serving.domain.signature import Method
from serving.domain.text import one_line
from serving.offline.bare_publishing import add_hint, publish_unchecked, refuse_early
from serving.offline.instances import to_instances, to_plain_value
from serving.offline.keys import SigningKey, load_key
from serving.offline.missing_packages import why_no_gates
from serving.rows.parsing import rows_to_batch
from serving.store.publishing import Publication, Published

if TYPE_CHECKING:
    from serving.host.model import LoadedModel
    from serving.offline.estimator_gates import EstimatorGates

_KEYWORDS = {
    "model": "model=",
    "version": "version=",
    "store": "store=",
    "golden": "golden=",
    "X": "X=",
    "metrics": "metrics=",
    "breaking": "breaking=True",
    "sign": 'sign="KEYFILE"',
}

# `warnings.catch_warnings` sets filters of the whole process: two at once could leave them set
_warning_filters_lock = threading.Lock()


def publish(
    estimator: Any,
    model: str,
    *,
    version: str | int | None = None,
    store: Path | str | None = None,
    golden: Any = None,
    X: Any = None,
    metrics: Mapping[str, Any] | None = None,
    breaking: bool = False,
    sign: Path | str | None = None,
    check: bool = True,
) -> Published:
    """Publish a fitted estimator as the next version of `model` (or as `version`) and return its place.

    First it passes the same gates as in a server, with the settings of the working directory, in separate processes:
    this process does not load the file. `check=False` skips the gates; then only the gates of a server decide. When no
    process can be started for them, or the packages of the server are not installed here, a warning says so, and
    ``report`` of the result is None. A server that watches the store activates the version by itself.

    `store` is the directory; None takes the setting ``store.path``, "model_store" by default, which can be read only
    where the packages of the server are. `golden` are rows that the model must answer in the same way wherever it is
    served: an array, a DataFrame, or a list of instances as a client would send them; the expected answers are computed
    here. `X` is a sample of the training rows: it shows the dtypes and which values may be missing, and names and
    number of features when the estimator does not remember them. `metrics` go to the manifest as they are. The version
    is compared with the one before; `breaking` skips that, because clients of the earlier version may not understand
    this one. `sign` is the file of the private key to sign with, which ``serving keygen`` makes.

    Blocks for some seconds. Any thread, also under a running event loop; Ctrl-C leaves nothing behind. Raises
    PublishRefused, with the ``report`` when a gate refuses, LoadRefused for an estimator that cannot be served,
    KeyRefused for the key, SettingsError; warns when others can read the key.
    """
    key = None if sign is None else load_key(Path(sign))
    if key is not None and key.exposure is not None:
        warnings.warn(key.exposure, stacklevel=2)
    why_bare = why_no_gates()
    try:
        gates = None if why_bare else _make_gates(store, key)
        root = _require_store(store, why_bare) if gates is None else gates.root
        if check and gates is not None:
            gates.refuse_unsigned()
        name = None if version is None else str(version)
        refuse_early(root, _require_text(model), name)
        publication, own_modules = _describe_estimator(estimator, model, X, golden)
        publication = replace(
            publication,
            version=name,
            metrics=_convert_metrics(metrics),
            breaking=breaking,
            sign=None if key is None else key.sign,
        )
        if gates is None:
            published, warning = _publish_bare(root, publication, own_modules, str(why_bare), check=check)
        else:
            published, warning = gates.publish(publication, own_modules, check=check)
    except PublishRefused as error:
        raise PublishRefused(add_hint(error, _KEYWORDS), error.argument, error.report) from error.__cause__
    if warning is not None:
        warnings.warn(warning, stacklevel=2)
    return published


def _make_gates(store: Path | str | None, key: SigningKey | None) -> EstimatorGates:
    from serving.offline.estimator_gates import EstimatorGates  # noqa: PLC0415  (where their packages are)

    return EstimatorGates(store, key)


def _require_store(store: Path | str | None, why_bare: str | None) -> Path:
    if store is None:
        raise PublishRefused(
            f"settings.toml, which names the store, cannot be read here ({why_bare}): name it", "store"
        )
    return Path(store)


def _describe_estimator(estimator: Any, model: str, X: Any, golden: Any) -> tuple[Publication, tuple[str, ...]]:
    """Return the publication of an estimator, and the user's own modules that its file will name."""
    from serving.host.boosters import wrap_bare_booster  # noqa: PLC0415
    from serving.host.example_rows import SampleRefused  # noqa: PLC0415
    from serving.host.pickled_names import find_named_modules  # noqa: PLC0415
    from serving.host.signature_of_estimator import examine_estimator  # noqa: PLC0415  (scikit-learn: not for those who only check a file)
    from serving.host.training_libraries import list_training_libraries  # noqa: PLC0415

    with _warning_filters_lock, warnings.catch_warnings(action="ignore"):
        try:
            described = examine_estimator(wrap_bare_booster(estimator), X=X)
        except SampleRefused as error:
            raise PublishRefused(str(error), "X") from None
        examples = None if golden is None else _make_golden(described, golden)
        modules = find_named_modules(estimator)
    publication = Publication(
        model=model,
        artefact_name="model.joblib",
        artefact=partial(_write_estimator, estimator),
        libraries=list_training_libraries(modules.every),
        signature=described.signature,
        golden=examples,
    )
    return publication, modules.own


def _publish_bare(
    root: Path, publication: Publication, own_modules: tuple[str, ...], reason: str, *, check: bool
) -> tuple[Published, str | None]:
    """Publish where the packages of the server are not installed. Also returns a warning for the user, or None."""
    from serving.host.pickled_names import describe_own_modules  # noqa: PLC0415  (see above)

    unchecked = f"published without the gates, which cannot run here ({reason}); those of a server will decide"
    published = publish_unchecked(root, publication)
    told = (unchecked if check else None, describe_own_modules(own_modules) if own_modules else None)
    return published, "; ".join(filter(None, told)) or None


def _write_estimator(estimator: Any, file: BinaryIO) -> None:
    from serving.host.loading import write_estimator  # noqa: PLC0415  (see above)

    write_estimator(estimator, file)


def _require_text(model: Any) -> str:
    if not isinstance(model, str):
        raise PublishRefused(f"the name of a model is a text, not {one_line(repr(model), 50)}", "model")
    return model


def _convert_metrics(metrics: Any) -> dict[str, Any]:
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise PublishRefused('metrics are values by name, such as {"accuracy": 0.97}', "metrics")
    return {name: to_plain_value(value) for name, value in metrics.items()}


def _make_golden(model: LoadedModel, rows: Any) -> Golden:
    """Return golden examples: rows with the model's own answers, by its default method and as probabilities."""
    if isinstance(rows, (str, bytes, Path, Mapping)):
        what = "a dict is one row: put it into a list" if isinstance(rows, Mapping) else f"not {str(rows)!r}"
        raise PublishRefused(f"golden examples are rows, in a table, an array or a list; {what}", "golden")
    signature = model.signature
    methods: list[Method] = [signature.default_method]
    if "predict_proba" in signature.methods and "predict_proba" not in methods:
        methods.append("predict_proba")
    try:
        instances = to_instances(rows, signature)
        batch = rows_to_batch(signature, instances)
        first, second = ({method: model.answer(method, batch).list_rows() for method in methods} for _ in range(2))
    except (InvalidInput, ModelFailed) as error:
        raise PublishRefused(one_line(f"the golden rows cannot be answered: {error}"), "golden") from None
    # a model that answers the same rows in two ways need not repeat either answer
    return Golden(instances=instances, expected=first, deterministic=repr(first) == repr(second))
