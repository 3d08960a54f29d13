"""The Ray driver of one load, and what it saw of the client, the hosts and the server."""

from llmexp.benchmark.ahead import get_ready, stop_ray
from llmexp.benchmark.cluster import ensure_ray, leave_signals_to_main_thread
from llmexp.benchmark.driver import Benchmark
from llmexp.benchmark.measurement import Job, Measurement
from llmexp.benchmark.sizing import share, workers_for

__all__ = [
    "Benchmark",
    "Job",
    "Measurement",
    "ensure_ray",
    "get_ready",
    "leave_signals_to_main_thread",
    "share",
    "stop_ray",
    "workers_for",
]
