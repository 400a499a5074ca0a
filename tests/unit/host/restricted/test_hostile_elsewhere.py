"""In environments with an older scikit-learn, too, sound models load and models that would misuse its code do not.

What is checked there differs: the nodes of a tree, the losses of boosted trees, the room for a path, the columns of
an encoder. A child that crashes fails the test.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.environments import ENTERED

PROGRAM = """
import io, pickle, struct, warnings
warnings.simplefilter("ignore")
import joblib
import numpy as np
import sklearn
from scipy import sparse
from sklearn import cluster, ensemble, linear_model, neighbors, pipeline, preprocessing, svm, tree
from serving.host.restricted import Distrusted, check_answers, load_restricted

ROWS = np.random.default_rng(0).normal(size=(200, 4))
LABELS = np.arange(200) % 3
CITIES = np.array([["Lima"], ["Oslo"], ["Rome"], ["Rome"]] * 10, dtype=object)

def with_state(made, change):
    kind, arguments, state = made.__reduce__()
    fresh = kind(*arguments)
    fresh.__setstate__(change(state))
    return fresh

def nodes_with(name, node, value):
    def change(state):
        nodes = state["nodes"].copy()
        nodes[name][node] = value
        return {**state, "nodes": nodes}
    def lie(model):
        model.tree_ = with_state(model.tree_, change)
    return lie

def put(name, value):
    def lie(model):
        vars(model)[name] = value(vars(model)[name]) if callable(value) else value
    return lie

def histogram_node(name, value):
    def lie(model):
        model._predictors[0][0].nodes[name][0] = value
    return lie

def search_tree(place, edit):
    def lie(model):
        def change(state):
            return (*state[:place], edit(np.copy(state[place])), *state[place + 1:])
        model._tree = with_state(model._tree, change)
    return lie

def far(places):
    places[3] = 1 << 40
    return places

def flat_trees(model):
    for each in model.estimators_:
        each.tree_ = with_state(each.tree_, lambda state: {**state, "max_depth": 1})

def drops_beyond(model):
    for name in ("drop_idx_", "_drop_idx_after_grouping"):
        if name in vars(model):
            vars(model)[name] = np.array([7], dtype=object)

def a_loss_of_two(model):
    other = ensemble.GradientBoostingClassifier(n_estimators=1).fit(ROWS, LABELS > 0)
    for name in ("loss_", "_loss"):
        if name in vars(model):
            vars(model)[name] = vars(other)[name]

def a_loss_of_more(model):
    loss = vars(model).get("loss_", vars(model).get("_loss"))
    loss.K = 50

forest = lambda: ensemble.RandomForestClassifier(3).fit(ROWS, LABELS)
one_tree = lambda: tree.DecisionTreeClassifier(max_depth=3).fit(ROWS, LABELS)
boosted = lambda: ensemble.GradientBoostingClassifier(n_estimators=2).fit(ROWS, LABELS)
histograms = lambda: ensemble.HistGradientBoostingRegressor(max_iter=2).fit(ROWS, LABELS)
isolation = lambda: ensemble.IsolationForest(n_estimators=3).fit(ROWS)
neighbours = lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, LABELS)
means = lambda: cluster.KMeans(3, n_init=1).fit(ROWS)
dropping = lambda: preprocessing.OneHotEncoder(drop="first").fit(CITIES)
machine = lambda: svm.SVC().fit(ROWS, LABELS)
splines = lambda: preprocessing.SplineTransformer(n_knots=3).fit(ROWS)
def noted():
    model = preprocessing.StandardScaler().fit(ROWS)
    model.note = sparse.csr_matrix(np.eye(3))
    return model

LIES = {
    "a child before its parent": (one_tree, nodes_with("left_child", 0, 0)),
    "a child beyond the nodes": (one_tree, nodes_with("right_child", 0, 1 << 40)),
    "a feature beyond the rows": (one_tree, nodes_with("feature", 0, 99)),
    "a forest of fewer columns": (forest, put("n_features_in_", 2)),
    "a loss of two classes": (boosted, a_loss_of_two),
    "a left child at its parent": (histograms, histogram_node("left", 0)),
    "a right child beyond the nodes": (histograms, histogram_node("right", 1 << 31)),
    "a binned feature beyond the rows": (histograms, histogram_node("feature_idx", 99)),
    "isolation trees without room": (isolation, flat_trees),
    "a place beyond the rows": (neighbours, search_tree(1, far)),
    "fewer places": (neighbours, search_tree(1, lambda places: places[:-1].copy())),
    "a label beyond the classes": (neighbours, put("_y", lambda found: found + 99)),
    "narrower centers": (means, put("cluster_centers_", lambda found: np.ascontiguousarray(found[:, :2]))),
    "a million threads": (means, put("_n_threads", 1 << 20)),
    "a dropped category beyond": (dropping, drops_beyond),
    "fewer weights": (machine, put("_dual_coef_", lambda found: np.ascontiguousarray(found[:, :-1]))),
    "a column beyond the matrix": (noted, lambda model: vars(model.note)["indices"].fill(1 << 20)),
    "a degree beyond the knots": (splines, lambda model: vars(model.bsplines_[0]).update(k=50)),
    "text for a method": (
        lambda: ensemble.StackingClassifier([("a", linear_model.LogisticRegression())], cv=2).fit(ROWS, LABELS),
        put("stack_method_", ["fit"]),
    ),
}
if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 4):
    LIES["a loss of more trees"] = (boosted, a_loss_of_more)

def write(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()

def write_without_state(made):
    maker, arguments = made.__reduce__()[:2]
    names = (maker.__module__, maker.__name__)
    texts = b"".join(b"\\x8c" + struct.pack("<B", len(each)) + each.encode() for each in names)
    return b"\\x80\\x04" + texts + b"\\x93" + pickle.dumps(arguments, 2)[2:-1] + b"R)b."

def judge(raw):
    with open(sys.argv[1], "wb") as file:
        file.write(raw)
    try:
        check_answers(load_restricted(sys.argv[1]))
    except Distrusted as error:
        return str(error)
    return "loaded"

found = {"version": sklearn.__version__, "sound": {}, "lies": {}}
for name, (make, lie) in LIES.items():
    model = make()
    found["sound"][name] = judge(write(model))
    lie(model)
    found["lies"][name] = judge(write(model))
for made in (neighbors.KDTree(ROWS), neighbors.BallTree(ROWS), neighbours()._tree.__getstate__()[11]):
    found["lies"]["a state without parts: " + type(made).__name__] = judge(write_without_state(made))
print(json.dumps(found))
"""
LEAST_LIES = 20


@pytest.mark.parametrize("fixture", ["other_python", "oldest_python"])
def test_only_sound_models_load_there(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    python = request.getfixturevalue(fixture)
    command = [python, "-I", "-B", "-c", ENTERED + PROGRAM, tmp_path / "blob"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["sound"].values()) == {"loaded"}, found["sound"]
    assert len(found["lies"]) >= LEAST_LIES
    assert {name: said for name, said in found["lies"].items() if said == "loaded"} == {}
