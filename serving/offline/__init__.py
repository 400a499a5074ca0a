"""The uses without a server: publish a fitted estimator, publish a file, check a file or a version."""

from serving.offline.estimators import publish
from serving.offline.evaluating import check
from serving.offline.files import publish_file
from serving.store.publishing import Published

__all__ = ["Published", "check", "publish", "publish_file"]
