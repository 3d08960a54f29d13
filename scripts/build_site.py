"""Builds docs/ into a site, warnings as errors, without a network.

python scripts/build_site.py            into build/site
python scripts/build_site.py DIRECTORY  into DIRECTORY
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> int:
    """Build; the exit status of Sphinx."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=DOCS.parent / "build" / "site")
    directory = parser.parse_args().directory
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError:
        print('Sphinx is not installed: pip install -e ".[docs]"', file=sys.stderr)
        return 2
    status: int = build_main(["-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(directory)])
    if status == 0:
        print(directory / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main())
