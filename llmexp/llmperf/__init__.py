"""LLMPerf on this engine: `flags` (its command lines), `files` (its files), `correctness`, `script` (its programs)."""
