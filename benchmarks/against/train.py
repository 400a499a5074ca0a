"""Train the three models inside a peer's own environment: ``python train.py DIRECTORY [--mlflow]``.

Run by that environment's Python, so nothing of this repository is imported. The same data and seeds as
`benchmarks.models`; prints the versions that matter as JSON.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = load_breast_cancer(return_X_y=True)
MODELS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "forest": RandomForestClassifier(100, random_state=0),
    "neighbours": KNeighborsClassifier(),
}


def main() -> None:
    """Train and save, and for MLflow once more in its own format."""
    directory = Path(sys.argv[1])
    for name, estimator in MODELS.items():
        joblib.dump(estimator.fit(X, y), directory / f"{name}.joblib")
        if "--mlflow" in sys.argv:
            import mlflow.sklearn

            mlflow.sklearn.save_model(
                estimator, str(directory / f"mlflow-{name}"), serialization_format="pickle", input_example=X[:1]
            )
    print(json.dumps({name: version(name) for name in ("scikit-learn", "numpy")}))


if __name__ == "__main__":
    main()
