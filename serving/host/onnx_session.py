"""Open an inference session for an ONNX file, also where the system lacks the locale that lowers its texts.

Exporters have StringNormalizer lower texts, by ``en_US.UTF-8`` where they do not say otherwise, and small images have
no locale but ``C.UTF-8``. The C library takes the cases of letters from one table for both (``locales/i18n_ctype`` of
glibc), so the texts are the same. Other languages may have other rules, and are refused by name.
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

ALWAYS_THERE = "C.UTF-8"
_FATAL_ONLY = 4
_LOCALE = "locale"
_NO_LOCALE = re.compile(r"construct locale with name:\s*([\w.@-]+)")
_SAME_CASES = ("", "en_US", "en_US.UTF-8", "en_US.utf8", "en-US")


def open_file(path: str) -> Any:
    """Return a session for the file at `path`, computing on one thread of the CPU.

    Blocks; starts a thread on first use.
    Raises LoadRefused when onnxruntime takes it for no graph, or for one that cannot run here.
    """
    try:
        return _open(path)
    except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
        missing = _NO_LOCALE.search(str(error))
        if missing is None:
            raise _make_refusal(error) from None
    content = _with_locale_that_is_there(path)
    if content is None:
        name = one_line(missing.group(1))
        raise LoadRefused(
            f"the graph lowers texts by the locale '{name}', which this system lacks: install it "
            f"(Debian: the package 'locales', then 'localedef -i {name.partition('.')[0]} -f UTF-8 {name}')"
        )
    try:
        return _open(content)
    except Exception as error:  # noqa: BLE001
        raise _make_refusal(error) from None


def _open(source: str | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _make_refusal(error: Exception) -> LoadRefused:
    return LoadRefused(one_line(f"the graph cannot be loaded ({describe_exception(error)})"))


def _with_locale_that_is_there(path: str) -> bytes | None:
    """Return the file with `ALWAYS_THERE` in place of locales that lower alike; None where it needs another one."""
    file = onnx.load_model(path, load_external_data=False)
    for node in _walk_nodes(file.graph):
        if node.op_type != "StringNormalizer":
            continue
        others = [attribute for attribute in node.attribute if attribute.name != _LOCALE]
        named = [attribute.s.decode("utf-8", "replace") for attribute in node.attribute if attribute.name == _LOCALE]
        if any(name not in (*_SAME_CASES, ALWAYS_THERE) for name in named):
            return None
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute(_LOCALE, ALWAYS_THERE)])
    return file.SerializeToString()


def _walk_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _walk_nodes(inner)
