"""Makes the files of rows of docs/models.md in an environment that has the packages for them; a program.

Its arguments are the root of this project, the page, and the directory above the store. It reads a JSON object with the
name of the shelf for each row, and writes one with what a server must answer for each row, or with what went wrong.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any


def make_rows(page_text: str, names: dict[str, str]) -> dict[str, Any]:
    """Make the files of these rows in `model_store` below the working directory."""
    importlib.import_module("tests.e2e.models_page.library_rows")  # notes its cases
    from tests.e2e.models_page.cases import cases_of
    from tests.e2e.models_page.shelf import Page, Shelf

    page = Page(page_text)
    made: dict[str, Any] = {}
    for row in page.rows:
        if row.what in names:
            shelf = Shelf(page, row, Path("model_store"), names[row.what])
            (one,) = cases_of(row)
            try:
                one.make(shelf)
                made[row.what] = {"answered": shelf.answered, "refused": shelf.refused}
            except Exception:  # noqa: BLE001  (the test of that row fails with it, and no other)
                made[row.what] = {"error": traceback.format_exc()}
    return made


if __name__ == "__main__":
    root, page_path, directory = sys.argv[1:]
    sys.path.insert(0, root)
    os.chdir(directory)
    warnings.simplefilter("ignore")
    print(json.dumps(make_rows(Path(page_path).read_text(), json.load(sys.stdin))))
