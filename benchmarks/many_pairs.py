"""What the driver carries: many fake pairs, polled and drained as a load's are, their records written to disk.

    python benchmarks/many_pairs.py [pairs] [streams of each]

No Ray and no network: each fake pair hands over Arrow batches as a real companion would at this load. What is measured
is what one driver process spends on a second of load: CPU for polling, moving clocks and writing, and memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from llmexp import records
from llmexp.records import Record, Writer

ANSWER_S = 2.74
TOKENS = 128
ROUNDS = 10
OFFSET_NS = 50_000 * 10**9


def batch(pair: int, count: int) -> bytes:
    """So many records of answers of 128 tokens."""
    now = time.monotonic_ns()
    chunks = [now + at * 20_000_000 for at in range(TOKENS)]
    rows = [
        Record(
            index=at,
            worker=pair,
            status="completed",
            intended_ns=now,
            dispatched_ns=now,
            sent_ns=now,
            first_byte_ns=now,
            first_token_ns=chunks[0],
            first_answer_token_ns=chunks[0],
            last_token_ns=chunks[-1],
            end_ns=chunks[-1],
            chunk_ns=chunks,
            chunk_tokens=[1] * TOKENS,
            input_tokens=550,
            output_tokens=TOKENS,
            prompt_digest="0" * 16,
        )
        for at in range(count)
    ]
    return records.to_batch(rows)


def main(pairs: int, streams: int) -> None:
    """Ten rounds of a second's reports."""
    each = max(1, round(streams / ANSWER_S))
    made = {pair: batch(pair, each) for pair in range(pairs)}
    with tempfile.TemporaryDirectory() as folder, Writer(Path(folder), {"wall_ns": 0, "monotonic_ns": 0}) as writer:
        cpu = time.process_time()
        for _ in range(ROUNDS):
            for data in made.values():
                writer.append_batch(records.moved(records.from_batch(data), -OFFSET_NS))
        spent = (time.process_time() - cpu) / ROUNDS
        size = (Path(folder) / records.ARROWS).stat().st_size / ROUNDS
        cpu = time.process_time()
        writer.close()
        records.take_out_drift(Path(folder), dict.fromkeys(range(pairs), (0, 1e-6)))
        drift = time.process_time() - cpu
    tokens = pairs * each * TOKENS
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{pairs} pairs of {streams} streams: {pairs * streams:,} streams, {tokens:,} tokens/s")
    print(f"a second of load costs the driver {spent:.3f} s of CPU and {size / 2**20:.1f} MiB of disk")
    print(f"taking out the drift afterwards: {drift / ROUNDS:.3f} s of CPU for each second; memory {memory} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", type=int, default=200, help="of a worker and its companion (200)")
    parser.add_argument("streams", nargs="?", type=int, default=512, help="of each worker (512)")
    given = parser.parse_args()
    main(given.pairs, given.streams)
