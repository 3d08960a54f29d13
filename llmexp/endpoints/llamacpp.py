"""A real language model on loopback: llama.cpp's own server, in a child process that the job starts and stops.

Slots, threads and context are the deployment; two settings of them are two deployment stacks of the same model. All
else is llama.cpp's default and recorded in the facts, prompt caching too.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmexp.endpoints.process import Child, Lifeline, serving
from llmexp.errors import ConfigError
from llmexp.json_types import branch

if TYPE_CHECKING:
    from llmexp.config import LlamaCpp, Model, Tokens, Workload

RESERVE_TOKENS = 128
"""For the chat template and the nonce."""
UNKNOWN_CONTEXT = 4096
"""Where the workload does not bound its lengths."""
_STEP = 256
_CACHE_SHARE = 8
"""llama.cpp's cache of idle prompts (8 GiB by default) gets at most this part of the machine's memory."""


@contextmanager
def serve(model: Model, deployment: LlamaCpp, workload: Workload, log_dir: Path) -> Iterator[Child]:
    """The model, answering; the child's `ready` holds `address` and `facts`."""
    from llmexp.endpoints import weights

    require()
    found = weights.find(deployment)
    settings = {
        "path": str(found.path),
        "name": model.name,
        "slots": deployment.slots,
        "threads": deployment.threads,
        "context_tokens": deployment.context_tokens or context_of(workload),
    }
    log = log_dir / "endpoint.log"
    with serving(__name__, settings, log=log, timeout_s=model.ready_timeout_s) as child:
        facts = {"weights": found.path.name, "weights_sha256": found.sha256, "weights_source": found.source}
        child.ready["facts"] = {**branch(child.ready, "facts"), **facts}
        yield child


def require() -> None:
    """Raises `ConfigError` when llama.cpp is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(
            "model.deployment.kind: 'llamacpp' needs the package xllamacpp; install it, or choose another model"
        )


# --- context ---------------------------------------------------------------------------------------------------------


def context_of(workload: Workload) -> int:
    """Tokens of context that a slot needs for this workload."""
    if workload.kind not in ("synthetic", "conversation"):
        return UNKNOWN_CONTEXT
    lengths = (longest(workload.input_tokens), longest(workload.output_tokens))
    if None in lengths:
        return UNKNOWN_CONTEXT
    turns = workload.turns if workload.kind == "conversation" else 1
    tokens = turns * (sum(filter(None, lengths)) + RESERVE_TOKENS) + workload.prefix_tokens
    return math.ceil(tokens / _STEP) * _STEP


def longest(tokens: Tokens) -> int | None:
    """The most tokens that a distribution is planned for: mean + 4 stddev, or what bounds it; None: not known."""
    if tokens.mean is None:
        return tokens.max
    deviations = 8 if tokens.dist == "lognormal" else 4
    reach = math.ceil(tokens.mean + deviations * (tokens.stddev or 0.0))
    if tokens.dist == "empirical":
        return tokens.max
    return reach if tokens.max is None else min(reach, tokens.max)


# --- the child -------------------------------------------------------------------------------------------------------


def _parameters(settings: Mapping[str, Any]) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.model_alias = {settings["name"]}
    parameters.n_parallel = settings["slots"]
    parameters.n_ctx = settings["context_tokens"] * settings["slots"]
    for part in (parameters.cpuparams, parameters.cpuparams_batch):
        part.n_threads = settings["threads"]
    parameters.fit_params = False  # all that it would fit is set
    parameters.cache_ram_mib = min(parameters.cache_ram_mib, _memory_mib() // _CACHE_SHARE)
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.endpoint_metrics = True
    parameters.ui = False
    return parameters


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _facts(parameters: Any, settings: Mapping[str, object]) -> dict[str, object]:
    from importlib.metadata import version

    return {
        "engine": "llama.cpp",
        "engine_version": f"xllamacpp {version('xllamacpp')}",
        "slots": settings["slots"],
        "threads": settings["threads"],
        "context_tokens": settings["context_tokens"],
        "batch_tokens": parameters.n_batch,
        "prompt_cache": parameters.cache_prompt,
        "prompt_cache_mib": parameters.cache_ram_mib,
        "continuous_batching": parameters.cont_batching,
    }


def main() -> None:
    """Entry of `python -m llmexp.endpoints.llamacpp`: serves until the lifeline ends."""
    import threading

    import xllamacpp

    lifeline = Lifeline()
    lifeline.watch(lambda: os._exit(0))  # nothing to save, and llama.cpp's own shutdown may wait for a decode
    parameters = _parameters(lifeline.settings)
    try:
        server = xllamacpp.Server(parameters)
    except (RuntimeError, ValueError) as error:
        lifeline.ready({"error": f"llama.cpp could not serve {lifeline.settings['path']}: {error}"})
        return
    lifeline.ready({"address": server.listening_address, "facts": _facts(parameters, lifeline.settings)})
    threading.Event().wait()


if __name__ == "__main__":
    main()
