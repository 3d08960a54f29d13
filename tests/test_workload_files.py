"""Prompts from files: every format, every name of a column, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from llmexp.config import Tokens, Workload
from llmexp.errors import ConfigError
from llmexp.workload import validate
from llmexp.workload.request import Message, Request
from llmexp.workload.source import Source
from llmexp.workload.text import nonce_text
from llmexp.workload.tokens import Estimate

ROWS = [{"prompt": f"Question number {at}?", "max_tokens": 10 + at} for at in range(5)]
SHAREGPT = [
    {
        "id": "a",
        "conversations": [
            {"from": "human", "value": "Name a river."},
            {"from": "gpt", "value": "The Rhine is one."},
            {"from": "human", "value": "And a second?"},
            {"from": "gpt", "value": "The Po."},
        ],
    },
    {"id": "b", "conversations": [{"from": "gpt", "value": "An answer without a question."}]},
    {
        "id": "c",
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Name a hill."},
            {"from": "gpt", "value": "No."},
        ],
    },
]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def source(file: str, nonce: str = "job", **keys: Any) -> Source:
    workload = Workload.model_validate({"kind": "file", "file": file, **keys})
    return Source(workload, Estimate(), seed=1, nonce=nonce)


def behind_nonce(request: Request, number: int, stream: str = "") -> str:
    content = request.messages[0].text
    head = f"{nonce_text('job', stream, number)}\n\n"
    assert content.startswith(head)
    return content.removeprefix(head)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_rows_are_sent_in_order_with_their_budgets(tmp_path: Path, name: str) -> None:
    made = source(write(tmp_path, name, ROWS))
    requests = [made.request(index) for index in range(7)]
    assert made.size == 5
    assert [behind_nonce(request, request.index) for request in requests] == [
        ROWS[at]["prompt"] for at in (0, 1, 2, 3, 4, 0, 1)
    ]
    assert [request.max_tokens for request in requests] == [10, 11, 12, 13, 14, 10, 11]
    assert all(request.input_tokens == Estimate().count(request.messages[0].text) for request in requests)
    assert requests[0].prompt_digest == requests[5].prompt_digest != requests[1].prompt_digest
    assert behind_nonce(made.request(0, warmup=True), 0, "warmup/") == ROWS[4]["prompt"]
    assert made.mean_tokens()[1] == 12
    assert made.declared_cache_share() == 0


@pytest.mark.parametrize(
    "row",
    [
        {"Prompt": "Why?", "Output Tokens": 7},
        {"question": "Why?", "output_len": "7"},
        {"text": "Why?", "max_completion_tokens": 7.0},
        {"messages": [{"role": "user", "content": "Why?"}], "completion_tokens": 7},
        {"messages": json.dumps([{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]), "output_length": 7},
    ],
)
def test_columns_are_known_by_many_names(tmp_path: Path, row: dict[str, Any]) -> None:
    request = source(write(tmp_path, "rows.jsonl", [row])).request(0)
    assert behind_nonce(request, 0) == "Why?"
    assert request.max_tokens == 7


def test_sharegpt_chats_go_up_to_their_first_answer(tmp_path: Path) -> None:
    made = source(write(tmp_path, "sharegpt.json", SHAREGPT))
    assert made.size == 2
    first, second = made.request(0), made.request(1)
    assert [message.role for message in first.messages] == ["user"]
    assert behind_nonce(first, 0) == "Name a river."
    assert first.max_tokens == Estimate().count("The Rhine is one.")
    assert [message.role for message in second.messages] == ["system", "user"]
    assert behind_nonce(second, 1) == "Be brief."
    drawn = source(
        write(tmp_path, "sharegpt.json", SHAREGPT), output_tokens={"mean": 9}, instruction="Use {output_tokens}."
    )
    assert drawn.request(1).max_tokens == 9
    assert drawn.request(1).messages[-1].text == "Name a hill.\n\nUse 9."


def test_sharegpt_chats_make_conversations(tmp_path: Path) -> None:
    file = write(tmp_path, "sharegpt.json", SHAREGPT)
    workload = Workload(kind="conversation", file=file, turns=2, output_tokens=Tokens(mean=6))
    made = Source(workload, Estimate(), seed=1, nonce="job")
    first, second = made.request(0), made.request(1)
    assert behind_nonce(first, 0) == "Name a river."
    history = (*first.messages, Message("assistant", "The Elbe."))
    assert made.request(1, history=history).messages == (*history, Message("user", "And a second?"))
    assert second.messages[0] == first.messages[0]
    assert made.size == 2
    with pytest.raises(ConfigError, match=r"workload\.turns: .* has 3 turns"):
        validate(workload.model_copy(update={"turns": 3}))
    one = Source(workload.model_copy(update={"turns": 1}), Estimate(), seed=1, nonce="job").request(1)
    assert [message.role for message in one.messages] == ["system", "user"]
    assert behind_nonce(one, 1) == "Be brief."


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.6805900,374,44"),
        ("Timestamp,Model,Request tokens,Response tokens", "5,ChatGPT,374,44"),
        ("timestamp,input_length,output_length", "0,374,44"),
    ],
)
def test_a_traces_lengths_become_prompts(tmp_path: Path, head: str, row: str) -> None:
    (tmp_path / "trace.csv").write_text(f"{head}\n{row}\n")
    made = source(str(tmp_path / "trace.csv"))
    request = made.request(0)
    assert (request.input_tokens, request.max_tokens) == (374, 44)
    assert Estimate().count(request.messages[0].text) == 374
    assert made.mean_tokens() == (374, 44)
    assert made.context_tokens() == 374 + 44
    assert request.messages != source(str(tmp_path / "trace.csv"), nonce="b").request(0).messages


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "cannot be read"),
        ("rows.txt", "x", r"must end in one of \.jsonl"),
        ("rows.jsonl", "", "no rows"),
        ("rows.jsonl", "{", "does not parse as jsonl"),
        ("rows.json", "{}", "must be a list"),
        ("rows.jsonl", '{"prompt": "a", "max_tokens": 1}\n{"answer": "b"}\n', "row 2 .* neither a prompt"),
        ("rows.jsonl", '{"messages": [{"role": "robot", "content": "a"}]}\n', "row 1 .* role 'robot'"),
        ("rows.jsonl", '["a"]\n', "row 1 "),
        ("rows.parquet", "no parquet", "does not parse as parquet"),
    ],
)
def test_a_bad_file_is_named_with_its_row(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"workload\.file: .*{message}"):
        validate(Workload(kind="file", file=str(tmp_path / name)))


def test_prompts_without_any_budget_ask_for_one(tmp_path: Path) -> None:
    file = write(tmp_path, "rows.jsonl", [{"prompt": "Why?"}])
    with pytest.raises(ConfigError, match=r"workload\.output_tokens\.mean: must be given"):
        validate(Workload(kind="file", file=file))
