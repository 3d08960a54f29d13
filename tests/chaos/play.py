"""Play rounds of chaos for so many minutes: `python tests/chaos/play.py --minutes 20`.

Prints a line for each round and the figures of all at the end; exit 1 where an invariant was broken. Folders of broken
rounds are kept below --keep.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import chaos


def main() -> int:
    """Play until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next ones follow")
    parser.add_argument("--keep", type=Path, default=Path("chaos"), help="where folders of broken rounds go")
    asked = parser.parse_args()
    end = time.monotonic() + asked.minutes * 60
    rounds: list[chaos.Round] = []
    while time.monotonic() < end:
        rounds.append(_play(asked.seed + len(rounds), asked.keep))
    kinds = Counter(one.cruelty.split(" after ")[0] for one in rounds)
    broken = [one for one in rounds if one.broken]
    print(f"{len(rounds)} rounds in {sum(one.seconds for one in rounds) / 60:.1f} min, {len(broken)} broken")
    for kind, count in kinds.most_common():
        print(f"  {count:3} x {kind}")
    return 1 if broken else 0


def _play(seed: int, keep: Path) -> chaos.Round:
    directory = Path(tempfile.mkdtemp(prefix="llmexp-chaos-"))
    played = chaos.play(directory, seed)
    words = f"seed {seed}: {played.cruelty}; exit {played.statuses}; {played.seconds:.0f} s"
    print(words, *(f"\n  BROKEN {problem}" for problem in played.broken), flush=True)
    if played.broken:
        keep.mkdir(exist_ok=True)
        shutil.move(directory, keep / f"seed{seed}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return played


if __name__ == "__main__":
    sys.exit(main())
