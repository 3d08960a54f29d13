"""Servers that a command starts: what is filled in, who shares one, and that nothing of them survives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from support.without_load import no_load  # noqa: F401 -- a fixture

from llmexp.benchmark import driver
from llmexp.benchmark.measurement import Measurement
from llmexp.config import Config, load
from llmexp.endpoints import command, served
from llmexp.endpoints.served import Servers
from llmexp.errors import JobError
from llmexp.jobs import job
from llmexp.jobs.order import in_blocks
from llmexp.jobs.spec import Spec

pytestmark = pytest.mark.service

PROGRAM = Path(__file__).parent / "support" / "http_server.py"
SERVE = f"{sys.executable} {PROGRAM} --port {{port}}"


def config(line: str, ready_timeout_s: float = 20.0, order: str = "shuffled", **settings: object) -> Config:
    deployment = {"kind": "served", "command": line, **settings}
    model = {"name": "m", "deployment": deployment, "ready_timeout_s": ready_timeout_s}
    workload = {"input_tokens": {"mean": 8}, "output_tokens": {"mean": 8}}
    return load({"model": model, "workload": workload, "run": {"order": order}})


def filled(line: str, **settings: object) -> str:
    model = config(line, **settings).model
    assert model.deployment.kind == "served"
    return command.fill(model, model.deployment, host="127.0.0.1", port=1234)


def problems(line: str, **settings: object) -> str:
    model = config(line, **settings).model
    assert model.deployment.kind == "served"
    return "\n".join(command.problems(model, model.deployment, starts=True))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "settings", "becomes"),
    [
        ("s --port {port} --host={host} {name}", {}, "s --port 1234 --host=127.0.0.1 m"),
        ("s --slots {slots} -p {port}", {"slots": 4}, "s --slots 4 -p 1234"),
        ("s --slots {slots} -p {port}", {"slots": None}, "s  -p 1234"),
        ("s --share={share} {port}", {"share": 0.9}, "s --share=0.9 1234"),
        ("s --share={share} {port}", {"share": None}, "s  1234"),
        ("s --eager {eager} {port}", {"eager": True}, "s --eager 1234"),
        ("s --eager {eager} {port}", {"eager": False}, "s  1234"),
        ("s --[no-]cache {cache} {port}", {"cache": True}, "s --cache 1234"),
        ("s --[no-]cache {cache} {port}", {"cache": False}, "s --no-cache 1234"),
        ("s --[no-]cache {cache} {port}", {"cache": None}, "s  1234"),
        ("s --model {file} {port}", {"file": "a b.gguf"}, "s --model 'a b.gguf' 1234"),
        ("s --model {file} {port}", {"file": "$HOME/a b"}, 's --model "$HOME/a b" 1234'),
        ("s {args} {port}", {"args": "--a 1 --b"}, "s --a 1 --b 1234"),
        ("s --spec {spec} {port}", {"spec": {"n": 4}}, "s --spec '{\"n\": 4}' 1234"),
        ("s --lora {lora} {port}", {"lora": ["a=b", "c=d"]}, "s --lora a=b c=d 1234"),
        ("s '{\"a\": {{b}}}' ${HOME} {port}", {}, "s '{\"a\": {b}}' ${HOME} 1234"),
        ("sh -c 'x --n {n} & wait' {port}", {"n": 3}, "sh -c 'x --n 3 & wait' 1234"),
        ("s {port} --also {port} --url=http://{host}:{port}/x", {}, "s 1234 --also 1234 --url=http://127.0.0.1:1234/x"),
    ],
)
def test_what_is_filled_in(line: str, settings: dict[str, object], becomes: str) -> None:
    assert filled(line, **settings) == becomes


@pytest.mark.parametrize(
    ("line", "settings", "words"),
    [
        ("sh --slots {slots} {port}", {}, "{slots} is filled by nothing; set model.deployment.slots"),
        ("sh {slots} {port}", {"slots": None}, "model.deployment.slots: is null"),
        ("sh --slots 4", {}, "must hold {port}"),
        ("no-such-program-here --port {port}", {}, "there is no program 'no-such-program-here' here"),
    ],
)
def test_what_is_refused(line: str, settings: dict[str, object], words: str) -> None:
    assert words in problems(line, **settings)


@pytest.mark.parametrize(
    "line",
    [
        "sh --port {port} --max-tokens 5 --tokenizer x --inter-token 0.2",
        "HF_TOKEN=$MINE sh --port {port} --api-key $KEY",
        "A=1 sh --port {port}",
        "cd /tmp && whatever --port {port}",
    ],
)
def test_what_is_fine(line: str) -> None:
    assert not problems(line)


@pytest.mark.parametrize(("path", "found"), [("/v1/models", True), ("{x}/models", True), ("{nothing}", False)])
def test_the_path_that_says_ready_is_filled_in_too(path: str, found: bool) -> None:
    if found:
        model = config("sh --port {port}", ready=path, x="/v1").model
        assert model.deployment.kind == "served"
        assert command.ready(model, model.deployment, host="h", port=1) == "/v1/models"
    else:
        assert "model.deployment.ready: {nothing} is filled by nothing" in problems("sh --port {port}", ready=path)


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("sh --port 1", "exec sh --port 1"),
        ("A='b c' D=$HOME sh -c 'x y'", "A='b c' D=$HOME exec sh -c 'x y'"),
        ("sh --text 'a b' # 1234", "exec sh --text 'a b' # 1234"),
        ("sh a && sh b", "sh a && sh b"),
        ("sh a; sh b", "sh a; sh b"),
        ("sh a & wait", "sh a & wait"),
        ("sh $(cat x)", "sh $(cat x)"),
        ("cd /tmp", "cd /tmp"),
        ("no-such-program-here x", "no-such-program-here x"),
        ("sh 'unclosed", "sh 'unclosed"),
    ],
)
def test_a_plain_command_takes_the_place_of_its_shell(line: str, becomes: str) -> None:
    assert command.direct(line) == becomes


# --- started and shared ----------------------------------------------------------------------------------------------


def serve(servers: Servers, made: Config, folder: Path) -> tuple[served.Server, bool]:
    model = made.model
    assert model.deployment.kind == "served"
    return servers.serve(model, model.deployment, folder, "127.0.0.1")


@pytest.mark.service
def test_jobs_with_the_same_command_share_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_VARIABLE", "seen")
    one, other = config(f"{SERVE} --say {{x}}", x="a"), config(f"{SERVE} --say {{x}}", x="b")
    with Servers() as servers:
        first, fresh = serve(servers, one, tmp_path / "0")
        again, fresh_again = serve(servers, one, tmp_path / "1")
        assert (fresh, fresh_again) == (True, False)
        assert again.pid == first.pid
        third, fresh_third = serve(servers, other, tmp_path / "2")
        assert fresh_third
        assert not psutil.pid_exists(first.pid)
    assert not psutil.pid_exists(third.pid)
    assert "told a seen" in (tmp_path / "0" / "server.log").read_text()
    assert str(tmp_path / "0" / "server.log") in (tmp_path / "1" / "server.log").read_text()
    facts = served.facts(first, one.model.deployment, fresh=True)  # type: ignore[arg-type]
    wanted = {"x": "a", "engine": "vLLM", "engine_version": "9.9", "served_model": "m", "context_tokens": 4096}
    assert wanted.items() <= facts.items()
    assert "http_server.py" in str(facts["command"])


@pytest.mark.service
def test_a_server_that_dies_says_so_with_its_last_lines(tmp_path: Path) -> None:
    with Servers() as servers, pytest.raises(JobError, match=r"(?s)exit status 3.*the last line"):
        serve(servers, config(f"{SERVE} --die 3"), tmp_path)
    assert "the last line" in (tmp_path / "server.log").read_text()


@pytest.mark.service
def test_a_server_that_is_too_slow_is_ended(tmp_path: Path) -> None:
    with (
        Servers() as servers,
        pytest.raises(JobError, match=r"did not answer within 0\.5 s \(model\.ready_timeout_s\)"),
    ):
        serve(servers, config("sleep 60 # {port}", 0.5), tmp_path)
    assert not psutil.Process().children(recursive=True)


@pytest.mark.service
def test_a_server_that_ends_under_the_load_is_noticed(tmp_path: Path) -> None:
    with Servers() as servers:
        server, _ = serve(servers, config(f"{SERVE} --die-after 1"), tmp_path)
        assert server.ended() is None
        deadline = time.monotonic() + 10
        while server.ended() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "exit status 7" in str(server.ended())


@pytest.mark.service
def test_a_server_that_ends_before_the_load_is_named_whatever_failed_for_it(
    no_load: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_self: driver.Benchmark) -> Measurement:
        raise JobError("worker 0 failed to prepare its requests: [Errno 111] Connection refused")

    monkeypatch.setattr(driver.Benchmark, "run", refused)
    words = r"(?s)the server that the job started ended with exit status 7; its last lines:.*told"
    with pytest.raises(JobError, match=words):
        job.measure(config(f"{SERVE} --die-after 0.8"), no_load / "job", quiet=True)


@pytest.mark.service
def test_a_taken_port_is_tried_again_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(served, "ANSWER_S", 0.2)
        ports = iter([taken, served.free_port("127.0.0.1")])
        monkeypatch.setattr(served, "free_port", lambda _host: next(ports))
        with Servers() as servers:
            server, _ = serve(servers, config(SERVE), tmp_path)
            assert not server.address.endswith(f":{taken}")
        with Servers() as servers, pytest.raises(JobError, match=f"another program listens on {taken}"):
            serve(servers, config(SERVE, port=taken), tmp_path)


@pytest.mark.service
def test_no_secret_of_the_environment_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-value")
    with Servers() as servers:
        serve(servers, config(f"{SERVE} --say $SOME_API_KEY"), tmp_path)
    text = (tmp_path / "server.log").read_text()
    assert "told ***" in text
    assert "very-secret" not in text


# --- ended -----------------------------------------------------------------------------------------------------------

DRIVER = """
import sys, time
from pathlib import Path
from llmexp.config import load
from llmexp.endpoints import served
from llmexp.endpoints.served import Servers
served.STOP_S = 0.5
config = load({{"model": {{"name": "m", "deployment": {{"kind": "served", "command": {line!r}}}}},
               "workload": {{"input_tokens": {{"mean": 8}}, "output_tokens": {{"mean": 8}}}}}})
with Servers() as servers:
    server, _ = servers.serve(config.model, config.model.deployment, Path({folder!r}), "127.0.0.1")
    print(server.pid, flush=True)
    {end}
"""


def alive(pids: set[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def gone(pids: set[int]) -> bool:
    """Whether all of them end within the time that cleaning up may take."""
    deadline = time.monotonic() + 20
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pids)


@pytest.mark.service
@pytest.mark.parametrize(
    "how",
    [
        *("block", "error", "exit", "SIGINT", "SIGTERM", "SIGKILL", "daemon"),
        *("job and keeper", "job and warden", "keeper", "keeper and warden"),
    ],
)
def test_nothing_survives(how: str, tmp_path: Path) -> None:
    """Not the server, not what it started and detached, not what does not listen to SIGTERM; whoever is killed."""
    pids = tmp_path / "pids"
    line = f"{SERVE} --spread {pids}" + (" --daemon" if how == "daemon" else "")
    ends = {"block": "pass", "daemon": "pass", "error": "1 / 0", "exit": "import os; os._exit(3)"}
    script = DRIVER.format(line=line, folder=str(tmp_path), end=ends.get(how, "time.sleep(60)"))
    driver = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert driver.stdout is not None
        warden = int(driver.stdout.readline())
        keeper = psutil.Process(warden).children()[0].pid
        started = {warden, keeper, *map(int, pids.read_text().split())}
        assert len(started) >= 5
        if how.startswith("SIG"):
            os.kill(driver.pid, getattr(signal, how))
        named = {"job": driver.pid, "keeper": keeper, "warden": warden}
        killed = [pid for name, pid in named.items() if name in how]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if how == "keeper":
            assert gone(started)
        if killed and "job" not in how:
            os.kill(driver.pid, signal.SIGINT)
        driver.communicate(timeout=30)
        assert gone(started)
    finally:
        driver.kill()
        driver.communicate()


@pytest.mark.service
def test_a_plain_server_ends_with_everybody_who_kept_it(tmp_path: Path) -> None:
    script = DRIVER.format(line=SERVE, folder=str(tmp_path), end="time.sleep(60)")
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        warden = psutil.Process(int(driver.stdout.readline()))
        keeper, server = warden.children(recursive=True)
        for pid in (driver.pid, warden.pid, keeper.pid):
            os.kill(pid, signal.SIGKILL)
        assert gone({server.pid})
    finally:
        driver.kill()
        driver.communicate()


# --- the order of a sweep --------------------------------------------------------------------------------------------


def test_grouped_puts_jobs_on_the_same_server_together_in_each_block() -> None:
    def spec(slots: int, at: int, repeat: int, order: str) -> Spec:
        made = config("sh --slots {slots} {port}", order=order, slots=slots)
        return Spec(made, {}, "served", (), repeat, at)

    def changes(order: str) -> int:
        jobs = [spec(at % 3, at, repeat, order) for repeat in range(2) for at in range(12)]
        ordered = in_blocks(jobs, seed=1)
        assert sorted(one.number for one in ordered) == sorted(one.number for one in jobs)
        assert [one.repeat for one in ordered] == [0] * 12 + [1] * 12
        slots = [one.config.model.deployment.settings["slots"] for one in ordered]  # type: ignore[union-attr]
        return sum(before != after for before, after in pairwise(slots[:12]))

    assert changes("grouped") == 2
    assert changes("shuffled") > 2
