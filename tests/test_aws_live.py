"""A smoke test with real credentials: `LLMEXP_LIVE=1 pytest -m live`. It costs a fraction of a cent a model."""

from __future__ import annotations

import os
import re
import socket
import ssl
import time

import pytest
from omegaconf import OmegaConf

from llmexp.clients import build
from llmexp.clients.base import Answer, Response
from llmexp.clients.http import unframe
from llmexp.config import Model
from llmexp.workload.request import Message, Request

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.environ.get("LLMEXP_LIVE") != "1", reason="needs LLMEXP_LIVE=1 and real credentials"),
]


def _exchange(model: Model) -> Answer:
    client = build(model)
    request = Request(0, (Message("user", "Count from 1 to 9."),), 32, 9, "")
    http = client.sign(client.prepare(request))
    stamps, pieces = [], []
    with socket.create_connection((client.target.host, client.target.port), timeout=30) as plain:
        connection = ssl.create_default_context().wrap_socket(plain, server_hostname=client.target.host)
        with connection:
            connection.sendall(http.with_headers((*http.headers, ("Connection", "close"))).encode(client.target))
            while data := connection.recv(65536):
                stamps.append(time.monotonic_ns())
                pieces.append(data)
    response: Response = unframe(stamps, pieces, eof=True)
    return client.explain(response)


@pytest.mark.parametrize("name", ["sonnet", "haiku", "nova", "llama_bedrock", "llama"])
def test_live(name: str) -> None:
    if name == "llama" and not os.environ.get("LLMEXP_SAGEMAKER_ENDPOINT"):
        pytest.skip("needs LLMEXP_SAGEMAKER_ENDPOINT")
    tree = OmegaConf.to_container(OmegaConf.load(f"conf/model/{name}.yaml"), resolve=True)
    answer = _exchange(Model.model_validate(tree))
    assert answer.failure is None
    assert answer.finished
    assert re.search(r"[1-9]", "".join(event.text for event in answer.events))
    assert answer.usage.output_tokens
