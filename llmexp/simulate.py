"""The simulated endpoints in the foreground, for any client.

    python -m llmexp.simulate --port 8000 --ttft 0.2 --inter-token 0.02 --slots 4
    python -m llmexp.simulate --failure-rate 0.1 --failure throttled,cut --truth truth.jsonl
    python -m llmexp.simulate --wire anthropic --shape usage=late --shape crlf=true

The base URL goes to stdout, all else to stderr. Ctrl-C ends it, with status 0.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmexp import secrets
from llmexp.plain_flags import Parser, at_least_0, port

if TYPE_CHECKING:
    from llmexp.endpoints.simulator import Options

WIRES = ("openai", "anthropic", "bedrock", "sagemaker", "gemini")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m llmexp.simulate`; the exit status."""
    secrets.guard_streams()
    given = _parser().parse_args(arguments)
    from llmexp.endpoints.simulator.loop import run
    from llmexp.errors import ConfigError

    try:
        options = _options(given)
        run(_serve(options, given.wire))
    except ConfigError as error:
        print(_by_its_flag(str(error)), file=sys.stderr)
        return 2
    except OSError as error:
        print(_trouble(error, given), file=sys.stderr)
        return 2
    return 0


_FLAGS = {"ttft_s_per_1k_input_tokens": "prefill", "retry_after_s": "retry-after", "idle_close_s": "idle-close"}
"""Settings that have another name on the command line."""


def _by_its_flag(message: str) -> str:
    """`failure_rate: must be …` by the flag that gave it."""
    key, colon, said = message.partition(":")
    if not key.isidentifier():
        return message
    return f"--{_FLAGS.get(key, key).replace('_', '-')}{colon}{said}"


def _trouble(error: OSError, given: argparse.Namespace) -> str:
    """A file that cannot be opened, or an address that cannot be listened on."""
    flag = next(
        (name for name in ("truth", "answers") if error.filename and getattr(given, name) == error.filename), ""
    )
    if flag:
        return f"--{flag}: '{error.filename}' cannot be opened ({error.strerror})"
    return f"--host, --port: cannot listen on {given.host}:{given.port} ({error.strerror or error})"


async def _serve(options: Options, wire: str) -> None:
    import asyncio
    import signal

    from llmexp.endpoints.rehearsal import base_url
    from llmexp.endpoints.simulator.server import listening

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with listening(options) as (_, address):
        print(base_url(wire, address), flush=True)
        print(f"ready: model '{options.model}' on {address}, all wires; Ctrl-C ends it", file=sys.stderr, flush=True)
        await ended.wait()


def _options(given: argparse.Namespace) -> Options:
    from llmexp.endpoints.simulator import Latency, Options

    values = {name: value for name, value in vars(given).items() if value is not None}
    values["ttft"] = Latency(given.ttft, given.ttft_cv)
    values["inter_token"] = Latency(given.inter_token, given.inter_token_cv)
    if given.answer_tokens is not None:
        values["answer_tokens"] = Latency(given.answer_tokens, given.answer_tokens_cv)
    values["shape"] = _shape(given.shape)
    values["aws"] = _credentials() if given.verify_aws else None
    return Options.of(values)


def _shape(pairs: list[str]) -> dict[str, object]:
    """`NAME=VALUE` pairs, each value in the type of the field's default."""
    from llmexp.endpoints.simulator import Shape
    from llmexp.errors import ConfigError

    shape: dict[str, object] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        default = getattr(Shape(), name, None)
        if default is None:
            raise ConfigError(f"--shape: must name one of {', '.join(Shape.__dataclass_fields__)}, got '{name}'")
        if isinstance(default, bool):
            shape[name] = text.lower() in ("true", "1", "yes", "")
        else:
            shape[name] = _converted(type(default), name, text)
    return shape


def _converted(kind: type, name: str, text: str) -> object:
    from llmexp.errors import ConfigError

    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"--shape {name}: must be a number, got '{text}'") from None


def _credentials() -> tuple[str, str, str | None]:
    from llmexp.errors import ConfigError

    try:
        key_id, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    except KeyError as error:
        raise ConfigError(f"--verify-aws: the environment variable {error.args[0]} is not set; export it") from None
    return key_id, secret, os.environ.get("AWS_SESSION_TOKEN") or None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m llmexp.simulate",
        description="Simulated model endpoints: every wire at once, times that are known.",
    )
    _add_listening(parser.add_argument_group("where"))
    _add_timing(parser.add_argument_group("times and tokens"))
    _add_trouble(parser.add_argument_group("trouble and shapes"))
    return parser


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    group.add_argument("--port", type=port, default=8000, help="0: any free one (%(default)s)")
    group.add_argument("--wire", choices=WIRES, default="openai", help="whose base URL is printed (%(default)s)")
    group.add_argument("--model", default="simulated", help="name that /v1/models tells")
    group.add_argument("--tls-cert", metavar="FILE", help="certificate chain: serves https")
    group.add_argument("--tls-key", metavar="FILE", help="its key")
    group.add_argument("--truth", metavar="FILE", help="append true times to it, a line of JSON a request")
    group.add_argument(
        "--verify-aws", action="store_true", help="AWS wires answer only what AWS_ACCESS_KEY_ID and its secret signed"
    )


def _add_timing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ttft", type=at_least_0, default=0.2, metavar="S", help="mean time to the first token (%(default)s)"
    )
    group.add_argument("--ttft-cv", type=at_least_0, default=0.0, metavar="X", help="its coefficient of variation")
    group.add_argument(
        "--prefill",
        dest="ttft_s_per_1k_input_tokens",
        type=float,
        default=0.0,
        metavar="S",
        help="added for each 1,000 input tokens",
    )
    group.add_argument(
        "--inter-token", type=at_least_0, default=0.02, metavar="S", help="mean gap between tokens (%(default)s)"
    )
    group.add_argument(
        "--inter-token-cv", type=at_least_0, default=0.0, metavar="X", help="its coefficient of variation"
    )
    group.add_argument("--tokens-per-chunk", type=int, default=1, metavar="N", help="tokens in an event")
    group.add_argument("--slots", type=int, metavar="N", help="requests served at once; the rest queue")
    group.add_argument("--reasoning-tokens", type=int, default=0, metavar="N", help="streamed before the answer")
    group.add_argument(
        "--answer-tokens", type=at_least_0, metavar="N", help="mean length of answers; unset: the limit asked"
    )
    group.add_argument(
        "--answer-tokens-cv", type=at_least_0, default=0.0, metavar="X", help="its coefficient of variation"
    )
    group.add_argument("--seed", type=int, default=0, help="of all draws")
    group.add_argument("--accuracy", type=float, metavar="X", help="share of questions it can solve answered rightly")
    group.add_argument("--accuracy-under-load", type=float, metavar="X", help="the same with all slots taken (or 8)")
    group.add_argument("--unparsed-share", type=float, metavar="X", help="share of answers that say nothing")
    group.add_argument("--answers", metavar="FILE", help="JSON of right answers (llmexp.workload.answers)")


def _add_trouble(group: argparse._ArgumentGroup) -> None:
    from llmexp.endpoints.simulator import FAILURES, Shape

    group.add_argument("--failure-rate", type=float, default=0.0, metavar="X", help="share of requests that fail")
    group.add_argument(
        "--failure", default="server", metavar="NAMES", help=f"how they fail ({', '.join(FAILURES)}); several by commas"
    )
    group.add_argument("--fail-after", type=int, default=3, metavar="N", help="chunks before a stream fails")
    group.add_argument("--retry-after", dest="retry_after_s", type=int, default=1, metavar="S", help="sent with 429")
    group.add_argument("--idle-close", dest="idle_close_s", type=float, metavar="S", help="close idle connections")
    group.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"how streams are laid out ({', '.join(Shape.__dataclass_fields__)})",
    )


if __name__ == "__main__":
    sys.exit(main())
