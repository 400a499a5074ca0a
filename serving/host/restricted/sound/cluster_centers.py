"""Checks of clusterings: the centers have the width of the rows, and the number of threads is limited.

From ``sklearn/cluster/_k_means_lloyd.pyx``, which takes both from the model.
"""

from __future__ import annotations

from typing import Any

from serving.host.restricted.sound.requirements import Check, get_attributes, require, require_array, require_integer

_MOST_THREADS = 1024
_OTHER_WIDTH = "its centers are of another width"


def _check_centers(means: Any) -> None:
    parts = get_attributes(means)
    if "cluster_centers_" not in parts:
        return
    centers = require_array(parts["cluster_centers_"], "cluster_centers_", rank=2)
    require(len(centers) and centers.shape[1] == parts["n_features_in_"], _OTHER_WIDTH)
    require_integer(parts["_n_threads"], "_n_threads", 1, _MOST_THREADS)


def _check_center_tree(means: Any) -> None:
    """Check centers that form a tree with two children below each node."""
    parts = get_attributes(means)
    waiting, seen = [parts["_bisecting_tree"]] if "_bisecting_tree" in parts else [], 0
    while waiting:
        node = get_attributes(waiting.pop())
        seen += 1
        require(seen < 2 * len(parts["cluster_centers_"]), "its tree has more nodes than centers")
        children = [node["left"], node["right"]]
        require(children.count(None) in (0, 2), "a node of its tree has one child")
        for child in children if children.count(None) == 0 else ():
            center = require_array(get_attributes(child)["center"], "center", rank=1)
            require(len(center) == parts["n_features_in_"], _OTHER_WIDTH)
            waiting.append(child)


CHECKS: dict[str, Check] = {
    "sklearn.cluster._kmeans._BaseKMeans": _check_centers,
    "sklearn.cluster._kmeans.KMeans": _check_centers,  # before scikit-learn 1.1 there is no base class
    "sklearn.cluster._bisect_k_means.BisectingKMeans": _check_center_tree,
}
