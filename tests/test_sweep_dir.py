"""A folder has one owner; a sweep's folder says what of it stands."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmexp import records, results
from llmexp.config import load
from llmexp.errors import ConfigError
from llmexp.jobs import lock, measure, sweep_dir
from llmexp.jobs.spec import Spec
from llmexp.jobs.sweep_dir import SweepDir

OTHER = """
import sys, time
from pathlib import Path
from llmexp.jobs import lock
folder = lock.claim(Path(sys.argv[1]))
print(folder.path, flush=True)
time.sleep(60)
"""


def other_process(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OTHER, str(path)], stdout=subprocess.PIPE, text=True)


def spec(number: int = 0, **run: object) -> Spec:
    tokens = {"input_tokens": {"mean": 10}, "output_tokens": {"mean": 5}}
    tree = {"model": {"name": f"m{number}"}, "workload": tokens, "run": run}
    return Spec(load(tree), tree, f"m{number}", (), 0, number, name=f"m{number}", option=f"m{number}")


def finished(one: Spec, status: str = "finished", verdict: str = "valid") -> None:
    one.directory.mkdir(parents=True)
    tree = {
        "job": one.info(),
        "status": status,
        "metrics": {"requests_completed": 1},
        "validity": {"verdict": verdict},
        "config": one.config.model_dump(mode="json", by_alias=True),
    }
    results.write(one.directory, results.Result.model_validate(tree))


def begun(path: Path, *found: Spec) -> SweepDir:
    folder = lock.claim(path)
    sweep = SweepDir.new(folder, list(found))
    folder.release()
    return sweep


def test_two_that_want_one_name_get_two_folders(tmp_path: Path) -> None:
    wanted = tmp_path / "outputs" / "12-00-00"
    other = other_process(wanted)
    assert other.stdout is not None
    assert other.stdout.readline().strip() == str(wanted)
    mine = lock.claim(wanted)
    assert mine.path == wanted.with_name("12-00-00-2")
    mine.drop_if_empty()
    assert not mine.path.exists()
    lock.claim(tmp_path / "a" / "b" / "c").drop_if_empty()
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match=f"process {other.pid} on .*, since 20"):
        lock.hold(wanted)
    other.kill()
    other.wait()
    other.stdout.close()
    lock.hold(wanted).release()
    assert list(wanted.iterdir()) == []


def test_a_folder_with_a_result_is_taken_and_an_empty_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "result.json").write_text("{}")
    empty, next_to = lock.claim(tmp_path / "empty"), lock.claim(tmp_path / "done")
    assert empty.path.name == "empty"
    assert next_to.path.name == "done-2"
    for folder in (empty, next_to):
        folder.drop_if_empty()
    assert (tmp_path / "empty").is_dir()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "sweep"
    victim.write_text("precious")
    folder.mkdir()
    (folder / lock.LOCK).symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot be written to"):
        lock.hold(folder)
    assert victim.read_text() == "precious"


def test_a_lock_that_its_owner_removed_is_not_taken_for_one(tmp_path: Path) -> None:
    first = lock.claim(tmp_path / "a")
    descriptor = os.open(first.path / lock.LOCK, os.O_RDWR)
    first.release()
    second = lock.hold(tmp_path / "a")
    assert not os.path.samestat(os.fstat(descriptor), os.fstat(second.descriptor))
    second.release()
    os.close(descriptor)


def test_nobody_takes_the_number_of_a_sweep_s_job(tmp_path: Path) -> None:
    begun(tmp_path / "sweep", spec(0), spec(1))
    mine = lock.claim(tmp_path / "sweep" / "1")
    assert mine.path.name == "1-2"
    mine.drop_if_empty()


def test_two_commands_of_one_process_are_two_owners_too(tmp_path: Path) -> None:
    first, second = lock.claim(tmp_path / "a"), lock.claim(tmp_path / "a")
    assert (first.path.name, second.path.name) == ("a", "a-2")
    with pytest.raises(ConfigError, match="another command of this process"):
        lock.hold(tmp_path / "a")
    promised = lock.claim(tmp_path / "b", promise=True)  # by Hydra's callback, and taken by the job that follows
    assert lock.claim(tmp_path / "b") is promised
    assert lock.claim(tmp_path / "b").path.name == "b-2"
    for folder in list(lock._held.values()):
        folder.drop_if_empty()
    assert not lock._held
    assert list(tmp_path.iterdir()) == []


FORKS = """
import os, sys, time
from pathlib import Path
from llmexp.jobs import lock
lock.claim(Path(sys.argv[1]))
child = os.fork()
if child:
    print(child, flush=True)
    os._exit(0)
os.close(1)
time.sleep(60)
"""


def test_a_forked_child_keeps_no_lock_of_a_parent_that_is_dead(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True, check=True
    )
    child = int(done.stdout)
    try:
        lock.hold(tmp_path / "a").release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_who_moved_its_folder_away_leaves_the_lock_of_whoever_has_its_name_now(tmp_path: Path) -> None:
    first = lock.claim(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "moved")
    other = other_process(tmp_path / "a")
    assert other.stdout is not None
    assert other.stdout.readline().strip() == str(tmp_path / "a")
    first.release()
    with pytest.raises(ConfigError, match=f"process {other.pid} on"):
        lock.hold(tmp_path / "a")
    other.kill()
    other.wait()
    other.stdout.close()


def test_a_file_of_somebody_else_s_hides_no_command_at_work(tmp_path: Path) -> None:
    other = other_process(tmp_path / "outputs" / "2026-01-31" / "12-00-00")
    assert other.stdout is not None
    job = Path(other.stdout.readline().strip())
    for place in (tmp_path, tmp_path / "outputs", job):
        for name in ("result.json", "sweep.json"):
            (place / name).write_text("{}")
    assert lock.whole(job) == lock.whole(job / "probes" / "01") == job
    assert lock.at_work(job) is not None
    with pytest.raises(ConfigError, match=f"process {other.pid} on .* is at work"), lock.all_held(job):
        pass
    other.kill()
    other.wait()
    other.stdout.close()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_said_and_has_one_owner_all_the_same(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    mine = lock.claim(tmp_path / "a")
    assert mine.path.name == "a"
    assert "this disk knows no locks" in caplog.text
    words = {"pid": os.getppid(), "host": socket.gethostname(), "since": "2026-01-31"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / lock.LOCK).write_text(json.dumps(words))
    with pytest.raises(ConfigError, match=f"process {os.getppid()} on"):
        lock.hold(tmp_path / "b")
    assert lock.at_work(tmp_path / "b") is not None
    (tmp_path / "b" / lock.LOCK).write_text(json.dumps(words | {"pid": 2**22 + 1}))
    lock.hold(tmp_path / "b").release()
    mine.release()


def test_other_commands_keep_off_a_folder_that_somebody_is_at_work_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmexp import relog
    from llmexp.compare import __main__ as compare

    monkeypatch.chdir(tmp_path)
    other = other_process(tmp_path / "sweep")
    assert other.stdout is not None
    other.stdout.readline()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    parts = (tmp_path / "sweep" / "0", tmp_path / "sweep" / "0" / "probes" / "01", tmp_path / "sweep" / "1.attempt1")
    for part in parts:
        finished(replace(spec(), directory=part))
    for part in (tmp_path / "sweep", *parts, tmp_path):
        with pytest.raises(ConfigError, match=f"process {other.pid} on .* is at work"), lock.all_held(part):
            pass
    assert relog.main([str(parts[1])]) == 2
    compare.main(["sweep"])
    assert f"sweep: process {other.pid} on" in capsys.readouterr().err
    compare.main(["sweep", "--out", "sweep/0"])
    assert "is at work there; the comparison so far goes to ./comparison" in capsys.readouterr().err
    assert not list((tmp_path / "sweep").rglob("comparison*"))
    assert (tmp_path / "comparison" / "comparison.csv").exists()
    other.kill()
    other.wait()
    other.stdout.close()
    with lock.all_held(tmp_path):
        assert lock.at_work(parts[1]) is None


def test_a_comparison_holds_the_sweep_that_it_is_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmexp import report
    from llmexp.compare import __main__ as compare

    sweep = begun(tmp_path / "sweep", spec(0))
    finished(sweep.specs[0])
    drawn: list[Path] = []

    def draw(_found: object, out: Path, _guard: object) -> None:
        with pytest.raises(ConfigError, match="is at work in this folder"):  # as a resume would find it
            lock.hold(sweep.path)
        drawn.append(out)

    monkeypatch.setattr(report, "comparison", draw)
    assert compare.main([str(sweep.path)]) == 0
    assert compare.main([str(sweep.path), "--out", str(sweep.specs[0].directory)]) == 0
    assert drawn == [sweep.path, sweep.specs[0].directory]
    assert not (sweep.path / lock.LOCK).exists()


def test_a_lock_that_may_not_be_read_is_another_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / lock.LOCK).touch()
    assert lock.at_work(tmp_path) is None

    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:  # the tests may run as root, whom no file refuses
        patched.setattr(os, "open", refused)
        found = lock.at_work(tmp_path)
    assert found == "another user's process"


def test_resume_keeps_what_stands_and_runs_the_rest(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", *(spec(number) for number in range(4)))
    finished(sweep.specs[0])
    finished(sweep.specs[1], status="failed")
    finished(sweep.specs[2], verdict="invalid")
    folder = lock.hold(tmp_path / "s")
    again = SweepDir.resume(folder, [spec(number) for number in range(4)])
    folder.release()
    assert again.id == sweep.id
    assert [one.directory for one in again.specs] == [one.directory for one in sweep.specs]
    todo, standing = again.outstanding(rerun_invalid=False)
    assert sorted(one.number for one in todo) == [1, 3]
    assert sorted(one.number for one, _ in standing) == [0, 2]
    todo, _ = again.outstanding(rerun_invalid=True)
    assert sorted(one.number for one in todo) == [1, 2, 3]


@pytest.mark.parametrize("damage", ["{}", "", '{"job": {"key": "', '{"job": 3}', "[]", '{"job": {}, "config": {}}'])
def test_a_broken_file_never_blocks_a_resume(tmp_path: Path, damage: str) -> None:
    sweep = begun(tmp_path / "s", spec(0), spec(1))
    finished(sweep.specs[0])
    finished(sweep.specs[1])
    (sweep.specs[1].directory / results.RESULT).write_text(damage)
    (sweep.path / sweep_dir.SWEEP_FILE).write_text("")
    folder = lock.hold(tmp_path / "s")
    again = SweepDir.resume(folder, [spec(0), spec(1)])
    folder.release()
    assert again.id == sweep.id
    todo, standing = again.outstanding(rerun_invalid=False)
    assert [one.number for one in todo] == [1]
    assert [one.directory for one in again.specs] == [one.directory for one in sweep.specs]
    assert len(standing) == 1


def test_a_plan_of_a_resume_is_for_what_is_left_and_writes_nothing(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", spec(0), spec(1), spec(2))
    finished(sweep.specs[0])
    finished(sweep.specs[1], verdict="invalid")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left = sweep_dir.left_of(tmp_path / "s", [spec(0), spec(1), spec(2), spec(3)])
    assert [one.name for one in left] == ["m2", "m3"]
    again = [spec(number, resume="s", rerun_invalid=True) for number in range(3)]
    assert [one.name for one in sweep_dir.left_of(tmp_path / "s", again)] == ["m1", "m2"]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"run\.resume"):
        sweep_dir.left_of(tmp_path, [spec(0)])


def test_a_key_of_an_older_version_is_recognised_by_its_config(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", spec(0))
    finished(sweep.specs[0])
    path = sweep.specs[0].directory / results.RESULT
    tree = json.loads(path.read_text())
    tree["job"]["key"] = "0123456789abcdef"
    del tree["config"]["capacity"]
    path.write_text(json.dumps(tree))
    (sweep.path / sweep_dir.SWEEP_FILE).write_text(json.dumps({"id": sweep.id, "name": "old", "jobs": 1}))
    folder = lock.hold(tmp_path / "s")
    again = SweepDir.resume(folder, [spec(0)])
    folder.release()
    assert again.outstanding(rerun_invalid=False)[0] == []


def test_another_configuration_is_refused_and_named(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", spec(0, max_requests=8), spec(1, max_requests=8))
    finished(sweep.specs[0])
    folder = lock.hold(tmp_path / "s")
    with pytest.raises(ConfigError, match=r"run\.max_requests was 8, is 16"):
        SweepDir.resume(folder, [spec(0, max_requests=16), spec(1, max_requests=16)])
    more = SweepDir.resume(folder, [spec(number, max_requests=8) for number in range(3)])
    assert [one.directory.name for one in more.specs] == ["0", "1", "2"]
    folder.release()


def test_a_folder_that_is_no_sweep_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    folder = lock.hold(tmp_path / "photos")
    with pytest.raises(ConfigError, match=r"run\.resume: .*photos is no sweep's folder"):
        SweepDir.resume(folder, [spec(0)])
    folder.release()
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_the_key_holds_what_was_asked_and_nothing_else() -> None:
    assert spec(0, max_requests=8).key != spec(0, max_requests=16).key
    assert spec(0, seed=1).key != spec(0, seed=2).key
    assert spec(0, max_usd=1.0).key == spec(0, max_usd=2.0).key


def test_set_aside_finds_a_free_number(tmp_path: Path) -> None:
    for at in (1, 2):
        (tmp_path / "3").mkdir()
        assert sweep_dir.set_aside(tmp_path / "3").name == f"3.attempt{at}"


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + bytes(200), b"not parquet at all"])
def test_half_a_file_of_requests_never_blocks_what_replaces_it(tmp_path: Path, damage: bytes) -> None:
    sweep = begun(tmp_path / "s", spec(0))
    finished(sweep.specs[0], status="interrupted")
    folder = sweep.specs[0].directory
    tree = json.loads((folder / results.RESULT).read_text()) | {"metrics": {}}
    (folder / results.RESULT).write_text(json.dumps(tree))
    (folder / records.PARQUET).write_bytes(damage)
    old = measure.salvage(folder)
    assert old is not None
    assert old.status == "interrupted"
    kept = sweep_dir.set_aside(folder)
    assert (kept / records.PARQUET).read_bytes() == damage


def test_a_job_of_a_sweep_is_held_by_its_sweep(tmp_path: Path) -> None:
    sweep = begun(tmp_path / "s", spec(0))
    finished(sweep.specs[0])
    with lock.held(sweep.specs[0].directory) as folder:
        assert folder.path == tmp_path / "s"
        assert (tmp_path / "s" / lock.LOCK).exists()
    assert not (tmp_path / "s" / lock.LOCK).exists()
