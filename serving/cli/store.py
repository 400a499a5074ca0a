"""Commands that work on files: demo, publish, check."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.client import choose_server_url
from serving.cli.operate import TokenFile, connect_operator
from serving.cli.options import Store, load_settings_with
from serving.cli.output import one_line, show, show_error, show_progress, silence_logs
from serving.cli.publish_remotely import RemotePublication, publish_remotely
from serving.cli.report_output import describe_verdict, show_gates, show_report, show_report_as_json
from serving.domain.errors import PublishRefused, StoreUnavailable
from serving.domain.listing import Listing
from serving.domain.version import order_key
from serving.settings import Settings, SettingsError

if TYPE_CHECKING:
    from serving.offline.keys import SigningKey

EXAMPLE_MODEL, EXAMPLE_ROW = "iris", [5.1, 3.5, 1.4, 0.2]

_PUBLISH_FLAGS = {
    "model": "--model NAME",
    "version": "--version V",
    "store": "--store DIR",
    "golden": "--golden FILE",
    "breaking": "--breaking",
    "sign": "--sign KEYFILE",
    "metrics": "--metric K=V",
}
"""The flag for each parameter of publishing that a refusal may mention."""


def demo(
    *,
    store: Store = None,
    if_empty: Annotated[bool, typer.Option("--if-empty", help="Do nothing when the store holds any model.")] = False,
) -> None:
    """Train demo models and publish them.

    They are trained on data sets that come with scikit-learn.
    """
    settings = load_settings_with(store=store)
    root = settings.store.path
    listing = _list_store(settings)
    if if_empty and listing.models:
        show(f"'{root}' holds models already ({_join_names(sorted(listing.models))}); nothing to do")
        return
    published = left_alone = 0
    with show_progress("demo models") as doing:
        from serving.demo import demo_versions  # noqa: PLC0415  (scikit-learn)

        for each in demo_versions():
            name = f"{each.model}/{each.version}"
            if _is_present(listing, each.model, each.version):
                show(f"{name}: is there already, left alone")
                left_alone += 1
                continue
            doing(f"training {name}")
            metrics = each.publish(root)
            show(f"{name}: {each.about}, {', '.join(f'{key} {value}' for key, value in metrics.items())}")
            published += 1
    show(f"{published} versions published in '{root}', {left_alone} left alone; 'serving serve' serves them, then try:")
    show(_make_example_call(settings))


def publish(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A model file: joblib, pickle, skops, ONNX, XGBoost or LightGBM.")
    ],
    *,
    model: Annotated[str, typer.Option(metavar="NAME", help="Publish it as a version of this model.")],
    version: Annotated[
        str | None, typer.Option(metavar="V", help="Name of the version; not given: the next number.")
    ] = None,
    golden: Annotated[Path | None, typer.Option(metavar="FILE", help="Golden examples to publish with it.")] = None,
    store: Store = None,
    breaking: Annotated[
        bool, typer.Option("--breaking", help="Do not require that it fits the clients of the version before.")
    ] = False,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A metric for the manifest; repeat for more.")
    ] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEYFILE", help="The private key to sign it with.")] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Send it to this server, which checks and publishes it.")
    ] = None,
    token_file: TokenFile = None,
) -> None:
    """Check a model file and publish it.

    It passes the same gates as in a server first; a refusal names the gate and says what to do. With --url a running
    server does both; it takes versions only with store.uploads = true.
    """
    metrics = dict(_parse_metric(text) for text in metric or [])
    if url is not None:
        if store is not None:
            raise typer.BadParameter("a server publishes into its own store", param_hint="--store")
        key = None if sign is None else _load_signing_key(sign)
        wanted = RemotePublication(file, model, version, golden, metrics, breaking, key)
        publish_remotely(connect_operator(url, token_file), wanted)
        return
    settings = load_settings_with(store=store)
    silence_logs()
    from serving.offline import publish_file  # noqa: PLC0415  (NumPy)
    from serving.offline.bare_publishing import add_hint  # noqa: PLC0415

    signing = None if sign is None else _load_signing_key(sign)

    try:
        with show_progress(f"checking {file}") as doing:
            published = publish_file(
                file,
                model,
                settings,
                version=version,
                golden=golden,
                metrics=metrics,
                breaking=breaking,
                sign=signing,
                started=doing,
            )
    except PublishRefused as error:
        reason = one_line(add_hint(error, _PUBLISH_FLAGS))
        if error.report is None:
            raise PublishRefused(reason) from None
        show_gates(error.report)
        show(f"not published: {reason}")
        raise typer.Exit(1) from None
    assert published.report is not None
    by = f", signed by {signing.public.fingerprint}" if signing else ""
    show(f"published {model}/{published.version}: {settings.store.path / model / published.version}{by}")
    show(f"{describe_verdict(published.report)}; a running server takes it up by itself, see: serving status")


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A model file or a version directory.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a file or a version with a server's gates.

    Also says what it needs, and in which environment it runs.
    """
    settings = load_settings_with()
    silence_logs()
    from serving import offline  # noqa: PLC0415  (NumPy)

    with show_progress(f"checking {path}") as doing:
        report = offline.check(path, settings, doing)
    if as_json:
        show_report_as_json(report)
    else:
        show_report(report)
    if not report.is_ready:
        raise typer.Exit(1)


def _load_signing_key(path: Path) -> SigningKey:
    """Load a private key, and say on standard error when others can read it."""
    from serving.offline.keys import load_key  # noqa: PLC0415  (cryptography)

    key = load_key(path)
    if key.exposure is not None:
        show_error(one_line(f"warning: {key.exposure}"))
    return key


def _list_store(settings: Settings) -> Listing:
    """List the store. A store that does not exist yet is empty; one that cannot be read is an error."""
    from serving.store.list_store import Store as Directory  # noqa: PLC0415  (only two of the commands list)

    try:
        return Directory(settings.store).list()
    except StoreUnavailable:
        if settings.store.path.exists():
            raise
        return Listing({})


def _is_present(listing: Listing, model: str, version: str) -> bool:
    return any(order_key(entry.version) == order_key(version) for entry in listing.models.get(model, ()))


def _join_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _make_example_call(settings: Settings) -> str:
    try:
        url = choose_server_url(None, settings.server)
    except SettingsError:  # no fixed port
        url = "http://127.0.0.1:8000"
    body = shlex.quote(json.dumps({"input": EXAMPLE_ROW}))
    return f"curl -s {url}/models/{EXAMPLE_MODEL}/predict -H 'Content-Type: application/json' -d {body}"


def _parse_metric(text: str) -> tuple[str, Any]:
    name, is_given, value = text.partition("=")
    if not name or not is_given:
        raise typer.BadParameter(f"{text!r} should be K=V, such as accuracy=0.97", param_hint="--metric")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
