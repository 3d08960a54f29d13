"""What a wire cannot carry of a request: tools, images, roles. Told before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from llmexp.clients.chat_anthropic import SYSTEM, arguments
from llmexp.config import Model
from llmexp.workload.request import Image, Message, Request

FORMATS = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_Found = Callable[[Request], Iterator[str]]


def problem(model: Model, request: Request) -> str | None:
    """Why this model's wire cannot carry the request, or None."""
    if request.is_plain and request.session is None:
        return None
    wire, checks = _wire(model)
    return next((f"{wire} cannot carry {what}" for check in checks for what in check(request)), None)


def _wire(model: Model) -> tuple[str, tuple[_Found, ...]]:
    """The wire's name and what to look for."""
    family = (model.provider or "").split("/")[0]
    route = (model.provider or "").partition("/")[2]
    if model.route == "completions" or (model.api == "litellm" and route == "invoke"):
        remedy = "model.route=chat" if model.route == "completions" else "model.provider=bedrock/converse"
        wire = "plain completions" + (" (model.route=completions)" if model.route == "completions" else "")
        return wire, (partial(_anything_but_text, remedy),)
    deployment = model.deployment
    if model.api == "sagemaker" and deployment.kind == "sagemaker" and deployment.payload != "messages":
        found = partial(_anything_but_text, "model.deployment.payload=messages where the container takes it")
        return f"a SageMaker container that takes '{deployment.payload}'", (found,)
    if model.api == "anthropic" or (model.api == "litellm" and family == "anthropic"):
        return "Anthropic's wire", (_names, _late_system, _arguments, _formats)
    if model.api == "bedrock" or (model.api == "litellm" and family == "bedrock"):
        return "Bedrock's Converse", (_names, _late_system, _arguments, _formats, _addresses, _undeclared)
    if model.api == "litellm" and family in ("gemini", "vertex_ai", "vertex_ai_beta"):
        return "Gemini's wire", (_names, _late_system, _arguments, _addresses)
    return "OpenAI's wire", ()


def _images(request: Request) -> Iterator[Image]:
    for message in request.messages:
        yield from (part for part in message.parts if isinstance(part, Image))


def _anything_but_text(remedy: str, request: Request) -> Iterator[str]:
    if request.tools or any(message.tool_calls or message.role == "tool" for message in request.messages):
        yield f"tools; choose a chat wire, such as {remedy}"
    if any(_images(request)):
        yield f"images; choose a chat wire, such as {remedy}"


def _names(request: Request) -> Iterator[str]:
    if any(message.name is not None and message.role != "tool" for message in request.messages):
        yield "a speaker's name; take `name` out of the messages"


def _late_system(request: Request) -> Iterator[str]:
    if request.session is None:
        return
    spoken = False
    for message in request.messages:
        if spoken and message.role in SYSTEM:
            yield f"a {message.role} message after others; it takes them only at the beginning"
        spoken = spoken or message.role not in SYSTEM


def _arguments(request: Request) -> Iterator[str]:
    for message in request.messages:
        for call in message.tool_calls:
            if arguments(call.arguments) is None:
                yield f"a call of '{call.name}' whose arguments are no JSON object: {call.arguments[:80]}"


def _formats(request: Request) -> Iterator[str]:
    for image in _images(request):
        if image.url is None and image.media_type not in FORMATS:
            yield f"an image of type '{image.media_type}'; it takes {', '.join(sorted(FORMATS))}"


def _addresses(request: Request) -> Iterator[str]:
    if any(image.url is not None for image in _images(request)):
        yield "an image by its address; put its bytes or its path into the file"


def _undeclared(request: Request) -> Iterator[str]:
    if not request.tools and any(_uses_tools(message) for message in request.messages):
        yield "tool calls where no tools are declared; give the turn (or the first one) its `tools`"


def _uses_tools(message: Message) -> bool:
    return bool(message.tool_calls) or message.role == "tool"
