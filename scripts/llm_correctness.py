r"""LLMPerf's correctness test on llmexp's engine: the same flags, the same two files.

export OPENAI_API_BASE=http://127.0.0.1:8000/v1
python scripts/llm_correctness.py --model my-model --max-num-completed-requests 50 --num-concurrent-requests 4 \
        --llm-api openai --results-dir results
"""

import os
import sys

from llmexp.llmperf.script import correctness

if __name__ == "__main__":
    sys.exit(correctness(sys.argv[1:], os.environ))
