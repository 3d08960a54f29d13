"""The files that a job names travel to the hosts that prepare its requests: they are not looked for there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from llmexp.config import Config, load
from llmexp.json_types import texts

FOLDER = "files"
_IMAGE = re.compile(rb'"((?:[^"\\\n]){1,500}\.(?:png|jpe?g|gif|webp))"', re.IGNORECASE)
Luggage = Mapping[str, Mapping[str, bytes]]
"""A file's path as the config names it → the file, first, and what it needs beside it: name → content."""


def pack(config: Config) -> Luggage:
    """Every file that preparing a request reads, images that rows name among them."""
    tree = config.model_dump(mode="json", by_alias=True)
    named = [*texts(tree["workload"]), *texts(tree["model"]["tokenizer"])]
    return {name: _with_images(Path(name)) for name in dict.fromkeys(named) if _is_file(name)}


def _with_images(path: Path) -> dict[str, bytes]:
    """A file and the images that it names, which lie beside it when it arrives."""
    images: dict[str, bytes] = {}

    def renamed(found: re.Match[bytes]) -> bytes:
        image = path.parent / found[1].decode(errors="replace")
        if not _is_file(str(image)):
            return found[0]
        place = f"images/{len(images)}{image.suffix}"
        images[place] = image.read_bytes()
        return f'"{place}"'.encode()

    content = path.read_bytes()
    if path.suffix.lower() in (".jsonl", ".json"):
        content = _IMAGE.sub(renamed, content)
    return {path.name: content, **images}


def unpack(config: Config, files: Luggage, directory: Path) -> Config:
    """Write the files below `directory`; the config that names them there. Without files, the config as it is."""
    if not files:
        return config
    there: dict[str, str] = {}
    for number, (name, parts) in enumerate(files.items()):
        folder = directory / FOLDER / str(number)
        for part, content in parts.items():
            path = folder / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # The file keeps its name, which says how it is to be read.
        there[name] = str(folder / next(iter(parts)))
    tree = config.model_dump(mode="json", by_alias=True)
    tree["workload"] = _renamed(tree["workload"], there)
    tree["model"]["tokenizer"] = _renamed(tree["model"]["tokenizer"], there)
    return load(tree)


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
