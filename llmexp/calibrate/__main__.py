"""What this machine can measure honestly: the client's own error by concurrency and token rate.

    python -m llmexp.calibrate                     16, 64, 256 and 1,024 streams of 50 tokens/s
    python -m llmexp.calibrate --quick             a shorter look
    python -m llmexp.calibrate --streams 512,2048 --gap-ms 10

The engine runs against the simulator, which knows the truth. The result is kept in the user's cache; jobs that ask for
more than it found warn before they start (`results.calibration.warning`).
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmexp import secrets
from llmexp.errors import INTERRUPTED, OK, LlmexpError
from llmexp.plain_flags import Parser

if TYPE_CHECKING:
    from llmexp.calibrate.measure import Load, Point

LIMIT_MS = 20.0
NOTE = (
    "Client and simulator share this machine's cores, so each error is an upper bound of what the client adds to a "
    "remote endpoint's times. Nothing is subtracted."
)


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m llmexp.calibrate`; the exit status."""
    secrets.guard_streams()
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(given)
    except LlmexpError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return INTERRUPTED


def _run(given: argparse.Namespace) -> int:
    from llmexp import benchmark

    loads = _loads(given)
    expected, most = sum(load.expected_s for load in loads), sum(load.limit_s + 2 * load.answer_s for load in loads)
    many = f"{len(loads)} load{'s' if len(loads) > 1 else ''}"
    _say(f"{many}, about {expected:.0f} s; their clocks end after {most:.0f} s at the latest")
    try:
        points = _measured(loads)
    finally:
        benchmark.stop_ray()
    found = result(points, given.limit_ms / 1e3)
    print(render(points, found))
    if found["largest"] is None and any(point.disturbed for point in points):
        print("Not kept: other programs were at work. Stop them and repeat it.")
    elif not given.no_save:
        from llmexp.results import write_json
        from llmexp.results.calibration import path

        print(f"Kept in {write_json(path(), found, indent=1)}")
    return OK


def _measured(loads: Sequence[Load]) -> list[Point]:
    """Each load in turn; one that is invalid spares the larger ones of the same gap."""
    from llmexp import benchmark
    from llmexp.calibrate.measure import measure
    from llmexp.config import Ray

    benchmark.ensure_ray(Ray())
    points: list[Point] = []
    hopeless: set[float] = set()
    for at, load in enumerate(loads):
        if load.gap_s in hopeless:
            continue
        _say(f"[{at + 1}/{len(loads)}] {load.streams:,} streams, {load.tokens_per_s:,.0f} tokens/s")
        with tempfile.TemporaryDirectory(prefix="llmexp-calibrate-") as folder:
            points.append(measure(load, Path(folder)))
        if points[-1].verdict == "invalid":
            hopeless.add(load.gap_s)
    return points


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def result(points: Sequence[Point], limit_s: float) -> dict[str, Any]:
    """What is kept: machine, date, every point, and the largest honest load."""
    from datetime import UTC, datetime

    from llmexp.installed import versions
    from llmexp.results import calibration, strict, timestamp
    from llmexp.results.environment import PACKAGES, host

    honest = [point for point in points if point.honest(limit_s)]
    tree = {
        "schema_version": calibration.SCHEMA_VERSION,
        "date": timestamp(datetime.now(UTC)),
        "machine": host(),
        "versions": versions(PACKAGES),
        "ttft_error_p99_limit_s": limit_s,
        "note": NOTE,
        "largest": _largest(honest) if honest else None,
        "tried": _largest(points),
        "points": [{**asdict(point), "honest": point.honest(limit_s)} for point in points],
    }
    plain = strict(tree)
    assert isinstance(plain, dict)
    return plain


def _largest(points: Sequence[Point]) -> dict[str, float]:
    return {
        "streams": max(point.streams for point in points),
        "tokens_per_s": max(point.tokens_per_s for point in points),
    }


# --- the table -------------------------------------------------------------------------------------------------------

_HEAD = ("streams", "tokens/s", "TTFT p50", "TTFT p99", "e2e p50", "rate", "held", "loop lag", "worker CPU", "")


def render(points: Sequence[Point], found: Mapping[str, Any]) -> str:
    """The table for stdout: the client's error at each load, and what follows from it."""
    limit_s = found["ttft_error_p99_limit_s"]
    rows = [_HEAD, *(_row(point, limit_s) for point in points)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    lines = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    lines.insert(1, "─" * max(map(len, lines)))
    lines = ["The client's own error (what it says less what was)", "", *lines]
    if any(not _carried(point) for point in points):
        lines.append("~ more requests are needed to carry this percentile")
    for point in points:
        lines += [f"{point.streams:,} streams: {reason}" for reason in point.reasons]
    return "\n".join([*lines, "", *_conclusion(found), NOTE])


def _row(point: Point, limit_s: float) -> tuple[str, ...]:
    errors = point.errors
    ms = ["–"] * 3
    if errors is not None:
        rough = "" if _carried(point) else "~"
        ms = [_ms(errors.ttft_p50_s), rough + _ms(errors.ttft_p99_s), _ms(errors.e2e_p50_s)]
    word = "honest" if point.honest(limit_s) else "too far off" if point.verdict == "valid" else point.verdict
    return (
        f"{point.streams:,}",
        f"{point.tokens_per_s:,.0f}",
        *ms,
        "–" if errors is None else f"{errors.tokens_per_s:+.2%}",
        "–" if point.held is None else f"{point.held:.1%}",
        "–" if point.loop_lag_p99_s is None else f"{point.loop_lag_p99_s * 1e3:.2f} ms",
        "–" if point.worker_cpu_share is None else f"{point.worker_cpu_share:.0%} × {point.workers}",
        word,
    )


def _carried(point: Point) -> bool:
    from llmexp.metrics.distributions import carries

    return point.errors is None or carries(point.errors.matched, "p99")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:+.2f} ms"


def _conclusion(found: Mapping[str, Any]) -> list[str]:
    limit, largest = f"{found['ttft_error_p99_limit_s'] * 1e3:g} ms", found["largest"]
    if largest is None:
        return [f"No load was measured honestly (`valid`, TTFT error at p99 within {limit})."]
    load = f"{largest['streams']:,} streams and {largest['tokens_per_s']:,.0f} tokens/s"
    return [f"Honest up to {load} (`valid`, TTFT error at p99 within {limit})."]


# --- flags -----------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m llmexp.calibrate",
        description="What this machine can measure honestly: the client's own error, against a simulator that knows.",
    )
    parser.add_argument("--streams", type=_numbers, metavar="N,N", help="in flight (16,64,256,1024)")
    parser.add_argument(
        "--gap-ms", type=_numbers, default=[20], metavar="MS,MS", help="between tokens of a stream (20)"
    )
    parser.add_argument("--tokens", type=int, metavar="N", help="length of each answer (128)")
    parser.add_argument(
        "--requests", type=int, default=0, metavar="N", help="of each load (three a stream, 128 or more)"
    )
    parser.add_argument("--quick", action="store_true", help="16, 64 and 256 streams, short answers, two a stream")
    parser.add_argument(
        "--limit-ms",
        type=float,
        default=LIMIT_MS,
        metavar="MS",
        help="TTFT error at p99 up to which a load counts as honestly measured (%(default)g)",
    )
    parser.add_argument("--no-save", action="store_true", help="only show: jobs keep warning by the calibration before")
    return parser


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return found


def _loads(given: argparse.Namespace) -> list[Load]:
    from llmexp.calibrate.measure import Load

    quick: bool = given.quick
    streams = given.streams or ([16, 64, 256] if quick else [16, 64, 256, 1024])
    tokens = given.tokens or (64 if quick else 128)
    return [
        Load(number, gap / 1e3, tokens, given.requests or (2 * number if quick else 0))
        for gap in given.gap_ms
        for number in sorted(streams)
    ]


if __name__ == "__main__":
    sys.exit(main())
