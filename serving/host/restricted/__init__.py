"""Loading joblib, pickle and skops files without running what they name: known classes only, built in known ways only.

A pickle is a program. This is an interpreter for it that refuses what no scikit-learn model needs: see `unpickler` for
the rules, `allowed` for the names, `calls` and `arrays` for what is looked at before something is made, and `reading`
for the budgets. Of what was made, `meaning` looks at what it would make code do, by the `schema` of its class, and
`structure` at the numbers that compiled code follows. A skops file is rewritten as a pickle (`skops_nodes`), and read
as one. What is refused for its names is explained with all of them (`opcodes`, `explaining`).
"""

from serving.host.restricted.distrust import Distrusted, Unlisted
from serving.host.restricted.explaining import explain_names, find_moved
from serving.host.restricted.opcodes import Survey
from serving.host.restricted.reading import check_loaded, load_restricted, survey_file
from serving.host.restricted.skops_file import load_skops
from serving.host.restricted.structure import check_answers, check_structure

__all__ = [
    "Distrusted",
    "Survey",
    "Unlisted",
    "check_answers",
    "check_loaded",
    "check_structure",
    "explain_names",
    "find_moved",
    "load_restricted",
    "load_skops",
    "survey_file",
]
