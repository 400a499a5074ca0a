"""The schema of attributes: what each attribute of each known class may hold. Data, written by a script and reviewed.

A list of classes is not enough, because classes call what their attributes name: a stacked model calls the method named
in ``stack_method_``. ``python -m benchmarks.allow_list`` fits every estimator with every option and records what its
attributes hold. `Kinds` explains the words in the list. Attributes that only hold numbers are not listed, because
numbers call nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

PLAIN = frozenset({"array", "text", "bytes", "table", "random", "dtype", "estimator", "data", "dropped"})
# packages that hand their texts to code in another language, which reads its own commands in them
NATIVE = ("xgboost.", "lightgbm.")


@dataclass(frozen=True, slots=True)
class Kinds:
    """What one attribute may hold, itself or at any depth of lists, tuples, dicts, sets and arrays of objects.

    The list has a word for each: one of `PLAIN`; ``'x'`` for the text x; ``/x/`` for texts that match x; ``class:m.C``
    for an object of that class; ``global:m.f`` for that function or class itself; ``@g`` for the words of group g.

    ``array`` is an array without objects and text, or a sparse matrix. ``table`` is a structured array, ``text`` any
    text, ``estimator`` an object of any known estimator class, ``data`` anything that is known. ``dropped`` is
    anything: the attribute is set to None after loading. Numbers, bools, dates and None are allowed everywhere.
    """

    plain: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    classes: frozenset[str] = frozenset()
    globals: frozenset[str] = frozenset()

    @staticmethod
    def parse(words: Iterable[str]) -> Kinds:
        """Return the kinds for a list of words; raises ValueError for an unknown word."""
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

    def allows_text(self, text: str) -> bool:
        """Return True if the attribute may hold `text`."""
        if "text" in self.plain or "data" in self.plain or text in self.texts:
            return True
        return any(pattern.fullmatch(text) for pattern in self.patterns)


# numbers only: for attributes that the class itself reads
INERT = Kinds(frozenset({"array", "dtype"}), frozenset({"deprecated", "warn"}))
# numbers and texts: for attributes that other code may read
LABELS = Kinds(INERT.plain | {"text"})
# anything known: for attributes that no code reads, such as the notes of a model's author
DATA = Kinds(PLAIN - {"dropped"})
# attributes that any estimator may have: the settings of `set_output` (words that scikit-learn looks up, and names of
# columns), the callbacks of its fit (never made), its metadata requests, and a source of random numbers
EVERYWHERE = {
    "_sklearn_output_config": Kinds(INERT.plain, frozenset({"transform", "default", "pandas", "polars"})),
    "_transformers_feature_names_out": LABELS,
    "_skl_callbacks": DATA,
    "_metadata_request": Kinds(classes=frozenset({"sklearn.utils._metadata_requests.MetadataRequest"})),
    "random_state": Kinds(INERT.plain | {"random"}, INERT.texts),
}


@dataclass(frozen=True, slots=True)
class Schema:
    """The attributes of each known class, by the full name of the class.

    `names` are the attributes that some code reads from other objects. `labels` are the attributes in which code looks
    for names only. `made` are classes that no file names: other classes make their objects, from a checked state.
    """

    classes: Mapping[str, Mapping[str, Kinds]]
    names: frozenset[str]
    labels: frozenset[str]
    made: frozenset[str]

    def find_unlisted_kinds(self, attribute: str, *, is_own: bool) -> Kinds:
        """Return what an attribute may hold that its class does not list. `is_own` says that the class reads it."""
        if attribute in self.labels:
            return LABELS
        if is_own:
            return INERT
        return LABELS if attribute in self.names else DATA

    @staticmethod
    def parse(raw: Mapping[str, Any]) -> Schema:
        """Return the schema in the JSON document of an allow-list."""
        groups: Mapping[str, list[str]] = raw["groups"]

        @cache
        def parse_words(words: tuple[str, ...]) -> Kinds:
            whole = [each for word in words for each in (groups[word[1:]] if word.startswith("@") else [word])]
            return Kinds.parse(whole)

        classes = {
            name: {attribute: parse_words(tuple(words)) for attribute, words in attributes.items()}
            for name, attributes in raw["classes"].items()
        }
        return Schema(classes, frozenset(raw["names"]), frozenset(raw["labels"]), frozenset(raw["made"]))
