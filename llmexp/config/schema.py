"""The schema of a job's configuration: types, units and bounds.

Nothing here reads files, the network or the clock.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

from llmexp.config.places import shipped

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
AUTO_REQUESTS = 32
"""What `run.max_requests=auto` measures where the load and the workload have no end of their own."""


def _amount(value: object) -> object:
    """Says in one line what is wrong with a number that may be a word, too."""
    if value is None or value == "auto" or (type(value) is int and value >= 1):
        return value
    if type(value) is int:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    raise PydanticCustomError("amount", "must be a whole number, auto or null")


Amount = Annotated[int | Literal["auto"] | None, BeforeValidator(_amount)]
Api = Literal["openai", "anthropic", "bedrock", "sagemaker", "litellm"]


Filled = Annotated[str, Field(pattern=r"\S")]
"""A text that says something."""


def _as_typed(value: object) -> object:
    """A whole number, true or false as the text that was typed; a number with a point may have lost digits."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


Typed = Annotated[str, BeforeValidator(_as_typed)]
"""A text that people also type as `4711` or `true`, without quotes."""


def _without_nulls(value: object) -> object:
    """Null takes a key away that a file has."""
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if each is not None}


Texts = Annotated[dict[str, Typed], BeforeValidator(_without_nulls)]
"""Texts under names of the user's own."""


class _Part(BaseModel):
    """Base of every part: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# --- model -----------------------------------------------------------------------------------------------------------


class Price(_Part):
    """What the provider charges, in USD. Fields left null are looked up in LiteLLM's packaged price map."""

    usd_per_million_input_tokens: NonNegative | None = None
    usd_per_million_output_tokens: NonNegative | None = None
    usd_per_million_cached_tokens: NonNegative | None = Field(None, description="Input read from a prompt cache.")
    usd_per_million_cache_write_tokens: NonNegative | None = Field(
        None, description="Input written to a prompt cache; unknown: as any input."
    )
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
    accuracy: Share | None = Field(
        None, description="Share of questions with known answers that it answers rightly; null: it answers with words."
    )
    accuracy_under_load: Share | None = Field(
        None,
        description="The same with all slots taken (without slots: 8 in flight); between, it falls evenly.",
    )
    unparsed_share: Share = Field(0.0, description="Share of its answers that hold nothing that could be graded.")
    prompt_cache: bool = Field(
        False, description="What prompts begin with costs nothing when another begins alike, and usage says so."
    )
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


class Served(BaseModel):
    """A server that the job starts by a command line and stops with its whole process tree.

    Any further key is a setting: it fills `{its_name}` in the command, and is logged as a fact.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    kind: Literal["served"]
    command: Filled = Field(
        description="How to start it, by /bin/sh: `{port}`, `{host}`, `{name}` and `{any key of deployment}` are "
        "filled in; `--flag {key}` goes away where the key is null. Secrets as `$VARIABLE`."
    )
    ready: Filled = Field(
        "/v1/models",
        description="Path, or URL, that answers 2xx once the server can serve; polled until then. Filled in as the "
        "command is: `/v2/models/{name}/ready`.",
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Null: a free one, another when it is taken."
    )
    version: str | None = Field(
        None, description="Command whose output names the engine's version; null: what the server itself tells."
    )

    @property
    def settings(self) -> dict[str, object]:
        """The keys that are the user's own."""
        return dict(self.model_extra or {})


Deployment = Annotated[External | LlamaCpp | Simulated | Served | SageMaker | Bedrock, Field(discriminator="kind")]


class Model(_Part):
    """What is called, and how it is reached."""

    name: Filled = Field(description="The model's id at the provider.")
    api: Api = Field("openai", description="Our own wire to it, or `litellm`.")
    provider: str | None = Field(None, description="LiteLLM's prefix for api=litellm: `<provider>/<name>`.")
    base_url: str | None = Field(
        None, description="As OpenAI's SDK takes it, /v1 included; AWS: the runtime's endpoint."
    )
    route: Literal["chat", "completions"] = "chat"
    region: str | None = Field(None, description="AWS region; null: the credential chain's own.")
    profile: str | None = Field(None, description="AWS profile; null: the credential chain's own.")
    api_key_env: str | None = Field(None, description="Name of the variable that holds the key; null: none needed.")
    params: dict[str, object] = Field({}, description="Sent as they are.")
    headers: Texts = Field({}, description="Plain headers; never secrets.")
    headers_env: Texts = Field({}, description="Header → name of the variable that holds its value.")
    tokenizer: str | None = Field(
        None,
        description="`endpoint`, `cl100k_base`, `o200k_base`, a tokenizer.json, `estimate`; null: the best there is.",
    )
    cache_points: list[Literal["system", "tools", "history"]] = Field(
        [], description="What Anthropic and Bedrock are told to cache: the end of each of these is marked."
    )
    price: Price = Price()
    ready_timeout_s: Positive = Field(60.0, description="How long the endpoint may take to answer its first call.")
    metrics_url: str | None = Field(
        None,
        description="The server's Prometheus metrics; null: where OpenAI-like servers have them; `none`: not read.",
    )
    gpu_metrics: str | None = Field(
        None,
        description="Energy: `nvml`, the URL of a DCGM exporter, `none`; null: this machine's GPUs by NVML where the "
        "job starts the server.",
    )
    gpus: list[int | str] | int | str | None = Field(
        None, description="Which GPUs serve, by index or UUID; null: all, summed."
    )
    deployment: Deployment = External()
    rehearsal: Profile = Field(Profile(), description="How the simulator plays this model under rehearse=true.")
    notes: str | None = None

    @property
    def chosen_gpus(self) -> tuple[int | str, ...] | None:
        """The GPUs that were named; None for all."""
        if self.gpus is None:
            return None
        return tuple(self.gpus) if isinstance(self.gpus, list) else (self.gpus,)


# --- workload --------------------------------------------------------------------------------------------------------


LONGEST = 10_000_000
"""Tokens of a text, at most: no model takes more, and making it up would take minutes."""


class Tokens(_Part):
    """A distribution of token counts, truncated to [min, max]."""

    dist: Literal["normal", "lognormal", "uniform", "fixed", "empirical"] = "normal"
    mean: Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)] | None = Field(
        None, description="Tokens. For `uniform`: null, min and max bound it."
    )
    stddev: NonNegative | None = Field(None, description="Tokens; null: 0.")
    min: Count | None = None
    max: Count | None = None
    file: str | None = Field(None, description="For `empirical`: a text file with one count per line, or JSON list.")


class Part(_Part):
    """One share of a mix."""

    workload: str = Field(description="Name of an option of conf/workload, or path of a workload YAML file.")
    weight: Positive = 1.0


class Images(_Part):
    """Pictures that each request of `workload=images` begins with."""

    count: Count = Field(1, description="Pictures in each request.")
    width: Annotated[int, Field(ge=1, le=8192)] = Field(512, description="Pixels.")
    height: Annotated[int, Field(ge=1, le=8192)] = Field(512, description="Pixels.")
    format: Literal["png", "jpeg"] = "png"


class Workload(_Part):
    """What is sent."""

    kind: Literal[
        "synthetic", "file", "conversation", "sessions", "images", "mix", "arithmetic", "lookup", "format"
    ] = "synthetic"
    difficulty: Count = Field(1, description="For `arithmetic`, `lookup` and `format`: how hard, from 1 on.")
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
    file: Annotated[str | None, AfterValidator(shipped)] = Field(
        None,
        description="For `file` and `conversation`: JSONL, CSV, Parquet or ShareGPT JSON of prompts or lengths; for "
        "`sessions`: JSONL, a session a line.",
    )
    prefix_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Tokens of a prefix that requests share.")
    prefix_share: Share = Field(1.0, description="Share of requests that begin with the shared prefix.")
    prefix_count: Count = Field(1, description="How many different shared prefixes there are.")
    turns: Count = Field(1, description="For `conversation`: user turns in each.")
    history: Literal["recorded", "live"] = Field(
        "recorded", description="For `sessions`: the file's own answers as history, or the model's in their place."
    )
    think_time_s: NonNegative = Field(0.0, description="For `conversation`: pause between an answer and the next turn.")
    images: Images = Field(Images(), description="For `images`: made deterministically, all different.")
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
        None, description="For `replay`: CSV, JSONL, Parquet or text with a time for each request."
    )
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        None, description="For `replay`: unit of times that are numbers; null: as the file shows, else it is asked."
    )
    speed: Positive = Field(1.0, description="For `replay`: 2 plays the trace twice as fast.")


# --- the rest --------------------------------------------------------------------------------------------------------


class Run(_Part):
    """How long, how often, within which bounds."""

    max_requests: Amount = Field(
        "auto",
        description="Requests measured (of sessions: turns). `auto`: 32, a whole trace, each session of a file once; "
        "null: until timeout_s, or the end of a trace or of a file of sessions.",
    )
    timeout_s: Positive = Field(300.0, description="Nothing new starts after it.")
    grace_s: NonNegative = Field(30.0, description="What is in flight at the timeout gets this long.")
    warmup_requests: Annotated[int, Field(ge=0)] = Field(4, description="Sent before, on top, never counted.")
    seed: Annotated[int, Field(ge=0)] = 11111
    nonce: Typed | None = Field(None, description="Null: drawn per job and recorded; a recorded one repeats the run.")
    order: Literal["shuffled", "grouped"] = Field(
        "shuffled",
        description="Of the jobs inside each block of repeats; `grouped`: jobs that share a started server together.",
    )
    repeats: Count = Field(1, description="Each repeat is a job of its own.")
    max_error_rate: Share = 0.05
    max_usd: NonNegative | None = Field(
        10.0,
        description="For the whole command and its resumes: warm-up, probes, judges, failed and cut requests included; "
        "null: no limit.",
    )
    resume: str | None = Field(None, description="A sweep directory to complete.")
    rerun_invalid: bool = Field(False, description="With resume: also its invalid jobs.")
    save_text: bool = Field(False, description="Keep the texts of questions and answers.")


class Slo(_Part):
    """The service level a request must meet, and the share of requests that must."""

    right_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of right answers that the run must reach; needs a quality."
    )
    ttft_s: Positive | None = None
    time_per_output_token_s: Positive | None = None
    e2e_latency_s: Positive | None = None
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.95
    enforce: bool = Field(False, description="A missed SLO makes the exit status 3.")

    @property
    def asked(self) -> bool:
        """Whether anything is asked: times of requests, or a share of right answers."""
        return bool(self.thresholds) or self.right_share is not None

    @property
    def thresholds(self) -> dict[str, float]:
        """Metric → seconds, of what is asked of each request."""
        names = ("ttft_s", "time_per_output_token_s", "e2e_latency_s")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


RUBRIC = """\
You are grading an answer to a question.

[Question]
{question}

[Right answer]
{expected}

[Answer to grade]
{answer}

Does the answer to grade say the same as the right answer? Ignore style, length and formatting. Think in one or two \
sentences, then end with a line that is exactly "GRADE: RIGHT" or "GRADE: WRONG"."""


class Judge(_Part):
    """A model that grades answers, asked once for each answer after the load."""

    model: str | list[str] | None = Field(
        None, description="An option of conf/model; a list of an odd number of them votes."
    )
    rubric: Filled = Field(RUBRIC, description="The judge's prompt; {question}, {answer} and {expected} are filled in.")
    answer: str = Field(
        r"(?i)GRADE\W*:\W*(\w+(?:\.\d+)?(?:\s*/\s*\d+)?)",
        description="A regular expression; its group at the last match is the grade: right or wrong, yes or no, a "
        "number from 0 to 1, or a fraction such as 7/10.",
    )
    concurrency: Count = Field(4, description="Calls to a judge in flight.")

    @property
    def models(self) -> tuple[str, ...]:
        """The options that vote."""
        if self.model is None:
            return ()
        return (self.model,) if isinstance(self.model, str) else tuple(self.model)


class Quality(_Part):
    """How answers are graded, when the load is over."""

    kind: Literal[
        "none", "exact", "contains", "choice", "number", "regex", "json", "tool_call", "overlap", "judge", "function"
    ] = "none"
    tolerance: NonNegative = Field(0.0, description="For `number`: the difference that is still right.")
    pattern: str | None = Field(
        None, description="For `regex`: its group is compared with what is expected; without a group it has to match."
    )
    schema_: dict[str, object] | str | None = Field(
        None, alias="schema", description="For `json`: a JSON Schema, as a mapping or the path of a file."
    )
    function: str | None = Field(
        None, description="For `function`: package.module:name of f(answer, expected, request) → 0 to 1, or None."
    )
    threshold: Share | None = Field(
        None, description="Score from which an answer is right; null: 0.5 for overlap, judge and function, else 1."
    )
    margin: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.02, description="Difference in the share of right answers that does not matter: 0.02 is 2 points."
    )
    judge: Judge = Judge()

    @property
    def graded(self) -> bool:
        """Whether answers are graded at all."""
        return self.kind != "none"

    @property
    def right_from(self) -> float:
        """The score from which an answer is right."""
        if self.threshold is not None:
            return self.threshold
        return 0.5 if self.kind in ("overlap", "judge", "function") else 1.0


class Tracking(_Part):
    """Where runs are recorded."""

    kind: Literal["mlflow", "none"] = "mlflow"
    uri: str | None = Field(None, description="Null: MLFLOW_TRACKING_URI, else the store that `mlflow ui` here reads.")
    experiment: Filled = "llmexp"
    tags: Texts = {}


class Ray(_Part):
    """Where the workers run."""

    kind: Literal["local", "cluster"] = "local"
    address: str | None = Field(None, description="For `cluster`: HOST:PORT of its head, or auto.")
    nodes: Filled = Field(
        "all",
        description="For `cluster`: all (that offer CPUs), others (not the driver's), or a Ray resource or label.",
    )
    workers: Count | None = Field(None, description="Null: chosen from load and cores.")


class Compare(_Part):
    """What a sweep is asked to decide."""

    primary: str = Field("ttft_s/mean", description="The declared metric.")
    margin: NonNegative = Field(0.03, description="Relative difference that does not matter.")
    baseline: str | None = Field(
        None, description="The stack (an option of `model`, or a name) that others are held against; null: every pair."
    )
    fail_on: Literal["regression"] | None = Field(
        None, description="Exit status 3 where a stack is worse than the baseline beyond the margin."
    )


class Capacity(_Part):
    """Search for the highest load that keeps the SLO, inside one job per stack."""

    enabled: bool = False
    of: Literal["rate", "concurrency"] = "rate"
    start: Positive = Field(1.0, description="Load of the first probe.")
    probe_s: Positive = Field(10.0, description="Seconds of load of a probe, at least; longer where answers are long.")
    max_probes: Annotated[int, Field(ge=3, le=12)] = 12
    precision: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="Relative width at which bisection ends.")


Direction = Literal["maximize", "minimize"]


class Goal(_Part):
    """A metric and which way is better."""

    metric: Filled
    direction: Direction | None = None


class Search(_Part):
    """What `experiment=tune` may change, what for, and how often."""

    enabled: bool = Field(False, description="Search; `experiment=tune` sets it.")
    space: dict[str, object] = Field(
        {},
        description="Config key → a list of choices, or `{low, high}` with `step` or `log: true`. Options of a group "
        "are choices too: `model: [vllm, sglang]`. Empty: the concurrency of a closed loop.",
    )
    goal: Filled | Goal = Field(
        "goodput_per_usd",
        description="`goodput_per_usd`, `goodput_per_joule`, or any metric, such as `goodput_per_s`, `ttft_s/p95`; or "
        "`{metric: …, direction: …}`.",
    )
    direction: Direction | None = Field(None, description="Null: the metric's own.")
    trials: Count = Field(15, description="At most; the first is the configuration as it stands.")
    confirm: Annotated[int, Field(ge=0)] = Field(
        3, description="Repeats of the winner and of the configuration as it stands, for the verdict; 0: none."
    )

    @property
    def metric(self) -> str:
        """What the goal measures."""
        return self.goal.metric if isinstance(self.goal, Goal) else self.goal

    @property
    def asked_direction(self) -> Direction | None:
        """Which way was said to be better."""
        asked = self.goal.direction if isinstance(self.goal, Goal) else None
        return asked or self.direction


class Paths(_Part):
    """Where jobs write."""

    outputs: Filled = "outputs"


DEFAULT_STREAMS = 4
"""In flight in a closed loop, where `concurrency` is null."""


def closed_loop(kind: str | None, of: str | None) -> bool:
    """Whether a request waits for the one before it: a closed load (the default), or a ramp of concurrency."""
    return kind in (None, "closed") or (kind == "ramp" and of == "concurrency")


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
    quality: Quality = Quality()
    tracking: Tracking = Tracking()
    ray: Ray = Ray()
    compare: Compare = Compare()
    capacity: Capacity = Capacity()
    search: Search = Search()
    paths: Paths = Paths()
    rehearse: bool = Field(False, description="Every model is played by the simulator through its own wire.")
    dry_run: bool = Field(False, description="Plan and estimate only; nothing is sent.")

    @property
    def closed(self) -> bool:
        """Whether a request waits for the one before it."""
        return closed_loop(self.load.kind, self.load.of)

    @property
    def max_requests(self) -> int | None:
        """Requests (of sessions: turns) measured at most; None: until the timeout or the end of what is replayed."""
        asked = self.run.max_requests
        if asked != "auto":
            return asked
        return None if self.load.kind == "replay" or self.workload.kind == "sessions" else AUTO_REQUESTS

    @property
    def streams(self) -> int | None:
        """The most requests in flight: the concurrency, or a ramp's highest; None is no ceiling."""
        if self.closed and self.load.kind == "ramp":
            top = max(1, round(max(self.load.from_ or 1.0, self.load.to or 1.0)))
            return min(top, self.concurrency or top)
        return self.concurrency or (DEFAULT_STREAMS if self.closed else None)

    @property
    def peak_rate(self) -> float | None:
        """The highest arrival rate in requests per second; None for closed loops and for traces."""
        if self.closed:
            return None
        return max((rate for rate in (self.load.rate, self.load.from_, self.load.to) if rate), default=None)
