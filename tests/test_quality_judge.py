"""What a judge is asked, what its replies mean, and how its grades and those of rules end up in a job's files."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.samples import failure, record
from support.without_load import no_load  # noqa: F401 -- a fixture

from llmexp import records, regrade, results
from llmexp.benchmark import driver
from llmexp.config import Model, Quality, load
from llmexp.jobs.judges import judges_configs
from llmexp.jobs.measure import with_its_own_judge
from llmexp.jobs.spec import Spec
from llmexp.metrics.quality import right_answers
from llmexp.metrics.summary import observe
from llmexp.metrics.timeline import Span
from llmexp.quality.build import build
from llmexp.quality.grade import Given
from llmexp.quality.grading import TEXTS, answers, attach, grade_all, has_texts
from llmexp.quality.judge import Reply, filled, request, score_of, settled, verdict
from llmexp.quality.texts import without_thoughts
from llmexp.workload.request import ToolCall

pytestmark = pytest.mark.service

PATTERN = Quality().judge.answer
TOKENS = {"input_tokens": {"mean": 8}, "output_tokens": {"mean": 8}}
JUDGED = {"kind": "judge", "judge": {"model": "j", "concurrency": 3}}


def judge(**options: Any) -> Quality:
    return Quality.model_validate({"kind": "judge", "judge": {"model": "sonnet", **options}})


# --- replies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It says so.\nGRADE: RIGHT", 1.0),
        ("GRADE: WRONG", 0.0),
        ("**GRADE:** RIGHT", 1.0),
        ("**Grade**: Wrong", 0.0),
        ('{"grade": "RIGHT"}', 1.0),
        ("GRADE: right.", 1.0),
        ("First GRADE: RIGHT, no:\nGRADE: WRONG", 0.0),
        ("GRADE: 0.7", 0.7),
        ("GRADE: 7/10", 0.7),
        ("GRADE: 1", 1.0),
        ("GRADE: 7", None),
        ("GRADE: maybe", None),
        ("RIGHT", None),
        ("", None),
    ],
)
def test_grades_that_judges_name(reply: str, score: float | None) -> None:
    assert score_of(reply, PATTERN) == score


def test_a_pattern_of_one_s_own() -> None:
    assert score_of("Rating: [[8/10]]", r"\[\[(\d+/\d+)\]\]") == 0.8
    assert score_of("85 %", r"(\d+ ?%)") == 0.85


def test_holes_are_filled_once() -> None:
    given = Given("I say {expected} and {question}", ["x", "y"], question="Q {answer}")
    assert filled("{question}|{answer}|{expected}", given) == "Q {answer}|I say {expected} and {question}|x or y"
    called = Given("", {"a": 1}, (ToolCall("1", "look", "{}"),))
    assert filled("{answer} {expected} {other}", called) == '[{"name": "look", "arguments": "{}"}] {"a": 1} {other}'
    asked = request(3, "{question}", given, 7)
    assert (asked.index, asked.messages[0].text, asked.input_tokens) == (3, "Q {answer}", 7)


def test_votes_and_calls_that_fail() -> None:
    quality = judge()
    right, wrong = Reply("GRADE: RIGHT"), Reply("GRADE: WRONG")
    assert verdict(quality, [right]).right is True
    assert verdict(quality, [right, wrong, right]).right is True
    assert verdict(quality, [right, wrong, wrong]).right is False
    assert verdict(quality, [right, wrong, wrong]).note == "votes: 1, 0, 0"
    failed = verdict(quality, [right, right, Reply(None, "server 500")])
    assert (failed.status, failed.score, failed.right) == ("ungraded", None, None)
    assert "server 500" in str(failed.note)
    assert "no grade" in str(verdict(quality, [Reply("I cannot say")]).note)


def test_what_no_judge_needs_to_see() -> None:
    assert settled(judge(), Given("text", None)).status == "ungraded"  # type: ignore[union-attr]
    assert settled(judge(), Given(" … ", "x")).status == "unparsed"  # type: ignore[union-attr]
    assert settled(judge(), Given("text", "x")) is None
    assert settled(judge(rubric="Good? {answer}"), Given("text", None)) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>7 or 8?</think>\n8", "\n8"),
        ("7 or 8?</think>8", "8"),
        ("<think>7 or", ""),
        ("<Thinking>a</Thinking>b<think>c</think>d", "bd"),
        ("I think 8 > 7", "I think 8 > 7"),
    ],
)
def test_thoughts_in_the_text_are_no_answer(text: str, answer: str) -> None:
    assert without_thoughts(text) == answer


def test_nodes_are_asked_for_what_the_judges_need_too() -> None:
    config = load(
        {"model": {"name": "m"}, "workload": TOKENS, "load": {"kind": "constant", "rate": 2}, "quality": JUDGED}
    )
    (asked,) = judges_configs(config, (Model(name="j"),))
    assert (asked.model.name, asked.closed, asked.streams) == ("j", True, 3)


def test_a_model_that_judges_itself_is_remarked() -> None:
    config, now = load({"model": {"name": "m"}, "workload": TOKENS, "quality": JUDGED}), datetime.now(UTC)
    made = results.build(job=results.JobInfo(id="a", name="m"), status="finished", reason=None, started=now, config={})
    for name, count in (("m", 1), ("other", 0)):
        spec = Spec(config, {}, "m", (), 0, 0, judges=(Model(name=name),))
        assert len(with_its_own_judge(spec, made).notes.remarks) == count


# --- grades on disk --------------------------------------------------------------------------------------------------


def answered(index: int, text: str, expected: object, **more: Any) -> records.Record:
    return record(
        index,
        sent=index * 0.1,
        chunks=[index * 0.1 + 0.5],
        tokens=[4],
        text=text,
        expected=None if expected is None else json.dumps(expected),
        question=f"Q{index}",
        answer_digest=f"d{index}",
        truncated=False,
        **more,
    )


def job(folder: Path, rows: list[records.Record]) -> Path:
    with records.Writer(folder, {"wall_ns": 0, "monotonic_ns": 0}) as writer:
        for at in range(0, len(rows), 2):
            writer.append(records.to_batch(rows[at : at + 2]))
    records.to_parquet(folder)
    return folder


ROWS = [
    answered(0, "4", "4"),
    answered(1, "It is 5.", "4"),
    answered(2, "No idea", "4"),
    answered(3, "4", None),
    failure(4, text="4", expected='"4"', question="Q4"),
    answered(5, "#### 4", "#### 4"),
    answered(6, "It is 4 and fur", "4"),
]


def test_failures_truncated_unparsed_and_ungraded_answers_have_the_right_counts(tmp_path: Path) -> None:
    rows = [*ROWS, answered(7, "", "4"), answered(8, "4", "4", reasoning_streamed=True)]
    rows[6].truncated = True
    folder = job(tmp_path, rows)
    assert has_texts(folder)
    assert [given.question for _, given in answers(folder)] == [f"Q{at}" for at in (0, 1, 2, 3, 5, 6, 7, 8)]
    attach(folder, grade_all(folder, build(Quality(kind="number"))), keep_texts=False)
    table = pq.read_table(folder / records.PARQUET)
    statuses = ["graded", "graded", "unparsed", "ungraded", None, "graded", "graded", "unparsed", "graded"]
    assert table["grade_status"].to_pylist() == statuses
    assert table["right"].to_pylist() == [True, False, False, None, None, True, True, False, True]
    assert table["score"].to_pylist() == [1, 0, 0, None, None, 1, 1, 0, 1]
    for name in TEXTS:
        assert table[name].null_count == len(rows), name
    assert not any("read" in (note or "") for note in table["grade_note"].to_pylist())  # what was read is text too
    assert table["answer_digest"].to_pylist()[:2] == ["d0", "d1"]
    assert not has_texts(folder)
    numbers = right_answers(observe(folder), None, 0.8, None)
    assert (numbers["requests_graded"], numbers["requests_unparsed"], numbers["requests_ungraded"]) == (7, 2, 1)
    assert numbers["requests_truncated"] == 1
    assert numbers["right_share"] == pytest.approx(4 / 7)
    assert numbers["usd_per_thousand_right"] == pytest.approx(0.8 / 4 * 1000)
    assert numbers["score"]["count"] == 7  # type: ignore[index]
    low, high = numbers["right_share_low"], numbers["right_share_high"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert low < 4 / 7 < high


def test_kept_texts_can_be_graded_again(tmp_path: Path) -> None:
    folder = job(tmp_path, ROWS)
    attach(folder, grade_all(folder, build(Quality(kind="number"))), keep_texts=True)
    assert has_texts(folder)
    attach(folder, grade_all(folder, build(Quality(kind="exact"))), keep_texts=True)
    assert pq.read_table(folder / records.PARQUET)["right"].to_pylist() == [True, False, False, None, None, True, False]


def test_all_wrong_is_zero_and_nothing_right_has_no_price(tmp_path: Path) -> None:
    folder = job(tmp_path, [answered(0, "5", "4"), answered(1, "6", "4")])
    attach(folder, grade_all(folder, build(Quality(kind="number"))), keep_texts=False)
    numbers = right_answers(observe(folder), None, 1.0, None)
    assert numbers["right_share"] == 0
    assert numbers["usd_per_thousand_right"] is None
    assert numbers["right_per_s"] is None


def test_without_any_grade_there_is_no_rate_of_right_answers(tmp_path: Path) -> None:
    folder = job(tmp_path, [answered(0, "5", None), answered(1, "6", None)])
    attach(folder, grade_all(folder, build(Quality(kind="number"))), keep_texts=False)
    observed = observe(folder)
    numbers = right_answers(observed, Span(0, 10**9), 1.0, observed.completed)
    assert (numbers["requests_graded"], numbers["requests_ungraded"]) == (0, 2)
    absent = ("score", "right_share", "right_share_low", "right_per_s", "usd_per_thousand_right", "right_goodput_per_s")
    assert {numbers[name] for name in absent} == {None}  # type: ignore[arg-type]


def test_ten_thousand_answers_are_graded_in_seconds(tmp_path: Path) -> None:
    from time import process_time

    text = "First there were 12 apples, then 30 more came. " * 12 + "The answer is 42."
    rows = [answered(at, text, "42") for at in range(10_000)]
    with records.Writer(tmp_path, {"wall_ns": 0, "monotonic_ns": 0}) as writer:
        for at in range(0, len(rows), 500):
            writer.append(records.to_batch(rows[at : at + 500]))
    records.to_parquet(tmp_path)
    before = process_time()
    attach(tmp_path, grade_all(tmp_path, build(Quality(kind="number"))), keep_texts=False)
    assert process_time() - before < 10
    assert pq.read_table(tmp_path / records.PARQUET, columns=["right"])["right"].to_pylist() == [True] * 10_000


def test_wrong_answers_can_be_read_and_are_text(tmp_path: Path) -> None:
    from support import synthetic

    from llmexp import report
    from llmexp.report.answers import wrong
    from llmexp.results import Run

    folder = synthetic.write_job(tmp_path / "job", synthetic.Truth(requests=4, right=0.5), 1)
    rows = [answered(0, "<script>alert(1)</script> 5", "4"), answered(1, "4", "4"), answered(2, "none", ["4", "four"])]
    (folder / records.PARQUET).unlink()
    job(folder, rows)
    attach(folder, grade_all(folder, build(Quality(kind="number"))), keep_texts=True)
    run = Run.at(folder)
    shown = wrong(run, 10)
    assert [(each["index"], each["grade"]) for each in shown] == [
        ("0", "score 0: read: 5"),
        ("2", "unparsed, score 0: no number in the answer"),
    ]
    assert shown[1]["expected"] == '["4", "four"]'
    report.job(run)
    page = (folder / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 5" in page
    assert "Wrong answers" in page


# --- the door --------------------------------------------------------------------------------------------------------

GRADER = "name: grader\napi: openai\nbase_url: http://127.0.0.1:9/v1\n"


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[str]]:
    """What grades a job's kept answers anew by a judge whose price nobody knows."""
    from support import synthetic

    folder = synthetic.write_job(tmp_path / "job", synthetic.Truth(requests=4, right=0.5), 1)
    (folder / records.PARQUET).unlink()
    job(folder, [answered(at, "5", "5") for at in range(4)])
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "grader.yaml").write_text(GRADER)
    before = signal.getsignal(signal.SIGTERM)
    judge = ("quality=judge", "quality.judge.model=grader", "--config-dir", "conf")
    yield [str(folder), *judge]
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("no_load")
def test_a_judge_without_a_price_is_refused_where_the_user_set_a_limit(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(asked[0])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert regrade.main([*asked, "run.max_usd=5"]) == 2
    assert "run.max_usd: no price is known for grader, so 5 USD cannot be held" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("no_load")
def test_an_interrupt_while_a_judge_is_asked_keeps_texts_and_says_so(
    asked: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_self: driver.Benchmark) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver.Benchmark, "run", interrupted)
    assert regrade.main(asked) == 130
    said = capsys.readouterr().err
    assert said.count("no price is known for grader: run.max_usd cannot hold for that") == 1
    folder = Path(asked[0])
    rows = list(records.records(folder))
    assert [(row.grade_status, row.score, row.text) for row in rows] == [("ungraded", None, "5")] * 4
    assert json.loads((folder / "result.json").read_text())["metrics"]["requests_ungraded"] == 4
    assert not (folder / ".lock").exists()
