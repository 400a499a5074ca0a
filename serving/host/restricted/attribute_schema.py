"""What may stand in the attributes of each known class: data, written by a script and reviewed.

A list of classes is not enough, because classes call what their attributes name: a stacked model calls the method in
``stack_method_``. ``python -m benchmarks.allow_list`` fits every estimator with every option and notes what its
attributes hold; see `Kinds` for the words it uses. Attributes that only ever hold numbers are not in the list: numbers
call nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

PLAIN = frozenset({"array", "text", "bytes", "table", "random", "dtype", "estimator", "data", "dropped"})
# packages whose texts go to code of another language, which has its own words for what to do
NATIVE = ("xgboost.", "lightgbm.")


@dataclass(frozen=True, slots=True)
class Kinds:
    """What may stand in one attribute, there or at any depth of lists, tuples, dicts, sets and arrays of objects.

    In the list each is a word: one of `PLAIN`; ``'x'`` the text x; ``/x/`` texts that match x; ``class:m.C`` an object
    of that class; ``global:m.f`` that function or class itself; ``@g`` what the group g of the list says.

    ``array`` is an array without objects and text or a sparse matrix, ``table`` a structured array, ``text`` any text,
    ``estimator`` an object of any known class of estimators, ``data`` whatever is known at all, ``dropped`` whatever
    there is: it is set to None after loading. Numbers, bools, dates and None may stand anywhere.
    """

    plain: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    classes: frozenset[str] = frozenset()
    globals: frozenset[str] = frozenset()

    @staticmethod
    def parse(words: Iterable[str]) -> Kinds:
        """Return the kinds that a list of words says; raises ValueError for a word it does not know."""
        plain, texts, patterns, found = set(), set(), [], {"class": set[str](), "global": set[str]()}
        for word in words:
            head, _, rest = word.partition(":")
            if word in PLAIN:
                plain.add(word)
            elif len(word) > 1 and word[0] == word[-1] == "'":
                texts.add(word[1:-1])
            elif len(word) > 1 and word[0] == word[-1] == "/":
                patterns.append(re.compile(word[1:-1]))
            elif head in found:
                found[head].add(rest)
            else:
                raise ValueError(f"not a kind: {word}")
        return Kinds(
            frozenset(plain), frozenset(texts), tuple(patterns), frozenset(found["class"]), frozenset(found["global"])
        )

    def takes_text(self, text: str) -> bool:
        """Say whether `text` may stand here."""
        if "text" in self.plain or "data" in self.plain or text in self.texts:
            return True
        return any(pattern.fullmatch(text) for pattern in self.patterns)


# numbers alone: what the class itself may go by
INERT = Kinds(frozenset({"array", "dtype"}), frozenset({"deprecated", "warn"}))
# what other code may look at
LABELS = Kinds(INERT.plain | {"text"})
# what no code looks at: an owner's own notes
DATA = Kinds(PLAIN - {"dropped"})
# what any estimator may have: what `set_output` leaves, words that scikit-learn looks up and names of columns; what
# watched its fit, which is never made; what it asks for; and a source of random numbers
EVERYWHERE = {
    "_sklearn_output_config": Kinds(INERT.plain, frozenset({"transform", "default", "pandas", "polars"})),
    "_transformers_feature_names_out": LABELS,
    "_skl_callbacks": DATA,
    "_metadata_request": Kinds(classes=frozenset({"sklearn.utils._metadata_requests.MetadataRequest"})),
    "random_state": Kinds(INERT.plain | {"random"}, INERT.texts),
}


@dataclass(frozen=True, slots=True)
class Schema:
    """The attributes of each known class, by its full name.

    `names` are those of attributes that any code asks other objects for, `labels` those where it looks for names only.
    `made` are classes that no file names: their objects are made by others, of a state that has been looked at.
    """

    classes: Mapping[str, Mapping[str, Kinds]]
    names: frozenset[str]
    labels: frozenset[str]
    made: frozenset[str]

    def unlisted(self, attribute: str, *, is_own: bool) -> Kinds:
        """Return what an attribute may hold that is not in the list for its class; `is_own`: the class reads it."""
        if attribute in self.labels:
            return LABELS
        if is_own:
            return INERT
        return LABELS if attribute in self.names else DATA

    @staticmethod
    def of(raw: Mapping[str, Any]) -> Schema:
        """Return the schema in the document of a list."""
        groups: Mapping[str, list[str]] = raw["groups"]

        @cache
        def kinds(words: tuple[str, ...]) -> Kinds:
            whole = [each for word in words for each in (groups[word[1:]] if word.startswith("@") else [word])]
            return Kinds.parse(whole)

        classes = {
            name: {attribute: kinds(tuple(words)) for attribute, words in attributes.items()}
            for name, attributes in raw["classes"].items()
        }
        return Schema(classes, frozenset(raw["names"]), frozenset(raw["labels"]), frozenset(raw["made"]))
