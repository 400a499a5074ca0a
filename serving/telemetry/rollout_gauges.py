"""What Prometheus is told of versions that take over step by step."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.domain.rollout import RunningRollout

_OF = ("model", "version")


class RolloutGauges:
    """How far rollouts are, and how they have ended. Any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter("serving_rollouts", "Rollouts that have ended.", ("model", "end"), registry=registry)
        self._share = Gauge("serving_rollout_share", "Percent that a new version answers.", _OF, registry=registry)
        about = "Evidence that a new version is worse; 1 / alpha is enough."
        self._evidence = Gauge("serving_rollout_e_value", about, _OF, registry=registry)
        self._answers = Gauge("serving_rollout_answers", "Answers since a rollout began.", _OF, registry=registry)
        self._bad = Gauge("serving_rollout_bad_answers", "Those of them that went bad.", _OF, registry=registry)
        about = "How far a new version's answers are from the old one's, 0 to 1."
        self._shift = Gauge("serving_rollout_shift", about, (*_OF, "output"), registry=registry)
        about = "Copies of requests that a shadow had no room or no quiet moment for."
        self._dropped = Gauge("serving_shadow_dropped", about, _OF, registry=registry)
        about = "How a shadow's answers differ: rows that do, mean and worst of numbers."
        names = (*_OF, "output", "measure")
        self._differences = Gauge("serving_shadow_differences", about, names, registry=registry)
        shadow = (self._dropped, self._differences)
        self._gauges = (self._share, self._evidence, self._answers, self._bad, self._shift, *shadow)

    def show(self, model: str, rollout: RunningRollout) -> None:
        """Show a rollout under way."""
        self._share.labels(model, rollout.version).set(rollout.share)
        self._evidence.labels(model, rollout.version).set(rollout.e_value)
        for version, count in ((rollout.version, rollout.new), (rollout.against, rollout.old)):
            self._answers.labels(model, version).set(count.answers)
            self._bad.labels(model, version).set(count.bad)
        for shift in rollout.shifts:
            self._shift.labels(model, rollout.version, shift.output).set(shift.effect)
        if rollout.shadow is not None:
            self._dropped.labels(model, rollout.version).set(rollout.shadow.dropped)
            for one in rollout.shadow.differences:
                for measure, value in (("differing", one.differing), ("mean", one.mean), ("worst", one.worst)):
                    if value is not None:
                        self._differences.labels(model, rollout.version, one.output, measure).set(value)

    def end(self, model: str, end: str) -> None:
        """Count a rollout that has ended; it is shown no more."""
        self._ended.labels(model, end).inc()
        for gauge in self._gauges:
            gauge.remove_by_labels({"model": model})

    def forget(self, model: str) -> None:
        """Drop everything of a model that is gone."""
        for each in (self._ended, *self._gauges):
            each.remove_by_labels({"model": model})
