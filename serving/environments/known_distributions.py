"""Which distribution has which module, for libraries that models of scikit-learn are made with. Reviewed data.

A distribution is never guessed from the name of a module: anyone can register a name, and a file could then have
anything installed, which runs as soon as the Python of the environment starts. The files beside a model may name
anything, too. So a module that is not here is installed only where the operator names its distribution.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.domain.environment import COMPARED

DISTRIBUTIONS: Mapping[str, str] = {
    **COMPARED,
    # what scikit-learn stands on
    "joblib": "joblib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "threadpoolctl": "threadpoolctl",
    # estimators and transformers
    "boruta": "boruta",
    "econml": "econml",
    "fairlearn": "fairlearn",
    "featuretools": "featuretools",
    "gplearn": "gplearn",
    "hdbscan": "hdbscan",
    "hmmlearn": "hmmlearn",
    "imodels": "imodels",
    "interpret": "interpret",
    "kmodes": "kmodes",
    "lifelines": "lifelines",
    "linearmodels": "linearmodels",
    "mapie": "mapie",
    "metric_learn": "metric-learn",
    "mlxtend": "mlxtend",
    "mord": "mord",
    "ngboost": "ngboost",
    "optbinning": "optbinning",
    "pmdarima": "pmdarima",
    "pygam": "pygam",
    "pynndescent": "pynndescent",
    "pyod": "pyod",
    "quantile_forest": "quantile-forest",
    "shap": "shap",
    "sklearn_extra": "scikit-learn-extra",
    "sklearn_pandas": "sklearn-pandas",
    "sklego": "scikit-lego",
    "skmultilearn": "scikit-multilearn",
    "skopt": "scikit-optimize",
    "skrub": "skrub",
    "sksurv": "scikit-survival",
    "sktime": "sktime",
    "tslearn": "tslearn",
    "umap": "umap-learn",
    # what those and files need
    "cloudpickle": "cloudpickle",
    "dateutil": "python-dateutil",
    "dill": "dill",
    "formulaic": "formulaic",
    "holidays": "holidays",
    "networkx": "networkx",
    "nltk": "nltk",
    "numba": "numba",
    "patsy": "patsy",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "pytz": "pytz",
    "rapidfuzz": "rapidfuzz",
    "regex": "regex",
    "skops": "skops",
    "sympy": "sympy",
    "unidecode": "unidecode",
    "yaml": "pyyaml",
}
FOREIGN: Mapping[str, str] = {
    "fastai": "PyTorch",
    "flax": "JAX",
    "jax": "JAX",
    "keras": "Keras",
    "lightning": "PyTorch",
    "pytorch_lightning": "PyTorch",
    "skorch": "PyTorch",
    "tensorflow": "TensorFlow",
    "tf_keras": "Keras",
    "torch": "PyTorch",
    "transformers": "Transformers",
}
"""Modules of frameworks whose models no environment runs, with the framework's name."""
SAME_AS: Mapping[str, str] = {"xgboost-cpu": "xgboost"}
"""Distributions with the modules and versions of another one, built otherwise."""
