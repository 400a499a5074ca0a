"""Benchmarks of the running server: ``python -m benchmarks [name ...]``. See ``benchmarks/README.md``."""
