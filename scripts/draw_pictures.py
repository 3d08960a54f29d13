"""Draws the pictures of docs/pictures from a real sweep against two simulated servers. It takes about three minutes.

python scripts/draw_pictures.py            into docs/pictures
python scripts/draw_pictures.py DIRECTORY  into DIRECTORY

It needs Chromium on this machine, and no network.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import browser  # type: ignore[import-not-found]  # noqa: E402

Page = tuple[str, str, list[str], int, int | None]
SERVERS = {"vllm_a": (0.12, 0.012, 1.5), "vllm_b": (0.09, 0.016, 1.2)}
"""Name → seconds to the first token, between tokens, and USD an hour."""
SWEEP = (
    "--config-dir mine -m model=vllm_a,vllm_b concurrency=2,8 run.repeats=3 run.max_requests=60 slo=chat "
    "workload.output_tokens.mean=24 workload.output_tokens.stddev=6"
)
PREPARE_MLFLOW = """(() => {
  document.querySelector("[data-component-id$='chat_panel.close']")?.click();
  const sweep = [...document.querySelectorAll(".ag-cell")].find(cell => cell.innerText.includes(" vs "));
  sweep?.querySelector("button")?.click();
})()"""
"""MLflow's assistant closed, the sweep's jobs unfolded."""
WIDTH, COLOURS, LARGEST = 1100, 256, 200_000
STYLE = "body{margin:0;background:#14181d}pre{margin:0;padding:18px;font:14px/1.35 monospace;color:#d7dce3}"


def main() -> int:
    """Draw all of them; 2 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "docs" / "pictures")
    pictures = parser.parse_args().directory.resolve()
    if browser.executable() is None:
        print("There is no Chromium on this machine", file=sys.stderr)
        return 2
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llmexp-") as folder:
        place = Path(folder)
        _configure(place)
        told = _run(place, "llmexp", *SWEEP.split())
        (sweep,) = place.glob("outputs/*/*")
        (place / "terminal.html").write_text(_terminal(told), encoding="utf-8")
        with _mlflow(place) as link:
            asyncio.run(_draw(_pages(place, sweep, link), pictures))
    for path in sorted(pictures.glob("*.png")):
        print(f"{path} {path.stat().st_size // 1024} kB")
        if path.stat().st_size > LARGEST:
            return 1
    return 0


def _configure(place: Path) -> None:
    models = place / "mine" / "model"
    models.mkdir(parents=True)
    for name, (first, between, usd) in SERVERS.items():
        text = (
            f"defaults:\n  - simulated\nname: my-model\nprice:\n  usd_per_instance_hour: {usd}\n"
            "deployment:\n  profile:\n    slots: 6\n"
            f"    ttft: {{mean_s: {first}}}\n    inter_token: {{mean_s: {between}}}\n"
        )
        (models / f"{name}.yaml").write_text(text, encoding="utf-8")


def _run(place: Path, module: str, *arguments: str) -> str:
    """What the command prints, with its colours, at 100 columns."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment |= {"FORCE_COLOR": "1", "COLUMNS": "100"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def _terminal(told: str) -> str:
    """The lines of the last jobs and the comparison, as a page."""
    lines = told.splitlines()
    jobs = [at for at, line in enumerate(lines) if re.search(r" · r\d: ", line)]
    shown = "\n".join(lines[jobs[-3] :])
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ python -m llmexp {SWEEP.split(' run.max', maxsplit=1)[0]}\n…\n{shown}"))
    code = console.export_html(theme=MONOKAI, inline_styles=True, code_format="{code}")
    return f"<!doctype html><meta charset='utf-8'><style>{STYLE}</style><pre>{code}</pre>"


@contextmanager
def _mlflow(place: Path) -> Iterator[str]:
    """`python -m llmexp.ui` on the sweep's store; the link that it prints."""
    command = [sys.executable, "-m", "llmexp.ui", "--port", "15999"]
    process = subprocess.Popen(command, cwd=place, text=True, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        told = process.stdout.readline() + process.stdout.readline()
        link = re.search(r"http://\S+", told)
        assert link is not None, told
        yield link[0]
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _pages(place: Path, sweep: Path, link: str) -> Iterator[Page]:
    """Name, address, words to wait for, width and height (None: its own) of each."""
    yield from (
        ("terminal", (place / "terminal.html").as_uri(), ["Files:"], 940, None),
        ("comparison", (sweep / "comparison.html").as_uri(), ["Against the load"], WIDTH, 1900),
        ("report", (sweep / "0" / "report.html").as_uri(), ["Distributions"], WIDTH, 1500),
        ("mlflow", link, ["ttft_s/p50", "vllm_a vs vllm_b"], 1500, 900),
    )


async def _draw(pages: Iterable[Page], pictures: Path) -> None:
    async with browser.browser() as page:
        await page.call("Emulation.setScrollbarsHidden", hidden=True)
        for name, address, words, width, height in pages:
            metrics = {"width": width, "height": height or 600, "deviceScaleFactor": 1, "mobile": False}
            await page.call("Emulation.setDeviceMetricsOverride", **metrics)
            await page.open(address, *words)
            await page.evaluate(PREPARE_MLFLOW)
            await asyncio.sleep(1)
            if height is None:
                metrics["height"] = int(await page.evaluate("document.querySelector('pre').offsetHeight"))
                await page.call("Emulation.setDeviceMetricsOverride", **metrics)
            path = pictures / f"{name}.png"
            await page.picture(path)
            _shrink(path)


def _shrink(path: Path) -> None:
    """Few colours: pages are flat."""
    image = Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
