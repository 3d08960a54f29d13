"""The schema of a job's configuration: types, units, bounds and checks across keys.

Hydra composes plain YAML (see `conf/`); `load` turns the composed mapping into one frozen `Config`, or raises
`ConfigError` with a line per problem: key, value, remedy. `defaults` is the same schema as a plain mapping; it lies
under the composition, so that every key exists and can be overridden whatever file a group chose.

Nothing here reads files, the network or the clock.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmexp.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Api = Literal["openai", "anthropic", "bedrock", "sagemaker", "litellm"]
SECRET_NAME = re.compile(r"auth|key|token|cookie|secret|password", re.IGNORECASE)


class _Part(BaseModel):
    """Base of every part: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# --- model -----------------------------------------------------------------------------------------------------------


class Price(_Part):
    """What the provider charges, in USD. Fields left null are looked up in LiteLLM's packaged price map."""

    usd_per_million_input_tokens: NonNegative | None = None
    usd_per_million_output_tokens: NonNegative | None = None
    usd_per_million_cached_tokens: NonNegative | None = None
    usd_per_million_reasoning_tokens: NonNegative | None = None
    usd_per_instance_hour: NonNegative | None = Field(None, description="For stacks paid by the hour.")
    instances: Count = Field(1, description="How many instances serve; multiplies the hourly price.")
    as_of: str | None = Field(None, description="The day the price was read, YYYY-MM-DD.")
    source: str | None = Field(None, description="Where the price comes from.")


class Latency(_Part):
    """A latency distribution of the simulator, in seconds: lognormal with this mean and coefficient of variation."""

    mean_s: NonNegative
    cv: NonNegative = 0.0


class Profile(_Part):
    """How a simulated endpoint behaves."""

    ttft: Latency = Field(Latency(mean_s=0.2), description="From the request's last byte to the first token.")
    ttft_s_per_1k_input_tokens: NonNegative = Field(0.0, description="Added to TTFT for each 1,000 input tokens.")
    inter_token: Latency = Field(Latency(mean_s=0.02), description="Gap between tokens.")
    tokens_per_chunk: Count = Field(1, description="Tokens sent in one event.")
    slots: Count | None = Field(None, description="Requests served at once; the rest queue. Null: no limit.")
    reasoning_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Reasoning tokens streamed before the answer.")
    failure_rate: Share = Field(0.0, description="Share of requests that fail.")
    failure: str = Field("server", description="How they fail; the simulator's documentation lists the names.")
    seed: int = Field(0, description="Seed of the simulator's own draws.")


class External(BaseModel):
    """An endpoint that runs by itself; any further keys are facts about it and are logged as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    kind: Literal["external"] = "external"


class LlamaCpp(_Part):
    """A llama.cpp server that the job starts and stops."""

    kind: Literal["llamacpp"]
    package: str | None = Field(None, description="Wheel that carries the weights, `name==version`.")
    file: str | None = Field(None, description="The GGUF file inside the wheel, or a path of your own.")
    sha256: str | None = Field(None, description="SHA-256 of the GGUF file; null: not checked.")
    slots: Count = Field(4, description="Requests decoded at once.")
    threads: Count = Field(1, description="CPU threads that compute.")
    context_tokens: Count | None = Field(None, description="Context of each slot; null: follows from the workload.")


class Simulated(_Part):
    """A scripted endpoint that the job starts and stops."""

    kind: Literal["simulated"]
    profile: Profile = Profile()


class SageMaker(_Part):
    """A SageMaker endpoint; its facts are read with boto3 and logged."""

    kind: Literal["sagemaker"]
    payload: Literal["messages", "tgi", "djl"] = Field("messages", description="Body format the container takes.")
    inference_component: str | None = None
    target_variant: str | None = None
    describe: bool = Field(True, description="Read the endpoint's facts before the run.")
    cloudwatch: bool = Field(True, description="Fetch CloudWatch's figures of the run's window after it.")
    cloudwatch_wait_s: NonNegative = Field(90.0, description="How long to wait for those figures to appear.")


class Bedrock(_Part):
    """A model on Amazon Bedrock."""

    kind: Literal["bedrock"]


Deployment = Annotated[External | LlamaCpp | Simulated | SageMaker | Bedrock, Field(discriminator="kind")]


class Model(_Part):
    """What is called, and how it is reached."""

    name: Annotated[str, Field(min_length=1)] = Field(description="The model's id at the provider.")
    api: Api = Field("openai", description="Our own wire to it, or `litellm`.")
    provider: str | None = Field(None, description="LiteLLM's prefix for api=litellm: `<provider>/<name>`.")
    base_url: str | None = Field(
        None, description="As OpenAI's SDK takes it, /v1 included; AWS: the runtime's endpoint."
    )
    route: Literal["chat", "completions"] = "chat"
    region: str | None = Field(None, description="AWS region; null: the credential chain's own.")
    profile: str | None = Field(None, description="AWS profile; null: the credential chain's own.")
    api_key_env: str | None = Field(None, description="Name of the variable that holds the key; null: none needed.")
    params: dict[str, Any] = Field({}, description="Sent as they are.")
    headers: dict[str, str] = Field({}, description="Plain headers; never secrets.")
    headers_env: dict[str, str] = Field({}, description="Header → name of the variable that holds its value.")
    tokenizer: str | None = Field(
        None,
        description="`endpoint`, `cl100k_base`, `o200k_base`, a tokenizer.json, `estimate`; null: the best there is.",
    )
    price: Price = Price()
    ready_timeout_s: Positive = Field(60.0, description="How long the endpoint may take to answer its first call.")
    metrics_url: str | None = Field(
        None,
        description="The server's Prometheus metrics; null: where OpenAI-like servers have them; `none`: not read.",
    )
    deployment: Deployment = External()
    rehearsal: Profile = Field(Profile(), description="How the simulator plays this model under rehearse=true.")
    notes: str | None = None


# --- workload --------------------------------------------------------------------------------------------------------


class Tokens(_Part):
    """A distribution of token counts, truncated to [min, max]."""

    dist: Literal["normal", "lognormal", "uniform", "fixed", "empirical"] = "normal"
    mean: Positive | None = Field(None, description="Tokens. For `uniform`: null, min and max bound it.")
    stddev: NonNegative | None = Field(None, description="Tokens; null: 0.")
    min: Count | None = None
    max: Count | None = None
    file: str | None = Field(None, description="For `empirical`: a text file with one count per line, or JSON list.")


class Part(_Part):
    """One share of a mix."""

    workload: str = Field(description="Name of an option of conf/workload, or path of a workload YAML file.")
    weight: Positive = 1.0


class Workload(_Part):
    """What is sent."""

    kind: Literal["synthetic", "file", "conversation", "mix"] = "synthetic"
    input_tokens: Tokens = Tokens()
    output_tokens: Tokens = Tokens()
    force_output: bool = Field(False, description="Sends ignore_eos/min_tokens where the server knows them.")
    instruction: str | None = Field(
        None,
        description="Asks for a length, at the prompt's end; {output_tokens} or {output_tokens_in_words} is filled in.",
    )
    tokenizer: str | None = Field(
        None, description="Sizes prompts, the same for every model; null: o200k_base. The model's own counts beside it."
    )
    file: str | None = Field(
        None, description="For `file` and `conversation`: JSONL, CSV, Parquet or ShareGPT JSON of prompts or lengths."
    )
    prefix_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Tokens of a prefix that requests share.")
    prefix_share: Share = Field(1.0, description="Share of requests that begin with the shared prefix.")
    prefix_count: Count = Field(1, description="How many different shared prefixes there are.")
    turns: Count = Field(1, description="For `conversation`: user turns in each.")
    conversations: Count = Field(8, description="For `conversation`: how many run side by side.")
    think_time_s: NonNegative = Field(0.0, description="For `conversation`: pause between an answer and the next turn.")
    parts: list[Part] = Field([], description="For `mix`: workloads with weights.")


# --- load ------------------------------------------------------------------------------------------------------------


class Load(_Part):
    """When it is sent."""

    kind: Literal["closed", "constant", "poisson", "burst", "ramp", "replay"] = "closed"
    rate: Positive | None = Field(None, description="Requests per second (open loop).")
    burstiness: Positive | None = Field(
        None, description="For `burst`: gamma shape; 1 is Poisson, smaller is burstier."
    )
    of: Literal["rate", "concurrency"] = Field("rate", description="For `ramp`: what rises.")
    from_: Positive | None = Field(None, alias="from", description="For `ramp`: first value.")
    to: Positive | None = Field(None, description="For `ramp`: last value.")
    steps: Count | None = Field(None, description="For `ramp`: equal steps; null: linear.")
    duration_s: Positive | None = Field(None, description="For `ramp`: from first to last value; null: run.timeout_s.")
    file: str | None = Field(
        None, description="For `replay`: CSV, JSONL or text with a timestamp in seconds per request."
    )
    speed: Positive = Field(1.0, description="For `replay`: 2 plays the trace twice as fast.")


# --- the rest --------------------------------------------------------------------------------------------------------


class Run(_Part):
    """How long, how often, within which bounds."""

    max_requests: Count | None = Field(32, description="Requests measured; null: until timeout_s.")
    timeout_s: Positive = Field(300.0, description="Nothing new starts after it.")
    grace_s: NonNegative = Field(30.0, description="What is in flight at the timeout gets this long.")
    warmup_requests: Annotated[int, Field(ge=0)] = Field(4, description="Sent before, on top, never counted.")
    seed: Annotated[int, Field(ge=0)] = 11111
    nonce: str | None = Field(None, description="Null: drawn per job and recorded; a recorded one repeats the run.")
    repeats: Count = Field(1, description="Each repeat is a job of its own.")
    max_error_rate: Share = 0.05
    max_usd: NonNegative = Field(10.0, description="For the whole sweep, warm-up and probes included.")
    resume: str | None = Field(None, description="A sweep directory to complete.")
    rerun_invalid: bool = Field(False, description="With resume: also its invalid jobs.")
    save_text: bool = Field(False, description="Keep answer texts.")


class Slo(_Part):
    """The service level a request must meet, and the share of requests that must."""

    ttft_s: Positive | None = None
    time_per_output_token_s: Positive | None = None
    e2e_latency_s: Positive | None = None
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.95
    enforce: bool = Field(False, description="A missed SLO makes the exit status 3.")

    @property
    def thresholds(self) -> dict[str, float]:
        """Metric → seconds, of what is asked."""
        names = ("ttft_s", "time_per_output_token_s", "e2e_latency_s")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Tracking(_Part):
    """Where runs are recorded."""

    kind: Literal["mlflow", "none"] = "mlflow"
    uri: str | None = Field(None, description="Null: MLFLOW_TRACKING_URI, else the store that `mlflow ui` here reads.")
    experiment: Annotated[str, Field(min_length=1)] = "llmexp"
    tags: dict[str, str] = {}


class Ray(_Part):
    """Where the workers run."""

    kind: Literal["local", "cluster"] = "local"
    address: str | None = Field(None, description="For `cluster`: as ray.init takes it.")
    workers: Count | None = Field(None, description="Null: chosen from load and cores.")


class Compare(_Part):
    """What a sweep is asked to decide."""

    primary: str = Field("ttft_s/mean", description="The declared metric.")
    margin: NonNegative = Field(0.03, description="Relative difference that does not matter.")
    fail_on: Literal["regression"] | None = None


class Capacity(_Part):
    """Search for the highest load that keeps the SLO, inside one job per stack."""

    enabled: bool = False
    of: Literal["rate", "concurrency"] = "rate"
    start: Positive = Field(1.0, description="Load of the first probe.")
    probe_s: Positive = Field(10.0, description="Seconds of load of a probe, at least; longer where answers are long.")
    max_probes: Annotated[int, Field(ge=3, le=12)] = 12
    precision: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="Relative width at which bisection ends.")


class Paths(_Part):
    """Where jobs write."""

    outputs: Annotated[str, Field(min_length=1)] = "outputs"


class Config(_Part):
    """One job."""

    model: Model
    workload: Workload = Workload()
    concurrency: Count | None = Field(
        None, description="In flight (closed loop) or the ceiling (open loop); null: 4, or none."
    )
    load: Load = Load()
    run: Run = Run()
    slo: Slo = Slo()
    tracking: Tracking = Tracking()
    ray: Ray = Ray()
    compare: Compare = Compare()
    capacity: Capacity = Capacity()
    paths: Paths = Paths()
    rehearse: bool = Field(False, description="Every model is played by the simulator through its own wire.")
    dry_run: bool = Field(False, description="Plan and estimate only; nothing is sent.")

    @property
    def closed(self) -> bool:
        """Whether a request waits for the one before it: a closed loop, or a ramp of concurrency."""
        return self.load.kind == "closed" or (self.load.kind == "ramp" and self.load.of == "concurrency")

    @property
    def streams(self) -> int | None:
        """The most requests in flight: the concurrency, or a ramp's highest; None is no ceiling."""
        if self.closed and self.load.kind == "ramp":
            top = max(1, round(max(self.load.from_ or 1.0, self.load.to or 1.0)))
            return min(top, self.concurrency or top)
        return self.concurrency or (4 if self.closed else None)

    @property
    def peak_rate(self) -> float | None:
        """The highest arrival rate in requests per second; None for closed loops and for traces."""
        if self.closed:
            return None
        return max((rate for rate in (self.load.rate, self.load.from_, self.load.to) if rate), default=None)


def defaults() -> dict[str, Any]:
    """The whole schema with its defaults as a plain mapping, to lie under every composition."""
    blank = Config.model_validate({"model": {"name": "none"}})
    tree: dict[str, Any] = blank.model_dump(mode="json", by_alias=True)
    tree["model"]["name"] = "???"
    return tree


def load(tree: Mapping[str, Any]) -> Config:
    """The composed mapping as a `Config`.

    Raises `ConfigError` whose message has a line for each problem.
    """
    try:
        config = Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    problems = list(_cross_checks(config))
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# --- messages --------------------------------------------------------------------------------------------------------

_TAGS = {"external", "llamacpp", "simulated", "sagemaker", "bedrock"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _explain(problem: Mapping[str, Any]) -> str:
    """One pydantic problem as `key: must be …, got …`."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    path = [str(part) for part in problem["loc"]]
    if "deployment" in path:
        path = [part for at, part in enumerate(path) if not (part in _TAGS and path[at - 1] == "deployment")]
    key = ".".join(path)
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_suggest(path)}"
    if kind == "missing":
        return f"{key}: must be given"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{key}: must be {words} {context[name]:g}, got {_show(value)}"
    if kind == "literal_error":
        return f"{key}: must be one of {context['expected'].replace(' or ', ', ')}, got {_show(value)}"
    if kind == "union_tag_invalid":
        return f"{key}.kind: must be one of {context['expected_tags']}, got '{context['tag']}'"
    if kind == "string_too_short":
        return f"{key}: must not be empty"
    if kind in _TYPES:
        return f"{key}: must be {_TYPES[kind]}, got {_show(value)}"
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {_show(value)}"


def _show(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else f"'{value}'"


def _suggest(path: list[str]) -> str:
    """The remedy for an unknown key: the nearest known one, or all that there are."""
    known = _keys_at(Config, path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    if near:
        return f"; did you mean {'.'.join([*path[:-1], near[0]])}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _keys_at(part: Any, path: list[str]) -> list[str]:
    models = [arg for arg in (part, *_walk_args(part)) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    if not path:
        return [field.alias or name for model in models for name, field in model.model_fields.items()]
    found = (model.model_fields[path[0]] for model in models if path[0] in model.model_fields)
    return [key for field in found for key in _keys_at(field.annotation, path[1:])]


def _walk_args(annotation: Any) -> Iterator[Any]:
    for arg in get_args(annotation):
        yield arg
        yield from _walk_args(arg)


# --- checks across keys ----------------------------------------------------------------------------------------------


def _cross_checks(config: Config) -> Iterator[str]:
    yield from _check_model(config.model)
    yield from _check_workload(config.workload)
    yield from _check_load(config)
    yield from _check_run(config)


def _check_model(model: Model) -> Iterator[str]:
    if model.base_url is not None:
        url = urlsplit(model.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            yield (f"model.base_url: must be a URL such as http://127.0.0.1:8000/v1, got '{model.base_url}'")
    if model.metrics_url not in (None, "none"):
        url = urlsplit(model.metrics_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            yield (
                f"model.metrics_url: must be a URL such as http://127.0.0.1:8000/metrics, or none, "
                f"got '{model.metrics_url}'"
            )
    if model.api == "litellm" and not model.provider:
        yield "model.provider: api=litellm needs LiteLLM's prefix, such as openai or bedrock/converse"
    for header in model.headers:
        if SECRET_NAME.search(header):
            yield (
                f"model.headers.{header}: looks like a secret; put it in an environment variable and name that in "
                f"model.headers_env.{header}"
            )
    for key in model.params:
        if SECRET_NAME.search(key) and not key.endswith("tokens") and "_token" not in key:
            yield f"model.params.{key}: looks like a secret; name a variable in model.api_key_env or model.headers_env"


def _check_workload(workload: Workload) -> Iterator[str]:
    if workload.kind == "mix" and not workload.parts:
        yield "workload.parts: a mix needs at least one part"
    if workload.kind == "file" and not workload.file:
        yield "workload.file: kind 'file' needs a path"
    if workload.kind == "synthetic" or (workload.kind == "conversation" and not workload.file):
        yield from _check_tokens("workload.input_tokens", workload.input_tokens)
        yield from _check_tokens("workload.output_tokens", workload.output_tokens)
    mean = workload.input_tokens.mean
    if workload.kind == "synthetic" and workload.prefix_tokens and mean is not None and workload.prefix_tokens >= mean:
        yield (
            f"workload.prefix_tokens: is part of the input, so it must be less than workload.input_tokens.mean "
            f"({mean:g}), got {workload.prefix_tokens}"
        )


def _check_tokens(key: str, tokens: Tokens) -> Iterator[str]:
    if tokens.dist == "uniform":
        if tokens.min is None or tokens.max is None:
            yield f"{key}: a uniform distribution needs min and max"
    elif tokens.dist == "empirical":
        if not tokens.file:
            yield f"{key}.file: an empirical distribution needs a file of counts"
    elif tokens.mean is None:
        given = f" (stddev is {tokens.stddev:g})" if tokens.stddev is not None else ""
        yield f"{key}.mean: must be given{given}"
    if tokens.min is not None and tokens.max is not None and tokens.min > tokens.max:
        yield f"{key}.min: must be at most max, got {tokens.min} > {tokens.max}"
    elif tokens.mean is not None and not (tokens.min or 1) <= tokens.mean <= (tokens.max or tokens.mean):
        above = "" if tokens.max is None else f" and at most max ({tokens.max})"
        yield f"{key}.mean: must be at least {tokens.min or 1}{above}, got {tokens.mean:g}"


def _check_load(config: Config) -> Iterator[str]:
    load, workload = config.load, config.workload
    if workload.kind == "conversation" and load.kind == "closed" and (config.concurrency or 0) > workload.conversations:
        yield (
            f"workload.conversations: {workload.conversations} side by side cannot keep concurrency="
            f"{config.concurrency} busy; set workload.conversations={config.concurrency} or more"
        )
    if load.kind in ("constant", "poisson", "burst") and load.rate is None and not config.capacity.enabled:
        yield f"load.rate: load={load.kind} needs requests per second, such as load.rate=5"
    if load.kind == "closed" and load.rate is not None:
        yield f"load.rate: load=closed has no rate, got {load.rate:g}; use load=constant or load=poisson"
    if load.kind == "burst" and load.burstiness is None:
        yield "load.burstiness: load=burst needs a gamma shape, such as load.burstiness=0.25"
    if load.kind == "ramp" and (load.from_ is None or load.to is None):
        yield "load.from: load=ramp needs load.from and load.to"
    if load.kind == "replay" and not load.file:
        yield "load.file: load=replay needs a trace file"


def _check_run(config: Config) -> Iterator[str]:
    if config.capacity.enabled and not config.slo.thresholds:
        yield "slo: the capacity search needs a threshold, such as slo.ttft_s=0.5"
    if config.slo.enforce and not config.slo.thresholds:
        yield "slo.enforce: there is no threshold to enforce; set slo.ttft_s, for example"
    if config.ray.kind == "cluster" and not config.ray.address:
        yield "ray.address: ray=cluster needs the cluster's address, such as auto"
    if config.run.rerun_invalid and not config.run.resume:
        yield "run.rerun_invalid: goes with run.resume"
