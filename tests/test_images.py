"""Pictures: files that other programs read, of the size asked for, the same each time and no two alike."""

import base64
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image as Pictures

from llmexp.config import Workload
from llmexp.workload.pictures import picture
from llmexp.workload.request import Image
from llmexp.workload.source import Source
from llmexp.workload.tokens import Estimate


def source(nonce: str = "job", **fields: Any) -> Source:
    return Source(Workload.model_validate(fields), Estimate(), seed=1, nonce=nonce)


def images(made: Source, index: int, *, warmup: bool = False) -> list[str]:
    (message,) = made.request(index, warmup=warmup).messages
    return [part.data for part in message.parts if isinstance(part, Image)]


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (7, 3), (129, 65)])
def test_pictures_are_what_they_say(kind: str, width: int, height: int) -> None:
    read = Pictures.open(io.BytesIO(picture(Random(1), width, height, kind)))
    read.load()
    assert (read.size, read.format) == ((width, height), kind.upper())
    other = Pictures.open(io.BytesIO(picture(Random(1), width, height, "png" if kind == "jpeg" else "jpeg")))
    near = [abs(a - b) for a, b in zip(read.getpixel((0, 0)), other.getpixel((0, 0)), strict=True)]  # type: ignore[arg-type]
    assert max(near) <= 3


def test_each_request_has_as_many_as_asked_all_different_and_the_same_in_every_job() -> None:
    told = {"kind": "images", "images": {"count": 2, "width": 32, "height": 16, "format": "jpeg"}}
    told |= {"input_tokens": {"mean": 30}, "output_tokens": {"mean": 5}}
    made, again = source(**told), source(nonce="other", **told)
    sent = [data for index in range(5) for data in images(made, index)]
    sent += [data for index in range(3) for data in images(made, index, warmup=True)]
    assert len(set(sent)) == len(sent) == 16
    assert images(made, 3) == images(again, 3)
    one, other = made.request(3), again.request(3)
    assert one.messages != other.messages
    assert one.prompt_digest == other.prompt_digest
    size = Pictures.open(io.BytesIO(base64.b64decode(sent[0]))).size
    assert size == (32, 16)


def test_paths_of_pictures_start_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture(Random(1), 8, 8, "png"))
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "pictures/a.png"}}]
    row = {"messages": [{"role": "user", "content": parts}], "output_tokens": 5}
    for kind, record in (("file", row), ("sessions", {"turns": [row]})):
        path = tmp_path / f"{kind}.jsonl"
        path.write_text(json.dumps(record) + "\n")
        (data,) = images(source(kind=kind, file=str(path)), 0)
        assert base64.b64decode(data) == (tmp_path / "pictures" / "a.png").read_bytes()
