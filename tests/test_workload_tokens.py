"""Tokenizers: which one counts, how honest it says to be, and the wire of an endpoint's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmexp.config import Model, Simulated, Tokens, Workload
from llmexp.endpoints import engine_facts
from llmexp.errors import ConfigError, JobError
from llmexp.workload.source import Source
from llmexp.workload.text import Composer
from llmexp.workload.tokens import Estimate, tokenizer_for

CORPUS = Path(__file__).parents[1] / "llmexp" / "workload" / "corpus.txt"


class Server(ThreadingHTTPServer):
    """A server that tokenizes by white space, in the manner of one product."""

    daemon_threads = True

    def __init__(self, style: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.style = style
        self.connections = self.calls = 0
        self.close_after: int | None = None
        self.keys: set[str | None] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write: two would wait for each other's acknowledgement
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        owner = {"llamacpp": "llamacpp", "vllm": "vllm", "odd": "vllm"}.get(self.server.style, "somebody")
        self._answer(200, {"data": [{"id": "m", "owned_by": owner}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls += 1
        self.server.keys.add(self.headers["Authorization"])
        words = body["content" if self.server.style == "llamacpp" else "prompt"].replace(".", " .").split()
        answers: dict[str, tuple[int, Any]] = {
            "llamacpp": (200, {"tokens": list(range(len(words)))}),
            "vllm": (200, {"count": len(words), "max_model_len": 10, "tokens": []}),
            "odd": (200, {"count": 7}),
            "none": (404, {"error": "no such route"}),
            "deep": (200, {}),
        }
        self._answer(*(answers[self.server.style] if self.path == "/tokenize" else (404, {})))

    def _answer(self, status: int, body: Any) -> None:
        data = b"[" * 100_000 if self.server.style == "deep" else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if self.server.close_after is not None and self.server.calls >= self.server.close_after:
            self.server.close_after = None
            self.close_connection = True  # without saying so, as a server that times an idle connection out


@pytest.fixture(params=["llamacpp", "vllm"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from serve(request.param)


def serve(style: str) -> Iterator[Server]:
    server = Server(style)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoints_own_tokenizer_is_found_and_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", "s3cret")
    model = Model(name="org/model", api_key_env="SERVER_KEY")
    counter = tokenizer_for(model, server.base_url)
    assert (counter.name, counter.source, counter.in_process) == ("endpoint", "tokenizer", False)
    assert counter.count_many(["", "one", "one two three."]) == [0, 1, 4]
    assert server.connections == 2  # one asked for the models, one is kept for counting
    assert server.keys == {"Bearer s3cret"}
    asked = tokenizer_for(model.model_copy(update={"tokenizer": "endpoint"}), server.base_url)
    assert asked.count("one two") == 2


def test_a_connection_that_closed_while_idle_is_opened_again(server: Server) -> None:
    counter = tokenizer_for(Model(name="m", tokenizer="endpoint"), server.base_url)
    before, server.close_after = server.connections, server.calls + 1
    assert [counter.count("one two") for _ in range(3)] == [2, 2, 2]
    assert server.connections == before + 1


def test_prompts_cost_an_endpoint_one_call_each(server: Server) -> None:
    counter = tokenizer_for(Model(name="m"), server.base_url)
    workload = Workload(input_tokens=Tokens(mean=120, stddev=20), output_tokens=Tokens(mean=20))
    made = Source(workload, counter, seed=1, nonce="job")
    made.request(0)
    before = server.calls
    requests = [made.request(index) for index in range(1, 21)]
    assert server.calls - before == 20
    assert all(counter.count(request.messages[0].text) == request.input_tokens for request in requests)


@pytest.mark.parametrize("style", ["none", "odd", "deep"])
def test_an_endpoint_without_a_sensible_count_is_not_believed(style: str) -> None:
    for server in serve(style):
        assert tokenizer_for(Model(name="llama"), server.base_url).source == "estimate"
        with pytest.raises(ConfigError, match=r"model\.tokenizer: .* no /tokenize that counts"):
            tokenizer_for(Model(name="llama", tokenizer="endpoint"), server.base_url)
        if style == "deep":
            assert engine_facts.ask(server.base_url.removesuffix("/v1"), {}) == {}


def test_an_endpoint_that_goes_away_ends_the_job_in_words() -> None:
    serving = serve("vllm")
    server = next(serving)
    counter = tokenizer_for(Model(name="m", tokenizer="endpoint"), server.base_url)
    server.style = "none"
    with pytest.raises(JobError, match="did not answer with a count: HTTP 404"):
        counter.count("one")
    assert next(serving, None) is None
    with pytest.raises(JobError, match="did not answer with a count"):
        counter.count("one")
    assert tokenizer_for(Model(name="m"), server.base_url).source == "estimate"


@pytest.mark.parametrize(
    ("model", "name", "source"),
    [
        ("gpt-4o-mini", "o200k_base", "tokenizer"),
        ("gpt-5.1", "o200k_base", "tokenizer"),
        ("o3-mini", "o200k_base", "tokenizer"),
        ("gpt-4-turbo", "cl100k_base", "tokenizer"),
        ("gpt-3.5-turbo", "cl100k_base", "tokenizer"),
        ("claude-2.1", "anthropic", "tokenizer"),
        ("anthropic.claude-v2:1", "anthropic", "tokenizer"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "anthropic", "estimate"),
        ("anthropic.claude-3-sonnet-20240229-v1:0", "anthropic", "estimate"),
        ("deepseek-ai/DeepSeek-V3", "deepseek", "tokenizer"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "o200k_base", "estimate"),
        ("meta-llama/Llama-3.1-8B-Instruct", "o200k_base", "estimate"),
        ("amazon.nova-pro-v1:0", "o200k_base", "estimate"),
    ],
)
def test_the_name_decides_where_no_endpoint_can_be_asked(model: str, name: str, source: str) -> None:
    counter = tokenizer_for(Model(name=model), None)
    assert (counter.name, counter.source, counter.in_process) == (name, source, True)


def test_other_wires_are_not_asked_for_a_tokenizer() -> None:
    for server in serve("vllm"):
        model = Model(name="anthropic.claude-3-haiku", api="bedrock")
        assert tokenizer_for(model, server.base_url).name == "anthropic"
        assert server.connections == 0


def test_the_simulator_counts_as_it_does_itself() -> None:
    from llmexp.workload.words import count

    counter = tokenizer_for(Model(name="any", deployment=Simulated(kind="simulated")), "http://127.0.0.1:9/v1")
    assert counter.count("A wonderful harbour.") == count("A wonderful harbour.")
    assert counter.source == "tokenizer"


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base", "anthropic"])
def test_packaged_tokenizers_count_special_tokens_as_text(name: str) -> None:
    counter = tokenizer_for(Model(name="any", tokenizer=name), None)
    assert counter.count("") == 0
    assert counter.count("hello world") == 2
    assert counter.count("<|endoftext|>") > 1
    assert counter.count_many(["hello", "hello world"]) == [1, 2]


def test_a_tokenizer_file_is_read_from_its_path(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        counter = tokenizer_for(Model(name="any", tokenizer=str(path)), None)
        assert (counter.count("one two three"), counter.source) == (3, "tokenizer")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"model\.tokenizer: .* is no tokenizer\.json"):
        tokenizer_for(Model(name="any", tokenizer=str(tmp_path)), None)
    with pytest.raises(ConfigError, match=r"model\.tokenizer: must be one of endpoint, cl100k_base"):
        tokenizer_for(Model(name="any", tokenizer="nonsense"), None)
    with pytest.raises(ConfigError, match=r"needs model\.base_url"):
        tokenizer_for(Model(name="any", tokenizer="endpoint"), None)


def test_without_its_file_a_family_is_estimated_and_a_wish_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmexp.litellm_package.tokenizer_folders", tuple)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    assert tokenizer_for(Model(name="gpt-4o"), None).name == "estimate"
    with pytest.raises(ConfigError, match=r"model\.tokenizer: the file of 'o200k_base' is not on this machine"):
        tokenizer_for(Model(name="gpt-4o", tokenizer="o200k_base"), None)


def test_the_estimate_is_near_on_prose_and_adds_up_at_spaces() -> None:
    text = " ".join(CORPUS.read_text().splitlines())
    truth = tokenizer_for(Model(name="any", tokenizer="o200k_base"), None).count(text)
    assert Estimate().count(text) == pytest.approx(truth, rel=0.05)
    assert Estimate().count_many(["a b", "a", " b"])[0] == 2
    assert [Estimate().count(piece) for piece in ("", "1234567", "Größe", "日本語", "\n\n", "extraordinarily")] == [
        0,
        3,
        3,
        3,
        1,
        2,
    ]


def test_the_corpus_is_whole_sentences_of_plain_text() -> None:
    lines = CORPUS.read_text(encoding="ascii").splitlines()
    assert len(lines) > 300
    assert len(set(lines)) == len(lines)
    assert all(line.endswith(".") and line == line.strip() for line in lines)
    composer = Composer(Estimate())
    assert composer.steady_nonce
