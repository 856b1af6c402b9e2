"""What Prometheus is told, beside vLLM's own numbers."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from rollout.events_api.line import Line

_SECONDS = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """Counters of one server.

    Args:
        line: whose length is told.
        registry: None for the process's own, which vLLM's `/metrics` shows.
    """

    def __init__(self, line: Line, registry: CollectorRegistry | None = None) -> None:
        where = registry or REGISTRY
        self.requests = Counter(
            "timepro_events_requests", "Requests for events, by HTTP status.", ["status"], registry=where
        )
        self.audio_s = Counter("timepro_events_audio_seconds", "Seconds of audio listened to.", registry=where)
        self.found = Counter("timepro_events_found", "Events found that reach the threshold.", registry=where)
        self.upload_bytes = Counter("timepro_events_upload_bytes", "Bytes of recordings received.", registry=where)
        self.seconds = Histogram(
            "timepro_events_seconds", "Seconds of listening, without waiting.", buckets=_SECONDS, registry=where
        )
        self.waited_s = Histogram(
            "timepro_events_waiting_seconds", "Seconds from arrival to the turn.", buckets=_SECONDS, registry=where
        )
        self.factor = Histogram(
            "timepro_events_real_time_factor", "Seconds of listening for a second of audio.", buckets=_FACTORS,
            registry=where,
        )  # fmt: skip
        Gauge("timepro_events_running", "Requests being answered.", registry=where).set_function(lambda: line.running)
        Gauge("timepro_events_waiting", "Requests in the queue.", registry=where).set_function(lambda: line.waiting)
