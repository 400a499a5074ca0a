"""Fits a small classifier with the scikit-learn of the Python that runs it, and writes it to the file that is named.

A program of its own: the server runs it as ``PYTHON -I fit_sample.py FILE`` to try out another environment.
"""

from __future__ import annotations

import sys

import joblib
import numpy as np
from sklearn.tree import DecisionTreeClassifier


def main() -> None:
    """Write the file."""
    X = np.arange(40.0).reshape(20, 2)
    model = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, np.arange(20) % 3)
    joblib.dump(model, sys.argv[1])


if __name__ == "__main__":
    main()
