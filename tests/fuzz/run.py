"""Coverage-guided fuzzing by hand: what it finds is written beside it and raised.

    pip install atheris
    python tests/fuzz/run.py openai --seconds 1200      one target
    python tests/fuzz/run.py --list                     all that there are

A finding goes, made small, into `corpus/TARGET/`, where `test_fuzz.py` plays it in every run of the suite.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]


def main() -> None:
    """Run one target for a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--corpus", help="where inputs of new coverage are kept; a temporary folder unless given")
    given = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["llmexp"]):
        from fuzz.targets import TARGETS

    if given.list or given.target not in TARGETS:
        print("\n".join(TARGETS))
        return
    grown = given.corpus or tempfile.mkdtemp(prefix=f"llmexp-fuzz-{given.target}-")
    seeds = HERE / "corpus" / given.target
    options = [f"-max_total_time={given.seconds}", "-max_len=4096", "-rss_limit_mb=2048", "-timeout=20"]
    folders = [grown, *([str(seeds)] if seeds.is_dir() else [])]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={grown}/", *folders], TARGETS[given.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
