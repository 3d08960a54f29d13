"""What an inference server says of itself: engine, version, and the model as it is served.

Each engine has a path of its own for it. All are asked, once, before the load; what does not answer is absent. Only
the fields named here are taken: some servers would also tell their API key.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.parse import urlsplit

ANSWER_S = 5.0
MAX_BYTES = 4 * 2**20
_OWNERS = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp", "llmexp": "simulator"}
"""`owned_by` of GET /v1/models → the engine."""
_PATHS: Mapping[str, Mapping[str, str]] = {
    "/version": {"version": "engine_version"},
    "/server_info": {
        "version": "engine_version",
        "max_running_requests": "max_running_requests",
        "max_total_num_tokens": "kv_cache_tokens",
        "model_path": "model_path",
    },
    "/get_server_info": {
        "version": "engine_version",
        "max_running_requests": "max_running_requests",
        "max_total_num_tokens": "kv_cache_tokens",
        "model_path": "model_path",
    },
    "/props": {
        "build_info": "engine_version",
        "total_slots": "slots",
        "model_path": "model_path",
    },
    "/info": {
        "version": "engine_version",
        "model_id": "model_path",
        "model_dtype": "model_dtype",
        "max_concurrent_requests": "max_concurrent_requests",
        "max_total_tokens": "context_tokens",
    },
}
"""Path (vLLM; SGLang, its newer and older one; llama.cpp; TGI) → its field → the fact."""


def ask(address: str, headers: Mapping[str, str]) -> dict[str, object]:
    """Facts about the server at `http://HOST:PORT`."""
    found = dict(_of_models(_get(address, "/v1/models", headers)))
    for path, fields in _PATHS.items():
        answer = _get(address, path, headers)
        if not isinstance(answer, Mapping):
            continue
        for name, fact in fields.items():
            value = answer.get(name)
            if isinstance(value, str | int | float) and value != "":
                found.setdefault(fact, value)
    return found


def _of_models(answer: object) -> Iterator[tuple[str, object]]:
    models = answer.get("data") if isinstance(answer, Mapping) else None
    first = models[0] if isinstance(models, list) and models else None
    if not isinstance(first, Mapping):
        return
    owner = first.get("owned_by")
    if isinstance(owner, str) and owner in _OWNERS:
        yield "engine", _OWNERS[owner]
    for name, fact in (("id", "served_model"), ("max_model_len", "context_tokens")):
        if isinstance(first.get(name), str | int):
            yield fact, first[name]
    meta = first.get("meta")
    if isinstance(meta, Mapping):
        for name, fact in (("n_params", "parameters"), ("size", "weights_bytes"), ("n_ctx_train", "trained_context")):
            if isinstance(meta.get(name), int | float):
                yield fact, meta[name]


def _get(address: str, path: str, headers: Mapping[str, str]) -> object:
    """The answer's JSON; None where there is none."""
    url = urlsplit(address)
    try:
        with closing(http.client.HTTPConnection(url.hostname or "", url.port, timeout=ANSWER_S)) as connection:
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            if response.status != 200:
                return None
            found: object = json.loads(response.read(MAX_BYTES))
            return found
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
