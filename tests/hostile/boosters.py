"""Boosters of XGBoost and LightGBM changed by chance: run as a module, with a count and a seed."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

import lightgbm
import numpy as np
import xgboost

from serving.host.restricted.sound.booster_states import find_state_problem
from tests.hostile.apart import judged

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, 4))
LABELS = np.arange(200) % 3
SUMS = ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2]
CODES = np.column_stack([ROWS[:, 0], RANDOM.integers(0, 40, 200)])


def resized(found: str) -> str:
    """Return a text with the sizes that its trees have."""
    head, _, rest = found.partition("\nTree=")
    trees, end, tail = ("Tree=" + rest).partition("end of trees")
    sizes = [len(tree) for tree in re.split(r"(?=^Tree=)", trees, flags=re.MULTILINE)[1:]]
    listed = " ".join(map(str, sizes))
    return re.sub(r"^tree_sizes=.*$", f"tree_sizes={listed}", head, flags=re.MULTILINE) + "\n" + trees + end + tail


def mutate_bytes(raw: bytes, random: np.random.Generator) -> bytes:
    """Return a copy with some bytes changed, some of them where a number of 32 bits begins."""
    copy = bytearray(raw)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(copy) - 8))
        match random.integers(4):
            case 0:
                copy[place] = int(random.integers(256))
            case 1:
                copy[place : place + 4] = int(random.integers(1 << 32)).to_bytes(4, "big")
            case 2:
                copy[place] ^= 1 << int(random.integers(8))
            case 3:
                del copy[place : place + int(random.integers(1, 9))]
    return bytes(copy)


def mutate_text(found: str, random: np.random.Generator) -> str:
    """Return a copy with some numbers of some lines changed, with the sizes that its trees have."""
    lines = found.split("\n")
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(lines)))
        name, equals, values = lines[place].partition("=")
        numbers = values.split(" ")
        chosen = int(random.integers(len(numbers)))
        match random.integers(4):
            case 0:
                numbers[chosen] = str(random.choice(["0", "-1", "1", "99999999", "-99999999", "x", "", "nan", "2"]))
            case 1:
                del numbers[chosen]
            case 2:
                numbers.insert(chosen, numbers[int(random.integers(len(numbers)))])
            case 3:
                lines.insert(place, lines[int(random.integers(len(lines)))])
        if equals:
            lines[place] = name + "=" + " ".join(numbers)
    changed = "\n".join(lines)
    return resized(changed) if random.integers(8) and "\nTree=" in changed and "end of trees" in changed else changed


def judge(case: tuple[type, Any]) -> tuple[str, str]:
    """Load one state, and ask for predictions where it was let through."""
    kind, handle = case
    state = {"handle" if kind is xgboost.Booster else "_handle": handle}
    if find_state_problem(kind, state) is not None:
        return "refused", ""
    booster = kind.__new__(kind)
    try:
        booster.__setstate__(state)
        if kind is xgboost.Booster:
            booster.set_param({"nthread": 1})
            booster.inplace_predict(ROWS[:, : booster.num_features()])
            booster.predict(xgboost.DMatrix(ROWS[:, : booster.num_features()], nthread=1), pred_leaf=True)
        else:
            booster.predict(ROWS[:, : booster.num_feature()], num_threads=1)
            booster.predict(ROWS[:, : booster.num_feature()], num_threads=1, pred_leaf=True)
    except Exception as error:  # noqa: BLE001  (damage may raise anything)
        return "raised", type(error).__name__
    return "answered", ""


def models() -> list[tuple[type, Any]]:
    """Return a few sound models of both libraries."""
    quiet = {"verbosity": 0, "nthread": 1, "max_depth": 3}
    rows = {kind: xgboost.DMatrix(ROWS, labels, nthread=1) for kind, labels in (("sums", SUMS), ("classes", LABELS))}
    categorical = xgboost.DMatrix(CODES, SUMS, feature_types=["q", "c"], enable_categorical=True, nthread=1)
    several = xgboost.DMatrix(ROWS, np.column_stack([SUMS, -SUMS]), nthread=1)
    made = [
        xgboost.train(quiet, rows["sums"], 3),
        xgboost.train({**quiet, "objective": "multi:softprob", "num_class": 3}, rows["classes"], 2),
        xgboost.train({**quiet, "booster": "dart"}, rows["sums"], 3),
        xgboost.train({**quiet, "max_cat_to_onehot": 1}, categorical, 3),
        xgboost.train({**quiet, "multi_strategy": "multi_output_tree"}, several, 3),
        xgboost.train({"booster": "gblinear", "verbosity": 0, "nthread": 1}, rows["sums"], 3),
    ]
    small = {"verbose": -1, "num_threads": 1, "num_leaves": 5, "min_data_in_leaf": 3}
    texts = [
        lightgbm.train(small, lightgbm.Dataset(ROWS, SUMS), 3),
        lightgbm.train({**small, "linear_tree": True}, lightgbm.Dataset(ROWS, SUMS), 3),
        lightgbm.train({**small, "objective": "multiclass", "num_class": 3}, lightgbm.Dataset(ROWS, LABELS), 2),
        lightgbm.train(
            {**small, "cat_smooth": 0, "min_data_per_group": 1},
            lightgbm.Dataset(CODES, SUMS, categorical_feature=[1]),
            3,
        ),
    ]
    handles = [(xgboost.Booster, bytes(each.__getstate__()["handle"])) for each in made]
    return [*handles, *((lightgbm.Booster, each.model_to_string()) for each in texts)]


def main(count: int, seed: int) -> None:
    """Print what became of `count` changed models, by word."""
    random = np.random.default_rng(seed)
    sound = models()
    cases: list[tuple[type, Any]] = []
    for index in range(count):
        kind, handle = sound[index % len(sound)]
        changed = mutate_text(handle, random) if isinstance(handle, str) else bytearray(mutate_bytes(handle, random))
        cases.append((kind, changed))
    verdicts = judged(cases, judge, megabytes=2048)
    for (kind, handle), verdict in zip(cases, verdicts, strict=True):
        if verdict.word in ("crashed", "hung"):
            print(kind.__module__, verdict, repr(handle)[:200_000], file=sys.stderr)
    print(json.dumps(Counter(verdict.word for verdict in verdicts)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
