"""Prompts of drawn lengths with pictures before the text: for models that see."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from llmexp.config import Workload
from llmexp.workload.kit import Kit
from llmexp.workload.lengths import seeded
from llmexp.workload.pictures import picture
from llmexp.workload.request import Image, Message, Part, Request, Text
from llmexp.workload.synthetic import Synthetic


class Images(Synthetic):
    """`kind: images`. A synthetic prompt whose message begins with `workload.images.count` pictures, no two alike.

    The nonce stands before the pictures too, or a cache could serve those of an earlier job.
    """

    def __init__(self, workload: Workload, kit: Kit) -> None:
        super().__init__(workload, kit)
        self._images = workload.images
        self._pictures_of = kit.inside("images")

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:
        """The request of an index."""
        made = super().request(index, warmup, history)
        nonce = self._pictures_of.spot(index, warmup=warmup).nonce()
        pictures: list[Part] = [self._picture(index, number, warmup=warmup) for number in range(self._images.count)]
        content: tuple[Part, ...] = (Text(nonce), *pictures, Text(made.messages[0].text))
        counted = made.input_tokens + self._pictures_of.composer.count(nonce)
        return replace(made, messages=(Message("user", content),), input_tokens=counted)

    def _picture(self, index: int, number: int, *, warmup: bool) -> Image:
        spot = self._pictures_of.spot(index, warmup=warmup)
        draw = Random(seeded(spot.kit.seed, f"{spot.stream}{number}", index))
        made = picture(draw, self._images.width, self._images.height, self._images.format)
        return Image(f"image/{self._images.format}", base64.b64encode(made).decode())

    def notes(self) -> list[str]:
        """That the tokenizer counts no images."""
        return [*super().notes(), "images are not in the tokenizer's counts of the input; the server's count has them"]
