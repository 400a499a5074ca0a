"""What a row of docs/models.md is tried with: files in a store, and what a server must say of each.

Also imported in an environment that has the packages of a row (`made_elsewhere`), which has nothing to run tests with.
"""

from __future__ import annotations

import functools
import re
import subprocess
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

import serving

_ROW = re.compile(r"^\| (?!you have)(.+?) \| (works|with|instead) \| (.*?) ?\|$", re.MULTILINE)
_BLOCK = re.compile(r"^```(python|toml|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables: what people have, whether it works, and what to do."""

    what: str
    verdict: str
    advice: str

    @property
    def quotes(self) -> list[str]:
        """What the page says that refusals say."""
        return re.findall(r'"([^"`]+)"', re.sub(r"`[^`]*`", "", self.advice))

    @property
    def recipes(self) -> list[str]:
        """The anchors of the recipes it links to."""
        return re.findall(r"\]\(#([\w-]+)\)", self.advice)


class Page:
    """docs/models.md, taken apart."""

    def __init__(self, text: str) -> None:
        tables, _, recipes = text.partition("\n## Recipes\n")
        self.rows = [Row(found[1].replace("`", ""), found[2], found[3]) for found in _ROW.finditer(tables)]
        self.blocks: dict[str, list[tuple[str, str]]] = {}
        for part in recipes.split("\n### ")[1:]:
            heading, _, body = part.partition("\n")
            self.blocks[re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")] = _BLOCK.findall(body)

    def module(self) -> str:
        """Return the module of the user's own that the recipes build, part by part."""
        return "\n\n".join(code for _, code in self._all() if code.startswith("# my_models.py"))

    def trusted_names(self) -> list[str]:
        """Return the names that the recipes trust in settings.toml."""
        import tomllib

        blocks = [code for language, code in self._all() if language == "toml"]
        return [name for code in blocks for name in tomllib.loads(code)["security"]["pickle_trusted"]]

    def _all(self) -> Iterator[tuple[str, str]]:
        for blocks in self.blocks.values():
            yield from blocks


@dataclass(slots=True)
class Shelf:
    """The files of one row, and what must come of them. `store` is ``model_store`` in the working directory."""

    page: Page
    row: Row
    store: Path
    name: str
    answered: list[tuple[str, list[Any], dict[str, Any]]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    files: int = 0

    def answers(
        self,
        estimator: Any,
        rows: Any,
        *methods: str,
        write: Callable[[Any, Path], Any] = joblib.dump,
        file: str = "1.joblib",
        **own: Any,
    ) -> None:
        """Write a file that must answer `rows` as the estimator does, or as `own` says, by these methods."""
        model, path = self._new(file)
        write(estimator, path)
        self.published(model, estimator, rows, *methods, **own)

    def published(self, model: str, estimator: Any, rows: Any, *methods: str, **own: Any) -> None:
        """Expect the same of a model that a recipe has put into the store."""
        asked = methods or tuple(own) or ("predict",)
        sent = to_rows(rows)
        expected = {method: own[method] if method in own else getattr(estimator, method)(rows) for method in asked}
        self.answered.append((model, sent, {name: to_answers(each, len(sent)) for name, each in expected.items()}))

    def refuses(self, found: Any, write: Callable[[Any, Path], Any] = joblib.dump, file: str = "1.joblib") -> None:
        """Write a file that must be refused by words that the row quotes."""
        model, path = self._new(file)
        write(found, path)
        self.refused.append(model)

    def ignores(self, content: bytes, file: str) -> None:
        """Write a file that must be a problem of the store, by words that the row quotes."""
        model, path = self._new(file)
        path.write_bytes(content)
        self.ignored.append(f"{model}/{file}")

    def run(self, recipe: str, **names: Any) -> dict[str, Any]:
        """Run the code of a recipe that the row links to, and return its names."""
        assert recipe in self.row.recipes, f"{self.row.what} does not link to {recipe}"
        # the server asks the gates in any case
        publish = functools.partial(serving.publish, store="model_store", check=False)
        names["serving"] = types.SimpleNamespace(publish=publish)
        for language, code in self.page.blocks[recipe]:
            for directory in re.findall(r"model_store/[\w-]+(?=/)", code):
                Path(directory).mkdir(exist_ok=True)
            if language == "sh":
                subprocess.run(["bash", "-euc", code], check=True)
            elif language == "python" and not code.startswith("# my_models.py"):
                exec(compile(code, f"docs/models.md, {recipe}", "exec"), names)
        return names

    def _new(self, file: str) -> tuple[str, Path]:
        self.files += 1
        model = f"{self.name}-{self.files}"
        path = self.store / model / file
        path.parent.mkdir(parents=True)
        return model, path


def to_rows(rows: Any) -> list[Any]:
    """Return rows as a client sends them: objects for those of a DataFrame, dates as text, null for what is missing."""
    if isinstance(rows, pd.DataFrame):
        cells = rows.astype(dict.fromkeys(rows.select_dtypes("datetime").columns, str)).astype(object)
        found: list[Any] = cells.where(rows.notna(), None).to_dict("records")
        return found
    return list(rows.tolist() if isinstance(rows, np.ndarray) else rows)


def to_answers(own: Any, rows: int) -> list[Any]:
    """Return what an estimator gave as a server sends it: one answer for each row, null for infinities."""
    if isinstance(own, dict):
        return [{key: value[row].item() for key, value in own.items()} for row in range(rows)]
    if isinstance(own, list) and isinstance(own[0], np.ndarray) and own[0].ndim == 2:
        return [[part[row].tolist() for part in own] for row in range(rows)]
    own = own.toarray() if hasattr(own, "toarray") else own
    return list(np.asarray(own).tolist())
