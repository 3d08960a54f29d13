"""LLMPerf's names, files and flags."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.samples import failure, record, table

from llmexp import results
from llmexp.config import defaults, load
from llmexp.errors import ConfigError
from llmexp.llmperf import correctness, files, flags, script
from llmexp.records import Record, Writer, to_batch
from llmexp.records.observed import observe

ROOT = Path(__file__).parent.parent
SONNET = "bedrock/anthropic.claude-3-sonnet-20240229-v1:0"
ASKED = files.Asked(SONNET, 1024, 200, 1024, 200, 1, {"temperature": 0.5, "stop": {"at": ["x"]}}, {"gpu": "a10"})
QUANTILES = ["quantiles_p25", "quantiles_p50", "quantiles_p75", "quantiles_p90", "quantiles_p95", "quantiles_p99"]
RESPONSE_KEYS = [
    "error_code",
    "error_msg",
    "inter_token_latency_s",
    "ttft_s",
    "end_to_end_latency_s",
    "request_output_throughput_token_per_s",
    "number_total_tokens",
    "number_output_tokens",
    "number_input_tokens",
]
SOME = [
    record(0, sent=0.0, chunks=[0.2, 0.4, 0.6], tokens=[1, 1, 2], end=3.0),
    record(1, sent=0.0, chunks=[0.4, 1.0], tokens=[1, 1]),
    failure(2, "throttled", "429", end=0.1),
    failure(3, "throttled", "429", end=0.1),
    failure(4, "connect", "ECONNREFUSED", sent=None, end=0.05),
    record(5, sent=1.0, chunks=[2.0], tokens=[3], status="unfinished"),
]


def strictly(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def written(directory: Path, records: Sequence[Record], asked: files.Asked = ASKED) -> tuple[Any, Any]:
    files.write(directory, observe(table(records)), asked, 1_700_000_000)
    found = sorted(path.name for path in directory.iterdir())
    assert found == [f"{asked.base}_individual_responses.json", f"{asked.base}_summary.json"]
    return strictly(directory / found[1]), strictly(directory / found[0])


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_base_name() -> None:
    assert ASKED.base == "bedrock-anthropic-claude-3-sonnet-20240229-v1-0_1024_1024"
    assert files.base_name("a--b//c_d") == "a-b-c_d"
    assert files.base_name("meta/Llama-3.1 -8B_550_150") == "meta-Llama-3-1-8B_550_150"


# --- the summary -----------------------------------------------------------------------------------------------------


def test_the_summary_has_every_key_in_order(tmp_path: Path) -> None:
    summary, _ = written(tmp_path, SOME)
    expected = ["version", "name", "model", "mean_input_tokens", "stddev_input_tokens", "mean_output_tokens"]
    expected += ["stddev_output_tokens", "num_concurrent_requests"]
    expected += ["additional_sampling_params_temperature", "additional_sampling_params_stop_at"]
    for name in files.METRICS:
        expected += [f"results_{name}_{part}" for part in (*QUANTILES, "mean", "min", "max", "stddev")]
    expected += ["results_num_requests_started", "results_error_rate", "results_number_errors"]
    expected += ["results_error_code_frequency", "results_mean_output_throughput_token_per_s"]
    expected += ["results_num_completed_requests", "results_num_completed_requests_per_min", "gpu", "timestamp"]
    assert list(summary) == expected


def test_the_summary_by_hand(tmp_path: Path) -> None:
    summary, _ = written(tmp_path, SOME)
    assert summary["version"] == "2023-08-31"
    assert summary["name"] == "bedrock-anthropic-claude-3-sonnet-20240229-v1-0_1024_1024_summary"
    assert summary["model"] == SONNET
    assert (summary["mean_input_tokens"], summary["num_concurrent_requests"]) == (1024, 1)
    assert summary["results_ttft_s_mean"] == pytest.approx(0.3)
    # Per request, not per token: (0.4 / 3 + 0.6 / 1) / 2.
    assert summary["results_inter_token_latency_s_mean"] == pytest.approx((0.4 / 3 + 0.6) / 2)
    assert summary["results_inter_token_latency_s_quantiles_p25"] == pytest.approx(0.4 / 3 + (0.6 - 0.4 / 3) / 4)
    assert summary["results_end_to_end_latency_s_max"] == pytest.approx(1.0)
    assert summary["results_request_output_throughput_token_per_s_min"] == pytest.approx(2.0)
    assert (summary["results_number_output_tokens_min"], summary["results_number_output_tokens_max"]) == ("2", "4")
    assert summary["results_number_input_tokens_min"] == "10"
    assert summary["results_number_output_tokens_mean"] == 3.0
    assert summary["results_num_requests_started"] == 5
    assert summary["results_error_rate"] == pytest.approx(0.6)
    assert summary["results_error_code_frequency"] == "{429: 2, 'ECONNREFUSED': 1}"
    # Completed requests' tokens over the window, which ends with the last token of any request, at 2 s.
    assert summary["results_mean_output_throughput_token_per_s"] == pytest.approx(6 / 2)
    assert summary["results_num_completed_requests_per_min"] == pytest.approx(2 / 2 * 60)
    assert summary["timestamp"] == 1_700_000_000


def test_one_request_has_no_stddev_and_one_chunk_no_inter_token_latency(tmp_path: Path) -> None:
    summary, (response,) = written(tmp_path, [record(chunks=[0.5], tokens=[7])])
    assert summary["results_ttft_s_stddev"] is None
    assert summary["results_inter_token_latency_s_mean"] is None
    assert summary["results_error_code_frequency"] == "{}"
    assert summary["results_error_rate"] == 0.0
    assert response["inter_token_latency_s"] is None


def test_nothing_but_failures_is_still_a_file(tmp_path: Path) -> None:
    summary, responses = written(tmp_path, [failure(0), failure(1)])
    assert summary["results_error_rate"] == 1.0
    assert summary["results_ttft_s_quantiles_p50"] is None
    assert summary["results_mean_output_throughput_token_per_s"] is None
    assert len(responses) == 2


def test_metadata_overwrites_nothing(tmp_path: Path) -> None:
    asked = files.Asked("m", 1, 1, 1, 1, 1, {}, {"name": "mine", "timestamp": "never", "note": "x"})
    summary, _ = written(tmp_path, SOME, asked)
    assert (summary["name"], summary["timestamp"], summary["note"]) == ("m_1_1_summary", 1_700_000_000, "x")
    assert (summary["metadata_name"], summary["metadata_timestamp"]) == ("mine", "never")


# --- the responses ---------------------------------------------------------------------------------------------------


def test_responses_come_in_completion_order_with_errors_kept(tmp_path: Path) -> None:
    _, responses = written(tmp_path, SOME)
    assert all(list(response) == RESPONSE_KEYS for response in responses)
    assert [response["error_code"] for response in responses] == ["ECONNREFUSED", 429, 429, None, None]
    assert responses[1]["error_msg"] == "throttled 429"
    assert responses[1]["ttft_s"] is None
    assert responses[3] == pytest.approx(
        {
            "error_code": None,
            "error_msg": "",
            "inter_token_latency_s": 0.6,
            "ttft_s": 0.4,
            "end_to_end_latency_s": 1.0,
            "request_output_throughput_token_per_s": 2.0,
            "number_total_tokens": 12,
            "number_output_tokens": 2,
            "number_input_tokens": 10,
        }
    )


def test_users_notebooks_work_unchanged(tmp_path: Path) -> None:
    many = [
        record(at, sent=at * 0.5, chunks=[at * 0.5 + 0.2 + 0.02 * one for one in range(10 + at)], output_tokens=10 + at)
        for at in range(9)
    ]
    written(tmp_path, [*many, failure(9, "throttled", "429", sent=1.0)])
    notebook = Path(__file__).parent / "support" / "llmperf_notebook.py"
    done = subprocess.run([sys.executable, notebook, tmp_path], capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["model"] == SONNET
    assert found["ttft_s"] == found["ttft_s_again"] == pytest.approx(0.2)
    assert found["itl_ms"] == pytest.approx(20.0)
    assert found["itl_ms_again"] == pytest.approx(20.0)
    assert (found["completed"], found["responses"]) == (9, 9)
    assert found["error_rate"] == found["error_rate_again"] == pytest.approx(0.1)
    assert found["tokens_per_s"] == pytest.approx(sum(range(10, 19)) / (4.0 + 0.2 + 0.02 * 17))
    assert found["correlation"] == pytest.approx(1.0)
    assert "tokens per request at least 10" in done.stdout


def test_a_jobs_own_pair_follows_its_config(tmp_path: Path) -> None:
    with Writer(tmp_path, {"wall_ns": 1, "monotonic_ns": 1}) as writer:
        writer.append(to_batch(SOME))
    tree = defaults()
    tree["model"] |= {"name": "anthropic.claude-x", "api": "litellm", "provider": "bedrock", "params": {"top_p": 0.9}}
    tree["workload"]["input_tokens"] |= {"mean": 128.4, "stddev": 16.0}
    tree["workload"]["output_tokens"] |= {"mean": 64.0}
    now = datetime(2026, 1, 5, 10, tzinfo=UTC)
    result = results.build(
        job=results.JobInfo(id="a1"), status="finished", reason=None, started=now, ended=now, config=tree
    )
    summary, responses = (strictly(path) for path in files.write_job(results.Run(result, tmp_path)))
    assert summary["name"] == "bedrock-anthropic-claude-x_128_64_summary"
    assert (summary["stddev_input_tokens"], summary["stddev_output_tokens"]) == (16, 0)
    assert (summary["num_concurrent_requests"], summary["additional_sampling_params_top_p"]) == (4, 0.9)
    assert summary["timestamp"] == int(now.timestamp())
    assert len(responses) == 5


def test_a_workload_without_a_mean_is_named_by_what_it_sent() -> None:
    tree = defaults()
    tree["model"]["name"] = "m"
    tree["workload"] |= {"kind": "file", "file": "prompts.jsonl"}
    asked = files.asked_of(load(tree), observe(table(SOME)))
    assert (asked.mean_input_tokens, asked.mean_output_tokens) == (10, 2)


# --- flags -----------------------------------------------------------------------------------------------------------


def config_of(line: str, environ: dict[str, str] | None = None) -> Any:
    args = flags.benchmark_parser().parse_args(line.split())
    return load(flags.config_from_flags(args, environ or {}))


def test_the_defaults_are_llmperfs() -> None:
    config = config_of("--model m", {"OPENAI_API_BASE": "http://127.0.0.1:1/v1"})
    tokens = (config.workload.input_tokens, config.workload.output_tokens)
    assert [(one.mean, one.stddev) for one in tokens] == [(550, 150), (150, 80)]
    assert (config.streams, config.run.timeout_s, config.run.max_requests) == (10, 90, 10)
    assert (config.run.warmup_requests, config.load.kind, config.tracking.kind) == (0, "closed", "none")
    assert config.model.params == {}
    args = flags.benchmark_parser().parse_args(["--model", "m"])
    assert (args.results_dir, args.llm_api, args.metadata, args.additional_sampling_params) == ("", "openai", "", "{}")


def test_every_flag_arrives() -> None:
    line = (
        "--model m --mean-input-tokens 1 --stddev-input-tokens 2 --mean-output-tokens 3 --stddev-output-tokens 4 "
        "--num-concurrent-requests 5 --timeout 6 --max-num-completed-requests 7 --llm-api openai "
        '--additional-sampling-params {"temperature":0.1,"max_tokens":9}'
    )
    config = config_of(line, {"OPENAI_API_BASE": "http://127.0.0.1:1/v1", "MLFLOW_TRACKING_URI": "sqlite:///x.db"})
    tokens = (config.workload.input_tokens, config.workload.output_tokens)
    assert [(one.mean, one.stddev) for one in tokens] == [(1, 2), (3, 4)]
    assert (config.streams, config.run.timeout_s, config.run.max_requests) == (5, 6, 7)
    assert config.model.params == {"temperature": 0.1, "max_tokens": 9}
    assert config.tracking.kind == "mlflow"


@pytest.mark.parametrize(
    ("line", "environ", "expected"),
    [
        ("--model m", {}, ("openai", None, "https://api.openai.com/v1", "OPENAI_API_KEY", None)),
        ("--model m", {"OPENAI_API_BASE": "http://h/v1"}, ("openai", None, "http://h/v1", None, None)),
        (
            "--model m",
            {"OPENAI_API_BASE": "http://h/v1", "OPENAI_API_KEY": "s"},
            ("openai", None, "http://h/v1", "OPENAI_API_KEY", None),
        ),
        ("--model m --llm-api anthropic", {}, ("anthropic", None, None, "ANTHROPIC_API_KEY", None)),
        ("--model m --llm-api sagemaker", {"AWS_REGION_NAME": "eu-1"}, ("sagemaker", None, None, None, "eu-1")),
        (
            "--model bedrock/anthropic.x-v1:0 --llm-api litellm",
            {"AWS_REGION_NAME": "us-east-1", "AWS_REGION": "other"},
            ("litellm", "bedrock", None, None, "us-east-1"),
        ),
        ("--model bedrock/converse/arn --llm-api litellm", {}, ("litellm", "bedrock/converse", None, None, None)),
        (
            "--model together_ai/a/b --llm-api litellm",
            {"TOGETHER_API_KEY": "s"},
            ("litellm", "together_ai", None, "TOGETHER_API_KEY", None),
        ),
        (
            "--model hosted_vllm/m --llm-api litellm",
            {"HOSTED_VLLM_API_BASE": "http://h/v1"},
            ("litellm", "hosted_vllm", "http://h/v1", None, None),
        ),
        (
            "--model gpt-4o --llm-api litellm",
            {"OPENAI_API_KEY": "s"},
            ("litellm", "openai", None, "OPENAI_API_KEY", None),
        ),
        ("--model vertex_ai/gemini-x --llm-api litellm", {}, ("litellm", "vertex_ai", None, None, None)),
    ],
)
def test_each_api_reaches_its_model(line: str, environ: dict[str, str], expected: tuple[Any, ...]) -> None:
    model = config_of(line, environ).model
    assert (model.api, model.provider, model.base_url, model.api_key_env, model.region) == expected


def test_litellms_model_string_is_kept_whole() -> None:
    for name in ("bedrock/anthropic.x-v1:0", "bedrock/converse/arn:aws:x/y", "together_ai/meta-llama/L", "openai/m"):
        model = config_of(f"--model {name} --llm-api litellm").model
        assert f"{model.provider}/{model.name}" == name


def test_no_key_is_copied() -> None:
    secrets = {"OPENAI_API_KEY": "s3cr3t", "TOGETHERAI_API_KEY": "s3cr3t", "ANTHROPIC_API_KEY": "s3cr3t"}
    for line in ("--model m", "--model m --llm-api anthropic", "--model together_ai/m --llm-api litellm"):
        args = flags.benchmark_parser().parse_args(line.split())
        assert "s3cr3t" not in json.dumps(flags.config_from_flags(args, secrets))


def test_metadata_and_sampling_params() -> None:
    assert flags.metadata_of("a=1, b=x=y") == {"a": "1", "b": "x=y"}
    assert flags.metadata_of("") == {}
    with pytest.raises(ConfigError, match="--metadata: must be k=v"):
        flags.metadata_of("a")
    with pytest.raises(ConfigError, match=r"--metadata\.api_key: looks like a secret"):
        flags.metadata_of("a=1,api_key=hunter22")
    with pytest.raises(ConfigError, match="must be a JSON object"):
        flags.sampling_params_of("[1]")
    with pytest.raises(ConfigError, match="must be JSON"):
        flags.sampling_params_of("{")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--model m --llm-api vertexai", "use --llm-api litellm --model vertex_ai/MODEL"),
        ("--model strange --llm-api litellm", "as in openai/strange"),
        ("--model m --num-concurrent-requests 0", "--num-concurrent-requests: must be at least 1, got 0"),
        ("--model m --timeout 0", "--timeout: must be greater than 0"),
        ("--model m --metadata nonsense", "--metadata"),
        ("--model m --results-dir /proc/none", "--results-dir: cannot be written (No such file or directory)"),
        (f"--model m --results-dir {__file__}", "--results-dir: cannot be written (Not a directory)"),
    ],
)
def test_wrong_flags_are_one_message_and_status_2(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.benchmark(line.split(), {"OPENAI_API_BASE": "http://127.0.0.1:1/v1"}) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_a_key_that_is_missing_is_told_without_a_config_s_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.benchmark(["--model", "gpt-5.6"], {}) == 2
    said = "model.api_key_env: environment variable OPENAI_API_KEY is not set; export it\n"
    assert capsys.readouterr().err == said


def test_what_was_measured_is_written_elsewhere_where_its_folder_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(place: Path) -> None:
        (place / "m_summary.json").write_text("{}")

    script._write(tmp_path / "gone", write)
    place = Path(capsys.readouterr().err.strip().rpartition(" ")[2])
    assert [file.name for file in place.iterdir()] == ["m_summary.json"]
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["token_benchmark_ray", "llm_correctness"])
def test_help_imports_nothing_heavy(name: str) -> None:
    line = [sys.executable, "-X", "importtime", ROOT / "scripts" / f"{name}.py", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    assert "--additional-sampling-params" in done.stdout
    imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert not imported & {"ray", "numpy", "pyarrow", "mlflow", "litellm", "pydantic", "rich", "hydra"}


# --- correctness -----------------------------------------------------------------------------------------------------


def test_numbers_and_prompts() -> None:
    drawn = correctness.numbers(500, 7)
    assert drawn == correctness.numbers(500, 7) != correctness.numbers(500, 8)
    assert 0 <= min(drawn) < max(drawn) <= 10_000
    assert correctness.prompt_of(4321) == (
        "Convert the following sequence of words into a number: four thousand, three hundred and twenty-one.\n"
        "Print the number first."
    )
    requests = correctness.requests_of([5, 10], 64)
    assert [(one.index, one.max_tokens) for one in requests] == [(0, 64), (1, 64)]
    assert len({one.prompt_digest for one in requests}) == 2


@pytest.mark.parametrize(
    ("answer", "passed"),
    [("4321", True), ("4,321 is it", True), ("It is 4321.", True), ("43210", False), ("14321", False), ("", False)],
)
def test_what_passes(answer: str, passed: bool) -> None:
    assert correctness.passes(4321, answer) is passed


def test_correctness_files(tmp_path: Path) -> None:
    rows = [record(0, chunks=[0.2, 0.4], text="7"), record(1, chunks=[0.3], text="9"), failure(2, "server", "500")]
    rows.append(record(3, status="unfinished"))
    params = {"temperature": 0.0}
    asked = correctness.Asked("org/m", 4, "openai", params, {}, {"k": "v"})
    paths = correctness.write(tmp_path, rows, [7, 8, 9, 10], asked, 5)
    assert [path.name for path in paths] == [
        "org-m_correctness_summary.json",
        "org-m_correctness_individual_responses.json",
    ]
    summary, responses = (strictly(path) for path in paths)
    assert list(summary.items()) == [
        ("version", "2023-08-31"),
        ("name", "org-m_correctness_summary"),
        ("number_errors", 1),
        ("num_mismatched_requests", 1),
        ("error_rate", pytest.approx(1 / 3)),
        ("mismatch_rate", 0.5),
        ("num_completed_requests", 3),
        ("num_non_errored_requests", 2),
        ("model", "org/m"),
        ("num_concurrent_requests", 4),
        ("llm_api", "openai"),
        ("k", "v"),
        ("timestamp", 5),
    ]
    assert responses[0]["generated_text"] == "7"
    assert responses[0]["request_config"]["metadata"] == {"rnd_number": 7}
    assert re.match("Convert .* seven", responses[0]["request_config"]["prompt"])
    assert list(responses[0]["metrics"]) == RESPONSE_KEYS
    assert responses[0]["metrics"]["inter_token_latency_s"] == pytest.approx(0.2)
    assert responses[2]["metrics"]["error_code"] == 500


def test_the_correctness_job() -> None:
    args = flags.correctness_parser().parse_args(["--model", "m"])
    config = load(flags.correctness_config(args, {"OPENAI_API_BASE": "http://127.0.0.1:1/v1"}))
    assert (config.run.max_requests, config.streams, config.run.save_text) == (50, 10, True)
    assert config.model.params == {"temperature": 0.0}
