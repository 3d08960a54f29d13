"""What of LiteLLM is its own affair and is used all the same, in one place, each with a way back for when it is gone.

| used | for | without it |
| --- | --- | --- |
| settings (`REPEATED_STREAMING_CHUNK_LIMIT`, …) | quiet, and models that repeat themselves | its defaults |
| `VertexBase._ensure_access_token` | rehearsing Vertex AI without Google | Google's credentials are needed there, too |
| `received_finish_reason` of its stream | the server's own finish reason | the last one that a chunk carried |
| `chunks` of its stream | usage as the server sent it, without LiteLLM's estimates | no usage: tokens are counted |
| `aiohttp.ClientSession._request` | noticing requests that go another way than httpx | such a provider is asked once |
| `validate_environment` | naming the variable of a missing key | the provider's own refusal |
| words of its exceptions | naming the key of the configuration that is wrong | its first line as it is |

The types are what is used of LiteLLM, httpx and their objects, no more.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Protocol, cast

from llmexp.secrets import trimmed

Stream = AsyncIterator[object]
_SETTINGS: Mapping[str, object] = {
    "suppress_debug_info": True,
    "telemetry": False,
    "disable_streaming_logging": True,
    "num_retries": 0,
    "REPEATED_STREAMING_CHUNK_LIMIT": 2**62,
}
_DISPENSABLE = {"stream_options": ("stream_options",), "max_retries": ("max_retries", "num_retries")}
_KEY_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*(?:KEY|TOKEN|CREDENTIALS)\b")


class LiteLLM(Protocol):
    """The module, as far as it is called."""

    acompletion: Callable[..., Awaitable[Stream]]
    atext_completion: Callable[..., Awaitable[Stream]]


class Url(Protocol):
    """An address of httpx."""

    scheme: str
    host: str
    path: str
    raw_path: bytes


class SentHeaders(Protocol):
    """Headers of httpx."""

    raw: list[tuple[bytes, bytes]]

    def __contains__(self, name: object) -> bool: ...


class Sent(Protocol):
    """A request of httpx."""

    method: str
    url: Url
    headers: SentHeaders
    content: bytes

    def read(self) -> bytes:
        """The whole body."""
        ...

    async def aread(self) -> bytes:
        """The same from an event loop."""
        ...


class Reply(Protocol):
    """A response of httpx."""

    def read(self) -> bytes:
        """The whole body."""
        ...

    async def aread(self) -> bytes:
        """The same from an event loop."""
        ...


class Sends(Protocol):
    """A client's class of httpx: what is hooked is public."""

    send: Callable[..., object]


class Http(Protocol):
    """httpx, or its successor httpx2."""

    Client: Sends
    AsyncClient: Sends
    Response: Callable[..., Reply]
    AsyncByteStream: type[object]
    SyncByteStream: type[object]
    RemoteProtocolError: type[Exception]


def quieten(litellm: object) -> None:
    """Set what the module knows; a setting that is gone is left out."""
    for name, value in _SETTINGS.items():
        if hasattr(litellm, name):
            setattr(litellm, name, value)


def stand_in_for_google() -> bool:
    """Vertex AI's token without Google, for models that a rehearsal plays here; whether that was possible."""
    try:
        base = importlib.import_module("litellm.llms.vertex_ai.vertex_llm_base").VertexBase
    except (ImportError, AttributeError):
        return False
    if not (hasattr(base, "_ensure_access_token") and hasattr(base, "_ensure_access_token_async")):
        return False

    def token(
        _self: object,
        credentials: object,  # noqa: ARG001
        project_id: str | None,
        custom_llm_provider: str,
    ) -> tuple[str, str]:
        return ("", "") if custom_llm_provider == "gemini" else ("none", project_id or "none")

    async def token_later(
        self: object, credentials: object, project_id: str | None, custom_llm_provider: str
    ) -> tuple[str, str]:
        return token(self, credentials, project_id, custom_llm_provider)

    base._ensure_access_token, base._ensure_access_token_async = token, token_later
    return True


def replace_aiohttp_request(aiohttp: object, wrap: Callable[[Callable[..., Awaitable[object]]], object]) -> bool:
    """Wrap the one method that all of aiohttp's requests pass; whether there is one."""
    session = getattr(aiohttp, "ClientSession", None)
    request = getattr(session, "_request", None)
    if session is None or request is None:
        return False
    session._request = wrap(cast("Callable[..., Awaitable[object]]", request))
    return True


def finish_reason(stream: object, told_by_chunks: str | None) -> str | None:
    """The server's own finish reason, once the stream has ended: LiteLLM's chunks end with one of its own making."""
    reason = getattr(stream, "received_finish_reason", told_by_chunks)
    return reason if isinstance(reason, str) else None


def chunks_heard(stream: object) -> Iterable[object]:
    """The chunks as the server sent them, without LiteLLM's closing sum."""
    chunks = getattr(stream, "chunks", ())
    return chunks if isinstance(chunks, list | tuple) else ()


def plain(chunk: object) -> Mapping[str, object]:
    """A chunk as the JSON object that it stands for; empty for what is none."""
    dump = getattr(chunk, "model_dump", None)
    tree = dump() if callable(dump) else chunk
    return tree if isinstance(tree, dict) else {}


def missing_keys(litellm: object, model: str) -> list[str]:
    """The variables of keys that LiteLLM looks for and does not find."""
    try:
        checked = getattr(litellm, "validate_environment")(model=model)  # noqa: B009 -- it may be gone
        return [name for name in checked["missing_keys"] if name.endswith(("KEY", "TOKEN"))]
    except Exception:  # noqa: BLE001 -- LiteLLM raises what it likes
        return []


def refused_arguments(error: Exception) -> set[str]:
    """Which arguments that only we give the provider refuses."""
    return {name for word, names in _DISPENSABLE.items() if word in str(error) for name in names}


def is_cut(error: Exception) -> bool:
    """Whether the stream was over before its end mark."""
    return "ended before a finish_reason" in str(error)


def is_unknown_provider(error: Exception) -> bool:
    """Whether LiteLLM does not know the provider."""
    return "LLM Provider NOT provided" in str(error) or type(error).__name__ == "LiteLLMUnknownProvider"


def is_unsupported_params(error: Exception) -> bool:
    """Whether LiteLLM refuses a parameter for this model."""
    return type(error).__name__ == "UnsupportedParamsError"


def is_without_google(error: Exception) -> bool:
    """Whether Google's credentials are missing."""
    return "default credentials were not found" in str(error)


def key_variable(error: Exception) -> str | None:
    """The variable of a key that an error names."""
    named = _KEY_VARIABLE.search(str(error))
    return named[0] if named else None


def first_line(error: Exception) -> str:
    """What it says, without LiteLLM's prefix."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return trimmed(re.sub(r"^litellm\.\w+: ", "", line), 300)
