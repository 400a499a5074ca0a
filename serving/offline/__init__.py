"""Works without a server: publishes an estimator or a file, checks a file or a version, verifies a signed version."""

from serving.offline.offline_evaluator import check, find_needs_of
from serving.offline.publish_estimator import publish
from serving.offline.publish_file import publish_file
from serving.offline.verifying import verify
from serving.store.publishing import Published

__all__ = ["Published", "check", "find_needs_of", "publish", "publish_file", "verify"]
