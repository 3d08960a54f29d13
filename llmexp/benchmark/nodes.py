"""The nodes of the Ray that runs: which of them take workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from llmexp.benchmark.patience import patiently
from llmexp.config import Ray
from llmexp.errors import ConfigError

_EVERY_NODE = ("CPU", "GPU", "memory", "object_store_memory")


@dataclass(frozen=True)
class Node:
    """A node of the cluster that can take workers."""

    id: str
    address: str
    cores: int
    """CPUs that it offers."""
    here: bool
    """The driver runs on it."""

    def __str__(self) -> str:
        return f"{self.address} (node {self.id[:8]})"


def evenly(nodes: Sequence[Node]) -> int:
    """CPUs that workers spread evenly over these nodes can have: the smallest node bounds the others."""
    return len(nodes) * min(node.cores for node in nodes)


def own_node() -> Node:
    """The node that the driver runs on."""
    return nodes_for(Ray())[0]


def nodes_for(asked: Ray) -> list[Node]:
    """The nodes that take workers, this one first; raises `ConfigError` where `ray.nodes` names none."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    listed: list[_Row] = patiently(ray.nodes)
    living = [node for node in listed if node["Alive"]]
    if asked.kind == "local":
        chosen = [node for node in living if node["NodeID"] == own]
    else:
        chosen = [node for node in living if _wanted(node, asked.nodes, own)]
    if not chosen:
        offered = ", ".join(sorted({name for node in living for name in _labels(node)}))
        raise ConfigError(
            f"ray.nodes: must be all (nodes that offer CPUs), others (not this one), or a resource or label of a node"
            f"{f' ({offered})' if offered else ''}; none of the {len(living)} nodes is meant by '{asked.nodes}'"
        )
    found = [Node(node["NodeID"], node["NodeManagerAddress"], _cores(node), node["NodeID"] == own) for node in chosen]
    return sorted(found, key=lambda node: (not node.here, node.address, node.id))


class _Row(TypedDict):
    """A node as Ray lists it; it tells more."""

    NodeID: str
    Alive: bool
    NodeManagerAddress: str
    Resources: dict[str, float]
    Labels: dict[str, str]


def _cores(node: _Row) -> int:
    return int(node["Resources"].get("CPU", 0))


def _wanted(node: _Row, named: str, own: str) -> bool:
    if named == "all":
        return _cores(node) > 0
    if named == "others":
        return _cores(node) > 0 and node["NodeID"] != own
    return named in _labels(node)


def _labels(node: _Row) -> set[str]:
    """What a node can be named by: its own resources, its labels as `key` and as `key=value`."""
    resources = {name for name in node["Resources"] if name not in _EVERY_NODE and ":" not in name}
    labels = {key: value for key, value in node.get("Labels", {}).items() if not key.startswith("ray.io/")}
    return resources | set(labels) | {f"{key}={value}" for key, value in labels.items()}
