"""A sceptic with a client: models are dropped, asked in every protocol, alone and in a crowd, and compared.

`cases` says what is fitted, `material` which rows are asked, `wires` how they are sent, `answers` what is the same, and
`asking` asks one model. ``python -m benchmarks.correctness`` runs all of it, tests/e2e/test_correctness.py a part.
"""
