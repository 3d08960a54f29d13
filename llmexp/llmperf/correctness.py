"""LLMPerf's correctness test: does a model under load still read numbers right?

Numbers from 0 to 10,000 go out in English words and have to come back in digits. An answer passes if, once commas
between digits are removed, the exact decimal string is among its runs of digits.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmexp import results
from llmexp.llmperf.files import VERSION, base_name, flat, with_metadata
from llmexp.records import Record
from llmexp.workload.request import Message, Request

LARGEST = 10_000
PROMPT = "Convert the following sequence of words into a number: {words}.\nPrint the number first."
WORDS_PER_TOKEN = 0.75


@dataclass(frozen=True)
class Asked:
    """What the command line asked for."""

    model: str
    num_concurrent_requests: int
    llm_api: str
    sampling_params: Mapping[str, object]
    additional_sampling_params: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """What both file names begin with."""
        return base_name(f"{self.model}_correctness")


def numbers(count: int, seed: int) -> list[int]:
    """The numbers to ask for; the same for a seed."""
    draw = random.Random(seed)
    return [draw.randint(0, LARGEST) for _ in range(count)]


def prompt_of(number: int) -> str:
    """The question."""
    from num2words import num2words

    return PROMPT.format(words=num2words(number))


def requests_of(asked_numbers: Sequence[int], max_tokens: int) -> list[Request]:
    """A request for each number, in order."""
    return [_request(index, prompt_of(number), max_tokens) for index, number in enumerate(asked_numbers)]


def _request(index: int, prompt: str, max_tokens: int) -> Request:
    return Request(
        index=index,
        messages=(Message(role="user", content=prompt),),
        max_tokens=max_tokens,
        input_tokens=round(len(prompt.split()) / WORDS_PER_TOKEN),
        prompt_digest=hashlib.sha256(f"{prompt}\0{max_tokens}".encode()).hexdigest()[:16],
    )


def passes(number: int, answer: str) -> bool:
    """Whether the answer holds the number."""
    return str(number) in re.findall(r"[0-9]+", re.sub(r"(?<=[0-9]),(?=[0-9])", "", answer))


def write(
    directory: Path, records: Iterable[Record], asked_numbers: Sequence[int], asked: Asked, timestamp: int
) -> list[Path]:
    """LLMPerf's two files of a correctness run; `timestamp` is in unix seconds."""
    answered = [record for record in records if record.status != "unfinished"]
    summary = results.strict(summary_of(answered, asked_numbers, asked, timestamp))
    responses = results.strict([_response(record, asked_numbers[record.index], asked) for record in answered])
    return [
        results.write_json(directory / f"{asked.base}_summary.json", summary, indent=4),
        results.write_json(directory / f"{asked.base}_individual_responses.json", responses, indent=4),
    ]


def summary_of(
    records: Sequence[Record], asked_numbers: Sequence[int], asked: Asked, timestamp: int
) -> dict[str, object]:
    """The flat object of `<base>_summary.json`; `records` are of completed and failed requests."""
    good = [record for record in records if record.status == "completed"]
    wrong = sum(not passes(asked_numbers[record.index], record.text or "") for record in good)
    errors = len(records) - len(good)
    summary = {
        "version": VERSION,
        "name": f"{asked.base}_summary",
        "number_errors": errors,
        "num_mismatched_requests": wrong,
        "error_rate": errors / len(records) if records else None,
        "mismatch_rate": wrong / len(good) if good else None,
        "num_completed_requests": len(records),
        "num_non_errored_requests": len(good),
        "model": asked.model,
        "num_concurrent_requests": asked.num_concurrent_requests,
        **flat(asked.additional_sampling_params, "additional_sampling_params"),
        "llm_api": asked.llm_api,
    }
    return with_metadata(summary, asked.metadata, timestamp)


def _response(record: Record, number: int, asked: Asked) -> dict[str, object]:
    failed = record.status == "failed"
    code = record.error_code or record.error_class or "client"
    return {
        "metrics": {
            "error_code": (int(code) if code.isdigit() else code) if failed else None,
            "error_msg": (record.error_message or "") if failed else "",
            **_latencies(record, failed),
        },
        "generated_text": record.text or "",
        "request_config": {
            "model": asked.model,
            "prompt": prompt_of(number),
            "sampling_params": dict(asked.sampling_params),
            "llm_api": asked.llm_api,
            "metadata": {"rnd_number": number},
        },
    }


def _latencies(record: Record, failed: bool) -> dict[str, object]:
    """LLMPerf's names; null where there is no figure."""
    sent, first, last = record.sent_ns, record.first_token_ns, record.last_token_ns
    timed = not failed and None not in (sent, first, last)
    e2e_s = ((last or 0) - (sent or 0)) / 1e9 if timed else None
    later = record.streamed_tokens - (record.chunk_tokens[0] if record.chunk_tokens else 0)
    made = record.streamed_tokens if record.output_tokens is None else record.output_tokens
    return {
        "inter_token_latency_s": ((last or 0) - (first or 0)) / 1e9 / later if timed and later > 0 else None,
        "ttft_s": ((first or 0) - (sent or 0)) / 1e9 if timed else None,
        "end_to_end_latency_s": e2e_s,
        "request_output_throughput_token_per_s": record.streamed_tokens / e2e_s if e2e_s else None,
        "number_total_tokens": (record.input_tokens or 0) + made,
        "number_output_tokens": made,
        "number_input_tokens": record.input_tokens,
    }
