"""Gate: a trusted key has signed the version, if the settings require that."""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME
from serving.domain.provenance import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    is_reissue,
    parse_public_key,
    provenance_of,
)
from serving.domain.report import GateName, Verdict
from serving.host.ed25519 import verify_signers
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused

_SIGN = "publish it with 'serving publish --sign KEYFILE'"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class ProvenanceGate:
    """Every signature verifies, and with ``security.trust = "signed"`` a trusted key made one of them.

    The gate `integrity` has compared the files with the manifest, so a signature over the manifest covers the files.
    """

    name = GateName.PROVENANCE

    def check(self, context: GateContext) -> GateOutcome:
        """Verify ``manifest.sig``, for every trust setting; raises InvalidSignature for a line that does not verify."""
        raw = context.read_file(SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
        if raw is None:
            return _judge_unsigned(context)
        document, manifest = context.read_file(MANIFEST_NAME), context.manifest
        if document is None or manifest is None:
            raise GateRefused(f"{SIGNATURE_NAME} is there and the {MANIFEST_NAME} it signs is not: {_SIGN}")
        keys = verify_signers(raw, document)
        trusted = {parse_public_key(text) for text in context.request.trusted_keys}
        by = next((key for key in keys if key in trusted), None)
        if by is None:
            names = ", ".join(key.fingerprint for key in keys)
            if context.request.trust == "signed":
                hint = f"add the key there, or {_SIGN} and a key that is listed"
                raise GateRefused(f"signed by {names}, which is not in security.trusted_keys: {hint}")
            return Verdict.WARNED, f"signed by {names}, which is not in security.trusted_keys"
        context.provenance = own = provenance_of(manifest, by)
        active = context.request.active_provenance
        if active is not None and is_reissue(own, active):
            other = f"version {active.version}, made at {active.created_at:{_TIME}}"
            raise GateRefused(
                f"a reissue: made at {own.created_at:{_TIME}}, it would take over from {other}; publish it anew"
            )
        return Verdict.PASSED, f"signed by {by.fingerprint}, a trusted key; made at {own.created_at:{_TIME}}"


def _judge_unsigned(context: GateContext) -> GateOutcome:
    request = context.request
    if request.publisher_key is not None:
        by = f"about to be signed by {parse_public_key(request.publisher_key).fingerprint}"
        if request.trust == "signed" and request.publisher_key not in request.trusted_keys:
            return Verdict.WARNED, f"{by}, which is not in security.trusted_keys"
        return Verdict.PASSED, by
    if request.trust != "signed":
        return Verdict.SKIPPED, "not signed"
    missing = f"no {MANIFEST_NAME}" if context.manifest is None else f"no {SIGNATURE_NAME}"
    raise GateRefused(
        f'not signed ({missing}), and security.trust is "signed": {_SIGN} and a key of security.trusted_keys'
    )
