r"""LLMPerf's token benchmark on llmexp's engine: the same flags, the same two files.

export OPENAI_API_BASE=http://127.0.0.1:8000/v1
python scripts/token_benchmark_ray.py --model my-model --mean-input-tokens 550 --stddev-input-tokens 150 \
        --mean-output-tokens 150 --stddev-output-tokens 10 --max-num-completed-requests 30 \
        --num-concurrent-requests 4 --llm-api openai --results-dir results
"""

import os
import sys

from llmexp.llmperf.script import benchmark

if __name__ == "__main__":
    sys.exit(benchmark(sys.argv[1:], os.environ))
