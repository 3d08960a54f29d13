"""From a template and plain data to one self-contained HTML file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llmexp.report.figures import SERIES, Plot, marker

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["swatch"] = swatch
    environment.filters["unbroken"] = unbroken
    environment.globals["figure"] = figure
    environment.globals["style"] = _markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment


def render(template: str, **data: object) -> str:
    """The page as text; the style sheet goes into its head."""
    text = _environment().get_template(template).render(**data)
    return re.sub(r"\n\s*\n+", "\n", text)


def unbroken(text: str) -> str:
    """The text with numbers tied to their units, and ranges in one piece."""
    tied = re.sub(r"(?<=\d) (?=%|m?s\b|tokens/s|requests/s)", "\N{NO-BREAK SPACE}", text)
    return re.sub(r"(?<=\d)–(?=\d)", "\N{WORD JOINER}–\N{WORD JOINER}", tied)


def figure(plot: Plot) -> Markup:
    """A drawing with its title and, for those who cannot see it, what it shows."""
    tall = " tall" if plot.tall else ""
    return _FIGURE.format(tall=tall, title=plot.title, alt=f"{plot.title}. {plot.alt}", svg=_markup(plot.svg))


def _markup(ours: str) -> Markup:
    """Text that this package made itself and that therefore goes into the page as it is."""
    return Markup(ours)  # noqa: S704


_FIGURE = Markup(
    '<figure class="plot{tall}"><figcaption>{title}</figcaption><div role="img" aria-label="{alt}">{svg}</div></figure>'
)


_SHAPES = {
    "o": '<circle cx="6" cy="6" r="4.5"/>',
    "s": '<rect x="2" y="2" width="8" height="8"/>',
    "^": '<path d="M6 1 11 10.5H1z"/>',
    "D": '<path d="M6 .8 11.2 6 6 11.2.8 6z"/>',
    "v": '<path d="M6 11 1 1.5h10z"/>',
    "P": '<path d="M4 1h4v3h3v4H8v3H4V8H1V4h3z"/>',
    "X": '<path d="M3 1l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z"/>',
    "*": '<path d="M6 .5l1.6 3.6 3.9.4-2.9 2.6.8 3.9L6 9l-3.4 2 .8-3.9L.5 4.5l3.9-.4z"/>',
}


def swatch(at: int) -> Markup:
    """The marker of the n-th stack in its colour."""
    shape, shade = _SHAPES[marker(at)], f"var(--s{at % len(SERIES)})"
    return _markup(f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true" fill="{shade}">{shape}</svg>')
