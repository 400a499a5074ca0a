"""docs/models.md tells the truth: for each row its models are made, dropped into one server's store, and asked.

What needs a package that is not installed here is made and served in an environment that has it, by `make ends`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from tests.e2e.harness import Server, serving
from tests.e2e.models_page import (
    booster_rows,
    file_rows,
    library_rows,
    made_elsewhere,
    own_code_rows,
    sklearn_rows,
)
from tests.e2e.models_page.cases import CASES, cases_of, rows_of
from tests.e2e.models_page.shelf import Page, Row, Shelf
from tests.e2e.models_page.shelf_check import check_shelf, wait_decided
from tests.environments import FIELD_MODULES

ROOT = Path(__file__).parents[2]
PAGE_FILE = ROOT / "docs" / "models.md"
PAGE = Page(PAGE_FILE.read_text())
MADE_BY = (sklearn_rows, booster_rows, file_rows, library_rows, own_code_rows)


def make(shelf: Shelf) -> Shelf | Exception | str:
    """Make the files of one row; return why not, where that failed or what it takes is not installed."""
    (one,) = cases_of(shelf.row)
    if one.absent:
        return f"{', '.join(one.absent)} not installed"
    try:
        # what libraries warn of while they train is theirs; threads only get into each other's way
        with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
            one.make(shelf)
    except Exception as error:  # noqa: BLE001  (the test of that row fails with it, and no other)
        return error
    return shelf


def make_elsewhere(python: Path, rows: dict[str, str], store: Path) -> dict[str, Shelf | Exception]:
    """Make the files of these rows in another environment; `rows` has the name of the shelf for each."""
    program = [python, made_elsewhere.__file__, ROOT, PAGE_FILE, store.parent]
    run = subprocess.run(program, input=json.dumps(rows), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    made: dict[str, Shelf | Exception] = {}
    for row in PAGE.rows:
        if row.what in rows:
            told = json.loads(run.stdout)[row.what]
            error = told.get("error")
            made[row.what] = RuntimeError(error) if error else Shelf(PAGE, row, store, rows[row.what], **told)
    return made


def is_made_elsewhere(row: Row) -> bool:
    """Say whether the second environment has what is absent here for the files of this row."""
    (one,) = cases_of(row)
    return bool(one.absent) and set(one.absent) <= FIELD_MODULES


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What has been made of each row, in the store below the working directory."""
    directory = tmp_path_factory.mktemp("page")
    store = directory / "model_store"
    store.mkdir()
    (directory / "my_models.py").write_text(PAGE.module())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.syspath_prepend(directory)
        rows = [row for row in PAGE.rows if len(cases_of(row)) == 1]
        names = {row.what: f"row-{place}" for place, row in enumerate(rows)}
        yield {row.what: make(Shelf(PAGE, row, store, names[row.what])) for row in rows}
    sys.modules.pop("my_models", None)


@pytest.fixture(scope="module")
def server(shelves: dict[str, Any]) -> Iterator[Server]:
    directory = Path.cwd()
    settings = {
        "SERVING_SECURITY__PICKLE_TRUSTED": ",".join(PAGE.trusted_names()),
        "SERVING_ENGINE__COMPILE": "off",  # changes no answer, and takes longer than everything else here
        "SERVING_STORE__POLL_SECONDS": "0.2",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH")))),
    }
    with serving(directory, store=directory / "model_store", **settings) as server:
        yield server


@pytest.mark.parametrize("row", PAGE.rows, ids=lambda row: row.what[:50])
def test_a_row_says_what_a_server_does(row: Row, shelves: dict[str, Any], request: pytest.FixtureRequest) -> None:
    shelf = shelves[row.what]
    if isinstance(shelf, str):
        pytest.skip(shelf)
    if isinstance(shelf, Exception):
        raise shelf
    check_shelf(shelf, request.getfixturevalue("server"))


@pytest.mark.ends
def test_models_of_packages_are_served_where_these_are(field_python: Path, tmp_path: Path) -> None:
    rows = [row for row in PAGE.rows if is_made_elsewhere(row)]
    if not rows:
        pytest.skip("the packages are installed here: `make models`")
    assert len(rows) >= 5
    store = tmp_path / "model_store"
    made = make_elsewhere(field_python, {row.what: f"row-{place}" for place, row in enumerate(rows)}, store)
    settings = {
        "SERVING_SECURITY__PICKLE_TRUSTED": ",".join(PAGE.trusted_names()),
        "SERVING_ENVIRONMENTS__FIELD__PYTHON": str(field_python),
    }
    with serving(tmp_path, store=store, **settings) as server:
        for row in rows:
            shelf = made[row.what]
            if isinstance(shelf, Exception):
                raise shelf
            check_shelf(shelf, server)
            for model, _, _ in shelf.answered:
                assert wait_decided(server, model, "ACTIVE")["environment"] == "field"


def test_each_row_has_one_case_and_each_case_one_row() -> None:
    assert {row.what for row in PAGE.rows if len(cases_of(row)) != 1} == set()
    assert {one.start for one in CASES if len(rows_of(one, PAGE.rows)) != 1} == set()
    assert len(PAGE.rows) >= 50


def test_each_recipe_is_what_some_row_links_to() -> None:
    assert set(PAGE.blocks) == {anchor for row in PAGE.rows for anchor in row.recipes}
