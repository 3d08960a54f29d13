"""Which wire a request speaks, and what a refusal looks like in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

from llmexp.endpoints.simulator.http import Received
from llmexp.endpoints.simulator.knowledge import asked, offered, temperature
from llmexp.endpoints.simulator.prefixes import Prefixes
from llmexp.endpoints.simulator.wires import BadRequest, Call, anthropic, bedrock, gemini, openai, sagemaker

AWS_WIRES = frozenset({"bedrock", "sagemaker"})
STATUS = {
    "auth": (401, "UnrecognizedClientException", "authentication_error", "UNAUTHENTICATED"),
    "forbidden": (403, "AccessDeniedException", "permission_error", "PERMISSION_DENIED"),
    "not_found": (404, "ResourceNotFoundException", "not_found_error", "NOT_FOUND"),
    "bad_request": (400, "ValidationException", "invalid_request_error", "INVALID_ARGUMENT"),
    "throttled": (429, "ThrottlingException", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "server": (500, "InternalServerException", "api_error", "INTERNAL"),
    "unavailable": (503, "ServiceUnavailableException", "overloaded_error", "UNAVAILABLE"),
}
"""Failure → status, and what AWS, Anthropic and Google call it."""


def wire_of(path: str) -> str | None:
    """The wire that a path belongs to."""
    if path.endswith(("/converse-stream", "/converse")):
        return "bedrock"
    if path.endswith(("/invocations-response-stream", "/invocations")):
        return "sagemaker"
    if path.endswith("/messages"):
        return "anthropic"
    if path.endswith((":streamGenerateContent", ":generateContent")):
        return "gemini"
    return "openai" if path.endswith("/completions") else None


def read(wire: str, received: Received, prefixes: Prefixes | None = None) -> Call:
    """What the request asks for; raises `BadRequest`. `prefixes`: the prompt cache, where there is one."""
    body = _tree(received.body)
    call = replace(
        _call(wire, received.path, body), question=asked(body), temperature=temperature(body), tools=offered(body)
    )
    if prefixes is None:
        return call
    return replace(call, cached_tokens=prefixes.cached(wire, received.body, body, call.input_tokens))


def _call(wire: str, path: str, body: Mapping[str, object]) -> Call:
    segments = unquote(path).rsplit("/", 1)[0].split("/")
    if wire == "bedrock":
        return bedrock.read(body, "/".join(segments[segments.index("model") + 1 :]), stream=path.endswith("-stream"))
    if wire == "sagemaker":
        return sagemaker.read(body, segments[-1], stream=path.endswith("-stream"))
    if wire == "anthropic":
        return anthropic.read(body)
    if wire == "gemini":
        model, _, verb = unquote(path).rsplit("/", 1)[-1].partition(":")
        return gemini.read(body, model, stream=verb.startswith("stream"))
    return openai.read_chat(body) if path.endswith("/chat/completions") else openai.read_completions(body)


def _tree(body: bytes) -> Mapping[str, object]:
    try:
        tree = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(tree, dict):
        raise BadRequest("the body must be a JSON object")
    return tree


def refusal(wire: str, kind: str, message: str, code: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request that gets no answer."""
    status, aws, ours, google = STATUS[kind]
    headers = {"content-type": "application/json"}
    tree: dict[str, object]
    if wire in AWS_WIRES:
        # SageMaker's runtime throttles with 400.
        status = 400 if wire == "sagemaker" and kind == "throttled" else status
        headers["x-amzn-errortype"] = f"{code or aws}:http://internal.amazon.com/coral/com.amazon.coral.service/"
        tree = {"message": message}
    elif wire == "anthropic":
        tree = {"type": "error", "error": {"type": ours, "message": message}}
    elif wire == "gemini":
        tree = {"error": {"code": status, "message": message, "status": google}}
    else:
        tree = {"error": {"message": message, "type": ours, "param": None, "code": status}}
    return status, headers, json.dumps(tree).encode()
