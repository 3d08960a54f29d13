"""Tokenizers: how long a text is, as the model counts or as near as can be known.

| `model.tokenizer` | counts with | is exact for |
| --- | --- | --- |
| `endpoint` | the server's own /tokenize (llama.cpp, vLLM, SGLang) | what that server serves |
| `cl100k_base`, `o200k_base` | tiktoken, from files in LiteLLM's package | OpenAI's models |
| `anthropic` | the tokenizer that Anthropic published | Claude up to 2.1 |
| a path | a tokenizer.json | the model that it belongs to |
| `estimate` | a rule over words | nothing; within some 5 % on English prose |
| null | the endpoint's own where it has one, else by the model's name, else `o200k_base` as an estimate | |

This is how a model's texts are counted. Prompts are sized by another, the same for all models: `workload.tokenizer`,
o200k_base where that is null; the made-up ones have, by design, the same count under each of these.

`source` says which kind of truth a count is: `tokenizer` is the model's own, `estimate` is not. Claude 3 and later have
no public tokenizer and Llama is not counted by o200k, so their counts are estimates. Nothing is ever downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from llmexp import litellm_package
from llmexp.config import Model, Simulated
from llmexp.errors import ConfigError

TokenSource = Literal["tokenizer", "estimate"]
_WORD = re.compile(r"[A-Za-z]+|[0-9]+|\n+|[^\sA-Za-z0-9]+")
_TIKTOKEN_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_TIKTOKEN = ("cl100k_base", "o200k_base")
_PUBLISHED = ("anthropic", "deepseek")


class Tokenizer(Protocol):
    """Counts tokens. Instances belong to one process and one thread."""

    @property
    def name(self) -> str:
        """How the tokenizer is told from others."""
        ...

    @property
    def source(self) -> TokenSource:
        """Whether a count is the model's own."""
        ...

    @property
    def in_process(self) -> bool:
        """False when each count is a call over the network."""
        ...

    def count(self, text: str) -> int:
        """Tokens of the text, without any template or special tokens around it."""
        ...

    def count_many(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each text."""
        ...


class Estimate:
    """A rule: a token for each started 12 letters of a word, 3 digits, and 4 bytes of anything else."""

    name = "estimate"
    source: TokenSource = "estimate"
    in_process = True

    def count(self, text: str) -> int:
        """Tokens by the rule; counts of pieces that meet at white space add up."""
        return sum(map(_estimated, _WORD.findall(text)))

    def count_many(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each text."""
        return [self.count(text) for text in texts]


def _estimated(piece: str) -> int:
    first = piece[0]
    if first == "\n":
        return 1
    if first.isascii() and first.isalpha():
        return -(-len(piece) // 12)
    if first.isascii() and first.isdigit():
        return -(-len(piece) // 3)
    return -(-len(piece.encode()) // 4)


class Local:
    """A tokenizer in this process, loaded at the first count."""

    in_process = True

    def __init__(self, name: str, source: TokenSource, load: Callable[[], Callable[[str], int]]) -> None:
        self.name = name
        self.source: TokenSource = source
        self._load = load
        self._count: Callable[[str], int] | None = None

    def count(self, text: str) -> int:
        """Tokens of the text."""
        if self._count is None:
            self._count = self._load()
        return self._count(text)

    def count_many(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each text."""
        return [self.count(text) for text in texts]


def estimate_tokenizer() -> Tokenizer:
    """The rule alone: for plans and bounds, where nothing may be loaded or called."""
    return Estimate()


def tokenizer_for(model: Model, base_url: str | None) -> Tokenizer:
    """The tokenizer that the model's config asks for, or the best there is.

    `base_url` is where the model really answers (a started server's address included).
    """
    asked = model.tokenizer
    if asked is None:
        return _best(model, base_url)
    if asked == "endpoint":
        return _endpoint(model, base_url)
    if asked == "estimate":
        return Estimate()
    if asked in _TIKTOKEN or asked in _PUBLISHED:
        return _packaged(asked, _source_by_family(model.name, asked), "model.tokenizer")
    return _from_file(asked)


def _endpoint(model: Model, base_url: str | None) -> Tokenizer:
    from llmexp.workload.remote import EndpointTokenizer

    if base_url is None:
        raise ConfigError("model.tokenizer: 'endpoint' needs model.base_url, or another tokenizer such as o200k_base")
    tokenizer = EndpointTokenizer(base_url, model.name, model.api_key_env)
    if not tokenizer.makes_sense():
        raise ConfigError(
            f"model.tokenizer: {base_url} has no /tokenize that counts; leave it null, or name one such as o200k_base"
        )
    return tokenizer


def _best(model: Model, base_url: str | None) -> Tokenizer:
    if isinstance(model.deployment, Simulated):
        return _simulated()
    if base_url is not None and model.api in ("openai", "litellm"):
        from llmexp.workload.remote import offered_by

        own = offered_by(base_url, model.name, model.api_key_env)
        if own is not None:
            return own
    family = _family(model.name)
    return _packaged(family.tokenizer, family.source, "model.name")


def _simulated() -> Tokenizer:
    from llmexp.workload import words

    return Local("simulator", "tokenizer", lambda: words.count)


# --- by name ---------------------------------------------------------------------------------------------------------


class _Family(NamedTuple):
    pattern: str
    tokenizer: str
    source: TokenSource


_FAMILIES = (
    _Family(r"gpt-4o|gpt-4\.[1-9]|gpt-[5-9]|gpt-oss|(^|/)o[1-9](-|$)", "o200k_base", "tokenizer"),
    _Family(r"gpt-4|gpt-3\.?5", "cl100k_base", "tokenizer"),
    _Family(r"claude-(v?[12]\b|instant)", "anthropic", "tokenizer"),
    _Family(r"claude", "anthropic", "estimate"),
    _Family(r"deepseek(?!.*distill).*(v[23]|r1|chat|reasoner)", "deepseek", "tokenizer"),
    _Family(r"", "o200k_base", "estimate"),
)


def _family(name: str) -> _Family:
    return next(family for family in _FAMILIES if re.search(family.pattern, name.lower()))


def _source_by_family(name: str, tokenizer: str) -> TokenSource:
    """A tokenizer that the user named is taken for the model's own, unless the name is known to have another."""
    family = _family(name)
    known = family.pattern != ""
    return family.source if known and family.tokenizer == tokenizer else "estimate" if known else "tokenizer"


# --- from files ------------------------------------------------------------------------------------------------------


def _packaged(name: str, source: TokenSource, key: str) -> Tokenizer:
    """A tokenizer whose file lies on this machine; the estimate rule where a model's name alone asked for it."""
    if name in _TIKTOKEN:
        folder = _tiktoken_folder(name)
        if folder is not None:
            return Local(name, source, partial(_tiktoken, name, folder))
    else:
        for folder in litellm_package.tokenizer_folders():
            path = folder / f"{name}_tokenizer.json"
            if path.exists():
                return Local(name, source, partial(_huggingface, path))
    if key == "model.name":
        return Estimate()
    raise ConfigError(f"{key}: the file of '{name}' is not on this machine; set TIKTOKEN_CACHE_DIR, or use 'estimate'")


def _tiktoken_folder(name: str) -> Path | None:
    file = sha1(_TIKTOKEN_URL.format(name).encode(), usedforsecurity=False).hexdigest()
    own = [Path(folder) for folder in (os.environ.get("TIKTOKEN_CACHE_DIR"),) if folder]
    return next((folder for folder in (*own, *litellm_package.tokenizer_folders()) if (folder / file).exists()), None)


def _tiktoken(name: str, folder: Path) -> Callable[[str], int]:
    import tiktoken

    with _environment("TIKTOKEN_CACHE_DIR", str(folder)):
        encode = tiktoken.get_encoding(name).encode_ordinary
    return lambda text: len(encode(text))


@contextmanager
def _environment(variable: str, value: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _from_file(asked: str) -> Tokenizer:
    path = Path(asked).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        known = ", ".join(("endpoint", *_TIKTOKEN, *_PUBLISHED, "estimate"))
        raise ConfigError(f"model.tokenizer: must be one of {known}, or the path of a tokenizer.json, got '{asked}'")
    count = _huggingface(path)
    return Local(path.stem if path.stem != "tokenizer" else str(path), "tokenizer", lambda: count)


def _huggingface(path: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer as Loaded

    try:
        encode = Loaded.from_file(str(path)).encode
    except Exception as error:  # noqa: BLE001 -- the library raises nothing narrower
        raise ConfigError(f"model.tokenizer: {path} is no tokenizer.json ({error})") from None
    return lambda text: len(encode(text, add_special_tokens=False).ids)
