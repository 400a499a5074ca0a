"""The second environment of the tests is what it claims to be."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAM = """
import importlib.util, numpy, pandas, sklearn
print(sklearn.__version__, numpy.__version__, pandas.__version__, importlib.util.find_spec("pydantic"))
"""


def test_it_has_its_own_versions_and_nothing_of_the_server(other_python: Path, tmp_path: Path) -> None:
    run = subprocess.run([other_python, "-I", "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.split() == ["1.5.2", "1.26.4", "2.2.3", "None"]
