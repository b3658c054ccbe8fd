"""What is counted, in the text form of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8)


class Meters:
    """Counters and histograms of one server. No label holds anything of a film or a question."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("medvill_requests", "Requests.", ["endpoint", "status"], registry=registry)
        self.seconds = Histogram(
            "medvill_request_seconds", "Time of requests.", ["endpoint"], buckets=SECONDS, registry=registry
        )
        self.computing = Histogram(
            "medvill_batch_seconds", "Time of batches.", ["task"], buckets=SECONDS, registry=registry
        )
        self.rows = Histogram("medvill_batch_films", "Films of batches.", ["task"], buckets=ROWS, registry=registry)
        self.refused = Counter("medvill_refused", "Requests that were refused as too many.", registry=registry)
        self.waiting = Gauge("medvill_waiting", "Jobs in the queue.", registry=registry)
        self.kept = Gauge("medvill_films_kept", "Films in memory.", registry=registry)
        ProcessCollector(registry=registry)  # memory and processor time

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def batch(self, task: str, films: int, seconds: float) -> None:
        """Counts a batch; called by the thread that computes."""
        self.computing.labels(task).observe(seconds)
        self.rows.labels(task).observe(films)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
