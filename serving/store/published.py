"""Is everything there that a manifest promises?"""

from __future__ import annotations

from collections.abc import Mapping

from serving.domain.manifest import MANIFEST_NAME, Manifest
from serving.store.names import format_in_version


def why_incomplete(manifest: Manifest, sizes: Mapping[str, int], hashes: Mapping[str, str] | None = None) -> str | None:
    """Say why the files of a version, sizes in bytes by name, are not those of its manifest; None when they are.

    `hashes` holds their sha256 (hex) once they have been read; before that only names and sizes are compared.
    """
    for listed in manifest.files:
        size = sizes.get(listed.name)
        if size is None:
            return f"'{listed.name}' is in {MANIFEST_NAME} and not there yet"
        if size != listed.size:
            return f"'{listed.name}' has {size} bytes, {MANIFEST_NAME} says {listed.size}"
        if hashes is not None and hashes[listed.name] != listed.sha256:
            return f"'{listed.name}' is not the file whose sha256 {MANIFEST_NAME} gives"
    names = {listed.name for listed in manifest.files}
    unlisted = next((name for name in sorted(sizes) if format_in_version(name) and name not in names), None)
    return f"'{unlisted}' is there and not in {MANIFEST_NAME}" if unlisted else None
