"""What the server tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUERIES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        made = {"namespace": "rabtriever", "registry": self.registry}
        self._requests = Counter("requests", "Requests answered.", ("route", "method", "status"), **made)
        self._seconds = Histogram("request_seconds", "Seconds to an answer.", ("route",), buckets=_SECONDS, **made)
        self._in_progress = Gauge("requests_in_progress", "Requests that are not answered yet.", **made)
        self._batch = Histogram("batch_queries", "Queries of a batch.", buckets=_QUERIES, **made)
        self._compute = Histogram("batch_seconds", "Seconds of a batch.", buckets=_SECONDS, **made)
        self._waiting = Gauge("waiting_queries", "Queries that wait for a batch.", **made)
        self._queries = Counter("queries", "Queries answered.", **made)
        self._low = Counter("low_confidence_queries", "Queries whose best document is below the threshold.", **made)
        self._info = Gauge("version_info", "1 for the version in service.", ("version", "model"), **made)
        self._documents = Gauge("documents", "Documents that a search looks at.", **made)
        self._swaps = Counter("swaps", "Versions that took over.", **made)
        self._failures = Counter("swap_failures", "Attempts of a version to take over that failed.", **made)
        self._failing = Gauge("swap_failing", "1 while the version that should be in service is not.", **made)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: the route's pattern, not its path, so that labels stay few.
            method: the HTTP method.
            status: of the answer.
            seconds: since the request came.
        """
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def in_progress(self, change: int) -> None:
        """So many more requests are in progress."""
        self._in_progress.inc(change)

    def batch(self, queries: int, seconds: float) -> None:
        """A batch of so many queries took so many seconds."""
        self._batch.observe(queries)
        self._compute.observe(seconds)

    def waiting(self, queries: int) -> None:
        """So many queries wait."""
        self._waiting.set(queries)

    def answered(self, low_confidence: bool | None) -> None:
        """A query was answered."""
        self._queries.inc()
        if low_confidence:
            self._low.inc()

    def in_service(self, version: str | None, model: str, documents: int, swapped: bool) -> None:
        """A retriever answers from now on; `swapped` where it is another version than before."""
        self._documents.set(documents)
        self._info.clear()
        self._info.labels(version or "", model).set(1)
        if swapped:
            self._swaps.inc()

    def failure(self, happened: bool) -> None:
        """A version did not take over, or the one that should be in service is."""
        self._failing.set(int(happened))
        if happened:
            self._failures.inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
