"""Loading joblib, pickle and skops files without running what they name: known classes only, built in known ways only.

A pickle is a program. This is an interpreter for it that refuses what no scikit-learn model needs: see `unpickler` for
the rules, `allow_list` for the names, `call_rules` and `array_rules` for what is checked before an object is made, and
`reading` for the budgets. Of the objects, `attribute_check` checks what they would make code do, by the
`attribute_schema` of their class, and `soundness` the numbers that compiled code follows. A skops file is rewritten as
a pickle (`skops_nodes`), and read as one. A refusal of names lists all of them (`opcodes`, `refused_names`).
"""

from serving.host.restricted.distrust import Distrusted, Unlisted
from serving.host.restricted.opcodes import Survey
from serving.host.restricted.reading import check_loaded, load_restricted, survey_file
from serving.host.restricted.refused_names import explain_names, find_moved
from serving.host.restricted.skops_file import load_skops
from serving.host.restricted.soundness import check_answers, check_structure

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
