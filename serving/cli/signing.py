"""Commands for signed versions: keygen, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import Store, load_settings_with
from serving.cli.output import one_line, show, show_progress, show_table
from serving.domain.provenance import InvalidSignature, parse_public_key
from serving.domain.report import Verdict


def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The private key to write; the public one is FILE.pub.")],
) -> None:
    """Make a key that signs versions."""
    from serving.offline.keys import PUBLIC_SUFFIX, create_key  # noqa: PLC0415  (cryptography)

    public = create_key(file)
    show(f"private key: {file} (keep it where versions are published, and nowhere else)")
    show(f"public key:  {file}{PUBLIC_SUFFIX}")
    show("for settings.toml, under [security]:")
    show(f'trusted_keys = ["{public}"]')


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A version directory.")],
    *,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="ed25519:...", help="A public key to trust, instead of the settings; repeat for more."),
    ] = None,
    store: Store = None,
) -> None:
    """Check who signed a version.

    Also checks that no file of it has changed. Loads nothing and needs no server.
    """
    settings = load_settings_with(store=store)
    try:
        keys = {parse_public_key(text) for text in key or settings.security.trusted_keys}
    except InvalidSignature as error:
        raise typer.BadParameter(str(error), param_hint="--key") from None
    if not keys:
        raise typer.BadParameter(
            "no key is trusted: name one with --key, or put it into security.trusted_keys", param_hint="--key"
        )
    from serving.offline.verifying import verify as check  # noqa: PLC0415  (not for --help)

    with show_progress(f"verifying {path}"):
        checks = check(path, keys, settings.store)
    show_table(["CHECK", "VERDICT", "EVIDENCE"], [[one.check, one.verdict, one.evidence] for one in checks])
    last = checks[-1]
    if last.verdict is Verdict.REFUSED:
        show(one_line(f"not verified: {last.evidence}"))
        raise typer.Exit(1)
    show(one_line(f"verified: {checks[0].evidence}, signed {last.evidence}"))
