"""Where a comparison goes: `comparison.csv` for spreadsheets, `.json` for machines, `.md` and `.html` for people."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from llmexp.compare import markdown
from llmexp.compare.fairness import Finding
from llmexp.compare.model import Comparison, Contrast
from llmexp.compare.quality import Right
from llmexp.compare.service import Capacity, Point, Service
from llmexp.compare.table import render
from llmexp.results.files import put, replacing
from llmexp.secrets import redact, redact_tree

__all__ = ["document", "render", "write"]

SCHEMA_VERSION = 1
CSV_COLUMNS = (
    "kind",
    "rehearsal",
    "workload",
    "load",
    "level",
    "metric",
    "unit",
    "stack",
    "value",
    "low",
    "high",
    "reference",
    "reference_value",
    "ratio",
    "ratio_low",
    "ratio_high",
    "confidence",
    "basis",
    "blocks",
    "carried",
    "rough",
    "verdict",
    "text",
)


def write(comparison: Comparison, directory: Path) -> list[Path]:
    """Write `comparison.csv`, `.json` and `.md`; the files written. `report.comparison` draws the page."""
    directory.mkdir(parents=True, exist_ok=True)
    table, machine = directory / "comparison.csv", directory / "comparison.json"
    with replacing(table, newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        for row in rows(comparison):
            shown = {"rehearsal": comparison.rehearsal, **row}
            writer.writerow({key: redact(value) if isinstance(value, str) else value for key, value in shown.items()})
    put(machine, text(comparison))
    words = directory / "comparison.md"
    put(words, markdown.render(comparison))
    return [table, machine, words]


def text(comparison: Comparison) -> str:
    """The content of `comparison.json`."""
    return json.dumps(redact_tree(document(comparison)), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


# --- CSV -------------------------------------------------------------------------------------------------------------


def rows(comparison: Comparison) -> Iterator[dict[str, object]]:
    """A row per stack, cell and metric (`kind` value), then one per pair (`kind` difference: stack − reference)."""
    for cell in comparison.grid.cells:
        for metric in comparison.metrics:
            for stack in comparison.grid.stacks:
                value = comparison.values.get((stack.key, cell.key, metric.name))
                if value:
                    yield {
                        "kind": "value",
                        "workload": cell.workload,
                        "load": cell.load,
                        "level": cell.level,
                        "metric": metric.name,
                        "unit": metric.unit,
                        "stack": stack.label,
                        "confidence": comparison.options.confidence if value.low is not None else None,
                        **asdict(value),
                    }
    yield from (_difference(contrast) for contrast in comparison.contrasts)
    for right in comparison.rights:
        yield {name: value for name, value in _right(right).items() if name in CSV_COLUMNS}


def _difference(contrast: Contrast) -> dict[str, object]:
    gap, cell = contrast.gap, contrast.cell
    low, high = gap.differences(contrast.alpha)
    ratios = gap.ratios(contrast.alpha) or (None, None)
    return {
        "kind": "difference",
        "workload": cell.workload,
        "load": cell.load,
        "level": cell.level,
        "metric": contrast.metric.name,
        "unit": contrast.metric.unit,
        "stack": contrast.candidate.label,
        "value": gap.candidate - gap.reference
        if not gap.ratio
        else gap.reference * (_ratio(contrast) or 1) - gap.reference,
        "low": low,
        "high": high,
        "reference": contrast.reference.label,
        "reference_value": gap.reference,
        "ratio": _ratio(contrast),
        "ratio_low": ratios[0],
        "ratio_high": ratios[1],
        "confidence": 1 - contrast.alpha,
        "basis": gap.basis,
        "blocks": gap.blocks,
        "carried": True,
        "verdict": contrast.call,
        "text": contrast.text,
    }


def _ratio(contrast: Contrast) -> float | None:
    return math.exp(contrast.gap.estimate.mean) if contrast.gap.ratio else None


# --- JSON ------------------------------------------------------------------------------------------------------------


def document(comparison: Comparison) -> dict[str, object]:
    """The whole comparison as plain data, strict JSON."""
    grid = comparison.grid
    return {
        "schema_version": SCHEMA_VERSION,
        "headline": comparison.headline,
        "rehearsal": comparison.rehearsal,
        "regression": comparison.regression,
        "slo_missed": comparison.slo_missed,
        "options": asdict(comparison.options),
        "stacks": [{"label": each.label, "model": each.model, "source": each.source} for each in grid.stacks],
        "cells": [
            {"workload": each.workload, "load": each.load, "level": each.level, "axis": each.axis}
            for each in grid.cells
        ],
        "differences": [{"name": each.name, "values": list(each.values)} for each in grid.differences],
        "rows": [
            {name: _plain(row.get(name)) for name in CSV_COLUMNS if name != "rehearsal"} for row in rows(comparison)
        ],
        "verdicts": [
            *(_verdict(contrast) for contrast in comparison.verdicts),
            *(_right(right) for right in comparison.rights),
        ],
        "load_effects": [_right(right) for right in comparison.load_effects],
        "findings": [
            {"stacks": [one.label, two.label], "cell": cell.words, **_finding(finding)}
            for one, two, cell, finding in comparison.findings
        ],
        "services": [_service(each) for each in comparison.services],
        "capacities": [_capacity(each) for each in comparison.capacities],
        "pareto": [_point(each) for each in comparison.points],
        "left_out": [{"run": name, "why": why} for name, why in comparison.left_out],
        "notes": list(comparison.notes),
    }


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finding(finding: Finding) -> dict[str, object]:
    return {"level": finding.level, "reason": finding.reason, "text": finding.text, "metrics": finding.metrics}


def _verdict(contrast: Contrast) -> dict[str, object]:
    row = {name: _plain(value) for name, value in _difference(contrast).items() if name not in ("kind", "carried")}
    better = contrast.better
    return {
        **row,
        "p": contrast.p,
        "better": better.label if better else None,
        "regression": contrast.regression,
        "labels": list(contrast.labels),
    }


def _right(right: Right) -> dict[str, object]:
    """Of one stack at two loads, the reference is the lower load."""
    gap, (low, high) = right.difference, right.interval
    better = {"better": right.candidate, "worse": right.reference}.get(right.call)
    return {
        "kind": "difference",
        "workload": right.cell.workload,
        "load": right.cell.load,
        "level": right.cell.level,
        "metric": right.metric,
        "unit": "share",
        "stack": right.candidate.label,
        "value": gap.mean,
        "low": low,
        "high": high,
        "reference": right.reference_cell.load if right.across_loads else right.reference.label,
        "reference_value": gap.reference.share,
        "stack_value": gap.candidate.share,
        "confidence": 1 - right.alpha,
        "basis": "prompts",
        "blocks": gap.blocks,
        "carried": True,
        "verdict": right.call,
        "text": right.text,
        "margin": right.margin,
        "prompts": gap.prompts,
        "paired": gap.paired,
        "p": right.p,
        "better": better.label if better and not right.across_loads else None,
        "regression": right.regression and not right.across_loads,
        "labels": list(right.labels),
    }


def _service(each: Service) -> dict[str, object]:
    return {
        "stack": each.stack.label,
        "cell": each.cell.words,
        "thresholds": each.thresholds,
        "attainment": each.attainment,
        "share": each.share,
        "share_low": each.low,
        "share_high": each.high,
        "met": each.met,
        "close": each.close,
        "right_asked": each.right_asked,
        "right_share": each.right_share,
        "goodput_per_s": each.goodput_per_s,
        "usd_per_million_output_tokens": each.usd_per_million_output_tokens,
        "usd_per_thousand_good": each.usd_per_thousand_good,
    }


def _capacity(each: Capacity) -> dict[str, object]:
    best = None if each.best is None else _service(each.best)
    return {
        "stack": each.stack.label,
        "workload": each.workload,
        "loads": each.tried,
        "highest_tried": each.limit,
        "best": best,
    }


def _point(each: Point) -> dict[str, object]:
    return {
        "stack": each.stack.label,
        "cell": each.cell.words,
        "latency": each.latency,
        "throughput": each.throughput,
        "usd_per_million_output_tokens": each.cost,
        "gpu/joules_per_output_token": each.energy,
        "front": each.front,
    }
