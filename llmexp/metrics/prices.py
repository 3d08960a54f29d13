"""What tokens and hours cost, and where that figure comes from.

A model file's own `price` counts first, field by field; what it leaves open is looked up in the price map that
LiteLLM's package carries, read as a file (importing LiteLLM takes seconds). An unknown price is None, never 0: the
map's zeros mean unknown too, and a server of one's own has no entry there. All figures are USD.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from llmexp import litellm_package
from llmexp.config import Model
from llmexp.json_types import number

_MAP = "model_prices_and_context_window_backup.json"
_GEOGRAPHY = re.compile(r"^(?:us-gov|us|eu|apac|jp|au|ca|global)\.")
_PROVIDER_OF_HOST = {
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.together.ai": "together_ai",
    "api.together.xyz": "together_ai",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "xai",
    "api.fireworks.ai": "fireworks_ai",
    "api.cerebras.ai": "cerebras",
    "openrouter.ai": "openrouter",
    "generativelanguage.googleapis.com": "gemini",
}
_LONG = re.compile(r"input_cost_per_token(_above_(\d+)k_tokens)")
_FIELDS = {
    "input_usd": ("usd_per_million_input_tokens", "input_cost_per_token"),
    "cached_input_usd": ("usd_per_million_cached_tokens", "cache_read_input_token_cost"),
    "cache_write_usd": ("usd_per_million_cache_write_tokens", "cache_creation_input_token_cost"),
    "output_usd": ("usd_per_million_output_tokens", "output_cost_per_token"),
    "reasoning_usd": ("usd_per_million_reasoning_tokens", "output_cost_per_reasoning_token"),
}


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices of one model; None where unknown."""

    input_usd: float | None = None
    """Per input token that no cache served."""
    cached_input_usd: float | None = None
    """Per input token read from a prompt cache; unknown: the price of any input token."""
    cache_write_usd: float | None = None
    """Per input token written to a prompt cache; unknown: the price of any input token."""
    output_usd: float | None = None
    """Per output token."""
    reasoning_usd: float | None = None
    """Per reasoning token; unknown: the price of any output token."""
    instance_hour_usd: float | None = None
    instances: int = 1
    source: str | None = None
    as_of: str | None = None
    """The day the price was read, YYYY-MM-DD; for the map, the day its package was installed: it is older than that."""
    long: PriceList | None = None
    """Of a request with more than `long_above` input tokens, where a provider has other prices for those."""
    long_above: int = 0

    def of(self, input_tokens: float) -> PriceList:
        """The prices of a request with so many input tokens."""
        return self.long if self.long is not None and input_tokens > self.long_above else self


def price_list(model: Model) -> PriceList:
    """The prices of a model and their source."""
    entry_name, entry = _entry(model)
    tier = _tier(model)
    usual = _prices(model, entry_name, entry, *tier)
    for name in sorted(entry, key=lambda name: (len(name), name)):
        found = _LONG.fullmatch(name)
        if found is not None:
            long = _prices(model, entry_name, entry, *(f"{found[1]}{end}" for end in (*tier, "")), *tier)
            above = int(found[2])
            return replace(usual, long=long, long_above=above * 1000, source=_and(usual, long, above))
    return usual


def _and(usual: PriceList, long: PriceList, above: int) -> str | None:
    """The source, and whether requests of many tokens have prices of their own."""
    differs = (usual.input_usd, usual.output_usd) != (long.input_usd, long.output_usd)
    return f"{usual.source}, others above {above},000 input tokens" if differs else usual.source


def _tier(model: Model) -> tuple[str, ...]:
    """How the map ends the names of the prices of the service tier that the requests ask for."""
    asked = model.params.get("service_tier") or model.params.get("serviceTier")
    named = asked.get("type") if isinstance(asked, Mapping) else asked
    return (f"_{named}",) if isinstance(named, str) else ()


def _prices(model: Model, entry_name: str, entry: Mapping[str, object], *endings: str) -> PriceList:
    """The prices by the names with these endings, the first that is there; else by the plain ones."""
    own = model.price
    prices: dict[str, float | None] = {}
    sources: dict[str, None] = {}
    for name, (own_field, map_field) in _FIELDS.items():
        listed = next((usd for end in (*endings, "") if (usd := number(entry, f"{map_field}{end}"))), None)
        stated = getattr(own, own_field)
        prices[name] = stated / 1e6 if stated is not None else listed
        if stated is not None:
            sources[own.source or "model file"] = None
        elif listed is not None:
            sources[f"price map of LiteLLM {_litellm_version()}, '{entry_name}'"] = None
    if own.usd_per_instance_hour is not None:
        sources[own.source or "model file"] = None
    from_map = any("price map" in source for source in sources)
    return PriceList(
        input_usd=prices["input_usd"],
        cached_input_usd=prices["cached_input_usd"],
        cache_write_usd=prices["cache_write_usd"],
        output_usd=prices["output_usd"],
        reasoning_usd=prices["reasoning_usd"],
        instance_hour_usd=own.usd_per_instance_hour,
        instances=own.instances,
        source="; ".join(sources) or None,
        as_of=own.as_of or (_map_date() if from_map else None),
    )


def cost(
    price: PriceList, input_tokens: int, cached: int, output_tokens: int, reasoning: int, written: int = 0
) -> float | None:
    """USD of so many tokens; those read from a cache and written to it are part of the input, reasoning of the output.

    A count of written tokens that the input cannot hold beside the cached ones is no count.
    """
    price = price.of(input_tokens)
    if price.input_usd is None or price.output_usd is None:
        return None
    cached_usd = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
    written_usd = price.input_usd if price.cache_write_usd is None else price.cache_write_usd
    written = min(written, max(0, input_tokens - cached))
    reasoning_usd = price.output_usd if price.reasoning_usd is None else price.reasoning_usd
    return (
        (input_tokens - cached - written) * price.input_usd
        + written * written_usd
        + cached * cached_usd
        + (output_tokens - reasoning) * price.output_usd
        + reasoning * reasoning_usd
    )


def usd_per_hour(price: PriceList) -> float | None:
    """USD per hour of all instances together."""
    return None if price.instance_hour_usd is None else price.instance_hour_usd * price.instances


def costs(price: PriceList) -> bool:
    """Whether anything of it is known to cost money."""
    parts = (price.input_usd, price.cache_write_usd, price.output_usd, price.reasoning_usd, price.instance_hour_usd)
    return any(parts)


def known(price: PriceList) -> bool:
    """Whether it says what a load costs: by tokens, or by the hour."""
    return (price.input_usd is not None and price.output_usd is not None) or price.instance_hour_usd is not None


def cost_of_window(price: PriceList, seconds: float) -> float | None:
    """USD of all instances over a window."""
    hourly = usd_per_hour(price)
    return None if hourly is None else hourly * seconds / 3600


def estimate(price: PriceList, requests: float, mean_input: float, mean_output: float) -> float | None:
    """USD that so many requests are expected to cost, with no cache and no reasoning."""
    price = price.of(mean_input)
    if price.input_usd is None or price.output_usd is None:
        return None
    return requests * (mean_input * price.input_usd + mean_output * price.output_usd)


def as_dict(price: PriceList) -> dict[str, object]:
    """For files: per million tokens, as people read prices."""
    million = {
        own_field: None if (usd := getattr(price, name)) is None else round(usd * 1e6, 9)
        for name, (own_field, _) in _FIELDS.items()
    }
    hourly = {"usd_per_instance_hour": price.instance_hour_usd, "instances": price.instances}
    return million | hourly | {"source": price.source, "as_of": price.as_of}


# --- the map ---------------------------------------------------------------------------------------------------------


def _entry(model: Model) -> tuple[str, Mapping[str, object]]:
    """Name and content of the model's entry in the map; an empty one where there is none."""
    provider = _provider(model)
    if provider is None:
        return "", {}
    for name in _names(provider, model):
        entry = price_map().get(name)
        if entry and _belongs(entry, provider) and _priced(entry):
            return name, entry
    return "", {}


def _provider(model: Model) -> str | None:
    """Whose price list counts, by LiteLLM's name; None for servers of one's own and for what is paid by the hour."""
    if model.api == "litellm":
        family = (model.provider or "").split("/")[0]
        return _hosted(model) if family in ("openai", "custom_openai") else family
    return {"anthropic": "anthropic", "bedrock": "bedrock", "openai": _hosted(model)}.get(model.api)


def _hosted(model: Model) -> str | None:
    if model.base_url is None:
        return "openai"
    host = urlsplit(model.base_url).hostname or ""
    return "azure" if host.endswith(".openai.azure.com") else _PROVIDER_OF_HOST.get(host)


def _names(provider: str, model: Model) -> Iterator[str]:
    """Keys under which the map may hold the model, the most particular first."""
    bare = model.name.rpartition("/")[2] if model.name.startswith("arn:") else model.name
    if provider == "bedrock":
        if model.region:
            yield f"bedrock/{model.region}/{bare}"
        yield from (bare, f"bedrock/{bare}")
        anywhere = _GEOGRAPHY.sub("", bare)
        yield from (anywhere, f"bedrock/{anywhere}")
    else:
        yield from (f"{provider}/{bare}", bare)


def _belongs(entry: Mapping[str, object], provider: str) -> bool:
    """Whether an entry is this provider's: `vertex_ai-language-models` is Vertex AI's, `bedrock_converse` Bedrock's."""
    return str(entry.get("litellm_provider", "")).startswith(provider)


def _priced(entry: Mapping[str, object]) -> bool:
    return bool(entry.get("input_cost_per_token") or entry.get("output_cost_per_token"))


def price_map() -> Mapping[str, Mapping[str, object]]:
    """LiteLLM's packaged map; empty where the package lacks it."""
    return {name: entry for name, entry in litellm_package.content(_MAP).items() if isinstance(entry, Mapping)}


def _litellm_version() -> str:
    try:
        return version("litellm")
    except PackageNotFoundError:
        return "unknown"


def _map_date() -> str | None:
    """When the package was installed: wheels do not keep the day they were built."""
    path = litellm_package.path(_MAP)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat() if path else None
