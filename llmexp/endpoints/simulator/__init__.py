"""Scripted endpoints: real sockets, real wire formats, times that are known.

One process, one event loop, every wire at once; the path of a request decides which one answers it.

| path ends with | wire |
| --- | --- |
| `/chat/completions`, `/completions` | OpenAI's SSE, or one JSON body without `stream` |
| `/messages` | Anthropic's SSE |
| `/converse-stream` | Bedrock's ConverseStream (AWS event stream) |
| `/invocations-response-stream` | SageMaker's InvokeEndpointWithResponseStream |
| `:streamGenerateContent` | Gemini's SSE |
| `/models`, `/health`, `/tokenize`, `/metrics` | as OpenAI, llama.cpp, llama.cpp and vLLM name them |

**Times.** A request's clock starts at its last byte, or when a slot frees for it. The first chunk is due after a drawn
TTFT (plus `ttft_s_per_1k_input_tokens`), each later one after a drawn gap a token. Due times add up on an absolute
schedule: a late write delays none of the others. Draws follow from the seed and the order of arrival alone.

**Tokens.** A token is up to six letters or digits with the white space before them, or one other visible character;
`/tokenize` counts so, and so does every `usage`. A chat template costs 4 tokens a message and 3 more.

**Failures** (`failure`; several, separated by commas, are drawn from evenly):
instead of an answer: `auth` 401, `forbidden` 403, `not_found` 404, `bad_request` 400, `throttled` 429 with Retry-After,
`server` 500, `unavailable` 503, `hung` never answers, `dead` closes without a byte;
in an answer: `slow` ten times slower, `stalled` stops in the middle and stays open, `cut` closes in the middle,
`reset` the same with a TCP reset, `garbage` bytes that parse as nothing, `in_stream` an error event, `empty` an answer
without a token.

**Answers.** With `accuracy`, questions that the simulator can solve or whose answers it was handed
(`llmexp.endpoints.simulator.knowledge`) are answered rightly so often, and with `accuracy_under_load` less often the
more requests are in flight; `unparsed_share` of all answers say nothing.

**Truth.** With `truth`, a line of JSON for each request: what was due and what was written, in ns of this host's
monotonic clock (`llmexp.endpoints.simulator.truth`).
"""

from llmexp.endpoints.simulator.options import FAILURES, Latency, Options, Shape

__all__ = ["FAILURES", "Latency", "Options", "Shape"]
