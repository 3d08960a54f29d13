"""An answer in AWS's event stream: its frames read one by one, whatever they carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llmexp.clients import aws_failures
from llmexp.clients.base import Answer, Failure, Response
from llmexp.clients.decoding import Draft, Wire, decode_payloads
from llmexp.clients.eventstream import EventMessage, messages
from llmexp.clients.http import Malformed
from llmexp.clients.payloads import Payload

Reading = Callable[[EventMessage], Payload | Failure | None]
"""What a frame carries; a failure ends the stream, None is passed over."""


def explain(response: Response, wire: Wire, read: Reading) -> Answer:
    """What the response means; never raises for anything a server can send."""
    if response.status != 200:
        return Answer(failure=aws_failures.http_failure(response))
    draft = Draft()
    return decode_payloads(_payloads(draft, response, read), wire, draft)


def _payloads(draft: Draft, response: Response, read: Reading) -> Iterator[Payload]:
    try:
        for message in messages(response.body):
            found = read(message)
            if isinstance(found, Failure):
                draft.failure = found
                return
            if found is not None:
                yield found
    except Malformed as error:
        draft.failure = aws_failures.unframed(error)
