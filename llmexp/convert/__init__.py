"""Production's logs and traces into workload files: `python -m llmexp.convert SOURCE --from FORMAT --to FILE.jsonl`.

Traces without texts (`mooncake`, `azure`, `burstgpt`) become rows for `workload=file`; logs of chats (`openai`, `otel`,
`bedrock`, `sagemaker`, `sharegpt`) become sessions for `workload=sessions`. Texts are replaced by made-up ones unless
`--keep-text` is given. Nothing is held in memory but what is being looked at.

| module | does |
| --- | --- |
| `reading` | records out of files and folders, one at a time |
| `traces` | rows of traces |
| `exchange` | one call of a model, as a log holds it, and what is wrong with those that cannot be used |
| `openai_logs`, `otel`, `bedrock_logs`, `sagemaker_capture`, `sharegpt` | a format each: its records as exchanges |
| `grouping` | exchanges → sessions, by the history that each carries |
| `made_up` | texts that share what the real ones share, and say nothing |
"""
