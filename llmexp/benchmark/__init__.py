"""The Ray driver of one load, and what it saw of the client, the host and the server."""

from llmexp.benchmark.driver import Benchmark, Job, Measurement, ensure_ray, share, stop_ray, workers_for

__all__ = ["Benchmark", "Job", "Measurement", "ensure_ray", "share", "stop_ray", "workers_for"]
