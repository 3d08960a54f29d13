"""What the hardware draws: a DCGM exporter of known power on loopback, NVML's library in C, RAPL's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from llmexp.telemetry import PowerWatch, Work, report
from llmexp.telemetry.dcgm import Dcgm
from llmexp.telemetry.energy import of_counter, of_power, refreshed_s
from llmexp.telemetry.rapl import Rapl
from llmexp.telemetry.reading import Reading

pytestmark = pytest.mark.service

WATTS = {"0": 100.0, "1": 300.0}
Page = Callable[[float], str]


def counters(at_s: float) -> str:
    """Counter and power of two GPUs, as the exporter writes them."""
    lines = ["# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).", "# TYPE DCGM_FI_DEV_POWER_USAGE gauge"]
    for gpu, watts in WATTS.items():
        labels = f'{{gpu="{gpu}",UUID="GPU-aaaa-{gpu}",device="nvidia{gpu}",modelName="H100",Hostname="h"}}'
        lines.append(f"DCGM_FI_DEV_POWER_USAGE{labels} {watts}")
        lines.append(f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{labels} {int(at_s * watts * 1000)}")
        lines.append(f"DCGM_FI_DEV_GPU_UTIL{labels} 75")
        lines.append(f"DCGM_FI_DEV_FB_USED{labels} 1024")
    return "\n".join(lines) + "\n"


def refreshed_each(step_s: float) -> Page:
    return lambda at_s: counters(at_s // step_s * step_s)


def power_alone(at_s: float) -> str:
    return "\n".join(line for line in counters(at_s).splitlines() if "ENERGY" not in line)


@contextmanager
def exporter(page: Page) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = page(time.monotonic()).encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def watched(url: str, gpus: tuple[int | str, ...] | None, seconds: float = 1.0) -> tuple[PowerWatch, Work]:
    """A watch around a window that lies inside it."""
    with PowerWatch(Dcgm(url, gpus)) as watch:
        time.sleep(0.6)
        start = time.monotonic_ns()
        time.sleep(seconds)
        end = time.monotonic_ns()
    return watch, Work(start, end, output_tokens=1000, good_requests=10, right_answers=None)


@pytest.mark.parametrize(
    ("page", "gpus", "watts", "how"),
    [
        (counters, None, 400.0, "counter"),
        (refreshed_each(0.4), None, 400.0, "counter"),
        (power_alone, None, 400.0, "power"),
        (counters, (1,), 300.0, "counter"),
        (counters, ("GPU-aaaa-0",), 100.0, "counter"),
    ],
)
def test_the_energy_of_an_exporter_with_a_known_power(
    page: Page, gpus: tuple[int | str, ...] | None, watts: float, how: str
) -> None:
    with exporter(page) as url:
        watch, work = watched(url, gpus, 2.0)
    seconds = (work.end_ns - work.start_ns) / 1e9
    drawn = report(watch, work, {"t_s": [0, 1]})
    assert drawn.source["energy_from"] == how
    limit = 0.12 if page not in (counters, power_alone) else 0.03  # a step of 0.4 s in a window of 2 s
    assert drawn.metrics["energy_j"] == pytest.approx(watts * seconds, rel=limit)
    assert drawn.metrics["joules_per_output_token"] == pytest.approx(watts * seconds / 1000, rel=limit)
    assert drawn.metrics["joules_per_good_request"] == pytest.approx(watts * seconds / 10, rel=limit)
    assert "joules_per_right_answer" not in drawn.metrics
    assert drawn.metrics["utilization"] == pytest.approx(0.75)
    assert drawn.metrics["memory_used_bytes"] == (2 if gpus is None else 1) * 2**30
    assert drawn.curves["power_w"] == pytest.approx([watts, watts], rel=0.03)


def test_a_window_that_was_not_seen_whole_has_no_energy() -> None:
    with exporter(counters) as url, PowerWatch(Dcgm(url, None)) as watch:
        time.sleep(0.5)
    end = watch.samples[-1][0]
    before, after = Work(end - 10**9, end, 1, 1, None), Work(end - 10**8, end + 10**9, 1, 1, None)
    for work in (before, after):
        drawn = report(watch, work, None)
        assert "energy_j" not in drawn.metrics
        assert "joules_per_output_token" not in drawn.metrics
        assert "do not cover the whole window" in str(drawn.source["problem"])


def test_figures_that_stand_still_for_long_are_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As dcgm-exporter's do, 30 s unless it is told otherwise: what they say is of before the load, or nobody knows."""
    monkeypatch.setattr("llmexp.telemetry.watch.SETTLE_S", 0.2)
    with exporter(refreshed_each(1000)) as url:
        watch, work = watched(url, None, 0.4)
    drawn = report(watch, work, None)
    assert "energy_j" not in drawn.metrics
    assert "joules_per_output_token" not in drawn.metrics
    assert "--collect-interval=100" in str(drawn.source["problem"])


def test_an_exporter_that_goes_away_for_a_while_has_counted_on() -> None:
    """A counter covers a gap; power does not."""

    def away(page: Page) -> Page:
        begun = time.monotonic()
        return lambda at_s: "" if 0.8 < at_s - begun < 1.1 else page(at_s)

    with exporter(away(counters)) as url:
        watch, work = watched(url, None, 0.8)
    seconds = (work.end_ns - work.start_ns) / 1e9
    assert watch.missed
    assert report(watch, work, None).metrics["energy_j"] == pytest.approx(400 * seconds, rel=0.03)


def test_an_exporter_that_is_not_there_is_said_and_costs_nothing() -> None:
    with PowerWatch(Dcgm("http://127.0.0.1:9/metrics", None)) as watch:
        time.sleep(0.05)
    drawn = report(watch, Work(0, 10**9, 1, 1, None), None)
    assert not drawn.metrics
    assert "http://127.0.0.1:9/metrics" in str(drawn.source["problem"])


def test_a_gpu_that_is_not_there_is_said() -> None:
    with exporter(counters) as url, PowerWatch(Dcgm(url, (7,))) as watch:
        time.sleep(0.05)
    assert "not every GPU of model.gpus=[7]; there are: 0 (GPU-aaaa-0), 1 (GPU-aaaa-1)" in str(watch.problem)


def test_instances_of_a_gpu_and_pods_are_not_counted_twice() -> None:
    mine = 'gpu="0",uuid="GPU-aaaa-0",Hostname="h",namespace="n"'

    def page(_at_s: float) -> str:
        return f"""\
DCGM_FI_DEV_POWER_USAGE{{{mine},pod="a"}} 300
DCGM_FI_DEV_POWER_USAGE{{{mine},pod="b"}} 300
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{mine},GPU_I_ID="1",GPU_I_PROFILE="1g.10gb"}} 5000
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{mine},GPU_I_ID="2",GPU_I_PROFILE="1g.10gb"}} 5000
DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{mine},GPU_I_ID="1"}} 0.5
DCGM_FI_DEV_FB_USED{{{mine}}} 48
DCGM_FI_DEV_FB_USED{{{mine},GPU_I_ID="1"}} 16
DCGM_FI_DEV_FB_USED{{{mine},GPU_I_ID="2"}} 32
"""

    with exporter(page) as url:
        source = Dcgm(url.removesuffix("/metrics"), ("GPU-aaaa",))
        found = source.read()
        source.close()
    assert found == {"GPU-aaaa-0": Reading(5.0, 300.0, 0.5, 48 * 2**20)}


# --- pure ------------------------------------------------------------------------------------------------------------


def test_a_counter_that_begins_anew_says_nothing() -> None:
    at_s = np.arange(0.0, 5.0, 0.5)
    assert of_counter(at_s, 100 * at_s, 1.0, 4.0) == pytest.approx(300.0)
    assert of_counter(at_s, np.where(at_s < 2, 100 * at_s, 100 * (at_s - 2)), 1.0, 4.0) is None
    assert of_counter(at_s, np.zeros(len(at_s)), 1.0, 4.0) is None


def test_steps_of_a_counter_hold_for_when_they_happened() -> None:
    at_s = np.arange(0.0, 20.0, 0.1)
    stepped = np.floor(at_s + 1e-9) * 200.0
    assert of_counter(at_s, stepped, 3.5, 15.5) == pytest.approx(2400.0, rel=0.01)
    assert of_counter(at_s, stepped, 0.2, 15.5) is None


def test_how_long_a_counter_stood_still() -> None:
    at_s = np.arange(0.0, 10.0, 0.1)
    assert refreshed_s(at_s, np.floor(at_s + 1e-9) * 200.0) == pytest.approx(1.0)
    assert refreshed_s(at_s, np.full(100, 5.0)) == pytest.approx(9.9)
    assert refreshed_s(at_s, np.zeros(100)) is None, "a counter that is always 0 is none"


def test_power_over_time_needs_readings_without_a_gap() -> None:
    at_s = np.arange(0.0, 20.0, 0.25)
    watts = np.where(at_s < 10, 100.0, 300.0)
    assert of_power(at_s, watts, 5.0, 15.0) == pytest.approx(500 + 1500, rel=0.02)
    kept = (at_s < 7) | (at_s > 12)
    assert of_power(at_s[kept], watts[kept], 5.0, 15.0) is None
    assert of_power(at_s[kept], watts[kept], 13.0, 15.0) == pytest.approx(600.0)


# --- NVML and RAPL ---------------------------------------------------------------------------------------------------

NVML = """
import json, sys, time
from llmexp.telemetry import PowerWatch, Work, report
from llmexp.telemetry.nvml import Nvml
with PowerWatch(Nvml(json.loads(sys.argv[1]) and tuple(json.loads(sys.argv[1])))) as watch:
    time.sleep(0.3)
    start = time.monotonic_ns()
    time.sleep(0.8)
    end = time.monotonic_ns()
drawn = report(watch, Work(start, end, 10, None, None), None)
print(json.dumps([(end - start) / 1e9, drawn.metrics, drawn.source]))
"""


@pytest.fixture(scope="module")
def nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C library, built as NVIDIA's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).parent / "support" / "libnvidia_ml.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


@pytest.mark.parametrize(
    ("gpus", "environment", "watts", "how"),
    [(None, {}, 400, "counter"), ([1], {}, 300, "counter"), (None, {"NO_COUNTER": "1"}, 400, "power")],
)
def test_nvml(nvml_folder: Path, gpus: list[int] | None, environment: dict[str, str], watts: float, how: str) -> None:
    pytest.importorskip("pynvml")
    done = subprocess.run(
        [sys.executable, "-c", NVML, json.dumps(gpus)],
        env={**os.environ, "LD_LIBRARY_PATH": str(nvml_folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, metrics, source = json.loads(done.stdout)
    assert metrics["energy_j"] == pytest.approx(watts * seconds, rel=0.03)
    assert metrics["utilization"] == 0.5
    assert source["energy_from"] == how


def test_rapl_sums_packages_and_survives_the_counter_s_turn(tmp_path: Path) -> None:
    def zone(name: str, called: str, joules: float) -> None:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(called + "\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
        (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")

    zone("intel-rapl:0", "package-0", 990)
    zone("intel-rapl:0:0", "core", 500)
    zone("intel-rapl:0:1", "dram", 10)
    zone("intel-rapl-mmio:0", "package-0", 990)
    source = Rapl(tmp_path)
    before = source.read()
    zone("intel-rapl:0", "package-0", 5)
    zone("intel-rapl:0:1", "dram", 12)
    after = source.read()
    grown = {name: (after[name].energy_j or 0) - (before[name].energy_j or 0) for name in after}
    assert grown == {"intel-rapl:0 package-0": pytest.approx(15), "intel-rapl:0:1 dram": pytest.approx(2)}
