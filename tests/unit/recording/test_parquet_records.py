"""Records as Parquet: columns with types for people with pandas, and the same documents when they are read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.recording.parquet_records import iterate_lines, iterate_parquet, write_parquet

pq = pytest.importorskip("pyarrow.parquet", reason="the extra arrow is not installed")
pd = pytest.importorskip("pandas")

HEAD = {
    "time": "2026-11-30T14:08:52.123456+00:00",
    "request_id": "a",
    "model": "iris",
    "version": "3",
    "method": "predict",
    "rows": 1,
    "seconds": 0.25,
    "row": 0,
}


def convert(directory: Path, *documents: dict[str, Any]) -> Path:
    source, target = directory / "a.jsonl", directory / "a.parquet"
    source.write_bytes(b"".join(orjson.dumps({**HEAD, **document}) + b"\n" for document in documents))
    assert write_parquet(source, target, lambda: False)
    assert list(iterate_parquet(target)) == list(iterate_lines(source)), "nothing is lost, and nothing is changed"
    return target


def test_features_are_columns_with_types(tmp_path: Path) -> None:
    rows = (
        {"age": 1.5, "town": "Bern", "is_new": True, "any": None},
        {"age": None, "town": None, "is_new": None, "any": None},
    )
    frame = pd.read_parquet(convert(tmp_path, *({"features": row, "answer": 1} for row in rows)))
    assert frame["features.age"].dtype == "float64"
    assert frame["features.town"].tolist()[0] == "Bern"
    assert frame["features.is_new"].tolist()[0] is True
    assert frame["answer"].dtype == "int64"
    assert str(frame["time"].dtype) == "datetime64[us, UTC]" or str(frame["time"].dtype).endswith("UTC]")
    assert frame["features.any"].isna().all()


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (("a", None, "b"), "string"),
        ((1.5, None, 2), "double"),
        ((1, 2), "int64"),
        ((2**60, 1), "int64"),
        ((True, False), "bool"),
        (([0.1, 0.9], [1, None]), "list<element: double>"),
        ((2**63, 1), "string"),
        ((2**60, 1.5), "string"),
        ((1, "a"), "string"),
        ((True, 1), "string"),
        (([[0.1, 0.9], [1.0]], [[1.0], []]), "string"),
        (({"a": 1}, None), "string"),
        (((), ("a", 1)), "string"),
    ],
)
def test_answers_of_one_kind_have_its_type_and_others_are_json(
    tmp_path: Path, answers: tuple[Any, ...], kind: str
) -> None:
    documents = [{"features": {"a": 1.0}, "answer": answer} for answer in answers]
    schema = pq.read_schema(convert(tmp_path, *documents))
    assert str(schema.field("answer").type).replace("list<item", "list<element") == kind


def test_integers_and_numbers_of_a_feature_are_one_type(tmp_path: Path) -> None:
    whole = pd.read_parquet(convert(tmp_path, {"features": {"a": 1}, "answer": 1}))
    assert whole["features.a"].dtype == "float64", "as in the next file, which may have others"
    frame = pd.read_parquet(
        convert(tmp_path, {"features": {"a": 1}, "answer": 1}, {"features": {"a": 2.5}, "answer": 1})
    )
    assert frame["features.a"].tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    "rows", [({"a": 1.0}, {"b": 2.0}), ({"a": {"b": 1}}, {}), ([1.0, 2.0], [3.0, None]), ("text", {"a": 1})]
)
def test_rows_of_different_fields_are_json(tmp_path: Path, rows: tuple[Any, ...]) -> None:
    frame = pd.read_parquet(convert(tmp_path, *({"features": row, "answer": 1} for row in rows)))
    assert [orjson.loads(text) for text in frame["features"]] == list(rows)


def test_what_was_left_out_is_a_list_of_names(tmp_path: Path) -> None:
    left_out = {"features": {"a": 1.0}, "left_out": ["name", "predict"], "answer": None}
    frame = pd.read_parquet(convert(tmp_path, left_out, {"features": {"a": 1.0}, "answer": None}))
    assert list(frame["left_out"][0]) == ["name", "predict"]


def test_many_rows_are_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.recording.parquet_records.ROW_GROUP", 10)
    monkeypatch.setattr("serving.recording.parquet_records.PAUSE_SECONDS", 0.0)
    convert(tmp_path, *({"features": {"a": float(n)}, "answer": n, "request_id": str(n)} for n in range(35)))


def test_a_feature_of_any_name_is_a_column(tmp_path: Path) -> None:
    names = ("", "time", "features.a", "ü", "a\nb")
    frame = pd.read_parquet(convert(tmp_path, {"features": dict.fromkeys(names, 1.0), "answer": 1}))
    assert {f"features.{name}" for name in names} <= set(frame.columns)


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"half": \n\n[1]\n{"features": 1}\n{"other": 1}\n{"feat')
    assert list(iterate_lines(tmp_path / "a.jsonl")) == [{"features": 1}]
