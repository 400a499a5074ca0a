"""Gate: the bytes are the ones that were published."""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME, Manifest
from serving.domain.report import Verdict
from serving.host.evaluation import EvaluationFile, EvaluationRequest
from serving.host.gates.gate import Context, Outcome, Refused


class Integrity:
    """The manifest lists exactly the staged files, names this model and version, and has not changed its bytes."""

    name = "integrity"

    def check(self, context: Context) -> Outcome:
        """Compare names, sizes and sha256 with the manifest; without one the digest is all there is to say."""
        request = context.request
        manifest = context.manifest
        if manifest is None:
            return Verdict.PASSED, f"no {MANIFEST_NAME}; digest {request.digest}"
        if (manifest.model, manifest.version) != (request.model, request.version):
            said, real = f"{manifest.model}/{manifest.version}", f"{request.model}/{request.version}"
            raise Refused(f"{MANIFEST_NAME} is for {said}, this is {real}: publish it under its own name")
        _compare(manifest, [file for file in request.files if file.name != MANIFEST_NAME])
        _refuse_conflict(request)
        return Verdict.PASSED, f"{len(manifest.files)} files as listed in {MANIFEST_NAME}; digest {request.digest}"


def _compare(manifest: Manifest, staged: list[EvaluationFile]) -> None:
    listed = {file.name: file for file in manifest.files}
    if len(listed) != len(manifest.files):
        raise Refused(f"{MANIFEST_NAME} lists a file twice")
    present = {file.name: file for file in staged}
    missing = sorted(listed.keys() - present.keys())
    if missing:
        raise Refused(f"{MANIFEST_NAME} lists '{missing[0]}', which is not there")
    extra = sorted(present.keys() - listed.keys())
    if extra:
        raise Refused(f"'{extra[0]}' is not listed in {MANIFEST_NAME}: remove it, or publish a new version with it")
    for name, wanted in listed.items():
        found = present[name]
        if found.size != wanted.size:
            raise Refused(f"'{name}' has {found.size} bytes, {MANIFEST_NAME} says {wanted.size}")
        if found.sha256 != wanted.sha256:
            raise Refused(f"'{name}' has sha256 {found.sha256[:12]}..., {MANIFEST_NAME} says {wanted.sha256[:12]}...")


def _refuse_conflict(request: EvaluationRequest) -> None:
    if request.published_digest not in (None, request.digest):
        raise Refused(
            f"conflict: version {request.version} was published as {request.published_digest}, "
            "its bytes may not change; publish a new version"
        )
