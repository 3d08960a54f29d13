"""The pages: self-contained, well-formed, legible in light and dark, honest about what is missing."""

from __future__ import annotations

import asyncio
import csv
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from support import browser, synthetic
from support.synthetic import Truth, run_sweep

from llmexp import report
from llmexp.report import figures
from llmexp.results.run import Run

VOID = {"meta", "br", "img", "hr", "link", "input"}
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """What a page holds; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").replace("\N{WORD JOINER}", "").split())

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def self_contained(text: str) -> None:
    """Nothing is fetched: no external address in a place that a browser loads from."""
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object"} == set()
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data"):
            assert not (attributes.get(name) or "").startswith(("http", "//", "data:"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    slo = (("ttft_s", 0.5),)
    stacks = [
        Truth("sonnet", requests=70, slo=slo),
        Truth("smollm2", slots=4, ttft_s=0.3, requests=70, slo=slo, error_rate=0.05),
    ]
    directory = synthetic.write_sweep(tmp_path_factory.mktemp("sweep"), stacks, [1, 4], repeats=3)
    report.job(Run.at(directory / "1"))
    return directory, run_sweep(directory)


def test_the_comparison_page_holds_all_there_is(sweep):
    directory, comparison = sweep
    text = (directory / "comparison.html").read_text()
    page = Page(text)
    self_contained(text)
    assert len(text) < 1_000_000
    assert comparison.headline in page.text
    order = [
        page.text.index(title)
        for title in (
            "What differs",
            "Verdicts on mean TTFT",
            "Numbers",
            "At equal service level",
            "Against the load",
            "Distributions",
            "Trade-offs",
            "Over time",
            "Details",
        )
    ]
    assert order == sorted(order)
    assert [attributes["href"] for attributes in page.attributes("a")] == ["#reading", "1/report.html"]
    assert 'id="reading"' in text


def test_every_plot_is_in_the_page_and_beside_it(sweep):
    directory, _ = sweep
    page = Page((directory / "comparison.html").read_text())
    drawn = [attributes for attributes in page.attributes("div") if attributes.get("role") == "img"]
    files = sorted(directory.glob("comparison*.png"))
    assert len(files) == len(drawn) >= 12
    assert all(path.read_bytes().startswith(PNG) for path in files)
    assert all(len(attributes["aria-label"]) > 20 for attributes in drawn)


def test_tables_have_headers_for_rows_and_columns(sweep):
    directory, _ = sweep
    page = Page((directory / "comparison.html").read_text())
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.attributes("th"))


def test_plots_take_their_colours_from_the_page(sweep):
    """A colour that is written out would vanish on one of the two backgrounds."""
    directory, _ = sweep
    text = (directory / "comparison.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    for drawing in re.findall(r"<svg aria-hidden.*?</svg>", text, flags=re.DOTALL):
        assert set(re.findall(r"#[0-9a-fA-F]{6}\b", drawing)) == set(), "every colour is a variable"
        assert "var(--" in drawing
    defined = set(re.findall(r"(--[a-z0-9-]+):", text))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", text)) <= defined


def test_the_job_page(sweep):
    directory, _ = sweep
    written = {path.name for path in report.job(Run.at(directory / "3"))}
    assert {"report.html", "timeline.png", "latency.png"} <= written
    text = (directory / "3" / "report.html").read_text()
    self_contained(text)
    page = Page(text)
    assert re.search(r"\d+ of 70 requests completed: mean TTFT \d+ ms, mean end-to-end latency", page.text)
    assert "python -m llmexp model=smollm2 concurrency=4" in page.text
    assert "overloaded" in page.text, "the first message of each error class"
    assert "measurement valid" in page.text


def test_what_spoiled_a_measurement_is_said_in_words(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", Truth(requests=30, verdict="degraded"), 1)
    tree = json.loads((directory / "result.json").read_text())
    words = {
        "seen": "other programs used 47 % of this machine's CPU",
        "why": "they delay the client",
        "remedy": "Stop them.",
    }
    tree["validity"]["reasons"] = [
        {"reason": "other_load", "level": "degraded", "measured": 0.47, "limit": 0.1, **words}
    ]
    tree["notes"] = {"nonce": "abc", "remarks": ["the window was short"]}
    (directory / "result.json").write_text(json.dumps(tree))
    report.job(Run.at(directory))
    page = Page((directory / "report.html").read_text())
    assert "other programs used 47 % of this machine's CPU: they delay the client. Stop them." in page.text
    assert "the window was short" in page.text


def test_what_is_missing_is_absent_not_broken(tmp_path):
    (tmp_path / "result.json").write_text(
        json.dumps({"status": "failed", "reason": "nobody answers at :1", "job": {"id": "x"}})
    )
    assert [path.name for path in report.job(Run.at(tmp_path))] == ["report.html", "report.md", "report.csv"]
    page = Page((tmp_path / "report.html").read_text())
    assert "No request was sent" in page.text
    assert "nobody answers at :1" in page.text


def test_one_request_is_enough_for_a_page(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", Truth(requests=1, concurrency=1), 1)
    report.job(Run.at(directory))
    assert "1 of 1 requests completed" in Page((directory / "report.html").read_text()).text
    run_sweep(tmp_path)
    assert "nothing to compare it with" in Page((tmp_path / "comparison.html").read_text()).text


@pytest.mark.e2e
def test_the_command_to_run_it_again_is_a_whole_one(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", Truth(requests=30), 1)
    tree = json.loads((directory / "result.json").read_text())
    tree["job"]["overrides"] = ["experiment=slots", "model.params={a: 1}", "run.repeats=3", "run.resume=x"]
    tree["config"]["run"]["repeats"] = 3
    tree["notes"]["nonce"] = "abc123"
    (directory / "result.json").write_text(json.dumps(tree))
    (directory / ".hydra").mkdir(exist_ok=True)
    (directory / ".hydra" / "hydra.yaml").write_text(
        "runtime:\n  config_sources:\n  - {path: /conf, schema: file, provider: main}\n"
        "  - {path: /my conf, schema: file, provider: command-line}\n"
    )
    report.job(Run.at(directory))
    page = html.unescape((directory / "report.html").read_text())
    again = (
        "python -m llmexp --config-dir '/my conf' experiment=slots 'model.params={a: 1}' run.nonce=abc123 "
        "hydra.mode=RUN run.repeats=1"
    )
    assert again in page


def test_names_and_messages_are_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    synthetic.write_sweep(tmp_path, [Truth(evil, requests=30), Truth(r"b$\frac{$", requests=30)], [1], repeats=1)
    report.job(Run.at(tmp_path / "0"))
    run_sweep(tmp_path)
    for name in ("comparison.html", "0/report.html"):
        text = (tmp_path / name).read_text()
        self_contained(text)
        assert evil in Page(text).text


def test_a_rehearsal_is_marked_in_every_file(tmp_path):
    stacks = [Truth("sonnet", requests=30, rehearsal=True), Truth("llama", requests=30, rehearsal=True)]
    synthetic.write_sweep(tmp_path, stacks, [1], repeats=1)
    report.job(Run.at(tmp_path / "0"))
    run_sweep(tmp_path)
    for name in ("comparison.html", "0/report.html"):
        text = (tmp_path / name).read_text()
        assert "This is a rehearsal" in text
        drawings = re.findall(r"<svg aria-hidden.*?</svg>", text, flags=re.DOTALL)
        assert drawings
        assert all("rehearsal" in drawing or "swatch" in drawing[:60] for drawing in drawings)
    assert json.loads((tmp_path / "comparison.json").read_text())["rehearsal"] is True
    assert ",True," in (tmp_path / "comparison.csv").read_text().splitlines()[1]


def test_the_same_files_draw_the_same_page(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", Truth(requests=30), 1)
    report.job(Run.at(directory))
    first = (directory / "report.html").read_bytes(), (directory / "latency.png").read_bytes()
    report.job(Run.at(directory))
    assert ((directory / "report.html").read_bytes(), (directory / "latency.png").read_bytes()) == first


def test_every_series_colour_has_a_variable():
    style = (figures.Path(figures.__file__).parent / "templates" / "style.css").read_text()
    assert all(style.count(f"--s{at}: ") == 3 for at in range(len(figures.SERIES))), "light, dark, print"


NAMES = [
    *(f"meta-llama/Llama-3.1-8B-Instruct-of-a-rather-long-model-name-{at}" for at in range(9)),
    "通义千问-二百三十五亿参数-指令微调-长上下文版本-模型",
    "unbroken" + "x" * 80,
]
CLIPPED = """(() => {
  const page = document.documentElement, found = [];
  if (page.scrollWidth > window.innerWidth) found.push(`the page is ${page.scrollWidth} wide`);
  for (const part of document.querySelectorAll("main *")) {
    if (part.closest("svg, thead, details:not([open])") || getComputedStyle(part).display === "inline") continue;
    if (part.scrollWidth > part.clientWidth + 1) found.push(`${part.tagName}: ${part.innerText.slice(0, 40)}`);
  }
  for (const text of document.querySelectorAll("svg text")) {
    const paper = text.closest("svg").getBoundingClientRect(), own = text.getBoundingClientRect();
    const beyond = [paper.left - own.left, own.right - paper.right, paper.top - own.top, own.bottom - paper.bottom];
    if (Math.max(...beyond) > 1) found.push(`a plot's text: ${text.textContent}`);
  }
  return found;
})()"""


@pytest.mark.service
@pytest.mark.skipif(browser.executable() is None, reason="no Chromium on this machine: apt-get install chromium")
def test_long_names_of_many_stacks_stay_small_and_nothing_is_clipped_at_any_width(tmp_path):
    stacks = [replace(Truth(name), requests=20, timings=name == NAMES[0]) for name in NAMES]
    synthetic.write_sweep(tmp_path, stacks, [1], repeats=1)
    run_sweep(tmp_path)
    report.job(Run.at(tmp_path / "0"))
    assert (tmp_path / "comparison.html").stat().st_size < 1_500_000

    async def look() -> None:
        async with browser.browser() as page:
            for name, words in (("comparison.html", "How to read this"), ("0/report.html", "To run it again")):
                for width in (400, 800, 1000, 1025, 1400):
                    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 400}
                    await page.call("Emulation.setDeviceMetricsOverride", **size)
                    await page.open((tmp_path / name).as_uri(), words)
                    assert await page.evaluate(CLIPPED) == [], (name, width)

    asyncio.run(look())


def test_a_job_is_also_markdown_and_a_table_of_numbers(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", Truth("a_b|c", requests=40, verdict="degraded"), 1)
    report.job(Run.at(directory))
    lines = (directory / "report.md").read_text().splitlines()
    assert lines[0].startswith("**model=a\\_b\\|c concurrency=4 repeat=1**: finished, measurement degraded")
    (row,) = [line for line in lines if line.startswith("| first token (TTFT) | ")]
    assert row.count("\\*") == 2, "p95 and p99 are not carried by 40 requests"
    numbers = {row["metric"]: row for row in csv.DictReader((directory / "report.csv").read_text().splitlines())}
    assert float(numbers["ttft_s/p50"]["value"]) == Run.at(directory).values["ttft_s/p50"]
    assert numbers["ttft_s/p50"]["unit"] == "s"


def test_what_a_capacity_search_saw_is_drawn(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", Truth(requests=30), 1)
    tree = json.loads((directory / "result.json").read_text())
    tree["metrics"]["capacity"] = {"of": "rate", "unit": "requests/s", "low": 3.9, "high": 4.3, "estimate": 4.1}
    tree["capacity_curve"] = {
        "of": "rate",
        "unit": "requests/s",
        "level": [1, 4, 4.25],
        "probe": [1, 2, 3],
        "passed": [True, True, False],
        "attainment": [1, 0.97, 0.9],
    }
    (directory / "result.json").write_text(json.dumps(tree))
    assert "capacity.png" in {path.name for path in report.job(Run.at(directory))}
    page = Page((directory / "report.html").read_text())
    assert "Capacity: 4.1 requests/s (between 3.9 and 4.3)" in page.text


def test_letters_that_no_font_has_stay_text_and_cost_no_warning(tmp_path):
    synthetic.write_sweep(tmp_path, [Truth("模型甲", requests=30), Truth("模型乙", requests=30)], [1], repeats=1)
    run_sweep(tmp_path)
    assert "模型甲" in (tmp_path / "comparison.html").read_text()
