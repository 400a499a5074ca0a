"""Benchmarks of the running server: ``python -m benchmarks [name ...]``. See ``benchmarks/README.md``."""

from serving.host.substitutes.older_python import complete_python

complete_python()  # lists and figures are made in older Pythons, too
