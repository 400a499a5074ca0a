"""Estimators that look for the nearest of some stored rows: centers of clusters and centroids of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import register_converter, register_transform
from serving.compiling.converters.kernels import draw_nearest, draw_squared_distances
from serving.compiling.converters.labels import take_labels
from serving.compiling.converters.naive_bayes import draw_discriminant_answer
from serving.compiling.drawing import NotCompilable


@register_converter("AffinityPropagation", "MeanShift")
def draw_cluster(part: Any, rows: Rows, method: str) -> Any:
    """Draw the position of the nearest center."""
    if method != "predict" or not len(getattr(part, "cluster_centers_", ())):
        return NotImplemented
    return draw_nearest(rows, part.cluster_centers_)


@register_converter("Birch")
def draw_birch(part: Any, rows: Rows, method: str) -> Any:
    """Draw the label of the nearest subcluster."""
    if method != "predict":
        return NotImplemented
    return take_labels(rows.drawing, part.subcluster_labels_, draw_nearest(rows, part.subcluster_centers_))


@register_transform("Birch")
def draw_subclusters(part: Any, rows: Rows) -> Rows:
    """Draw the distance to each subcluster."""
    centers = np.asarray(part.subcluster_centers_, dtype=np.float64)
    return rows.with_matrix(rows.drawing.draw_node("Sqrt", draw_squared_distances(rows, centers)), len(centers))


@register_transform("FeatureAgglomeration")
def draw_agglomeration(part: Any, rows: Rows) -> Rows:
    """Draw the mean of each group of features."""
    if part.pooling_func is not np.mean:
        raise NotCompilable("FeatureAgglomeration by another function than the mean has no compiled form")
    groups = np.eye(int(part.labels_.max()) + 1)[part.labels_]
    total = rows.drawing.draw_node("MatMul", rows.draw_matrix(), rows.drawing.add_constant(groups))
    made = rows.drawing.draw_node("Div", total, rows.drawing.add_constant(groups.sum(axis=0)))
    return rows.with_matrix(made, groups.shape[1])


@register_converter("NearestCentroid")
def draw_centroid(part: Any, rows: Rows, method: str) -> Any:
    """Draw the class of the nearest centroid, or scores from distances scaled within classes."""
    if part.metric != "euclidean":
        raise NotCompilable(f"NearestCentroid with the metric {part.metric!s:.40} has no compiled form")
    drawing = rows.drawing
    if method == "predict" and np.isclose(part.class_prior_, 1 / len(part.classes_)).all():
        return take_labels(drawing, part.classes_, draw_nearest(rows, part.centroids_))
    deviation = np.where(part.within_class_std_dev_ != 0, part.within_class_std_dev_, 1.0)
    scaled = rows.with_matrix(drawing.draw_node("Div", rows.draw_matrix(), drawing.add_constant(deviation)), rows.width)
    distances = draw_squared_distances(scaled, np.asarray(part.centroids_, dtype=np.float64) / deviation)
    scores = drawing.draw_node("Sub", drawing.add_constant(2.0 * np.log(part.class_prior_)), distances)
    return draw_discriminant_answer(part, drawing, scores, method)
