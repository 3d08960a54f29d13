"""What is wrong with `quality=` beside a workload, before anything is sent."""

from __future__ import annotations

from llmexp import workload
from llmexp.config import Config
from llmexp.errors import ConfigError
from llmexp.quality.build import build, needs_expected, problem_of

_ENOUGH = 100
"""Rows with something expected that are looked at before anything is sent."""


def check(config: Config) -> None:
    """Raises `ConfigError` where no answer of this job could be graded."""
    if not config.quality.graded:
        return
    if config.workload.kind == "format" and config.quality.kind not in ("function", "judge"):
        raise ConfigError(
            f"quality: {config.quality.kind} cannot read layouts; use quality=format with workload=format"
        )
    if config.quality.kind != "judge":
        build(config.quality)
    requests = workload.every_request(config.workload)
    expected = []
    for request in requests:
        if request.force_output:
            raise ConfigError("workload.force_output: spoils answers that are graded; set it to false, or quality=none")
        if request.expected is not None:
            expected.append(request.expected)
            if len(expected) == _ENOUGH:
                break
    if needs_expected(config.quality) and (problem := problem_of(config.quality, expected)):
        raise ConfigError(problem)
