"""Matplotlib without pyplot: figures drawn once, saved as PNG and as SVG that takes its colours from the page.

The SVG's colours are exactly those named here, so they can be exchanged for the page's CSS variables: the same drawing
is legible in light, in dark and on paper.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from llmexp.results.guard import Guard

INK, MUTED, GRID, PAPER = "#1b2430", "#5d6877", "#d7dce3", "#ffffff"
SERIES = ("#0a6fb0", "#d1570b", "#0a8f6a", "#b0568f", "#3d9bd1", "#c98a00", "#7a5bb5", "#6c7480")
"""Told apart by people with any kind of colour vision; markers and dashes say the same again."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
GOOD, BAD = "#0b8a5f", "#c23b3b"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper", GOOD: "good", BAD: "bad"} | {
    colour: f"s{at}" for at, colour in enumerate(SERIES)
}
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "svg.hashsalt": "llmexp",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
WIDTH_IN, WIDE_IN, HEIGHT_IN = 4.4, 5.4, 2.9
ROOM_ABOVE = 1.05
"""A page of 400 px shows either so large that its letters can be read; a wide one has half of a large page."""
PNG_DPI = 130
LETTERS_PER_INCH, HANDLE = 13, 7
"""Letters of a legend's size on an inch, and what its sample of a line takes, in letters."""
LINE_IN, LEGEND_IN = 0.19, 0.38
"""Height of a line of a legend, and of a legend that a figure has room for as it is."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing, ready for a page: SVG to stand inside it, and what it shows in words."""

    name: str
    title: str
    alt: str
    svg: str
    png: bytes
    wide: bool = False
    tall: bool = False
    """As high as two others."""

    def save(self, directory: Path) -> Path:
        """Write the PNG."""
        path = directory / f"{self.name}.png"
        path.write_bytes(self.png)
        return path


@dataclass(frozen=True, slots=True)
class _Sitting:
    """What holds for all that is drawn together."""

    guard: Guard | None = None
    later: str = ""
    mark: str = ""


_sitting: ContextVar[_Sitting | None] = ContextVar("sitting", default=None)


_MISSING = "Glyph .* missing from"
_MORE_LETTERS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
)


@contextmanager
def drawing(guard: Guard, later: str, mark: str = "") -> Iterator[None]:
    """Everything drawn inside carries the mark; a plot that cannot be drawn is told to the guard, and is left out."""
    token = _sitting.set(_Sitting(guard, later, mark))
    try:
        yield
    finally:
        _sitting.reset(token)


Draw = Callable[[Figure], None]


def plot(
    name: str, title: str, alt: str, draw: Draw, size: tuple[float, float] = (WIDTH_IN, HEIGHT_IN), wide: bool = False
) -> Plot | None:
    """Run a drawing function on an empty figure and keep what it drew; None where that failed under a guard."""
    sitting = _sitting.get() or _Sitting()
    guarded = sitting.guard(f"{name}.png was not drawn", sitting.later) if sitting.guard else nullcontext()
    with guarded:
        svg, png = _draw(draw, size, sitting.mark)
        return Plot(name, title, alt, _for_page(svg), png, wide, tall=size[1] > 1.5 * HEIGHT_IN)
    return None


def _draw(draw: Draw, size: tuple[float, float], mark: str) -> tuple[str, bytes]:
    with mpl.rc_context(_STYLE | {"font.sans-serif": _families()}), warnings.catch_warnings():
        # The page keeps text as text, for its reader's fonts; in a PNG such a letter is a box.
        warnings.filterwarnings("ignore", message=_MISSING)
        figure = Figure(figsize=size)
        margins(figure)
        draw(figure)
        if mark:
            figure.text(0.995, 0.985, mark, ha="right", va="top", color=BAD, fontsize=8.5)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor=PAPER, pil_kwargs={"compress_level": 4})
    return svg.getvalue(), png.getvalue()


@cache
def _families() -> list[str]:
    """DejaVu Sans, then whatever this machine has for letters that it lacks."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _MORE_LETTERS if name in installed)]


def _for_page(svg: str) -> str:
    """The `<svg>` element alone: no ids that would meet another drawing's, colours from the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(
        r'(<svg [^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", body, count=1), count=1
    )
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"(\d+\.\d{2})\d+", r"\1", body)
    for colour, name in _VARIABLES.items():
        body = body.replace(colour, f"var(--{name})")
    return body.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def colour(at: int) -> str:
    """The colour of the n-th stack."""
    return SERIES[at % len(SERIES)]


def marker(at: int) -> str:
    """The marker of the n-th stack: another one for each that has the same colour."""
    return MARKERS[(at + at // len(SERIES)) % len(MARKERS)]


def dash(at: int) -> object:
    """The dashes of the n-th stack; they change once the colours repeat."""
    return DASHES[at // len(SERIES) % len(DASHES)]


def label_axis(axes: Axes, which: str, unit: str) -> None:
    """Numbers with three digits on an axis, milliseconds where seconds would be small."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    top = max(abs(bound) for bound in (axes.get_xlim() if which == "x" else axes.get_ylim()))
    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    scale, shown = (1000.0, "ms") if unit == "s" and top < 2 else (1.0, unit)
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value * scale)))
    axis.set_minor_formatter(NullFormatter())
    if shown:
        axis.set_label_text(shown)


def from_zero(axes: Axes) -> None:
    """Values from zero, with room above the highest: a mark on the edge would be cut in half."""
    _, top = axes.get_ylim()
    axes.set_ylim(0, ROOM_ABOVE * top)


def tick(value: float) -> str:
    """A tick's number: at most four digits, no needless zeros."""
    return f"{float(f'{value:.4g}'):,.10g}".replace("-", "−")


def margins(figure: Figure, left: float = 0.72, right: float = 0.12, top: float = 0.3, bottom: float = 0.5) -> None:
    """Room around the axes, in inches. Computing it from the texts would cost as much as drawing twice more."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)


def letters(text: str) -> int:
    """How many Latin letters a text takes the place of: those of East Asia are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def folded(name: str, room: int, most: int = 3) -> str:
    """A name in lines of at most so many letters, and of its lines the first ones and the last."""
    lines = [""]
    for piece in re.findall(r"\s*[^\s/_·,-]*[\s/_·,-]?", name):
        if lines[-1] and letters(lines[-1] + piece.rstrip()) > room:
            lines.append("")
        for letter in piece if lines[-1] else piece.lstrip():
            if letters(lines[-1] + letter) > room:
                lines.append("")
            lines[-1] += letter
    lines = [line.strip() for line in lines]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"…{lines[-1][-room + 1 :]}"]
    return "\n".join(lines)


def legend(figure: Figure, axes: Axes) -> None:
    """One legend below the drawing, in as many columns as its names allow; the figure grows by what it needs."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    width, height = figure.get_size_inches()
    room = int(LETTERS_PER_INCH * width)
    columns = max(1, min(len(labels), room // (max(map(letters, labels)) + HANDLE)))
    names = [folded(label, room // columns - HANDLE) for label in labels]
    lines = np.array_split([name.count("\n") + 1 for name in names], columns)
    tall = LINE_IN * max(int(column.sum()) for column in lines)
    figure.set_size_inches(width, height + max(0.0, tall - LEGEND_IN))
    margins(figure, bottom=0.52 + tall)
    figure.legend(handles, names, loc="lower left", ncols=columns, borderaxespad=0.1, borderpad=0.1, labelspacing=0.25)


def log_ticks(axes: Axes, levels: Sequence[float]) -> None:
    """A logarithmic x axis that names the measured loads."""
    axes.set_xscale("log")
    axes.set_xticks(list(levels), [tick(level) for level in levels])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
