"""What the two scripts do: flags → one job → LLMPerf's two files.

Exit status: 0 whenever there are results, failed requests among them; 1 nothing could be measured; 2 flags or
environment are wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import secrets
from llmexp.errors import FAILED, INTERRUPTED, OK, ConfigError, LlmexpError
from llmexp.json_types import number
from llmexp.llmperf import flags
from llmexp.terminal.out import show, tell

if TYPE_CHECKING:
    from llmexp.config import Config
    from llmexp.results import Result, Run
    from llmexp.workload.request import Request


def benchmark(argv: list[str], environ: Mapping[str, str]) -> int:
    """token_benchmark_ray.py."""
    secrets.guard_streams()
    args = flags.benchmark_parser().parse_args(argv)
    return _guarded(lambda: _benchmark(args, environ))


def correctness(argv: list[str], environ: Mapping[str, str]) -> int:
    """llm_correctness.py."""
    secrets.guard_streams()
    args = flags.correctness_parser().parse_args(argv)
    return _guarded(lambda: _correctness(args, environ))


def _guarded(run: Callable[[], int]) -> int:
    """The exit status; what a user can mend is said in one message without a traceback."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except LlmexpError as error:
        tell("\n".join(map(_in_flags, str(error).splitlines())))
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _benchmark(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    metadata, params = flags.metadata_of(args.metadata), flags.sampling_params_of(args.additional_sampling_params)
    config = _config(flags.config_from_flags(args, environ))
    target = _results_dir(args.results_dir)
    with tempfile.TemporaryDirectory(prefix="llmexp-") as name:
        result = _measure(config, Path(name))
        if target is not None and result.answered:
            from llmexp.llmperf import files
            from llmexp.records.observed import observe

            asked = files.Asked(
                model=args.model,
                mean_input_tokens=args.mean_input_tokens,
                stddev_input_tokens=args.stddev_input_tokens,
                mean_output_tokens=args.mean_output_tokens,
                stddev_output_tokens=args.stddev_output_tokens,
                num_concurrent_requests=args.num_concurrent_requests,
                additional_sampling_params=params,
                metadata=metadata,
            )
            observed, now = observe(Path(name)), int(time.time())
            _write(target, lambda place: files.write(place, observed, asked, now))
    return _status(result)


def _correctness(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from llmexp import records
    from llmexp.llmperf import correctness as test

    metadata, params = flags.metadata_of(args.metadata), flags.sampling_params_of(args.additional_sampling_params)
    config = _config(flags.correctness_config(args, environ))
    target = _results_dir(args.results_dir)
    asked = test.Asked(
        model=args.model,
        num_concurrent_requests=args.num_concurrent_requests,
        llm_api=args.llm_api,
        sampling_params=config.model.params,
        additional_sampling_params=params,
        metadata=metadata,
    )
    numbers = test.numbers(args.max_num_completed_requests, config.run.seed)
    requests = test.requests_of(numbers, flags.correctness_max_tokens(config.model.params))
    with tempfile.TemporaryDirectory(prefix="llmexp-") as name:
        result = _measure(config, Path(name), requests)
        if result.answered:
            rows = [row for row in records.records(Path(name)) if row.status != "unfinished"]
            now = int(time.time())
            summary = test.summary_of(rows, numbers, asked, now)
            show(_correctness_line(summary))
            if target is not None:
                _write(target, lambda place: test.write(place, rows, numbers, asked, now))
    return _status(result)


def _results_dir(name: str) -> Path | None:
    """The folder of --results-dir, looked at before anything is sent; None where nothing is to be written."""
    if not name:
        return None
    folder = Path(name)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"--results-dir: cannot be written ({error.strerror}), got '{name}'") from None
    return folder


def _write(folder: Path, write: Callable[[Path], object]) -> None:
    """What was measured is kept, in another folder where this one does not take it any more."""
    try:
        write(folder)
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="llmperf-results-"))
        write(other)
        tell(f"--results-dir: '{folder}' could not be written ({error.strerror}); the files are in {other}")


def _correctness_line(summary: Mapping[str, object]) -> str:
    answered, wrong, failed = (
        int(number(summary, name) or 0)
        for name in ("num_non_errored_requests", "num_mismatched_requests", "number_errors")
    )
    return f" correct      {answered - wrong} of {answered} answers ({wrong} mismatched, {failed} failed)"


def _config(tree: dict[str, object]) -> Config:
    """The checked configuration; a wrong value is named by its flag."""
    from llmexp import config as schema

    try:
        return schema.load(tree)
    except ConfigError as error:
        raise ConfigError("\n".join(map(_in_flags, str(error).splitlines()))) from None


def _in_flags(line: str) -> str:
    """A message with the flag in the place of the key; keys that have no flag are not offered."""
    key, colon, rest = line.partition(":")
    rest = rest.replace(f", or set {key} to the one that holds it", "")
    return f"{flags.FLAG_OF_KEY.get(key, key)}{colon}{rest}"


def _measure(config: Config, directory: Path, requests: list[Request] | None = None) -> Result:
    """Run the job, show it, and record it where MLFLOW_TRACKING_URI asks for that."""
    from llmexp.jobs import job as experiment
    from llmexp.results import Run
    from llmexp.terminal import glance

    result = experiment.measure(config, directory, quiet=False, requests=requests)
    show(glance.render(result))
    if config.tracking.kind != "none" and result.answered:
        _record(config, Run(result, directory))
    return result


def _record(config: Config, run: Run) -> None:
    """Trouble with the store never costs a result."""
    from llmexp import tracking
    from llmexp.jobs import readers
    from llmexp.results.guard import Guard

    guard = Guard()
    readers.write_files(run, guard)
    with guard("not recorded in MLflow", "the same command"):
        tracking.open_store(config.tracking, Path.cwd()).log_job(run, None)


def _status(result: Result) -> int:
    if result.status == "interrupted":
        return INTERRUPTED
    if result.answered:
        return OK
    tell(result.reason or "no request was answered")
    return FAILED
