"""MLflow's pages in a real browser: what a person sees of a sweep."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import browser
from support.mlflow_server import free_port
from support.tracked_job import result, write_sweep

from llmexp.config import Tracking
from llmexp.results import Run
from llmexp.tracking import MlflowStore, open_store
from llmexp.tracking.view import CHARTS, VIEW

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(browser.executable() is None, reason="no Chromium on this machine: apt-get install chromium"),
]
VERDICT = "sonnet's time to first token is 40 ms lower than llama's"


@dataclass(frozen=True)
class Site:
    root: str
    link: str
    """What `python -m llmexp.ui` printed."""
    experiment: str
    parent: str
    children: dict[str, str]


FRAMED = """new Promise(done => {
    const look = () => {
        const frame = document.querySelector('iframe');
        frame ? done(fetch(frame.src).then(answer => answer.text())) : setTimeout(look, 50);
    };
    look();
})"""
"""What stands in the page's frame, which comes a moment after the rest."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A store with a sweep of two models at two loads, and our UI on it."""
    place = tmp_path_factory.mktemp("site")
    grid = [(model, streams) for model in ("sonnet", "llama") for streams in (1, 16)]
    jobs = {
        str(at): result(f"job-{at}", model, streams, 0.3 + at / 10, job={"name": f"{model} c={streams}"})
        for at, (model, streams) in enumerate(grid)
    }
    directory = write_sweep(place / "sweep", "seen", jobs)
    store = open_store(Tracking(uri=f"sqlite:///{place}/mlflow.db"), place)
    assert isinstance(store, MlflowStore)
    parent = store.start_sweep("seen", "sonnet against llama", {}, {"workload": "quick"})
    children = {tree["job"]["name"]: store.log_job(Run.at(directory / name), parent) for name, tree in jobs.items()}
    store.finish_sweep(parent, "finished", VERDICT, directory)
    with _ui(place) as link:
        yield Site(link.split("/#")[0], link, store.experiment_id, parent, children)


class _ui:  # noqa: N801
    """`python -m llmexp.ui` in a directory; gives the link that it prints."""

    def __init__(self, place: Path) -> None:
        command = [sys.executable, "-m", "llmexp.ui", "--port", str(free_port())]
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        self._process = subprocess.Popen(
            command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        told = self._process.stdout.readline() + self._process.stdout.readline()
        link = re.search(r"http://\S+", told)
        if link is None:
            self._process.kill()
        assert link, told
        return link[0]

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


def look(act: Callable[[browser.Page], Awaitable[None]]) -> None:
    async def within() -> None:
        async with browser.browser() as page:
            await act(page)

    asyncio.run(within())


@pytest.mark.timeout(400)
def test_the_link_shows_sweeps_above_their_jobs_and_ttft_on_the_first_screen(site: Site) -> None:
    async def act(page: browser.Page) -> None:
        text = await page.open(site.link, "sonnet against llama", "ttft_s/p50", "Sort: Created", "5 matching runs")
        assert "each run is one job" in text
        edges = await page.evaluate(
            "Array.from(document.querySelectorAll('.ag-header-cell'))"
            ".filter(cell => cell.innerText.includes('ttft_s/p50'))"
            ".map(cell => [cell.getBoundingClientRect().right, window.innerWidth])"
        )
        assert edges
        assert all(right < 0.75 * width for right, width in edges)

    look(act)


@pytest.mark.timeout(400)
def test_the_charts_begin_with_latency(site: Site) -> None:
    async def act(page: browser.Page) -> None:
        text = await page.open(
            f"{site.link.replace(VIEW, CHARTS)}&compareRunsMode=CHART",
            "Over concurrency",
            "Over time",
            "e2e_latency_s/p95",
        )
        assert text.index("Latency\n") < text.index("Over time\n") < text.index("client\n")

    look(act)


@pytest.mark.timeout(400)
def test_the_sweep_s_page_states_the_verdict_and_shows_the_comparison(site: Site) -> None:
    run = f"{site.root}/#/experiments/{site.experiment}/runs/{site.parent}"

    async def act(page: browser.Page) -> None:
        await page.open(run, VERDICT, "sonnet against llama", "Finished")
        found = "Array.from(document.querySelectorAll('a[href*=\"/artifacts/report.html\"]')).map(link => link.href)"
        links = await page.evaluate(found)
        assert {child for child in site.children.values() if any(child in link for link in links)} == {
            *site.children.values()
        }
        await page.open(links[0], "report.html", "Path:")
        await page.open(f"{run}/artifacts/comparison.html", "comparison.csv", "multirun.yaml", "Path:")
        # MLflow's frame may open nothing, so the page in it has no link that would be dead.
        shown = await page.evaluate(FRAMED)
        assert "sonnet c=4" in shown
        assert ".html" not in shown

    look(act)


@pytest.mark.timeout(400)
def test_a_job_s_page_says_what_it_is(site: Site) -> None:
    run = f"{site.root}/#/experiments/{site.experiment}/runs/{site.children['llama c=16']}"

    async def act(page: browser.Page) -> None:
        text = await page.open(run, "llama c=16", "finished, measurement valid", "llmexp.validity", "Parent run")
        assert "ttft_s/p95" in text
        await page.open(f"{run}/model-metrics", "over_time", "client")
        await page.open(f"{run}/artifacts", "report.html", "requests.parquet", "result.json")

    look(act)


@pytest.mark.timeout(400)
def test_the_compare_page_plots_a_median_over_concurrency(site: Site) -> None:
    runs, experiments = (
        urllib.parse.quote(json.dumps(ids)) for ids in (list(site.children.values()), [site.experiment])
    )

    async def act(page: browser.Page) -> None:
        address = f"{site.root}/#/compare-runs?runs={runs}&experiments={experiments}"
        text = await page.open(address, "Comparing 4 Runs", "Parallel Coordinates Plot", "Scatter Plot", "deployment.")
        plotted = text[text.index("Parallel Coordinates Plot") : text.index("Run details")]
        assert "concurrency" in plotted
        assert "ttft_s/p50" in plotted

    look(act)
