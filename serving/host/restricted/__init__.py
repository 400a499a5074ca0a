"""Load joblib, pickle and skops files without running code from them: known classes only, built in known ways only.

A pickle is a program. This package is an interpreter for it that refuses what no scikit-learn model needs. `unpickler`
has the rules, `allow_list` the names, and `reading` the budgets. `call_rules` and `array_rules` check what an object is
made of, before it is made. After loading, `attribute_check` compares the attributes of every object with the
`attribute_schema` of its class, and `soundness` checks the numbers that compiled code uses without a check. A skops
file is rewritten as a pickle (`skops_nodes`) and read as one. A refusal lists all refused names (`opcodes`,
`refused_names`).
"""

from serving.host.restricted.allow_list import Distrusted, Unlisted
from serving.host.restricted.opcodes import Survey
from serving.host.restricted.reading import check_loaded, load_restricted, survey_file
from serving.host.restricted.refused_names import explain_names, find_moved
from serving.host.restricted.skops_file import load_skops, survey_skops
from serving.host.restricted.soundness import check_answers, check_soundness

__all__ = [
    "Distrusted",
    "Survey",
    "Unlisted",
    "check_answers",
    "check_loaded",
    "check_soundness",
    "explain_names",
    "find_moved",
    "load_restricted",
    "load_skops",
    "survey_file",
    "survey_skops",
]
