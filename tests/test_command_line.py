"""What is mistyped on a command line is answered in our own words, by every door, without a job."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose

from llmexp import __version__, command_line, mistakes
from llmexp.composition import compose_all, conf_dir, opened
from llmexp.config import load
from llmexp.errors import ConfigError
from llmexp.jobs.callback import BeforeTheFolder
from llmexp.jobs.spec import specs

pytestmark = pytest.mark.e2e  # whole commands, composed as the user's are

DOORS = (
    "calibrate.__main__",
    "compare.__main__",
    "convert.__main__",
    "llmperf.flags:correctness_parser",
    "llmperf.flags:benchmark_parser",
    "regrade",
    "relog",
    "simulate",
    "ui",
)


def said(*arguments: str, folder: Path | None = None) -> str:
    """What the command answers: its flags arranged, its configuration composed, its jobs checked."""
    before = list(command_line.own_folders)
    try:
        words = [word for word in command_line.arranged(arguments) if not word.startswith("-")]
        with opened(folder):
            specs(compose_all(words))
    except ConfigError as error:
        return str(error)
    except Exception as error:
        given = [] if folder is None else ["--config-dir", str(folder)]
        return mistakes.explain(error, [*given, *arguments], conf_dir()) or f"not explained: {error!r}"
    finally:
        command_line.own_folders[:] = before
    return ""


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("max_requests=4", "max_requests: unknown key; did you mean run.max_requests?"),
        ("timeout=4", "timeout: unknown key; did you mean run.timeout_s?"),
        ("base_url=http://a", "base_url: unknown key; did you mean model.base_url?"),
        ("rate=4", "rate: unknown key; did you mean load.rate?"),
        ("workload.max_requests=4", "workload.max_requests: unknown key; did you mean run.max_requests?"),
        ("run.concurrency=4", "run.concurrency: unknown key; did you mean concurrency?"),
        ("temperature=0", "temperature: unknown key; did you mean model.params.temperature?"),
        ("model.top_p=1", "model.top_p: unknown key; did you mean model.params.top_p?"),
        ("slo.ttft_s.p95=1", "slo.ttft_s.p95: unknown key; slo.ttft_s is a value and has no keys"),
        ("ttft=1", "ttft: unknown key; did you mean slo.ttft_s?"),
        ("~run.sed", "run.sed: unknown key; did you mean run.seed?"),
        ("hydra.foo=1", "hydra.foo: Hydra has no such key; --cfg hydra shows those it has"),
        ("hydra.mode=X", "hydra.mode: Invalid value 'X', expected one of [RUN, MULTIRUN]"),
        ("++model=sonnet", "++model=sonnet: an option is chosen without plus signs; write model=sonnet"),
        ("+model=sonnet", "+model=sonnet: an option of model is chosen already; write model=sonnet"),
        ("model=sonet", "model=sonet: no such option; did you mean model=sonnet? Known: azure, "),
        ("=4", "=4: is no override; write key=value"),
        ("model.=4", "model.=4: 'model.' is no key; write key=value"),
        ("concurrency=[1,2]", "must be a whole number, got [1, 2]; several values make a sweep: -m concurrency=1,2"),
        ("load.rate=${nothing}", "load.rate: Interpolation key 'nothing' not found"),
        ("model.name=${oc.env:LLMEXP_NOT_SET}", "model.name: environment variable LLMEXP_NOT_SET is not set"),
    ],
)
def test_a_mistyped_override_is_answered_with_what_was_meant(argument: str, answer: str) -> None:
    assert answer in said(argument)
    assert "\n" not in said(argument)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["run.timeout_s=-1"], "run.timeout_s: must be greater than 0, got -1"),
        (["workload.input_tokens.mean=-3"], "workload.input_tokens.mean: must be greater than 0, got -3"),
        (["experiment=nope"], "experiment=nope: no such option; known: "),
        (["concurency=3"], "concurency: unknown key; did you mean concurrency?"),
        (["run.max_request=4"], "run.max_request: unknown key; did you mean run.max_requests?"),
        (["modle=sonnet"], "modle: unknown key; did you mean model?"),
        (["-m", "load.rat=1,2"], "load.rat: unknown key; did you mean load.rate?"),
        (["compare.primary=ttft"], "compare.primary: there is no metric 'ttft'; did you mean ttft_s/mean"),
        (["compare.primary=ttft_s"], "name what of it, such as ttft_s/mean"),
        (["compare.primary=ttft_s/p42"], "'ttft_s' has no 'p42'"),
        (["--dry-run"], "--dry-run: unknown flag; did you mean dry_run=true?"),
        (["model.base_url=nowhere"], "model.base_url: must be a URL"),
        (["model=openai_compatible"], "model.name: must be given"),
        (["model=claude"], "environment variable ANTHROPIC_API_KEY is not set"),
        (["model=llama"], "LLMEXP_SAGEMAKER_ENDPOINT"),
        (["load=poisson"], "load.rate"),
        (["run.resume=nowhere"], "run.resume: no such file or directory"),
        (
            ["model=simulated", "model.deployment.slots=2"],
            "model.deployment.slots: unknown key; did you mean model.deployment.profile.slots?",
        ),
        (["workload.conversations=3"], "workload.conversations: unknown key; it is now concurrency, which is sessions"),
        (["--max_requests", "4"], "--max_requests: unknown flag; did you mean run.max_requests=4? Keys are set as"),
        (["--max-requests=4"], "did you mean run.max_requests=4?"),
        (["--dryrun"], "did you mean dry_run=true?"),
        (["--model", "sonnet"], "did you mean model=sonnet?"),
        (["--multi", "concurrency=1,2"], "did you mean --multirun?"),
        (["-x"], "-x: unknown flag; keys are set as key=value"),
        (["--cfg", "jobs"], "--cfg: must be one of job, hydra, all, got 'jobs'"),
        (["--cfg"], "--cfg: needs a value"),
        (["--info", "default"], "--info: must be one of all, config, defaults"),
        (["--config-dir"], "--config-dir: name a directory"),
        (["-sc"], "-sc: write -sc install=bash"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_answered_with_the_remedy(
    arguments: list[str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "LLMEXP_SAGEMAKER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert answer in said(*arguments)


@pytest.mark.parametrize(
    ("file", "text", "answer"),
    [
        ("model/own", "nme: x\n", "model.nme: unknown key; did you mean model.name?\nmodel.name: must be given"),
        ("model/own", "- a\n- b\n", "model/own.yaml: must hold keys and their values, not a list"),
        ("model/own", "name: [x\n", "expected ',' or ']'"),
        ("model/own", "defaults: [opena_compatible]\n", "model=opena_compatible: no such option; did you mean"),
        ("experiment/own", "defaults: [override /modl: gpt]\n", "override /modl: no such group; did you mean model?"),
        ("experiment/own", "defaults: [override /model: gpt]\n", "begin the file with '# @package _global_'"),
        ("experiment/own", "# @package _global_\nrun: {max_request: 1}\n", "did you mean run.max_requests?"),
        ("model/own", "name: bär\n", "own.yaml: is not written in UTF-8; save it so"),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_named(file: str, text: str, answer: str, tmp_path: Path) -> None:
    path = tmp_path / f"{file}.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    assert answer in said(f"{path.parent.name}=own", folder=tmp_path)
    assert command_line.answer(["--config-dir", str(tmp_path), "--options", path.parent.name], conf_dir()) == 0


def test_a_reference_in_an_override_is_kept_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMEXP_MODEL", "ours")
    typed = [
        "model=simulated",
        "model.name=${oc.env:LLMEXP_MODEL}",
        "run.warmup_requests=${concurrency}",
        "concurrency=3",
    ]
    with opened(None):
        (spec,) = specs(compose_all(typed))
    assert (spec.config.model.name, spec.config.run.warmup_requests) == ("ours", 3)
    assert "LLMEXP_MODEL" in spec.overrides[1]
    assert "ours" not in spec.overrides[1]
    assert load(spec.tree) == spec.config


@pytest.mark.parametrize("door", DOORS)
def test_every_door_says_its_version_and_names_the_flag_that_was_meant(
    door: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, parser = door.partition(":")
    module = importlib.import_module(f"llmexp.{name}")
    for word, status in (("--version", 0), ("--help", 0), ("--vesion", 2), ("--nothing-of-this-kind", 2)):
        monkeypatch.setattr(sys, "argv", [door, word])
        with pytest.raises(SystemExit) as end:
            getattr(module, parser)().parse_args() if parser else module.main()
        told = capsys.readouterr()
        assert end.value.code == status
        if word == "--version":
            assert told.out == f"llmexp {__version__}\n"
        elif word == "--help":
            assert "--version" in told.out
        else:
            (line,) = told.err.splitlines()
            assert line.startswith(
                f"{word}: unknown flag; {'did you mean --version?' if word == '--vesion' else 'known: -'}"
            )


def test_a_flag_may_be_shortened_as_argparse_allows(tmp_path: Path) -> None:
    from llmexp.compare.__main__ import parser

    assert parser().parse_args(["a", "--marg", "0.1", f"--outp={tmp_path}"]).margin == 0.1


@pytest.mark.e2e
def test_a_reference_that_leads_nowhere_ends_the_command_with_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmexp", "model=simulated", "model.name=${oc.env:LLMEXP_NOT_SET}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("model.name: environment variable LLMEXP_NOT_SET is not set")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "hydra/launcher=basic",
            "hydra/launcher: sweeps are run by llmexp's own, which keeps one limit and one folder",
        ),
        ("hydra/sweeper=basic", "hydra/sweeper: sweeps are made by llmexp's own, which keeps one limit and one folder"),
        ("hydra.launcher._target_=somebody.Elses", "hydra/launcher: sweeps are run by llmexp's own"),
        ("+model.params.api_key=hunter2hunter2", "model.params.api_key: looks like a secret"),
    ],
)
def test_a_sweep_by_others_or_with_a_credential_ends_before_there_is_a_sweeper(
    override: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened(None):
        composed = compose("config", [override], return_hydra_config=True)
        ours = compose("config", [], return_hydra_config=True)
    BeforeTheFolder().on_multirun_start(ours)
    with pytest.raises(SystemExit) as ended:
        BeforeTheFolder().on_multirun_start(composed)
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)
    assert "hunter2" not in said
    assert list(tmp_path.iterdir()) == []
