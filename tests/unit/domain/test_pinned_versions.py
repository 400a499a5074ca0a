"""The versions that files beside a model pin: exact ones only, read line by line."""

from __future__ import annotations

import pytest

from serving.domain.pinned_versions import MAX_PINS, PINNING_NAMES, pick_versions, read_pins

# what MLflow 2 writes beside a model
REQUIREMENTS = b"mlflow==2.9.2\ncloudpickle==2.2.1\nnumpy==1.26.4\nscikit-learn==1.3.2\n"
PYTHON_ENV = b"""\
python: 3.10.4
build_dependencies:
- pip==22.0.4
- setuptools
- wheel==0.37.1
dependencies:
- -r requirements.txt
"""
CONDA = b"""\
channels:
- conda-forge
dependencies:
- python=3.10.4
- pip<=22.0.4
- pip:
  - mlflow==2.9.2
  - scikit-learn==1.3.2
name: mlflow-env
"""


def test_the_files_of_mlflow_are_read() -> None:
    pinned = {"mlflow": "2.9.2", "cloudpickle": "2.2.1", "numpy": "1.26.4", "scikit-learn": "1.3.2"}
    assert read_pins("requirements.txt", REQUIREMENTS) == pinned
    assert read_pins("python_env.yaml", PYTHON_ENV) == {"python": "3.10.4"}
    assert read_pins("conda.yaml", CONDA) == {"python": "3.10.4", "mlflow": "2.9.2", "scikit-learn": "1.3.2"}


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("Scikit_Learn==1.3.2", {"scikit-learn": "1.3.2"}),
        ("  a.b-c == 1.0  # why", {"a-b-c": "1.0"}),
        ("xgboost[dask]==2.1.0", {"xgboost": "2.1.0"}),
        ("numpy==1.26.4 ; python_version < '3.13'", {"numpy": "1.26.4"}),
        ("numpy==1.26.4 --hash=sha256:0123abcd \\", {"numpy": "1.26.4"}),
        ("numpy==1.26.4 \\", {"numpy": "1.26.4"}),
        ("torch==2.1.0+cpu", {"torch": "2.1.0+cpu"}),
        ("    --hash=sha256:numpy==1.26.4", {}),
        ("# numpy==1.26.4", {}),
        ("numpy>=1.26.4", {}),
        ("numpy==1.*", {}),
        ("numpy==1.26.4,<2", {}),
        ("numpy=1.26.4", {}),
        ("-e git+https://example.org/a.git#egg=numpy==1.0", {}),
        ("numpy @ https://example.org/numpy-1.26.4.whl", {}),
        ("-r other.txt", {}),
        ("--index-url https://example.org/a==1", {}),
        ("pip==22.0.4", {}),
        ("numpy==1." + "0" * 40, {}),
        ("n" * 101 + "==1.0", {}),
        ("numpy==1.0" + " " * 1000, {}),
    ],
)
def test_a_line_of_requirements(line: str, pinned: dict[str, str]) -> None:
    assert read_pins("requirements.txt", line.encode()) == pinned


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("  - numpy=1.26.4=py310h5f9d8c6_0", {"numpy": "1.26.4"}),
        ("- conda-forge::numpy=1.26.4", {"numpy": "1.26.4"}),
        ("- 'numpy==1.26.4'", {"numpy": "1.26.4"}),
        ('- "numpy=1.26.4"', {"numpy": "1.26.4"}),
        ('python: "3.10.4"', {"python": "3.10.4"}),
        ("python: 3.10.4 # as here", {"python": "3.10.4"}),
        ("  python: 3.10.4", {}),
        ("numpy==1.26.4", {}),
        ("- numpy", {}),
        ("- numpy>=1.26", {}),
        ("name: numpy==1.26.4", {}),
    ],
)
def test_a_line_of_conda(line: str, pinned: dict[str, str]) -> None:
    assert read_pins("conda.yaml", line.encode()) == pinned


def test_two_versions_of_one_distribution_say_nothing() -> None:
    raw = b"numpy==1.26.4 ; python_version < '3.12'\nnumpy==2.1.0 ; python_version >= '3.12'\nscipy==1.0\nscipy==1.0\n"
    assert read_pins("requirements.txt", raw) == {"scipy": "1.0"}


def test_any_bytes_are_read_and_their_number_is_limited() -> None:
    many = "".join(f"a{number}==1.0\n" for number in range(MAX_PINS + 50)).encode()
    assert len(read_pins("requirements.txt", many)) == MAX_PINS
    for name in PINNING_NAMES:
        assert read_pins(name, b"\xff\xfe\x00" * 1000) == {}
        assert read_pins(name, b"") == {}
    assert read_pins("requirements.txt", b"\xef\xbb\xbfnumpy==1.26.4\r\nscipy==1.1\r") == {
        "numpy": "1.26.4",
        "scipy": "1.1",
    }


def test_versions_that_decide_are_taken_from_lists_of_any_length() -> None:
    """As ``pip freeze`` writes them, sorted by name."""
    names = [*(f"a{number}" for number in range(2 * MAX_PINS)), "scikit-learn", "xgboost"]
    found = read_pins("requirements.txt", "\n".join(f"{name}==1.5" for name in names).encode())
    assert len(found) == MAX_PINS + 2
    assert {"a0", "scikit-learn", "xgboost"} <= found.keys()
    picked = pick_versions(dict.fromkeys(names, "1.5"))
    assert len(picked) == MAX_PINS
    assert {"a0", "scikit-learn", "xgboost"} <= picked.keys()
