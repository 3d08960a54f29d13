"""A server's own metrics: four servers' texts, readings over time, checks, and a real endpoint on a socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.simulated import simulator

from llmexp import results
from llmexp.benchmark import prometheus, server_side
from llmexp.benchmark.server_metrics import Reading, Source, Watch, source_of
from llmexp.benchmark.server_side import Received, Steps
from llmexp.config import Config, load
from llmexp.errors import ConfigError
from llmexp.results.model import Curves
from llmexp.tracking import job as tracked

pytestmark = pytest.mark.service

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/model-8b"} 3.0
vllm:num_requests_running{engine="1",model_name="org/model-8b"} 4.0
vllm:num_requests_running{engine="0",model_name="adapter"} 9.0
vllm:num_requests_waiting{engine="0",model_name="org/model-8b"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="org/model-8b"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="org/model-8b"} 0.75
vllm:prefix_cache_queries_total{engine="0",model_name="org/model-8b"} 1.2e+03
vllm:prefix_cache_hits_total{engine="0",model_name="org/model-8b"} 300.0
vllm:prompt_tokens_total{engine="0",model_name="org/model-8b"} 1200.0
vllm:generation_tokens_total{engine="0",model_name="org/model-8b"} 640.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="org/model-8b"} 7.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="org/model-8b"} 5.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="org/model-8b"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="org/model-8b"} 12.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="org/model-8b"} 12.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="org/model-8b"} 2.4
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 5.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 1.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.4
sglang:cache_hit_rate{engine_type="unified",model_name="m",tp_rank="0"} 0.1
sglang:prompt_tokens_total{model_name="m"} 900.0
sglang:generation_tokens_total{model_name="m"} 400.0
sglang:num_requests_total{model_name="m"} 8.0
sglang:time_to_first_token_seconds_sum{model_name="m"} 1.6
sglang:time_to_first_token_seconds_count{model_name="m"} 8.0
"""
TGI = """\
# TYPE tgi_queue_size gauge
tgi_queue_size 1
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 6
# TYPE tgi_request_generated_tokens histogram
tgi_request_generated_tokens_bucket{le="1"} 0
tgi_request_generated_tokens_bucket{le="+Inf"} 4
tgi_request_generated_tokens_sum 512
tgi_request_generated_tokens_count 4
tgi_request_input_length_sum 220
tgi_request_input_length_count 4
tgi_request_success{kind="generate_stream"} 4
"""
LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1033
llamacpp:prompt_seconds_total 4.2
llamacpp:tokens_predicted_total 260
llamacpp:predicted_tokens_seconds 81.4
llamacpp:requests_processing 4
llamacpp:requests_deferred 2
"""


def values(text: str, model: str = "m") -> tuple[str, dict[str, float]]:
    found = prometheus.read(text, model)
    assert found is not None
    return found[0].name, found[1]


def test_vllm_sums_its_engines_averages_shares_and_keeps_models_apart() -> None:
    name, found = values(VLLM, "org/model-8b")
    assert name == "vllm"
    assert (found["running"], found["waiting"], found["kv_cache_usage"]) == (7, 2, 0.5)
    assert (found["input_tokens"], found["output_tokens"], found["requests"]) == (1200, 640, 12)
    assert (found["prefix_cache_hits"], found["prefix_cache_queries"]) == (300, 1200)
    assert (found["ttft_sum_s"], found["ttft_count"]) == (2.4, 12)
    assert values(VLLM, "an alias")[1]["running"] == 16


def test_sglang_tgi_and_llama_cpp_under_the_same_names() -> None:
    name, found = values(SGLANG)
    assert (name, found["running"], found["waiting"], found["kv_cache_usage"]) == ("sglang", 5, 1, 0.4)
    assert (found["output_tokens"], found["ttft_count"], found["prefix_cache_hit_rate"]) == (400, 8, 0.1)
    name, found = values(TGI)
    assert (name, found) == (
        "tgi",
        {"running": 6, "waiting": 1, "input_tokens": 220, "output_tokens": 512, "requests": 4},
    )
    name, found = values(LLAMACPP)
    assert (name, found) == (
        "llama.cpp",
        {"running": 4, "waiting": 2, "input_tokens": 1033, "output_tokens": 260},
    )


def test_dynamo_triton_and_tensorrt_llm_under_the_same_names() -> None:
    dynamo = """\
dynamo_frontend_inflight_requests{model="m"} 12
dynamo_frontend_queued_requests{model="m"} 3
dynamo_frontend_requests_total{model="m",status="success"} 7
dynamo_frontend_requests_total{model="other",status="success"} 9
dynamo_frontend_output_tokens_total{model="m"} 450
dynamo_frontend_time_to_first_token_seconds_sum{model="m"} 1.5
dynamo_frontend_time_to_first_token_seconds_count{model="m"} 7
"""
    found = {"running": 12, "waiting": 3, "requests": 7, "output_tokens": 450, "ttft_sum_s": 1.5, "ttft_count": 7}
    assert values(dynamo, "m") == ("dynamo", found)
    triton = """\
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
nv_inference_request_success{model="tensorrt_llm",version="1"} 11
"""
    found = {"running": 4, "waiting": 3, "kv_cache_usage": 0.25, "requests": 11, "queue_count": 11}
    assert values(triton, "m") == ("triton", found)
    served = "trtllm_num_requests_waiting 2\ntrtllm_request_queue_time_seconds_sum 0.5\n"
    assert values(served, "m") == ("tensorrt-llm", {"waiting": 2, "queue_sum_s": 0.5})


def test_a_worker_of_dynamo_shows_the_engine_in_it() -> None:
    found = values(
        """\
dynamo_component_gpu_cache_usage_percent{dp_rank="0",model="Org/M"} 0.5
dynamo_component_inflight_requests{dynamo_endpoint="generate",model="Org/M"} 2
dynamo_component_inflight_requests{dynamo_endpoint="clear_kv_blocks",model="Org/M"} 9
trtllm_num_requests_running{model_name="Org/M"} 2
trtllm_prompt_tokens_total{model_name="Org/M"} 80
trtllm_prompt_cached_tokens_total{model_name="Org/M"} 20
trtllm_generation_tokens_total{model_name="Org/M"} 30
""",
        "Org/M",
    )
    tokens = {"input_tokens": 80, "output_tokens": 30, "prefix_cache_hits": 20, "prefix_cache_queries": 80}
    assert found == ("tensorrt-llm", {"running": 2, **tokens})
    alone = """\
dynamo_component_kv_cache_hit_rate{dp_rank="0"} 0.25
dynamo_component_inflight_requests{dynamo_endpoint="generate"} 2
dynamo_component_inflight_requests{dynamo_endpoint="kv_indexer"} 9
dynamo_component_requests_total{dynamo_endpoint="generate"} 5
"""
    assert values(alone) == ("dynamo", {"running": 2, "prefix_cache_hit_rate": 0.25, "requests": 5})


def test_models_are_told_apart_in_lower_case_too() -> None:
    text = """\
dynamo_frontend_requests_total{model="org/m-8b"} 7
dynamo_frontend_requests_total{model="org/other"} 9
"""
    assert values(text, "Org/M-8B") == ("dynamo", {"requests": 7})


def test_a_pipeline_of_triton_is_asked_by_its_own_name_and_computes_under_another() -> None:
    text = """\
nv_inference_request_success{model="ensemble",version="1"} 4
nv_inference_request_success{model="preprocessing",version="1"} 4
nv_inference_request_success{model="tensorrt_llm",version="1"} 4
nv_inference_queue_duration_us{model="ensemble",version="1"} 2000000
nv_inference_queue_duration_us{model="preprocessing",version="1"} 70
nv_inference_first_response_histogram_ms_sum{model="ensemble",version="1"} 600
nv_inference_first_response_histogram_ms_count{model="ensemble",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 3
nv_llm_input_token_len_sum{model="tensorrt_llm",response_metric_type="total_input_tokens",version="1"} 90
nv_llm_output_token_len_sum{model="tensorrt_llm",response_metric_type="total_output_tokens",version="1"} 40
"""
    served = {"running": 3, "input_tokens": 90, "output_tokens": 40, "requests": 4}
    times = {"queue_sum_s": 2.0, "queue_count": 4, "ttft_sum_s": 0.6, "ttft_count": 4}
    assert values(text, "ensemble") == ("triton", served | times)


def test_preemptions_and_the_queue_inside_the_server() -> None:
    text = """\
vllm:num_preemptions_total{model_name="m"} 5
vllm:request_queue_time_seconds_sum{model_name="m"} 2.0
vllm:request_queue_time_seconds_count{model_name="m"} 8
"""
    found = values(text, "m")[1]
    assert found == {"preemptions": 5, "queue_sum_s": 2.0, "queue_count": 8}
    change = server_side.changes([reading(0), reading(1, **found)])
    assert change == {"preemptions": 5, "queue_mean_s": 0.25}


def test_a_gap_between_both_times_to_first_token_is_explained() -> None:
    near = checked(ttft_mean_s=0.3, connect_s=0.01)["ttft_mean_s"]["remark"]
    assert "of the 100 ms between, about 10 ms is the network" in str(near)
    assert "the rest a proxy, or a queue before the server's own clock starts" in str(near)
    far = str(checked(ttft_mean_s=0.3, connect_s=0.2)["ttft_mean_s"]["remark"])
    assert "about 100 ms is the network" in far
    assert "proxy" not in far


def test_the_text_format_in_its_corners() -> None:
    text = r"""
# a comment
a_total{path="C:\\x\"}\n",le="+Inf"} 1.5e3 1700000000000
 b NaN
c{x="1",} +Inf # {trace_id="q"} 0.3
d{ not a line
e{} 4
<html>nothing</html>
f one
"""
    found = {sample.name: sample for sample in prometheus.parse(text)}
    assert set(found) == {"a_total", "b", "c", "e"}
    assert found["a_total"].labels == {"path": 'C:\\x"}\n', "le": "+Inf"}
    assert (found["a_total"].value, found["e"].value, found["c"].labels) == (1500, 4, {"x": "1"})
    assert prometheus.read("vllm:num_requests_running NaN\n", "m") is None
    assert prometheus.read("process_cpu_seconds_total 3\n", "m") is None


# --- readings --------------------------------------------------------------------------------------------------------

SECOND = 10**9


def reading(at_s: float, **found: float) -> Reading:
    return Reading(int(at_s * SECOND), found)


RUN = [
    reading(99.7, running=0, output_tokens=1000, input_tokens=50),
    reading(100.7, running=4, output_tokens=1000, input_tokens=50),
    reading(101.7, running=4, output_tokens=1100, input_tokens=250),
    reading(103.1, running=0, output_tokens=1240, input_tokens=250),
]


def test_curves_lie_on_the_steps_of_the_run() -> None:
    found = server_side.curves(RUN, Steps(100 * SECOND, [0, 1, 2], 3.0))
    assert found["t_s"] == [0, 1, 2]
    assert found["running"][:2] == [4, 4]
    assert found["running"][2] == pytest.approx(4 * 0.6 / 1.4, abs=1e-3)
    assert found["output_tokens_per_s"] == pytest.approx([30, 100, 100])
    assert sum(found["input_tokens_per_s"]) == pytest.approx(200)
    assert "waiting" not in found
    assert server_side.gauges(found)["running"]["max"] == 4
    assert server_side.curves(RUN[:1], Steps(100 * SECOND, [0], 1.0)) == {}


def test_changes_start_at_zero_with_a_label_and_vanish_with_a_restart() -> None:
    assert server_side.changes(RUN) == {"input_tokens": 200, "output_tokens": 240}
    late = [reading(0), reading(1, ttft_sum_s=1.0, ttft_count=4, prefix_cache_hits=1, prefix_cache_queries=4)]
    assert server_side.changes(late) == {"ttft_mean_s": 0.25, "first_tokens": 4, "prefix_cache_hit_rate": 0.25}
    assert server_side.changes([reading(0, output_tokens=9), reading(1, output_tokens=3)]) == {}


def checked(engine: prometheus.Engine = prometheus.ENGINES[0], **client: float) -> dict[str, dict[str, object]]:
    watch = Watch(Source("http://x/metrics"), "m")
    watch.engine = engine
    watch.readings = [
        reading(0, output_tokens=0, input_tokens=0, ttft_sum_s=0, ttft_count=0),
        reading(1, output_tokens=1000, input_tokens=500, ttft_sum_s=2.0, ttft_count=10),
    ]
    given = {"requests": 10, "output_tokens": 1000, "input_tokens": 500, "cached_tokens": 0, "ttft_mean_s": 0.203}
    part = server_side.report(watch, None, Received(**{**given, **client}))  # type: ignore[arg-type]
    assert part["change"]["output_tokens"] == 1000
    return {check["name"]: check for check in part["checks"]}


def test_both_sides_agree_within_two_percent() -> None:
    assert all(check["agrees"] and check["remark"] is None for check in checked(output_tokens=985).values())
    assert "input_tokens" not in checked(input_tokens=None)  # type: ignore[arg-type]
    llamacpp = next(engine for engine in prometheus.ENGINES if engine.name == "llama.cpp")
    assert checked(llamacpp, input_tokens=600, cached_tokens=100)["input_tokens"]["agrees"]


def test_what_differs_is_said_in_words() -> None:
    more = checked(output_tokens=900, lost=2)["output_tokens"]
    assert more["difference"] == pytest.approx(1 / 9)
    assert "11.1% more than ours: another client was served too, 2 requests failed" in str(more["remark"])
    assert "one replica of several" in str(checked(input_tokens=1000)["input_tokens"]["remark"])
    assert "200 ms, this client's 300 ms: the rest is the network" in str(
        checked(ttft_mean_s=0.3)["ttft_mean_s"]["remark"]
    )
    assert checked(ttft_mean_s=0.1)["ttft_mean_s"]["agrees"] is False
    server = {"checks": list(checked(output_tokens=900).values())}
    assert len(results.remarks({}, {}, server)) == 1
    problem = {"source": {"url": "u", "problem": "refused"}}
    assert results.remarks({}, {}, problem) == ["The server's metrics were not read: refused."]


def test_curves_and_totals_reach_the_tracking_store_under_server() -> None:
    curves = server_side.curves(RUN, Steps(100 * SECOND, [0, 1, 2], 3.0))
    steps = tracked.curves_of(Curves.of(curves), "server")
    assert [step for step, _ in steps["server/running"]] == [0, 1, 2]
    numbers = tracked.metrics_of(
        results.parse(
            {"job": {"id": "a1"}, "server": {"change": {"output_tokens": 240}, "gauges": {"running": {"max": 4}}}}, ""
        )
    )
    assert numbers == {"server/change/output_tokens": 240, "server/gauges/running/max": 4}


# --- where they are --------------------------------------------------------------------------------------------------


def config(rehearse: bool = False, **model: object) -> Config:
    tokens = {"mean": 10}
    workload = {"input_tokens": tokens, "output_tokens": tokens}
    return load({"model": {"name": "m", **model}, "workload": workload, "rehearse": rehearse})


def test_where_metrics_are_looked_for() -> None:
    base = "http://127.0.0.1:8000/v1"
    assert source_of(config(), base, None) == Source("http://127.0.0.1:8000/metrics", guessed=True)
    assert source_of(config(), None, None) is None
    assert source_of(config(api="anthropic"), base, None) is None
    assert source_of(config(metrics_url="none"), base, "http://a/metrics") is None
    assert source_of(config(metrics_url="http://b:9/m"), base, None) == Source("http://b:9/m")
    assert source_of(config(rehearse=True, metrics_url="http://b:9/m"), base, "http://a/m") == Source("http://a/m")
    assert source_of(config(rehearse=True), base, None) is None
    with pytest.raises(ConfigError, match=r"model.metrics_url: must be a URL .* got 'b:9'"):
        config(metrics_url="b:9")


class Page(BaseHTTPRequestHandler):
    """Answers what the server was told to, and counts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Pages)
        server.asked.append(self.path)
        status, kind, body = server.at.get(self.path, server.answer)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Pages(ThreadingHTTPServer):
    daemon_threads = True
    answer: tuple[int, str, bytes] = (404, "application/json", b"{}")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.asked: list[str] = []
        self.at: dict[str, tuple[int, str, bytes]] = {}
        """Path → what is answered there alone."""
        self.url = f"http://127.0.0.1:{self.server_port}/metrics"


@contextmanager
def pages() -> Iterator[Pages]:
    with Pages() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


NOBODY = Received(0, 0, None, 0, None)


def test_a_server_without_metrics_is_asked_once_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pages() as server:
        with Watch(Source(server.url, guessed=True), "m", interval_s=0.02) as watch:
            time.sleep(0.1)
        assert server.asked == ["/metrics"]
    assert server_side.report(watch, None, NOBODY) == {}
    with Watch(Source(server.url, guessed=True), "m") as refused:
        assert refused.engine is None
    assert not caplog.records
    with Watch(Source(server.url), "m") as named:
        pass
    assert server_side.report(named, None, NOBODY)["source"]["problem"]
    assert "no metrics of the server" in caplog.text


def test_where_figures_are_json_the_text_may_have_a_path_of_its_own() -> None:
    with pages() as server:
        server.answer = (200, "application/json", b"[]")
        server.at["/prometheus/metrics"] = (200, "text/plain; version=0.0.4", b"trtllm_num_requests_running 3\n")
        with Watch(Source(server.url, guessed=True), "m") as watch:
            pass
        with Watch(Source(server.url), "m") as named:
            pass
        assert server.asked[:2] == ["/metrics", "/prometheus/metrics"]
    assert watch.engine is not None
    assert (watch.engine.name, named.engine) == ("tensorrt-llm", None)
    assert watch.source is not None
    assert watch.source.url.endswith("/prometheus/metrics")


def test_a_page_of_something_else_is_no_metrics() -> None:
    with pages() as server:
        for answer in ((200, "text/html", b"<html>"), (200, "text/plain", b"go_threads 3\n")):
            server.answer = answer
            with Watch(Source(server.url, guessed=True), "m") as watch:
                assert watch.engine is None


def test_a_server_that_stops_publishing_costs_readings_only() -> None:
    with pages() as server:
        server.answer = (200, "text/plain; version=0.0.4", LLAMACPP.encode())
        with Watch(Source(server.url), "m", interval_s=0.02) as watch:
            time.sleep(0.1)
            server.answer = (503, "text/plain", b"")
            time.sleep(0.1)
    part = server_side.report(watch, None, NOBODY)
    assert part["source"]["engine"] == "llama.cpp"
    assert part["source"]["readings"] >= 2
    assert part["source"]["missed"] >= 1


def test_the_simulator_counts_what_its_clients_received(tmp_path: Path) -> None:
    with simulator(tmp_path) as served:
        client = served.client()
        client.ask("openai", 5)  # before the watch: not of this run
        with Watch(Source(f"{served.address}/metrics"), "simulated", interval_s=0.05) as watch:
            answers = [client.ask("openai", tokens)[1] for tokens in (30, 40)]
            time.sleep(0.1)
        change = server_side.changes(watch.readings)
    usage = [answer.usage for answer in answers]
    assert watch.engine is not None
    assert watch.engine.name == "vllm"
    assert change["output_tokens"] == sum(one.output_tokens or 0 for one in usage) == 70
    assert change["input_tokens"] == sum(one.input_tokens or 0 for one in usage)
    assert change["requests"] == change["first_tokens"] == 2
    assert 0.01 <= change["ttft_mean_s"] < 1
    assert max(one.values["running"] for one in watch.readings) == 1
