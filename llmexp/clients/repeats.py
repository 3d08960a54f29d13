"""What a stream says twice: texts so far in every event, and a last event that repeats the whole answer.

Both are told from the texts alone, so every wire is read alike. Halves of characters that two events share are joined
in the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llmexp.clients.base import TokenEvent
from llmexp.clients.json_text import borrow, is_whole, mend

_PLAIN = 8
"""So many letters that come again are no chance; fewer may be a model that stutters."""
_PLAIN_TWICE = 16
"""The same where only one text stands before, or where the last one stands in another block."""


def tidy(
    events: list[TokenEvent], streams: Sequence[int], stated: int | None = None
) -> tuple[list[TokenEvent], list[str]]:
    """The events without repetitions, and remarks on them.

    `streams` says which answer or block each is of; `stated` is the server's own count of tokens, which tells where a
    text that comes again is too short to tell by itself.
    """
    remarks: list[str] = []
    too_many = stated is not None and 0 < stated < len(events)
    if not is_whole("".join([event.text for event in events])):
        events = _mended(events)
    if len(events) < 2:
        return events, remarks
    groups: dict[tuple[int, str], list[int]] = {}
    for at, (event, stream) in enumerate(zip(events, streams, strict=True)):
        groups.setdefault((stream, event.kind), []).append(at)
    for places in groups.values():
        texts = [events[at].text for at in places]
        if _grows(texts):
            remarks.append("cumulative_text")
            for at, before, text in reversed(list(zip(places[1:], texts, texts[1:], strict=False))):
                events[at] = events[at]._replace(text=text[len(before) :])
        elif _closes(texts, least=1 if too_many else _PLAIN if len(texts) > 2 else _PLAIN_TWICE):
            remarks.append("repeated_text")
            events[places[-1]] = events[places[-1]]._replace(text="")
    answers = [at for at, event in enumerate(events) if event.kind == "answer"]
    if not remarks and _stands_apart(answers, streams) and _closes([events[at].text for at in answers], _PLAIN_TWICE):
        remarks.append("repeated_text")
        events[answers[-1]] = events[answers[-1]]._replace(text="")
    if remarks:
        events = [event for event in events if event.text]
    return events, remarks


def _grows(texts: Sequence[str]) -> bool:
    """Whether each text begins with the one before and most are longer, until the whole comes again and again."""
    if len(texts) < 2 or not texts[1].startswith(texts[0]) or texts[0] == texts[-1]:
        return False
    longer = grew_last = 0
    for at, (before, text) in enumerate(pairwise(texts), 1):
        if not text.startswith(before):
            return False
        if len(text) > len(before):
            longer, grew_last = longer + 1, at
    enough = (longer >= 2 and len(texts[-1]) >= _PLAIN) or len(texts[0]) >= _PLAIN_TWICE
    return enough and 2 * longer >= grew_last


def _closes(texts: Sequence[str], least: int) -> bool:
    """Whether the last text is all the others together, maybe behind the prompt."""
    last, before = texts[-1].strip(), "".join(texts[:-1]).strip()
    if len(texts) < 2 or len(before) < least:
        return False
    return last == before or (len(texts) > 3 and len(before) >= _PLAIN_TWICE and last.endswith(before))


def _stands_apart(answers: Sequence[int], streams: Sequence[int]) -> bool:
    """Whether the last event is the only one of its block."""
    return len(answers) > 2 and streams[answers[-1]] not in [streams[at] for at in answers[:-1]]


def _mended(events: Sequence[TokenEvent]) -> list[TokenEvent]:
    """Each event stays an event, if only of the first half of a character; the character is the first one's."""
    texts = [event.text for event in events]
    last: dict[str, int] = {}
    for at, event in enumerate(events):
        before = last.get(event.kind)
        if before is not None:
            texts[before], texts[at] = borrow(texts[before], texts[at])
        if texts[at] or before is None:
            last[event.kind] = at
    return [event._replace(text=mend(text)) for event, text in zip(events, texts, strict=True)]
