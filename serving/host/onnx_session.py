"""Opens an inference session for an ONNX file, also where the system lacks the locale for lower-case texts.

The operator StringNormalizer converts texts to lower case, by the rules of the locale ``en_US.UTF-8`` if the graph
names no other, and small images have only the locale ``C.UTF-8``. The C library takes the cases of letters from one
table for both (``locales/i18n_ctype`` of glibc), so the texts are the same. Other locales may have other rules: a graph
that needs a missing one is refused, and the message names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import helper

from serving.host.model import LoadRefused, describe_exception, one_line
from serving.silence import load_onnxruntime

onnxruntime = load_onnxruntime()

PRESENT_LOCALE = "C.UTF-8"
_FATAL_ONLY = 4
_LOCALE_ATTRIBUTE = "locale"
_MISSING_LOCALE = re.compile(r"construct locale with name:\s*([\w.@-]+)")
_LOCALES_WITH_SAME_CASES = ("", "en_US", "en_US.UTF-8", "en_US.utf8", "en-US")


def open_session(path: str) -> Any:
    """Return a session for the file at `path` that computes on one thread of the CPU.

    Blocks; starts a thread on first use. Raises LoadRefused when onnxruntime does not accept the graph.
    """
    try:
        return _make_session(path)
    except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
        missing = _MISSING_LOCALE.search(str(error))
        if missing is None:
            raise _make_refusal(error) from None
    content = _replace_locales(path)
    if content is None:
        name = one_line(missing.group(1))
        raise LoadRefused(
            f"the graph lowers texts by the locale '{name}', which this system lacks: install it "
            f"(Debian: the package 'locales', then 'localedef -i {name.partition('.')[0]} -f UTF-8 {name}')"
        )
    try:
        return _make_session(content)
    except Exception as error:  # noqa: BLE001
        raise _make_refusal(error) from None


def _make_session(source: str | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _make_refusal(error: Exception) -> LoadRefused:
    return LoadRefused(one_line(f"the graph cannot be loaded ({describe_exception(error)})"))


def _replace_locales(path: str) -> bytes | None:
    """Return the file with `PRESENT_LOCALE` for locales with the same cases; None where it needs another locale."""
    file = onnx.load_model(path, load_external_data=False)
    for node in _walk_nodes(file.graph):
        if node.op_type != "StringNormalizer":
            continue
        others = [attribute for attribute in node.attribute if attribute.name != _LOCALE_ATTRIBUTE]
        named = [
            attribute.s.decode("utf-8", "replace")
            for attribute in node.attribute
            if attribute.name == _LOCALE_ATTRIBUTE
        ]
        if any(name not in (*_LOCALES_WITH_SAME_CASES, PRESENT_LOCALE) for name in named):
            return None
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute(_LOCALE_ATTRIBUTE, PRESENT_LOCALE)])
    return file.SerializeToString()


def _walk_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _walk_nodes(inner)
