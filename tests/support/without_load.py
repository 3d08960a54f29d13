"""A command whose load is made up and all else real: configs, folders, records on disk, numbers, readers, MLflow.

What stands in for the load writes the records that a simulated stack would have left, through the real `Writer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmexp import benchmark, composition, records
from llmexp.benchmark import cluster, driver
from llmexp.benchmark.measurement import Measurement
from llmexp.clients.base import Target
from llmexp.companion.task import Built
from llmexp.jobs import sweep
from llmexp.jobs.sweep import Outcome
from support import synthetic
from support.synthetic import Truth

MODEL = ["model=openai_compatible", "model.base_url=http://127.0.0.1:9/v1"]
TTFT_S = {"fast": 0.2, "slow": 0.3}
BUILT = Built("", Target("http", "127.0.0.1", 9), False, False, False, None, None, "none", "none", 0.0, (), None)


def load_of(self: driver.Benchmark) -> Measurement:
    """What `Benchmark.run` does, without sending anything."""
    job = self._job
    truth = Truth(
        model=job.config.model.name,
        ttft_s=TTFT_S.get(job.config.model.name, 0.25),
        requests=job.config.max_requests or 60,
        concurrency=job.config.streams or 1,
    )
    measurement = Measurement(built=BUILT, workers=1, anchor={"wall_ns": 10**18, "monotonic_ns": 0})
    seed = sum(map(ord, f"{job.config.model.name}{job.nonce}"))
    with records.Writer(job.directory, measurement.anchor) as writer:
        for batch in synthetic.table(truth, seed).to_batches(max_chunksize=16):
            writer.append(bytes(batch.serialize()))
    measurement.held = writer.held
    measurement.started_wall_ns, measurement.ended_wall_ns = 10**18, 10**18 + 60 * 10**9
    return measurement


@pytest.fixture
def no_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which commands of a test run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(driver.Benchmark, "run", load_of)
    monkeypatch.setattr(benchmark, "ensure_ray", lambda _config: None)
    monkeypatch.setattr(benchmark, "get_ready", lambda _configs: None)
    monkeypatch.setattr(cluster, "ensure_ray", lambda _config: None)
    monkeypatch.setattr("llmexp.report.figures.PNG_DPI", 20)
    return tmp_path


def command(*overrides: str, directory: Path | str = "out", **changes: Any) -> Outcome:
    """A sweep over the overrides into `directory`."""
    given = [*MODEL, "run.max_requests=60", "run.warmup_requests=0", *overrides]
    with composition.opened(None):
        composed = composition.compose_all(given)
    return sweep.run_sweep(composed, str(directory))
