"""An endpoint's own tokenizer, over one kept connection.

llama.cpp takes `{"content": …}` and answers `{"tokens": […]}`; vLLM and SGLang take `{"model": …, "prompt": …}` and
answer `{"count": …}`. One body that holds all of it suits each. The route lies at the server's root, beside /v1.
"""

from __future__ import annotations

import http.client
import json
import os
import weakref
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from llmexp import secrets
from llmexp.errors import JobError
from llmexp.json_types import items, text

_OWNERS = ("llamacpp", "vllm", "sglang", "llmexp")
_PROBE_TIMEOUT_S = 2.0
_TIMEOUT_S = 30.0
_LARGEST_ANSWER = 64 << 20
_SHORT, _LONG = "one two three", "one two three four five six seven eight nine ten"


class EndpointTokenizer:
    """POST /tokenize, one text a call."""

    name = "endpoint"
    source: Literal["tokenizer"] = "tokenizer"
    in_process = False

    def __init__(self, base_url: str, model: str, key_env: str | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        self._line = _Line(base_url, key_env, timeout_s)
        self._model = model

    def count(self, text: str) -> int:
        """Tokens of the text, without special tokens around it."""
        body = {
            "content": text,
            "add_special": False,
            "model": self._model,
            "prompt": text,
            "add_special_tokens": False,
        }
        try:
            answer = self._line.ask("POST", self._line.root + "/tokenize", body)
            count = answer["count"] if "count" in answer else len(items(answer, "tokens"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise JobError(f"the endpoint's /tokenize did not answer with a count: {reason}") from None
        if not isinstance(count, int):
            raise JobError(f"the endpoint's /tokenize did not answer with a count: {count!r}")
        return count

    def count_many(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each text."""
        return [self.count(text) for text in texts]

    def makes_sense(self) -> bool:
        """Whether it counts at all: no more tokens than characters, and more for a longer text."""
        try:
            return 0 < self.count(_SHORT) <= len(_SHORT) and self.count(_SHORT) < self.count(_LONG) <= len(_LONG)
        except JobError:
            return False


def offered_by(base_url: str, model: str, key_env: str | None) -> EndpointTokenizer | None:
    """The endpoint's tokenizer if its list of models says that it is a server which has one, and it makes sense."""
    line = _Line(base_url, key_env, _PROBE_TIMEOUT_S)
    try:
        models = items(line.ask("GET", f"{line.base}/models", None), "data")
        owners = {(text(entry, "owned_by") or "").lower() for entry in models}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None
    finally:
        line.close()
    if not owners & set(_OWNERS):
        return None
    tokenizer = EndpointTokenizer(base_url, model, key_env)
    return tokenizer if tokenizer.makes_sense() else None


class _Line:
    """JSON over one HTTP/1.1 connection; a connection that the server closed while idle is opened again once."""

    def __init__(self, base_url: str, key_env: str | None, timeout_s: float) -> None:
        url = urlsplit(base_url)
        self.base = url.path.rstrip("/")
        self.root = self.base.removesuffix("/v1")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(url.hostname or "", url.port, timeout=timeout_s)
        weakref.finalize(self, self._connection.close)
        key = os.environ.get(key_env) if key_env else None
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            secrets.register(key)
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, method: str, path: str, body: dict[str, object] | None) -> dict[str, object]:
        """The JSON object that the server answers with; ValueError where it answers with something else."""
        data = None if body is None else json.dumps(body).encode()
        fresh = self._connection.sock is None
        try:
            answer = self._exchange(method, path, data)
        except (ConnectionError, http.client.RemoteDisconnected):
            if fresh:
                raise
            self.close()
            answer = self._exchange(method, path, data)
        try:
            parsed = json.loads(answer)
        except RecursionError:
            raise ValueError("JSON nested too deep") from None
        if not isinstance(parsed, dict):
            raise ValueError("no JSON object")  # noqa: TRY004 -- callers treat it like text that does not parse
        return parsed

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _exchange(self, method: str, path: str, data: bytes | None) -> bytes:
        try:
            self._connection.request(method, path, data, self._headers)
            response = self._connection.getresponse()
            kind = response.headers.get("Content-Type", "no content type")
            if response.status == 200 and "json" in kind:
                return response.read(_LARGEST_ANSWER)
        except Exception:
            self.close()
            raise
        self.close()
        raise ValueError(f"HTTP {response.status}, {kind}")
