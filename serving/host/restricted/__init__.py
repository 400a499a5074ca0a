"""Loading joblib and pickle files without running what they name: known classes only, built in known ways only.

A pickle is a program. This is an interpreter for it that refuses what no scikit-learn model needs: see `unpickler` for
the rules, `allowed` for the names, `calls` and `arrays` for what is looked at before something is made, `reading` for
the budgets and `structure` for what is looked at afterwards.
"""

from serving.host.restricted.distrust import Distrusted
from serving.host.restricted.reading import load_restricted
from serving.host.restricted.structure import check_structure

__all__ = ["Distrusted", "check_structure", "load_restricted"]
