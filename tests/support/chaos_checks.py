"""What must hold after a round of chaos, whatever was done; each check returns what does not, in words."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from llmexp import records

SECRET = "sk-chaos/0123+456789abcdef="
ASKED, WARM_UP = 24, 2
LIMIT_USD = 5.0
INPUT_USD, OUTPUT_USD = 1e-6, 1e-3
"""A token."""
TOKENS_AT_MOST = 80
"""The most that a request may generate here."""
STREAMS_AT_MOST = 3
UNBILLED = frozenset({"auth", "forbidden", "not_found", "bad_request", "throttled", "server", "unavailable"})
IN_FLIGHT_USD = STREAMS_AT_MOST * TOKENS_AT_MOST * OUTPUT_USD


# --- jobs ------------------------------------------------------------------------------------------------------------


def job_problems(folder: Path, asked: int = ASKED) -> list[str]:
    """What does not hold in a job's folder: rows = counted = asked for, or the reason why not."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        return [] if "attempt" in folder.name else [f"no result: {error}"]
    found = []
    rows = records.read(folder).column("index").to_pylist() if records.exists(folder) else []
    if len(set(rows)) != len(rows):
        found.append(f"{len(rows) - len(set(rows))} rows twice")
    if result["status"] == "finished":
        metrics = result["metrics"]
        counted = sum(metrics[f"requests_{name}"] for name in ("completed", "failed", "unfinished"))
        due = asked if (result["notes"].get("requests") or {}).get("why") is None else len(rows)
        if not len(rows) == counted == due:
            found.append(f"finished with {len(rows)} rows, {counted} counted, {due} asked for")
    elif not result["reason"]:
        found.append(f"{result['status']} without a reason")
    return found


def status_of(folder: Path) -> str | None:
    """What a job's result says of it; None where none can be read."""
    try:
        return str(json.loads((folder / "result.json").read_text())["status"])
    except (OSError, ValueError, KeyError):
        return None


def job_folders(directory: Path) -> list[Path]:
    """All jobs of all sweeps of a round, replaced ones too."""
    return sorted(path for path in directory.rglob("[0-9]*") if path.is_dir() and path.parent.name.startswith("sweep"))


def sent_rows(directory: Path) -> int:
    """Rows of requests that went out, over all attempts."""
    found = 0
    for folder in job_folders(directory):
        if records.exists(folder):
            found += sum(at is not None for at in records.read(folder).column("sent_ns").to_pylist())
    return found


# --- money -----------------------------------------------------------------------------------------------------------


def truth_lines(directory: Path) -> list[dict[str, object]]:
    """What the simulator says of itself; its last line may be cut by a kill."""
    found = []
    for line in (directory / "truth.jsonl").read_text().splitlines() if (directory / "truth.jsonl").exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def truth_usd(lines: list[dict[str, object]]) -> float:
    """What a provider would have billed for what the simulator generated."""
    billed = [line for line in lines if line["outcome"] not in UNBILLED]
    return sum(
        int(str(line["input_tokens"])) * INPUT_USD + int(str(line["output_tokens"])) * OUTPUT_USD for line in billed
    )


def ledger_usd(directory: Path) -> tuple[float, float]:
    """What the ledgers of a round say is billed, and with it what may be."""
    billed = claimed = 0.0
    for path in directory.rglob("ledger.json"):
        for entry in json.loads(path.read_text())["entries"].values():
            billed += entry["billed"]
            claimed += entry["billed"] + entry["unsure"] + entry["at_risk"]
    return billed, claimed


def money_problems(directory: Path, limit_usd: float, *, honest: bool) -> Iterator[str]:
    """The ledger holds what was billed, and no more than the limit and what was in flight was."""
    billed, claimed = ledger_usd(directory)
    ledgers = len(list(directory.rglob("ledger.json")))
    if not honest:
        return
    if billed > limit_usd * max(1, ledgers) + 1e-6:
        yield f"{billed:.4f} USD are booked, the limit is {limit_usd}"
    true = truth_usd(truth_lines(directory))
    if true > claimed + 1e-6:
        yield f"the server generated for {true:.4f} USD, the ledger knows of {claimed:.4f}"
    if true > (limit_usd + IN_FLIGHT_USD) * max(1, ledgers):
        yield f"the server generated for {true:.4f} USD, the limit is {limit_usd}"


# --- secrets, locks, MLflow, words -----------------------------------------------------------------------------------


def leaks(directory: Path) -> list[str]:
    """Files that hold the planted secret, as it is or in other writing."""
    whole = base64.b64encode(SECRET.encode()).decode().rstrip("=")[:-1]
    forms = [form.encode() for form in (SECRET, quote(SECRET, safe=""), whole, json.dumps(SECRET)[1:-1])]
    found = []
    for path in directory.rglob("*"):
        try:
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except OSError:
            continue
        if path.suffix == ".parquet" and content:
            try:
                content = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            except (OSError, ValueError):
                continue
        if any(form in content for form in forms):
            found.append(str(path.relative_to(directory)))
    return found


def locked(directory: Path) -> list[str]:
    """Folders whose lock somebody holds."""
    found = []
    for path in directory.rglob(".lock"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(str(path.parent.relative_to(directory)))
        finally:
            os.close(descriptor)
    return found


def running_in_mlflow(directory: Path) -> list[str]:
    """Runs that MLflow takes for running."""
    database = directory / "mlflow.db"
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute("select name from runs where status = 'RUNNING'").fetchall()
    except sqlite3.Error:
        return []
    finally:
        connection.close()
    return [str(name) for (name,) in rows]


def words_problems(directory: Path) -> Iterator[str]:
    """Nobody is shown a traceback, nor a terminal's escape sequences."""
    for path in sorted(directory.glob("std*")):
        said = path.read_bytes()
        for what in (b"Traceback (most recent call last)", b"internal error", b"\x1b]", b"\x07"):
            if what in said:
                at = said.index(what)
                yield f"{path.name} holds {what!r}: {said[max(0, at - 100) : at + 900].decode(errors='replace')}"
                break
