"""Enters the zygote in another environment than the server's, by the code of the server.

Run as ``PYTHON -I -B .../serving/host/enter.py FD PID``; the arguments are those of `forkserver`. PYTHON is the
interpreter of the environment. It gets the package `serving` from the directory above this one, and no other package
that is installed beside it: every library is that of the environment. `serving.host.substitutes` has what may be absent
there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType

OLDEST_PYTHON = (3, 9)
# what takes the place of the modules that need packages of the server
SUBSTITUTES = {
    "serving.data_model": "serving.host.substitutes.plain_models",
    "serving.json_codec": "serving.host.substitutes.plain_json",
}


def main() -> None:
    """Run the zygote until the server's socket ends."""
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        sys.exit(f"hosts need Python {wanted} or newer; {sys.executable} is {sys.version.split()[0]}")
    register_package(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    substitute_modules()
    from serving.host import forkserver  # noqa: PLC0415  (only now can it be imported)

    forkserver.main()


def register_package(directory: str) -> ModuleType:
    """Import the package `serving` from `directory`, without putting what is beside it on the path."""
    place = os.path.join(directory, "__init__.py")
    spec = importlib.util.spec_from_file_location("serving", place, submodule_search_locations=[directory])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["serving"] = package
    spec.loader.exec_module(package)
    return package


def substitute_modules() -> None:
    """Add what an older Python lacks, and put the substitutes in the places of the modules that need more packages."""
    importlib.import_module("serving.host.substitutes.older_python").complete_python()
    for name in SUBSTITUTES:
        substitute_module(name)


def substitute_module(name: str) -> None:
    """Put the substitute of this module in its place."""
    module = importlib.import_module(SUBSTITUTES[name])
    sys.modules[name] = module
    setattr(sys.modules["serving"], name.rpartition(".")[2], module)


if __name__ == "__main__":
    main()
