"""What is done for a command's jobs as a whole: nodes looked at and workers started before the first, all ended after
the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmexp.benchmark import cluster, sizing
from llmexp.benchmark.nodes import evenly, nodes_for
from llmexp.benchmark.pairs import crew, placed
from llmexp.config import Config

OURS = ("llamacpp", "served", "simulated")
"""Deployments that a job starts: on this host."""


def get_ready(configs: Sequence[Config]) -> None:
    """Ray runs. On this machine, start the first job's workers, which takes a second or two, and do not wait for them.

    Of a cluster, look at every node that a job would use: what one of them lacks is a `ConfigError` that names it.
    """
    for config in configs:
        if config.ray.kind == "cluster":
            _look(config)
    first = configs[0]
    if first.ray.kind == "local":
        nodes = nodes_for(first.ray)
        cores = evenly(nodes)
        workers = sizing.workers_for(first, own_stream=False, cores=cores, nodes=len(nodes))
        crew.start(crew.hosts(first, nodes), workers)


def stop_ray() -> None:
    """End the workers, and the Ray that was started for them."""
    crew.dismiss()
    cluster.stop_ray()


def _look(config: Config) -> None:
    if config.rehearse or config.model.deployment.kind in OURS:
        return
    nodes = nodes_for(config.ray)
    crew.hosts(config, nodes)
    cores = evenly(nodes)
    placed(nodes, sizing.workers_for(config, own_stream=False, cores=cores, nodes=len(nodes)))
