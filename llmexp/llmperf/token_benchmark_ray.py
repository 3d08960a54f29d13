"""LLMPerf's token benchmark without a checkout: the same flags, the same two files.

python -m llmexp.llmperf.token_benchmark_ray --model …
"""

from __future__ import annotations

import os
import sys

from llmexp.llmperf.script import benchmark

if __name__ == "__main__":
    sys.exit(benchmark(sys.argv[1:], os.environ))
