"""``docs/correctness.md``, written from what a run of ``python -m benchmarks.correctness`` has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.correctness.asking import CROWDED, Finding, iterate
from tests.correctness.known import why_expected

LIBRARIES = ("scikit-learn", "numpy", "onnxruntime", "skl2onnx")
SHOWN = 6  # differences of one model

INTRODUCTION = f"""\
Models are fitted, dropped as files into the store of a real server, and asked over HTTP and gRPC. The answers are
compared with those of the same model in another process of the same environment. Labels, integers, bools and texts
have to be equal. Numbers have to be equal bit for bit, or within `engine.compile_tolerance` (1e-5, relative to the
number, or to a usual number of the model where that is less than 1).

- **Models.** Every estimator of scikit-learn that takes rows, as its own tests construct it; with every value of
  every parameter that changes how rows are answered (kernels, norms, losses, strategies, `handle_unknown`, methods of
  calibration); on labels that are texts, bools, several, on float32, texts, objects, tables, missing values.
  Pipelines, searches, wrappers, texts, functions, kernels. Every encoder on every kind of column (floats, integers
  beyond 2<sup>53</sup>, bools, strings, categories, days, nullable dtypes, with gaps). Every objective and booster of
  XGBoost and LightGBM, pandas categories of every kind. ONNX graphs of skl2onnx, compared with onnxruntime. As
  joblib, pickle in protocols 2 to 5, skops, MLflow directories, `.ubj`, `.json` and `.txt`, in turns.
- **Rows.** 500 like those of training and mixtures of them, together by every method in every protocol and form: JSON
  arrays and objects, CSV, npy, Arrow, MLflow's split and records, TensorFlow's instances and inputs, the Open
  Inference Protocol in JSON, binary and over gRPC. Edge rows, each alone and then together in every protocol: zeros
  of both signs, 5e-324 to 1.7e308, whole numbers, integers up to 2<sup>63</sup> - 1, null, words and categories that
  were never seen, empty text. Some of the 500 one by one, and {CROWDED[0]} requests of one row from 48 clients at
  once by the default method ({CROWDED[1]} by each other), so that they are merged where they may be.
- **Refusals.** The server has to refuse the rows that the model refuses, and to answer the rows that it answers. There
  are three exceptions: the guard of a compiled form refuses a row, an integer would be rounded, or the model's answer
  to null is NaN. The reasons are counted below.
- In answers of objects, 1 and 1.0 count as equal. Models that answer differently each time (random imputation) are
  asked, and not compared."""


@dataclass
class Sum:
    """What the models of one kind add up to."""

    models: int = 0
    compiled: int = 0
    rows: int = 0
    answers: int = 0
    inexact: int = 0
    largest: float = 0.0
    differences: int = 0
    guarded: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    expected: Counter[str] = field(default_factory=Counter)
    unrepeatable: int = 0
    wires: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        """Add one model."""
        self.models += 1
        self.compiled += finding.engine == "compiled"
        self.rows += finding.rows
        self.answers += finding.answers
        self.inexact += finding.inexact
        self.largest = max(self.largest, finding.largest)
        self.differences += len(finding.differences)
        self.unrepeatable += bool(finding.unrepeatable)
        self.guarded += finding.guarded
        self.wires += finding.wires
        if finding.refused:
            reason = why_expected(finding)
            self.expected[reason] += bool(reason)
            self.refused += not reason


def differing(finding: Finding) -> list[str]:
    """Return a line for each of the first differences of a model, and how many more there are."""
    lines = [f"DIFFERS {line}" for line in iterate(finding)]
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"DIFFERS {finding.kind} / {finding.name}: {more} more like these"]


def sums_of(found: Iterable[Finding]) -> dict[str, Sum]:
    sums: dict[str, Sum] = {}
    for finding in found:
        sums.setdefault(finding.kind, Sum()).add(finding)
        sums.setdefault("all", Sum()).add(finding)
    whole = sums.pop("all", Sum())
    return {**dict(sorted(sums.items())), "**all**": whole}


def table_of(sums: dict[str, Sum]) -> str:
    head = (
        "| kind | models | compiled | hosted | rows | answers compared | differ | equal bit for bit | largest distance "
    )
    lines = [
        head + "| rows refused by a guard | files refused wrongly | files refused, expected |",
        "|---" + "|--:" * 11 + "|",
    ]
    for kind, one in sums.items():
        refused = one.refused + sum(one.expected.values())
        share = 1 - one.inexact / one.answers if one.answers else 1.0
        cells: list[Any] = [kind, one.models, one.compiled, one.models - one.compiled - refused, f"{one.rows:,}"]
        cells += [f"{one.answers:,}", one.differences, f"{share:.1%}", f"{one.largest:.1g}", sum(one.guarded.values())]
        lines.append("| " + " | ".join(map(str, [*cells, one.refused, sum(one.expected.values())])) + " |")
    return "\n".join(lines)


def notes_of(sums: dict[str, Sum], found: Iterable[Finding]) -> list[str]:
    whole = sums["**all**"]
    lines = ["", "Answers compared by protocol (edge rows and single rows, in JSON, not counted here):", ""]
    lines += [
        "| protocol | answers |",
        "|---|--:|",
        *(f"| {wire} | {many:,} |" for wire, many in whole.wires.most_common()),
    ]
    lines += [
        "",
        "Rows that the model answers and the server refuses, by reason:",
        "",
        "| reason | rows |",
        "|---|--:|",
    ]
    lines += [f"| {reason} | {many:,} |" for reason, many in whole.guarded.most_common()]
    lines += ["", "Files that are refused, as they are meant to be:", "", "| reason | files |", "|---|--:|"]
    lines += [f"| {reason} | {many:,} |" for reason, many in whole.expected.most_common() if reason]
    lines += ["", f"{whole.unrepeatable} models answer differently each time and were not compared."]
    wrong = [line for finding in found for line in differing(finding)]
    wrong += [f"REFUSED {f.kind} / {f.name}: {f.refused}" for f in found if f.refused and not why_expected(f)]
    return lines + (["", "What differs:", "", *(f"- {line}" for line in wrong)] if wrong else [])


def is_remarkable(finding: Finding) -> bool:
    """Say whether something differs, or a file is refused that should not be."""
    return bool(finding.differences) or (bool(finding.refused) and not why_expected(finding))


def part_of(every: int, *, is_cut: bool, has_asked_again: bool = False) -> str:
    """Say how many of all models were asked, and whether some of them again."""
    which = "every model" if every == 1 else f"one in {every} of the models, evenly spread"
    which += ", those that differed once more after a fix" if has_asked_again else ""
    return f"{which}, as far as the time went" if is_cut else which


def render(found: list[Finding], where: dict[str, Any], part: str, minutes: float) -> str:
    """Return the whole page."""
    sums = sums_of(found)
    versions = ", ".join(f"{name} {where['versions'][name]}" for name in LIBRARIES)
    machine = where["machine"]
    when = f"{where['date']}, {machine['processor']}, {machine['cores']} cores, Python {where['versions']['python']}, "
    when += f"{versions}; "
    paragraphs = [
        "# Correctness",
        "Written by `python -m benchmarks.correctness`; do not edit it by hand.",
        INTRODUCTION,
    ]
    return (
        "\n\n".join([*paragraphs, f"{when}{minutes:.0f} minutes; {part}.", table_of(sums)])
        + "\n"
        + "\n".join(notes_of(sums, found))
        + "\n"
    )
