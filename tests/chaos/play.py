"""Play rounds of chaos for so many minutes: `python tests/chaos/play.py --minutes 20`.

Prints a line for each round and a table of the kinds at the end; exit 1 where an invariant was broken. It stops by
itself: no round begins that the time would not last for, as long as the ones before took. Two rounds are played at a
time: they wait more than they work. Ctrl-C ends it with the figures so far. Folders of broken rounds are kept below
--keep.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import chaos
from support.chaos_kinds import KINDS


def main() -> int:
    """Play until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next ones follow, a kind each")
    parser.add_argument("--together", type=int, default=2, help="rounds that are played at a time")
    parser.add_argument("--kind", action="append", default=[], help="play these alone (part of a name)")
    parser.add_argument("--keep", type=Path, default=Path("chaos"), help="where folders of broken rounds go")
    parser.add_argument("--list", action="store_true", help="say which kinds there are, and end")
    asked = parser.parse_args()
    # A shell has its background jobs ignore Ctrl-C, and so would all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked.list:
        print(*(f"{number:3} {kind.name}" for number, kind in enumerate(KINDS)), sep="\n")
        return 0
    return 1 if _report(_rounds(asked)) else 0


def _rounds(asked: argparse.Namespace) -> list[chaos.Round]:
    end = time.monotonic() + asked.minutes * 60
    rounds: list[chaos.Round] = []
    wanted = [at for at, kind in enumerate(KINDS) if not asked.kind or any(part in kind.name for part in asked.kind)]
    seeds = (seed for seed in itertools.count(asked.seed) if seed % len(KINDS) in wanted)
    lock, stop = threading.Lock(), threading.Event()

    def player() -> None:
        while not stop.is_set():
            with lock:
                seed = next(seeds)
            rounds.append(_play(seed, asked.keep))
            if time.monotonic() + median(one.seconds for one in rounds) > end:
                return

    players = [threading.Thread(target=player) for _ in range(asked.together)]
    for one in players:
        one.start()
    try:
        for one in players:
            one.join()
    except KeyboardInterrupt:
        print("interrupted: the rounds that are being played are the last ones")
        stop.set()
        for one in players:
            one.join()
    return sorted(rounds, key=lambda one: one.seed)


def _report(rounds: Sequence[chaos.Round]) -> int:
    """The table; how many rounds broke something."""
    broken = sum(bool(one.broken) for one in rounds)
    print(f"\n{len(rounds)} rounds in {sum(one.seconds for one in rounds) / 60:.1f} min, {broken} broken")
    print(f"{'kind':40} {'rounds':>6} {'broken':>6} {'median s':>8}  exit statuses")
    for kind in KINDS:
        played = [one for one in rounds if one.kind == kind.name]
        if played:
            seconds = median(one.seconds for one in played)
            statuses = "  ".join(",".join(map(str, one.statuses)) for one in played)
            bad = sum(bool(one.broken) for one in played)
            print(f"{kind.name:40} {len(played):6} {bad:6} {seconds:8.0f}  {statuses}")
    missing = [kind.name for kind in KINDS if all(one.kind != kind.name for one in rounds)]
    if missing:
        print(f"not played: {', '.join(missing)}")
    return broken


def _play(seed: int, keep: Path) -> chaos.Round:
    directory = Path(tempfile.mkdtemp(prefix="llmexp-chaos-"))
    played = chaos.play(directory, seed)
    words = f"seed {seed}: {played.cruelty}; exit {played.statuses}; {played.seconds:.0f} s"
    print("\n  BROKEN ".join([words, *played.broken]), flush=True)
    if played.broken:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(keep / f"seed{seed}", ignore_errors=True)
        shutil.move(directory, keep / f"seed{seed}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return played


if __name__ == "__main__":
    sys.exit(main())
