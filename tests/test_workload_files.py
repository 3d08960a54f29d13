"""Prompts from files: every format, every name of a column, and what is refused."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import json
import lzma
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmexp.config import Tokens, Workload
from llmexp.errors import ConfigError
from llmexp.workload import validate
from llmexp.workload.request import Image, Message, Request
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
        ("arrived_at,num_prefill_tokens,num_decode_tokens", "0.5,374,44"),
        ("arrival_timestamp,prompt_size,token_size", "0.5,374,44"),
        ("timestamp,isl,osl", "0,374,44"),
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


# --- layouts that people have ----------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Rome"}'}}
RAG = "One.\n\nT\nTwo.\n\nWhy?"
LAYOUTS: dict[str, tuple[object, list[tuple[str, str]], str | None]] = {
    "evals": (
        {
            "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            "ideal": "Because",
        },
        [("system", "Be brief."), ("user", "Why?")],
        None,
    ),
    "batch": (
        {"custom_id": "1", "body": {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 7}},
        [("user", "Why?")],
        None,
    ),
    "prompt of messages": ({"prompt": [{"role": "user", "content": "Why?"}]}, [("user", "Why?")], None),
    "alpaca": (
        {"instruction": "Translate.", "input": "Warum?", "output": "Why is it so?"},
        [("user", "Translate.\n\nWarum?")],
        "Why is it so?",
    ),
    "alpaca without input": (
        {"instruction": "Say why.", "input": "", "output": "Because.", "text": "Below is an instruction …"},
        [("user", "Say why.")],
        "Because.",
    ),
    "dolly": (
        {"instruction": "Sum up.", "context": "A text.", "response": "Done."},
        [("user", "Sum up.\n\nA text.")],
        "Done.",
    ),
    "openorca": (
        {"id": "1", "system_prompt": "Be kind.", "question": "Why?", "response": "So be it."},
        [("system", "Be kind."), ("user", "Why?")],
        "So be it.",
    ),
    "mt-bench": ({"question_id": 81, "turns": ["Write it.", "Again."]}, [("user", "Write it.")], None),
    "messages alone": (
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
        [("user", "Why?")],
        "So.",
    ),
    "a call of a tool": (
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "Sun."},
                {"role": "assistant", "content": "It is sunny."},
            ],
            "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
        },
        [("user", "Weather?")],
        'look_up{"city": "Rome"}',
    ),
    "gemini": (
        {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}, {"role": "model", "parts": [{"text": "So."}]}]},
        [("user", "Why?")],
        "So.",
    ),
    "bedrock": (
        {"system": [{"text": "Be brief."}], "messages": [{"role": "user", "content": [{"text": "Why?"}]}]},
        [("system", "Be brief."), ("user", "Why?")],
        None,
    ),
    "mt-bench's prompts": (
        {"prompt": ["Write it.", "Again."], "prompt_id": 81, "category": "writing"},
        [("user", "Write it.")],
        None,
    ),
    "ultrachat": ({"id": "0", "data": ["Why?", "So.", "And?"]}, [("user", "Why?")], "So."),
    "a whole request to gemini": (
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": "Why?"}]}],
            "generationConfig": {"temperature": 0, "maxOutputTokens": 5},
        },
        [("system", "Be brief."), ("user", "Why?")],
        None,
    ),
    "a request in a batch": (
        {"custom_id": "1", "params": {"system": "Be brief.", "messages": [{"role": "user", "content": "Why?"}]}},
        [("system", "Be brief."), ("user", "Why?")],
        None,
    ),
    "instructions": ({"instructions": "Be brief.", "input": "Why?"}, [("system", "Be brief."), ("user", "Why?")], None),
    "settings beside the prompt": ({"inputs": "Why?", "parameters": {"max_new_tokens": 5}}, [("user", "Why?")], None),
    "messages as Python prints them": (
        {"prompt": "[{'role': 'user', 'content': \"Why's that?\"}\n {'role': 'assistant', 'content': 'So.'}]"},
        [("user", "Why's that?")],
        "So.",
    ),
    "passages": ({"question": "Why?", "documents": ["One.", {"title": "T", "text": "Two."}]}, [("user", RAG)], None),
    "passages in a cell": ({"question": "Why?", "contexts": "['One.', 'T\\nTwo.']"}, [("user", RAG)], None),
    "hotpotqa": (
        {"question": "Why?", "context": {"title": ["T", "U"], "sentences": [["One.", " Two."], ["Three."]]}},
        [("user", "T\nOne. Two.\n\nU\nThree.\n\nWhy?")],
        None,
    ),
    "one part as content": (
        {"messages": [{"role": "user", "content": {"type": "text", "text": "Why?"}}]},
        [("user", "Why?")],
        None,
    ),
    "messages in a text": ({"prompt": '[{"role": "user", "content": "Why?"}]'}, [("user", "Why?")], None),
    "a viewer's row": ({"row_idx": 0, "row": {"prompt": "Why?"}}, [("user", "Why?")], None),
    "content under value": ({"messages": [{"role": "human", "value": "Why?"}]}, [("user", "Why?")], None),
    "text beside its ids": ({"prompt": "Why?", "prompt_token_ids": [5, 6, 7]}, [("user", "Why?")], None),
    "sharegpt with tools": (
        {
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": '{"name": "look_up"}'},
                {"from": "observation", "value": "Sun."},
            ]
        },
        [("user", "Weather?")],
        '{"name": "look_up"}',
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_whole(tmp_path: Path, name: str) -> None:
    row, messages, reply = LAYOUTS[name]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    made = source(str(tmp_path / "rows.jsonl"), **({} if reply else {"output_tokens": {"mean": 5, "dist": "fixed"}}))
    request = made.request(0)
    first = (messages[0][0], behind_nonce(request, 0))
    assert [first, *[(message.role, message.text) for message in request.messages[1:]]] == messages
    if reply:
        assert request.max_tokens == Estimate().count(reply)
    assert [tool.name for tool in request.tools] == (["look_up"] if name == "a call of a tool" else [])


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("picture", ["a.png", ["a.png"], {"bytes": PNG, "path": None}, "https://host/a.png"])
def test_pictures_beside_a_prompt_go_before_it(tmp_path: Path, picture: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.png").write_bytes(PNG)
    rows = pa.Table.from_pylist([{"question": "What is it?", "image": picture, "max_tokens": 5}])
    pq.write_table(rows, tmp_path / "rows.parquet")
    made = source(str(tmp_path / "rows.parquet"), instruction="Be brief.")
    (message,) = made.request(0).messages
    (shown,) = [part for part in message.parts if isinstance(part, Image)]
    assert shown.url or shown.data == base64.b64encode(PNG).decode()
    assert message.text.endswith("What is it?\n\nBe brief.")


@pytest.mark.parametrize(
    "row", [{"prompt": [5, 6, 7]}, {"prompt": [[5, 6, 7]]}, {"prompt_token_ids": [5, 6, 7]}, [5, 6, 7]]
)
def test_token_ids_stand_for_their_number(tmp_path: Path, row: object) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"input_tokens": 90, "max_tokens": 4}) + "\n" + json.dumps(row))
    made = source(str(tmp_path / "rows.jsonl"), output_tokens={"mean": 4, "dist": "fixed"})
    assert (made.size, made.request(0).input_tokens) == (2, 90)
    assert made.context_tokens() >= 94
    [note] = made.notes()
    assert note.startswith("workload.file: 1 of 2 rows are token ids; text of as many tokens is sent in their place")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"prompt": "Say hi \ud83d to me", "max_tokens": 3}, r"half of a character \(\\ud83d\)"),
        ({"input_length": 472, "output_length": 0}, "the request failed"),
        ({"conversations": [{"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Hi."}]}, "does not begin"),
        ({"messages": [{"role": "user", "content": None}], "max_tokens": 3}, "message of the user has no content"),
        ({"messages": [{"role": "user", "content": math.nan}], "max_tokens": 3}, "message of the user has no content"),
        ({"messages": [{"role": "system", "content": []}], "max_tokens": 3}, "message of the system has no content"),
        ({"messages": [], "max_tokens": 3}, "the chat holds no message"),
        ({"prompt": "", "max_tokens": 3}, "its prompt is empty"),
        ({"conversations": []}, "the chat holds no message"),
    ],
)
def test_a_row_that_cannot_be_sent_is_left_out_counted_and_named(
    tmp_path: Path, bad: dict[str, object], reason: str
) -> None:
    rows = [{"prompt": f"Question {at}?", "max_tokens": 3} for at in range(7)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in [*rows[:3], bad, *rows[3:]]))
    made = source(str(tmp_path / "rows.jsonl"))
    assert made.size == 7
    [note] = made.notes()
    assert re.search(rf"^workload\.file: 1 of 8 rows left out \(row 4 \(line 7\)\): .*{reason}", note)


def test_turns_that_are_not_sent_are_told(tmp_path: Path) -> None:
    [note] = source(write(tmp_path, "sharegpt.json", [SHAREGPT[0]])).notes()
    assert "1 of 1 rows have further turns" in note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", '{"prompt": "a"}\n\n{"prompt": b}\n', r"row 2 \(line 3\), column 12: Expecting value"),
        ("r.jsonl", '{"prompt": "a", "max_tokens": "nan"}\n', "row 1 .* column 'max_tokens' holds 'nan'"),
        ("r.jsonl", '{"prompt": "a", "max_tokens": -3}\n', "row 1 .* column 'max_tokens' holds '-3'"),
        ("r.jsonl", '{"prompt": "a", "max_tokens": 1e400}\n', "row 1 .* column 'max_tokens' holds 'inf'"),
        ("r.jsonl", f'{{"prompt": "a", "max_tokens": 1{"0" * 400}}}\n', "row 1 .* column 'max_tokens' holds '1000"),
        ("r.jsonl", '{"prompt": "a", "max_tokens": true}\n', "row 1 .* column 'max_tokens' holds 'True'"),
        ("r.jsonl", '{"prompt": true}\n', "row 1 .* a text was expected, not true or false"),
        ("r.jsonl", '{"prompt": {"a": 1}}\n', "row 1 .* message 1 says not who speaks"),
        ("r.jsonl", '{"prompt": null}\n', r"rows left out \(row 1\): its prompt is empty"),
        ("r.jsonl", '{"prompt": ["a", "b"]}\n', "row 1 .* a list of 2 values is neither"),
        ("r.jsonl", '{"instruction": ["a"]}\n', "row 1 .* a text was expected, not a list"),
        ("r.jsonl", '{"messages": [{"role": "user", "content": false}]}\n', "row 1 .* not true or false"),
        ("r.jsonl", '{"prompt": "a", "tools": {"b": 1}}\n', "row 1 .* tools must be a list"),
        ("r.jsonl", '{"prompt": "a",}\n', "row 1, column 16"),
        ("r.jsonl", '{"input_length": 2000000000}\n', "column 'input_length' holds '2000000000', more tokens than any"),
        ("r.jsonl", "5\n", "row 1 .* it is a number, not an object"),
        ("r.jsonl", "[\n]\n{}\n", "row 1, column 2: Expecting value"),
        ("r.json", '{"prompt": "a"}', "the outermost value must be a list, or an object with one under data"),
        ("r.csv", "prompt,prompt\na,b\n", "two columns are named 'prompt'"),
        ("r.jsonl", '[["a"]]\n', "row 1 .* neither messages nor token ids"),
        ("r.jsonl", "[" * 5000, "nested too deeply"),
        ("r.csv", "prompt,max_tokens\nWhy?,nan\n", r"row 1 \(line 2\) .* column 'max_tokens' holds 'nan'"),
        ("r.csv", 'prompt,max_tokens\n"a\nb",5\nc, d,5\n', r"row 2 \(line 4\) has more cells than the head"),
        ("r.csv", 'prompt,max_tokens\n"never closed,5\nb,5\n', "line 2: unexpected end of data"),
        ("r.json", '[{"prompt": "a"},\n {"prompt" "b"}]', "line 2, column 12: Expecting ':'"),
    ],
)
def test_a_fault_is_named_with_row_and_column(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"workload\.file: .*{message}"):
        source(str(tmp_path / name), output_tokens={"mean": 5, "dist": "fixed"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", '[\n{"prompt": "Why?",\n "max_tokens": 5}\n]'),
        ("r.jsonl", '[{"prompt": "Why?", "max_tokens": 5}, {"prompt": "So?", "max_tokens": 5}]'),
        ("r.json", '{"prompt": "Why?", "max_tokens": 5}\n\n{"prompt": "So?", "max_tokens": 5}\n'),
        ("r.json", '{"version": 1, "data": [{"prompt": "Why?", "max_tokens": 5}]}'),
        ("r.json", '\ufeff[{"prompt": "Why?", "max_tokens": 5}]'),
        ("r.jsonl", '\ufeff{"prompt": "Why?", "max_tokens": 5}\r\n\r\n'),
        ("r.jsonl", '{"prompt": "no", "max_tokens": 1, "prompt": "Why?", "max_tokens": 5}'),
        ("r.csv", "\ufeffprompt;max_tokens\r\nWhy?;5\r\n"),
        ("r.csv", 'prompt\tmax_tokens\n"Why?"\t5\n'),
        ("r.csv", ',prompt,max_tokens\n0,"Why?",5.0\n'),
        ("r.tsv", "prompt\tmax_tokens\nWhy?\t5\n"),
        ("r.csv", 'prompt;"max_tokens";"note, long"\nWhy?;5;a\n'),
        ("r.jsonl", '# made by hand\n{"prompt": "Why?", "max_tokens": 5},\n// the end\n'),
        ("r.jsonl", '{\n "prompt": "Why?",\n "max_tokens": 5\n}\n{\n "prompt": "So?",\n "max_tokens": 5\n}\n'),
        ("r.json", '{"prompt": ["Why?", "So?"], "max_tokens": [5, 6]}'),
        ("r.json", '{"prompt": {"0": "Why?", "1": "So?"}, "max_tokens": {"0": 5, "1": 6}}'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_forms_that_files_have(tmp_path: Path, name: str, content: str, packed: bool) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    request = source(str(path)).request(0)
    assert (behind_nonce(request, 0), request.max_tokens) == ("Why?", 5)


def zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("r.jsonl.bz2", bz2.compress),
        ("r.jsonl.xz", lzma.compress),
        ("r.jsonl.zst", zstandard),
        ("r.jsonl", lambda data: data.decode().encode("utf-16")),
    ],
)
def test_other_ways_to_pack_and_to_write(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / name).write_bytes(pack(b'{"prompt": "Why?", "max_tokens": 5}\n' * 3))
    assert source(str(tmp_path / name)).size == 3


@pytest.mark.parametrize("content", [b"PK\x03\x04\x00", b"PAR1\x15\x04"])
def test_a_file_of_another_kind_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=r"workload\.file: .* \(it is (Parquet|a zip archive)"):
        source(str(tmp_path / "r.csv"))


@pytest.mark.parametrize("content", [b"\x1f\x8b", gzip.compress(b'{"prompt": "a"}\n' * 99)[:-9], b"\x1f\x8bnot packed"])
def test_a_damaged_packed_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.jsonl.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"workload\.file: cannot be read, got '.*r\.jsonl\.gz' \(.+\)"):
        source(str(tmp_path / "r.jsonl.gz"))


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("prompt,max_tokens\ncafé,5\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(.*0xe9\)"):
        source(str(tmp_path / "r.csv"))


def test_a_cell_of_any_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"prompt,max_tokens\n{'x' * 300_000},5\n")
    assert len(source(str(tmp_path / "r.csv")).request(0).messages[0].text) > 300_000


def test_the_older_name_of_the_option_is_the_same_workload() -> None:
    from omegaconf import OmegaConf

    shipped = Path(__file__).parents[1] / "conf" / "workload"
    assert OmegaConf.load(shipped / "sharegpt.yaml") == OmegaConf.load(shipped / "file.yaml")
