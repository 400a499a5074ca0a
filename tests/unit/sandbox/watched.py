"""A program that forks a watched process for the model of each file, and prints how each ended.

Like a zygote it has imported everything and computed nothing, so libraries do in each fork what they do at their first
use. Arguments: a directory with an ``index.json`` of names and formats, and ``answer`` or ``compile``. ``blind``
answers, too, but loads files without the check of attributes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from serving import sandbox
from serving.compiling.compile_model import compile_model, import_compilers
from serving.domain.errors import InvalidInput
from serving.domain.last_words import ENDED_ITSELF
from serving.domain.version import Format
from serving.host import preload  # noqa: F401  (as the zygote does)
from serving.host.loading import load_model
from serving.host.model import LoadedModel, LoadRefused
from serving.host.restricted import reading
from serving.wire.evaluation import CompileRequest

REFUSED = 3
Ending = tuple[int, str]


def main() -> None:
    """Print one line of JSON: how the process of each file ended, and what it wrote."""
    directory, task = Path(sys.argv[1]), sys.argv[2]
    index = json.loads((directory / "index.json").read_text())
    print(json.dumps({name: _try(directory / name, Format(kind), task) for name, kind in index}))


def _try(path: Path, kind: Format, task: str) -> Ending:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(_use(path, kind, task, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def _use(path: Path, kind: Format, task: str, writing: int) -> int:
    def tell(words: str) -> None:
        os.write(writing, words.encode())

    def watch(vouched: str | None) -> None:
        assert vouched is None
        sandbox.watch(tell)

    try:
        if task == "blind":
            reading.check_loaded = lambda *_: None
        if task == "compile":
            import_compilers()
        model = load_model(str(path), kind, on_read=watch)
        if task == "compile":
            compile_model(model, CompileRequest(), [])
        else:
            answer_rows(model)
    except (LoadRefused, InvalidInput) as error:  # made-up rows are not for every model
        tell(str(error))
        return REFUSED
    except BaseException as error:  # noqa: BLE001  (a traceback would have Python compile what it shows)
        tell(repr(error))
        return 1
    return 0


def answer_rows(model: LoadedModel) -> None:
    """Call every method of the model, with few and many rows, and with missing values."""
    for method in model.signature.methods:
        for rows in (1, 8, 64):
            model.answer(method, model.make_rows(rows))
        model.answer(method, model.make_rows(8, with_nulls=True))


if __name__ == "__main__":
    assert ENDED_ITSELF != REFUSED
    main()
