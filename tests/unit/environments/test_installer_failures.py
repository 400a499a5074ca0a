"""The last lines of uv or pip become one line that says what to do."""

from __future__ import annotations

import pytest

from serving.environments.installer_failures import explain_failure


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying ... NewConnectionError('<...>: [Errno 111] Connection refused')",
            "cannot be reached; check",
        ),
        ("  cause: error sending request for url (https://pypi.org/simple/numpy/)", "cannot be reached; check"),
        ("ERROR: No matching distribution found for scikit-learn==1.3.77", "the index has no such version"),
        (
            "  cause: Because there is no version of numpy==1.3 and you require numpy==1.3",
            "the index has no such version",
        ),
        ("(from versions: none)\nERROR: No matching distribution found for x", "has no wheel of a package for this P"),
        (
            "  cause: Because scikit-learn==1.9.0 has no usable wheels and you require",
            "a package has no wheel for this",
        ),
        ("ERROR: ResolutionImpossible: for help visit https://pip.pypa.io", "the versions do not fit together"),
        ("The virtual environment was not created because ensurepip is not available.", "(Debian: python3-venv)"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/x'", "nothing may be written there"),
        ("error: unexpected argument '--no-project' found", "this uv is too old"),
        ("something new", "it ended with status 2"),
    ],
)
def test_a_cause_is_recognised(line: str, cause: str) -> None:
    assert cause in explain_failure(["Collecting numpy", *line.splitlines()], 2)


def test_a_signal_is_named() -> None:
    assert explain_failure([], -9) == "it was killed by signal 9"
