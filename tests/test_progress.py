"""What is shown while a load runs: percentiles of times to first token beside the counts."""

from __future__ import annotations

import logging
import os
import pty
import re
import sys
from collections import Counter

import numpy as np
import pytest

from llmexp.config import Config, load
from llmexp.metrics.so_far import SoFar, Steps, percentile, step
from llmexp.terminal import progress
from llmexp.terminal.progress import Progress, so_far


def steps(durations: list[float]) -> Steps:
    return Counter(map(step, durations))


def seen(durations: list[float], **counts: int) -> SoFar:
    return SoFar(Counter(counts), 2.0, steps(durations))


def config() -> Config:
    lengths = {"input_tokens": {"mean": 8}, "output_tokens": {"mean": 8}}
    return load({"model": {"name": "m", "api": "openai", "base_url": "http://127.0.0.1:1/v1"}, "workload": lengths})


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("scale", [0.0004, 0.2, 90.0])
def test_percentiles_of_steps_are_within_a_step_and_add_up_over_workers(share: float, scale: float) -> None:
    values = np.random.default_rng(1).lognormal(0, 0.6, 1000) * scale
    both = steps(list(values[:300]))
    both.update(steps(list(values[300:])))
    exact = float(np.quantile(values, share, method="lower"))
    assert percentile(both, share) == pytest.approx(exact, rel=0.003)


def test_nothing_so_far_is_no_percentile_and_no_time_is_a_very_short_one() -> None:
    assert percentile(Counter(), 0.5) is None
    assert percentile(steps([0.0, -0.1]), 0.5) == pytest.approx(1e-6, rel=0.003)


def test_the_words_say_counts_ttft_and_rate_and_mark_what_the_sample_does_not_carry() -> None:
    assert so_far(seen([])) == "0 tokens/s"
    assert so_far(seen([0.2] * 4, output_tokens=326)) == "TTFT p50 ~200 ms, p95 ~200 ms · 163 tokens/s"
    assert so_far(seen([0.2] * 59, failed=3)) == "3 failed · TTFT p50 200 ms, p95 200 ms · 0 tokens/s"


def test_without_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    with caplog.at_level(logging.INFO), Progress(config(), "vllm_a · c8") as shown:
        shown.update(seen([0.2] * 5, completed=5, output_tokens=20))
    assert "vllm_a · c8: 5 of 32 requests after 2 s, TTFT p50 200 ms, p95 ~200 ms · 10 tokens/s" in caplog.text


@pytest.mark.parametrize("columns", [80, 140])
def test_at_any_width_of_a_terminal_nothing_is_dropped(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(config(), "vllm_a · c8 · r2") as shown:
            shown.update(seen([0.2] * 60, completed=30, failed=1, output_tokens=999))
            assert shown._bar is not None
            shown._bar.refresh()
        terminal.flush()
        drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", drawn).split())
    for word in ("vllm_a · c8 · r2", "31/32", "1 failed", "p50 200 ms", "p95 200 ms", "tokens/s"):
        assert word in plain
    assert ("━" in plain) == (columns == 140)
