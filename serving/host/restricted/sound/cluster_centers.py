"""Rows are compared with centers of the same width, by as many threads as a model says.

After ``sklearn/cluster/_k_means_lloyd.pyx``.
"""

from __future__ import annotations

from typing import Any

from serving.host.restricted.sound.requirements import Check, need, numbers, parts_of, whole_number

_MOST_THREADS = 1024
_OTHER_WIDTH = "its centers are of another width"


def _check_centers(means: Any) -> None:
    parts = parts_of(means)
    if "cluster_centers_" not in parts:
        return
    centers = numbers(parts["cluster_centers_"], "cluster_centers_", rank=2)
    need(len(centers) and centers.shape[1] == parts["n_features_in_"], _OTHER_WIDTH)
    whole_number(parts["_n_threads"], "_n_threads", 1, _MOST_THREADS)


def _check_bisected(means: Any) -> None:
    """Its centers stand in a tree, two below each node."""
    parts = parts_of(means)
    waiting, seen = [parts["_bisecting_tree"]] if "_bisecting_tree" in parts else [], 0
    while waiting:
        node = parts_of(waiting.pop())
        seen += 1
        need(seen < 2 * len(parts["cluster_centers_"]), "its tree has more nodes than centers")
        children = [node["left"], node["right"]]
        need(children.count(None) in (0, 2), "a node of its tree has one child")
        for child in children if children.count(None) == 0 else ():
            center = numbers(parts_of(child)["center"], "center", rank=1)
            need(len(center) == parts["n_features_in_"], _OTHER_WIDTH)
            waiting.append(child)


CHECKS: dict[str, Check] = {
    "sklearn.cluster._kmeans._BaseKMeans": _check_centers,
    "sklearn.cluster._bisect_k_means.BisectingKMeans": _check_bisected,
}
