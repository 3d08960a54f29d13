"""LLMPerf's correctness test without a checkout: the same flags, the same two files.

python -m llmexp.llmperf.llm_correctness --model …
"""

from __future__ import annotations

import os
import sys

from llmexp.llmperf.script import correctness

if __name__ == "__main__":
    sys.exit(correctness(sys.argv[1:], os.environ))
