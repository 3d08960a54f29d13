"""SageMaker's data capture (eventVersion 0): JSON lines by hour under the endpoint's folder in S3.

Bodies of containers that take OpenAI's messages, or `inputs` and `parameters` as TGI and LMI do; JSON or base64, as the
endpoint's content types were set up; answers whole or as the text of a stream.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from llmexp.convert import openai_logs
from llmexp.convert.exchange import Exchange, Tree, Unusable, list_of, seconds_of, tokens_of, tree_of


def exchange_of(record: Mapping[str, object]) -> Exchange:
    """The call of a record; raises `Unusable`."""
    captured = tree_of(record.get("captureData"))
    if not captured:
        raise Unusable("no captureData")
    body = tree_of(_text(tree_of(captured.get("endpointInput")), "input"))
    output = tree_of(captured.get("endpointOutput"))
    answered = _text(output, "output") if output else ""
    at = seconds_of(tree_of(record.get("eventMetadata")).get("inferenceTime"))
    if list_of(body.get("messages")):
        found = openai_logs.exchange_of({"request": body, "response": answered})
        found.start_s, found.whole = at, False
        found.output_tokens = found.output_tokens or _limit(body)
        return found
    inputs = body.get("inputs")
    if not isinstance(inputs, str) or not inputs:
        raise Unusable("a body with neither messages nor inputs")
    return Exchange([{"role": "user", "content": inputs}], [], _generated(answered), at, None, _limit(body))


def _text(side: Mapping[str, object], name: str) -> str:
    """What was captured of one side, decoded."""
    data = side.get("data")
    if not isinstance(data, str):
        raise Unusable(f"no {name} was captured")
    if side.get("encoding") != "BASE64":
        return data
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise Unusable(f"its {name} is no base64") from None


def _limit(body: Mapping[str, object]) -> int | None:
    parameters = tree_of(body.get("parameters"))
    return tokens_of(parameters.get("max_new_tokens") or body.get("max_tokens"))


def _generated(answered: str) -> Tree | None:
    """TGI's and LMI's answers: an object, a list of one, JSON lines, or events."""
    text, pieces = "", []
    for line in (answered, *answered.splitlines()):
        value = line.removeprefix("data:").strip()
        try:
            tree = json.loads(value)
        except (ValueError, RecursionError):
            continue
        first = tree_of(tree[0]) if isinstance(tree, list) and tree else tree_of(tree)
        if isinstance(first.get("generated_text"), str):
            text = str(first["generated_text"])
        elif isinstance(tree_of(first.get("token")).get("text"), str):
            pieces.append(str(tree_of(first["token"])["text"]))
    text = text or "".join(pieces)
    return {"role": "assistant", "content": text} if text else None
