"""Which files are refused because they are meant to be, told by what the server says of them."""

from __future__ import annotations

from tests.correctness.asking import Finding

# a part of the reason, and what it comes down to
_EXPECTED = (
    ("offers none of predict", "no method that answers new rows"),
    ("does not say how many features", "does not say how many features it takes, and has no manifest that does"),
    ("answers nothing itself", "the model itself answers none of the rows either"),
    ("XGBoost cuts off categories", "its library cuts its categories off when it writes them"),
    (
        "does not tell which columns its pandas categories",
        "its library does not write which column its categories are of",
    ),
    ("cannot be written", "cannot be written in this form by its own library"),
)


def why_expected(finding: Finding) -> str:
    """Say in a few words why a file is refused rightly; an empty text where it is not."""
    return next((words for part, words in _EXPECTED if part in finding.refused), "")
