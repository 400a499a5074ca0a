"""The union of two allow-lists of one scikit-learn, generated beside different versions of the other libraries.

NumPy, SciPy, pandas, XGBoost and LightGBM have moved their classes, too: a list is generated with the oldest that a
scikit-learn works with and with the newest, and allows what either has.
"""

from __future__ import annotations

from typing import Any

from benchmarks.attribute_list import make_groups, write_with_groups

Document = dict[str, Any]


def unite_lists(one: Document, other: Document) -> Document:
    """Return the document of a list that allows what either list allows."""
    called = {
        name: sorted({*one["called"].get(name, ()), *other["called"].get(name, ())})
        for name in sorted({*one["called"], *other["called"]})
    }
    created = {*one["created"], *other["created"]} - called.keys()
    values = {*one["values"], *other["values"]} - created - called.keys()
    nameable = {*called, *created, *values}
    return {
        "called": called,
        "created": sorted(created),
        "values": sorted(values),
        "schema": _unite_schemas(one["schema"], other["schema"], nameable),
    }


def _unite_schemas(one: Document, other: Document, nameable: set[str]) -> Document:
    mine, its = _expand(one), _expand(other)
    classes: dict[str, dict[str, set[str]]] = {}
    for name in sorted({*mine, *its}):
        known = [each[name] for each in (mine, its) if name in each]
        classes[name] = {
            attribute: _unite_words([each[attribute] for each in known if attribute in each])
            for attribute in sorted({attribute for each in known for attribute in each})
        }
    groups = make_groups(classes.values(), {*one["groups"]["scorers"], *other["groups"]["scorers"]})
    return {
        "groups": {name: sorted({*words, *one["groups"].get(name, ())}) for name, words in sorted(groups.items())},
        "classes": {
            name: {attribute: write_with_groups(attribute, words, groups) for attribute, words in attributes.items()}
            for name, attributes in classes.items()
        },
        "labels": sorted({*one["labels"], *other["labels"]}),
        "made": sorted({*one["made"], *other["made"]} - nameable),
        "names": sorted({*one["names"], *other["names"]}),
    }


def _expand(schema: Document) -> dict[str, dict[str, set[str]]]:
    groups = schema["groups"]
    return {
        name: {
            attribute: {each for word in words for each in (groups[word[1:]] if word[0] == "@" else [word])}
            for attribute, words in attributes.items()
        }
        for name, attributes in schema["classes"].items()
    }


def _unite_words(known: list[set[str]]) -> set[str]:
    """Return the words of one attribute: no arrays where one list has none, no single texts beside any text."""
    words = set().union(*known)
    if not all("array" in each for each in known):
        words.discard("array")
    return {word for word in words if word[0] != "'"} if "text" in words else words
