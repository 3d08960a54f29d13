"""The files that a job names travel to the hosts that prepare its requests: they are not looked for there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llmexp.config import Config, load

FOLDER = "files"


def pack(config: Config) -> dict[str, bytes]:
    """Path as the config names it → content, of every file that preparing a request reads."""
    tree = config.model_dump(mode="json", by_alias=True)
    named = [*_texts(tree["workload"]), *_texts(tree["model"]["tokenizer"])]
    return {name: Path(name).read_bytes() for name in dict.fromkeys(named) if _is_file(name)}


def unpack(config: Config, files: Mapping[str, bytes], directory: Path) -> Config:
    """Write the files below `directory`; the config that names them there. Without files, the config as it is."""
    if not files:
        return config
    there: dict[str, str] = {}
    for number, (name, content) in enumerate(files.items()):
        folder = directory / FOLDER / str(number)
        folder.mkdir(parents=True)
        # The name says how a file is to be read.
        path = folder / Path(name).name
        path.write_bytes(content)
        there[name] = str(path)
    tree = config.model_dump(mode="json", by_alias=True)
    tree["workload"] = _renamed(tree["workload"], there)
    tree["model"]["tokenizer"] = _renamed(tree["model"]["tokenizer"], there)
    return load(tree)


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _is_file(name: str) -> bool:
    try:
        return bool(name) and Path(name).is_file()
    except (OSError, ValueError):
        return False


def _renamed(node: object, names: Mapping[str, str]) -> object:
    if isinstance(node, str):
        return names.get(node, node)
    if isinstance(node, Mapping):
        return {key: _renamed(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    return node
