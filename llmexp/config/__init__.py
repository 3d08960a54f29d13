"""What is asked: the schema of a job's configuration, its checks, and what is said when it is wrong.

Hydra composes plain YAML (see `conf/`); `load` turns the composed mapping into one frozen `Config`, or raises
`ConfigError` with a line per problem: key, value, remedy. `defaults` is the same schema as a plain mapping; it lies
under the composition, so that every key exists and can be overridden whatever file a group chose.
"""

from llmexp.config.loading import defaults, flatten, load, schema_node
from llmexp.config.schema import (
    DEFAULT_STREAMS,
    Bedrock,
    Capacity,
    Compare,
    Config,
    External,
    Judge,
    Latency,
    LlamaCpp,
    Load,
    Model,
    Part,
    Paths,
    Price,
    Profile,
    Quality,
    Ray,
    Run,
    SageMaker,
    Served,
    Simulated,
    Slo,
    Tokens,
    Tracking,
    Workload,
    closed_loop,
)

__all__ = [
    "DEFAULT_STREAMS",
    "Bedrock",
    "Capacity",
    "Compare",
    "Config",
    "External",
    "Judge",
    "Latency",
    "LlamaCpp",
    "Load",
    "Model",
    "Part",
    "Paths",
    "Price",
    "Profile",
    "Quality",
    "Ray",
    "Run",
    "SageMaker",
    "Served",
    "Simulated",
    "Slo",
    "Tokens",
    "Tracking",
    "Workload",
    "closed_loop",
    "defaults",
    "flatten",
    "load",
    "schema_node",
]
