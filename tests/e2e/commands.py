"""Runs commands of the program in this process: a program of its own would import for most of a second each time."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

from serving.cli.program import run


def run_here(
    arguments: Sequence[object], directory: Path, variables: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run ``serving ARGUMENTS`` in a directory, where no setting is set but by `variables`. Main thread only.

    A warning is an error, as under ``-W error``.
    """
    words = ["serving", *map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SERVING_")}
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(directory),
        mock.patch.dict(os.environ, {**environment, **variables}, clear=True),
        mock.patch.object(sys, "argv", words),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        try:
            status = run()
        except SystemExit as ended:
            status = int(ended.code or 0)
    printed = []
    for stream in (out, err):
        stream.seek(0)
        printed.append(stream.read())
    return subprocess.CompletedProcess(words, status, *printed)
