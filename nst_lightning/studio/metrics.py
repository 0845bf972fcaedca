"""Figures of the server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector, generate_latest


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.evaluations = Counter("nst_evaluations", "Evaluations made", registry=self.registry)
        self.seconds = Counter("nst_run_seconds", "Seconds that runs have taken", registry=self.registry)
        self.uploads = Counter("nst_uploads", "Pictures that came in", registry=self.registry)
        self.refused = Counter("nst_refused", "Requests that were refused", ["status"], registry=self.registry)
        self.ended = Counter("nst_pictures_ended", "Runs by how they ended", ["status"], registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when it is needed."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def states(self, states: tuple[str, ...], count: Callable[[str], float]) -> None:
        """Show how many pictures are in each state."""
        gauge = Gauge("nst_pictures", "Pictures by what they are doing", ["status"], registry=self.registry)
        for state in states:
            gauge.labels(state).set_function(lambda state=state: count(state))  # type: ignore[misc]

    def text(self) -> bytes:
        """In Prometheus' words."""
        return generate_latest(self.registry)
