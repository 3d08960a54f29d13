"""What a capacity search saw: the share of good requests against the load, and the interval that it found."""

from __future__ import annotations

from matplotlib.figure import Figure

from llmexp.json_types import branch, items, number, text
from llmexp.metrics.wording import capacity_headline
from llmexp.report.figures import BAD, GOOD, GRID, HEIGHT_IN, MUTED, WIDE_IN, Plot, margins, plot
from llmexp.results.run import Run


def curve(run: Run) -> Plot | None:
    """The probes by rising load; None where there was no search, or none of its probes could be judged."""
    found = run.result.capacity_curve or {}
    columns = zip(items(found, "level"), items(found, "attainment"), items(found, "passed"), strict=False)
    probes = [
        (level, 100 * share, bool(passed))
        for level, share, passed in columns
        if isinstance(level, int | float) and isinstance(share, int | float)
    ]
    if not probes:
        return None
    capacity = branch(run.metrics, "capacity")
    low, high = number(capacity, "low"), number(capacity, "high")
    asked = number(run.config, "slo", "attainment")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if low is not None and high is not None:
            axes.axvspan(low, high, color=GRID, lw=0, label="capacity lies here")
        if asked is not None:
            axes.axhline(100 * asked, color=MUTED, lw=1, ls="--", label=f"asked: {100 * asked:g} %")
        for kept, shade, marker in ((True, GOOD, "o"), (False, BAD, "X")):
            some = [(level, share) for level, share, passed in probes if passed is kept]
            label = "passed" if kept else "failed"
            axes.plot([at for at, _ in some], [share for _, share in some], marker, color=shade, ls="none", label=label)
        axes.set_ylim(0, 104)
        axes.set_xlim(left=0)
        axes.set_ylabel("% of requests in time")
        axes.set_xlabel(text(found, "unit") or "load")
        axes.legend(loc="lower left")
        margins(figure, top=0.08)

    title = f"Capacity: {capacity_headline(capacity)}" if capacity else "Search for the capacity"
    said = [f"{share:.1f} % at {level:.4g}, {'passed' if passed else 'failed'}" for level, share, passed in probes]
    return plot("capacity", title, "; ".join(said), draw, (WIDE_IN, HEIGHT_IN), wide=True)
