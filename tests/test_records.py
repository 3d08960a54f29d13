"""Records survive the way to disk and back, a killed process included."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.samples import failure, record

from llmexp import records
from llmexp.records import Record, Writer, iterate, read, schema, to_batch, to_parquet

ANCHOR = {"wall_ns": 1_700_000_000_000_000_000, "monotonic_ns": 12_345}
CONTRACT = [
    "index",
    "worker",
    "intended_ns",
    "dispatched_ns",
    "sent_ns",
    "wait_s",
    "connect_s",
    "first_byte_ns",
    "first_token_ns",
    "first_answer_token_ns",
    "last_token_ns",
    "end_ns",
    "chunk_ns",
    "chunk_tokens",
    "input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "input_tokens_source",
    "output_tokens_source",
    "reasoning_tokens_source",
    "cached_tokens_source",
    "finish_reason",
    "error_class",
    "error_code",
    "error_message",
    "prompt_digest",
]
SOME = [record(0, chunks=[0.2, 0.4]), failure(1), record(2, sent=None, status="failed", text="né\n"), record(3, turn=2)]


def written(directory: Path, *batches: list[Record]) -> Path:
    with Writer(directory, ANCHOR) as writer:
        for batch in batches:
            writer.append(to_batch(batch))
    return directory


def test_columns_are_the_contracts_then_our_own() -> None:
    assert schema().names[: len(CONTRACT)] == CONTRACT
    assert set(schema().names) == {field.name for field in dataclasses.fields(Record)}
    assert schema().field("chunk_ns").type == pa.list_(pa.int64())
    assert schema().field("chunk_tokens").type == pa.list_(pa.int32())


@pytest.mark.parametrize("convert", [False, True])
def test_both_forms_give_back_every_value(tmp_path: Path, convert: bool) -> None:
    written(tmp_path, SOME[:1], SOME[1:], [])
    if convert:
        assert to_parquet(tmp_path) == tmp_path / "requests.parquet"
        assert [path.name for path in tmp_path.iterdir()] == ["requests.parquet"]
    assert list(records.records(tmp_path)) == SOME
    assert read(tmp_path).num_rows == 4
    assert read(tmp_path).schema.equals(schema())
    assert records.anchor(tmp_path) == ANCHOR
    assert records.metadata(tmp_path)[b"schema_version"] == b"1"
    assert sum(batch.num_rows for batch in iterate(tmp_path)) == 4


def test_other_tools_read_the_files(tmp_path: Path) -> None:
    written(tmp_path, SOME)
    with pa.ipc.open_stream((tmp_path / "requests.arrows").read_bytes()) as stream:
        assert stream.read_all().column("chunk_tokens").to_pylist()[0] == [1, 1]
    to_parquet(tmp_path)
    assert pq.read_table(tmp_path / "requests.parquet").column("error_class").to_pylist() == [
        None,
        "server",
        None,
        None,
    ]


def test_an_empty_job_is_a_readable_file(tmp_path: Path) -> None:
    written(tmp_path)
    assert read(tmp_path).num_rows == 0
    to_parquet(tmp_path)
    assert read(tmp_path).num_rows == 0
    assert records.anchor(tmp_path) == ANCHOR


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_yields_its_whole_batches(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    sizes = [(directory / "requests.arrows").stat().st_size for at in range(4) if written(directory, *[SOME] * at)]
    size = data.draw(st.integers(0, sizes[-1]))
    os.truncate(directory / "requests.arrows", size)
    whole = sum(size >= end - 8 for end in sizes[1:])
    assert read(directory).num_rows == 4 * whole
    to_parquet(directory)
    assert read(directory).num_rows == 4 * whole


def test_a_killed_writer_loses_no_appended_batch(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from support.samples import record
        from llmexp.records import Writer, to_batch
        writer = Writer(Path(sys.argv[1]), {"wall_ns": 1, "monotonic_ns": 2})
        for index in range(5):
            writer.append(to_batch([record(index)]))
        print("written", flush=True)
        sys.stdin.read()
    """)
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert [row.index for row in records.records(tmp_path)] == [0, 1, 2, 3, 4]


def test_the_newer_form_wins_when_both_exist(tmp_path: Path) -> None:
    to_parquet(written(tmp_path, SOME))
    written(tmp_path, SOME[:1])
    assert read(tmp_path).num_rows == 1
    to_parquet(tmp_path)
    assert read(tmp_path).num_rows == 1


def test_a_failed_conversion_keeps_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, SOME)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        to_parquet(tmp_path)
    assert not (tmp_path / "requests.parquet").exists()
    assert list(records.records(tmp_path)) == SOME


def test_bytes_that_are_no_batch_never_reach_the_file(tmp_path: Path) -> None:
    with Writer(tmp_path, ANCHOR) as writer:
        writer.append(to_batch(SOME))
        with pytest.raises((pa.ArrowInvalid, OSError)):
            writer.append(b"not a batch")
        assert writer.rows == 4
    assert list(records.records(tmp_path)) == SOME


def test_large_jobs_become_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmexp.records.file.ROW_GROUP_BYTES", 20_000)
    batches = [[record(at * 10 + one, chunks=[0.1] * 50) for one in range(10)] for at in range(20)]
    to_parquet(written(tmp_path, *batches))
    with pq.ParquetFile(tmp_path / "requests.parquet") as file:
        assert 2 <= file.num_row_groups <= 10
    assert [row.index for row in records.records(tmp_path)] == list(range(200))


def test_importing_the_module_is_light() -> None:
    script = "import sys, llmexp.records; print([m for m in ('pyarrow', 'numpy', 'ray') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize("form", ["arrows", "parquet"])
def test_files_of_earlier_versions_are_read_with_the_columns_of_today(tmp_path: Path, form: str) -> None:
    older = pa.table({"index": [0, 1], "conversation": [7, None], "turn": pa.array([2, 0], pa.int32())})
    if form == "parquet":
        pq.write_table(older, tmp_path / "requests.parquet")
    else:
        with pa.OSFile(str(tmp_path / "requests.arrows"), "wb") as file, pa.ipc.new_stream(file, older.schema) as out:
            out.write_table(older)
    table = read(tmp_path)
    assert table.schema.names == schema().names
    assert table.column("session").to_pylist() == [7, None]
    assert table.column("status").to_pylist() == [None, None]
    assert [row.session for row in records.records(tmp_path)] == [7, None]
    to_parquet(tmp_path)
    assert read(tmp_path).column("session").to_pylist() == [7, None]
