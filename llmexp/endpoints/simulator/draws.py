"""What chance decides about one request. Follows from the seed and the request's index alone."""

from __future__ import annotations

import math
import random

from llmexp.endpoints.simulator.options import Latency, Options

NS = 1_000_000_000
_SLOW_FACTOR = 10


class Draws:
    """The draws of one request; failure, answer length and TTFT are drawn at once, gaps as they are needed."""

    __slots__ = ("_gap_mu", "_gap_ns", "_gap_sigma", "_random", "answer_share", "failure", "ttft_ns")

    def __init__(self, options: Options, index: int, input_tokens: int) -> None:
        self._random = random.Random(options.seed * 0x1_0000_0000 + index)
        self.failure = self._fails(options)
        self.answer_share = self._random.random()
        factor = _SLOW_FACTOR if self.failure == "slow" else 1
        prefill_s = options.ttft_s_per_1k_input_tokens * input_tokens / 1000
        self.ttft_ns = int(factor * (self._latency(options.ttft) + prefill_s) * NS)
        self._gap_ns = int(factor * options.inter_token.mean_s * NS)
        self._gap_mu, self._gap_sigma = _lognormal(options.inter_token, factor * NS)

    def _fails(self, options: Options) -> str | None:
        fails = self._random.random() < options.failure_rate
        kinds = options.failures
        kind = kinds[int(self._random.random() * len(kinds))]
        return kind if fails else None

    def _latency(self, latency: Latency) -> float:
        mu, sigma = _lognormal(latency, 1)
        return self._random.lognormvariate(mu, sigma) if sigma else latency.mean_s

    def gap_ns(self, tokens: int) -> int:
        """Time that `tokens` tokens take after the one before them."""
        if not self._gap_sigma:
            return self._gap_ns * tokens
        draw = self._random.lognormvariate
        return int(sum(draw(self._gap_mu, self._gap_sigma) for _ in range(tokens)))

    def answer_tokens(self, options: Options, limit: int) -> int:
        """Length of the answer, 1 to `limit`."""
        if options.answer_tokens is None:
            return limit
        drawn = self._latency(options.answer_tokens)
        return max(1, min(limit, round(drawn)))


def _lognormal(latency: Latency, scale: float) -> tuple[float, float]:
    """(mu, sigma) of the lognormal with this mean, times `scale`; sigma 0 where it is constant."""
    if latency.cv == 0 or latency.mean_s == 0:
        return 0.0, 0.0
    variance = math.log1p(latency.cv**2)
    return math.log(latency.mean_s * scale) - variance / 2, math.sqrt(variance)
