"""`python -m llmexp.compare`: side by side, with intervals and verdicts.

python -m llmexp.compare                           the newest sweep under outputs/
python -m llmexp.compare outputs/…/12-00-00        a sweep's directory
python -m llmexp.compare LAST_WEEK THIS_WEEK       two sweeps, jobs or MLflow ids; the first is the baseline
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import secrets
from llmexp.errors import FAILED, MISSED, OK, ConfigError, LlmexpError, worst
from llmexp.json_types import branch, number, text
from llmexp.plain_flags import Parser

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison, Options
    from llmexp.results.run import Run

ELSEWHERE = Path("comparison")
"""Where a comparison goes that has no folder of its own."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(
        prog="python -m llmexp.compare",
        description="Put runs side by side: differences with intervals, verdicts in words, plots, an HTML page.",
        epilog="Exit status: 0 compared; 2 nothing to compare or a wrong option; 3 an enforced SLO was missed, or "
        "--fail-on regression found a candidate that is worse than the baseline beyond the margin.",
    )
    add = made.add_argument
    add(
        "what",
        nargs="*",
        metavar="DIR_OR_ID",
        help="sweep or job directories, or MLflow run or sweep ids; of several, the first is the baseline "
        "(default: the newest sweep under --outputs)",
    )
    add(
        "--primary",
        metavar="METRIC",
        help="the metric to decide on, such as ttft_s/p95 (default: the runs' compare.primary)",
    )
    add(
        "--margin",
        type=float,
        metavar="SHARE",
        help="relative difference that does not matter (default: the runs' compare.margin)",
    )
    add("--baseline", metavar="STACK", help="compare every stack with this one alone")
    add(
        "--fail-on",
        choices=("regression",),
        help="exit 3 when a candidate is worse (default: the runs' compare.fail_on)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the page, tables and plots go (default: the sweep's directory; of several or by id: ./comparison)",
    )
    add(
        "--outputs",
        type=Path,
        default=Path("outputs"),
        metavar="DIR",
        help="where to look for the newest sweep (default: outputs)",
    )
    add(
        "--uri", metavar="URI", help="MLflow's tracking URI for ids (default: MLFLOW_TRACKING_URI, else the store here)"
    )
    add("--json", action="store_true", help="print comparison.json instead of the table")
    add("--markdown", action="store_true", help="print comparison.md instead of the table")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit status."""
    secrets.guard_streams()
    args = parser().parse_args(arguments)
    try:
        return _run(args)
    except LlmexpError as error:
        print(error, file=sys.stderr)
        return error.exit_status


def _run(args: argparse.Namespace) -> int:
    named = args.what or [str(newest(args.outputs))]
    directories = [directory for what in named for directory in _directories(what, args.uri)]
    from llmexp import report
    from llmexp.compare.comparison import compare
    from llmexp.compare.output import write
    from llmexp.results.guard import Guard
    from llmexp.results.run import load_runs

    runs = load_runs(directories)
    comparison = compare(runs, _options(args, runs))
    # What an id names lies in MLflow's store or in our cache: neither is a place for a page.
    lone = Path(named[0]) if len(named) == 1 and Path(named[0]).is_dir() else None
    guard, later = Guard(), f"python -m llmexp.compare {shlex.join(named)} --out ELSEWHERE"
    with _place(args.out or lone or ELSEWHERE) as out:
        with guard("comparison.csv and comparison.json were not written", later, FAILED):
            write(comparison, out)
        with guard("comparison.html was not drawn", later):
            report.comparison(comparison, out, guard)
            print(f"Page: {out / 'comparison.html'}", file=sys.stderr)
    _show(comparison, args)
    return worst([MISSED if comparison.missed else OK, *guard.statuses])


@contextlib.contextmanager
def _place(wanted: Path) -> Iterator[Path]:
    """Where to write: a sweep's or a job's folder is ours meanwhile, so that no resume begins under our hands."""
    from llmexp.jobs import lock

    with contextlib.ExitStack() as stack:
        if lock.is_taken(wanted):
            try:
                stack.enter_context(lock.held(wanted))
            except ConfigError as error:
                owner = lock.at_work(wanted)
                why = str(error) if owner is None else f"{wanted}: {owner} is at work there"
                print(f"{why}; the comparison so far goes to ./{ELSEWHERE}", file=sys.stderr)
                wanted = ELSEWHERE
        yield wanted


def _show(comparison: Comparison, args: argparse.Namespace) -> None:
    from llmexp.compare import markdown
    from llmexp.compare.output import text
    from llmexp.compare.table import render
    from llmexp.terminal.out import show

    if args.json:
        show(text(comparison).rstrip())
    else:
        show(markdown.render(comparison).rstrip() if args.markdown else render(comparison))
    for reason in comparison.shortfalls:
        print(reason, file=sys.stderr)


def _options(args: argparse.Namespace, runs: Sequence[Run]) -> Options:
    """Flags, over what the first run's configuration declares."""
    from llmexp.compare.model import Options

    declared, usual = branch(runs[0].config, "compare"), Options()
    margin: float | None = number(declared, "margin") if args.margin is None else args.margin
    if margin is not None and margin < 0:
        raise ConfigError(f"--margin: must be at least 0, got {margin:g}")
    return Options(
        primary=args.primary or text(declared, "primary") or usual.primary,
        margin=usual.margin if margin is None else margin,
        baseline=args.baseline or text(declared, "baseline"),
        fail_on="regression" if "regression" in (args.fail_on, text(declared, "fail_on")) else None,
    )


def _directories(what: str, uri: str | None) -> list[Path]:
    """A directory as it is; anything else is an id in MLflow, whose jobs are fetched."""
    if Path(what).is_dir():
        return [Path(what)]
    if "/" in what or what.startswith("."):
        raise ConfigError(f"{what}: no such directory; give a sweep's or job's directory, or an MLflow id")
    from llmexp import tracking

    return list(tracking.download(what, uri))


def newest(outputs: Path) -> Path:
    """The directory of the sweep that ended last under `outputs`; a search's probes are none."""
    from llmexp.results.run import PROBES

    jobs = [path.parent for path in outputs.rglob("result.json") if path.parent.name.isdigit()]
    parents = {job.parent for job in jobs if job.parent.name != PROBES}
    if not parents:
        raise ConfigError(
            f"{outputs}: no sweep here yet; run python -m llmexp -m …, or give a directory or an MLflow id"
        )
    return max(parents, key=lambda path: max(job.stat().st_mtime for job in path.glob("*/result.json")))


if __name__ == "__main__":
    sys.exit(main())
