"""`python -m llmexp.convert SOURCE --from FORMAT --to FILE.jsonl`: a log or a trace into a workload's file."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmexp import secrets
from llmexp.convert import bedrock_logs, openai_logs, otel, sagemaker_capture, sharegpt
from llmexp.convert.exchange import Exchange, Tree, Unusable
from llmexp.convert.grouping import Sessions
from llmexp.convert.made_up import MadeUp
from llmexp.convert.reading import records
from llmexp.convert.traces import Traces
from llmexp.convert.written import Writer, check
from llmexp.errors import ConfigError, LlmexpError
from llmexp.metrics.wording import counted
from llmexp.plain_flags import Parser
from llmexp.results.files import replacing

TRACES = ("mooncake", "azure", "burstgpt")
LOGS: Mapping[str, Callable[[Mapping[str, object]], Exchange]] = {
    "openai": openai_logs.exchange_of,
    "otel": otel.exchange_of,
    "bedrock": bedrock_logs.exchange_of,
    "sagemaker": sagemaker_capture.exchange_of,
    "sharegpt": sharegpt.exchange_of,
}
_ODD = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What a log's values of kinds that nobody expects lead to: one row, never the others."""
_EXAMPLES = 3
_TOLD_EVERY = 100_000


@dataclass
class Told:
    """What there is to say at the end."""

    lines: int = 0
    turns: int = 0
    unusable: dict[str, list[str]] = field(default_factory=dict)
    """Reason → the first places."""
    counts: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)

    def refuse(self, where: str, why: str) -> None:
        """A row that cannot be used."""
        self.counts[why] = self.counts.get(why, 0) + 1
        places = self.unusable.setdefault(why, [])
        if len(places) < _EXAMPLES:
            places.append(where)

    def remark(self, what: str) -> None:
        """Something that was left out of a row."""
        self.remarks[what] = self.remarks.get(what, 0) + 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    secrets.guard_streams()
    asked = _parser().parse_args(arguments)
    try:
        print(convert(asked.source, asked.format, asked.to, keep_text=asked.keep_text, seed=asked.seed))
    except LlmexpError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m llmexp.convert", description=__doc__)
    parser.add_argument("source", metavar="SOURCE", help="a file or a folder of files, packed or not")
    parser.add_argument(
        "--from", dest="format", required=True, choices=[*TRACES, *LOGS], help="what the source holds; see docs/logs.md"
    )
    parser.add_argument("--to", required=True, metavar="FILE.jsonl", help="the workload's file to write")
    parser.add_argument("--keep-text", action="store_true", help="keep the real texts instead of made-up ones")
    parser.add_argument("--seed", type=int, help="make the same texts up again; without it they differ each time")
    return parser


class _NothingUsableError(Exception):
    """No line was written: what was there stays."""


def convert(source: str, kind: str, to: str, *, keep_text: bool = False, seed: int | None = None) -> str:
    """Write the workload's file; what was written and what was not, in words."""
    target, told = _target(to, Path(source)), Told()
    try:
        with contextlib.suppress(_NothingUsableError), replacing(target) as file:
            for line in _lines(source, kind, told, target.parent, keep_text=keep_text, seed=seed):
                file.write(secrets.redact(json.dumps(line, ensure_ascii=False)) + "\n")
                told.lines += 1
            if not told.lines:
                raise _NothingUsableError
    except OSError as error:
        raise ConfigError(f"--to: cannot write '{to}' ({error.strerror})") from None
    said = "\n".join(_said(told, kind, to))
    if not told.lines:
        raise ConfigError(f"SOURCE: no row of '{source}' could be used as {kind}\n{said}")
    return said


def _target(to: str, source: Path) -> Path:
    """Where the workload's file goes: a name that a workload reads as lines of JSON, and never the log itself."""
    target = Path(to)
    if target.suffix.lower() not in (".jsonl", ".ndjson"):
        raise ConfigError(f"--to: must end in .jsonl, so that a workload can read it, got '{to}'")
    if (
        target.exists()
        and source.exists()
        and (target.samefile(source) or source.resolve() in target.resolve().parents)
    ):
        raise ConfigError(f"--to: '{to}' belongs to the log itself; name another file")
    return target


def _lines(source: str, kind: str, told: Told, folder: Path, *, keep_text: bool, seed: int | None) -> Iterator[Tree]:
    if kind in TRACES:
        yield from _rows(source, kind, told)
        return
    sessions = Sessions()
    try:
        for found in _exchanges(source, kind, told, folder):
            sessions.add(found)
        if sessions.timed and not sessions.ends_known:
            told.remark("no end times in the log: delays hold the time that answers took")
        writer = Writer(None if keep_text else MadeUp(_counter(), seed))
        for number, session in enumerate(sessions):
            if number == 0 and sessions.timed:
                writer.first_s = session.start_s
            line = writer.line(session, number)
            turns = line["turns"]
            told.turns += len(turns) if isinstance(turns, list) else 0
            yield line
    finally:
        sessions.close()


def _rows(source: str, kind: str, told: Told) -> Iterator[Tree]:
    traces = Traces(kind)
    for number, (where, record) in enumerate(records(source), 1):
        _tell(number)
        if isinstance(record, str):
            told.refuse(where, record)
            continue
        try:
            yield traces.row(record)
        except Unusable as error:
            told.refuse(where, str(error))
        except _ODD as error:
            told.refuse(where, f"a value of an unexpected kind: {error}")


def _exchanges(source: str, kind: str, told: Told, folder: Path) -> Iterator[Exchange]:
    read = LOGS[kind]
    for number, (where, record) in enumerate(records(source), 1):
        _tell(number)
        if isinstance(record, str):
            told.refuse(where, record)
            continue
        for each in otel.spans(record) if kind == "otel" else (record,):
            try:
                if kind == "otel" and not otel.concerns(each):
                    continue
                found = read(each)
                check(found, folder)
            except Unusable as error:
                told.refuse(where, str(error))
                continue
            except _ODD as error:
                told.refuse(where, f"a value of an unexpected kind: {error}")
                continue
            if found.remark:
                told.remark(found.remark)
            yield found


def _tell(number: int) -> None:
    if number % _TOLD_EVERY == 0:
        print(f"{number:,} rows read", file=sys.stderr)


def _counter() -> Callable[[str], int]:
    """Counts tokens as the workload will."""
    from llmexp.config import Model
    from llmexp.workload import YARDSTICK
    from llmexp.workload.tokens import estimate_tokenizer, tokenizer_for

    try:
        return tokenizer_for(Model(name="yardstick", tokenizer=YARDSTICK), None).count
    except ConfigError:
        return estimate_tokenizer().count


def _said(told: Told, kind: str, to: str) -> Iterator[str]:
    if told.lines and kind in TRACES:
        yield f"wrote {counted(told.lines, 'row')}: workload=file workload.file={to} load=replay load.file={to}"
    elif told.lines:
        wrote = f"{counted(told.lines, 'session')} of {counted(told.turns, 'recorded turn')}"
        yield f"wrote {wrote}: workload=sessions workload.file={to}"
    for what, count in told.remarks.items():
        yield f"{count:,} × {what}"
    if told.counts:
        yield f"{counted(sum(told.counts.values()), 'row')} could not be used:"
    for why, count in sorted(told.counts.items(), key=lambda item: -item[1]):
        yield f"  {count:,} × {why} ({'; '.join(told.unusable[why])}{'; …' if count > _EXAMPLES else ''})"


if __name__ == "__main__":
    sys.exit(main())
