"""The command line as a person types it: what is answered at once, and in which order Hydra reads the rest.

`--help`, `--version`, `--options`, `--show` and `--copy` are answered without importing Hydra. Everything else goes to
Hydra with its own flags in front, since Hydra takes overrides in one piece only. `llmexp.mistakes` explains what it
cannot compose.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from llmexp.errors import OK, WRONG, ConfigError

WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun"),
}
CONFIG_DIR = ("--config-dir", "-cd")
CFG = ("--cfg", "-c")
CFG_WORDS = ("job", "hydra", "all")
INFO = ("--info", "-i")
INFO_WORDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHELL, SHELL_WORDS = ("--shell-completion", "-sc"), ("install=", "uninstall=", "query=")
ALONE = {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"} | set(SHELL)
OWN = ("--options", "--show", "--copy")
SHOW_WIDTH, SUMMARY_WIDTH = 100, 72
_FULL_ERROR = "HYDRA_FULL_ERROR"
_traceback_wanted = False
own_folders: list[Path] = []
"""The folders of `--config-dir`, first one first: `hydra_plugins/llmexp_searchpath.py` puts them before ours."""

HEAD = """\
llmexp: token benchmarks that decide which language model, on which deployment stack, carries your traffic.

Usage
  python -m llmexp [key=value ...]                             one job
  python -m llmexp -m model=sonnet,llama concurrency=1,4,16    a sweep: one job for each combination
  python -m llmexp experiment=NAME                             a whole experiment from one file

Choices (group=option)"""
TAIL = """\

Keys worth knowing
  concurrency=4            requests in flight            run.max_requests=32   requests measured
  load=poisson load.rate=2 an open loop                  run.repeats=3         enough for a verdict
  rehearse=true            offline, free, no measurement dry_run=true          plan and estimate only
  --cfg job                the whole composed config     --info defaults       where it comes from

Your own models, workloads and experiments
  --config-dir DIR           adds the options in DIR (the same folders as above)
  --options [GROUP]          what can be chosen, a line for each option
  --show GROUP/OPTION        one option's file
  --copy GROUP/OPTION DIR    that file into your own folder, to be changed there

Commands beside this one, each with --help
  python -m llmexp.ui         browse the recorded runs
  python -m llmexp.compare    put runs side by side: intervals, verdicts, plots
  python -m llmexp.simulate   a simulated endpoint for any client
  python -m llmexp.calibrate  what this machine can measure honestly
  python -m llmexp.relog      log finished jobs to MLflow from their files
  python -m llmexp.convert    production logs and traces into a workload file
  python -m llmexp.regrade    grade kept answers again, without asking the model"""


def answer(arguments: Sequence[str], conf: Path) -> int | None:
    """Answer what needs no configuration, on stdout; the exit status, or None where Hydra has to take over."""
    if "--version" in arguments:
        return _say(f"llmexp {metadata.version('llmexp')}")
    folders = [*own_folders_in(arguments), conf]
    if "--help" in arguments or "-h" in arguments:
        return _say("\n".join([HEAD, *_choices(folders), TAIL]))
    asked = next((flag for flag in OWN if flag in arguments), None)
    if asked is None:
        return None
    words = list(arguments[list(arguments).index(asked) + 1 :])
    try:
        return _answer_own(asked, [word for word in words if not word.startswith("-")], folders)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG


def arranged(arguments: Sequence[str]) -> list[str]:
    """The arguments for Hydra: its flags first (its parser stops reading overrides at a flag between them), without
    `--config-dir`, whose folders are kept in `own_folders`.

    Raises `ConfigError` for a flag or a folder that does not exist.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name = word.partition("=")[0]
        if not word.startswith("-") or word == "-":
            overrides.append(word)
        elif name in CONFIG_DIR:
            given = word.partition("=")[2]
            if "=" not in word and rest:
                given = rest.pop(0)
            own_folders.append(_folder(given))
        elif name in WITH_VALUE:
            flags += _with_value(word, rest)
        elif name in INFO:
            flags += _info(word, rest)
        elif word in SHELL and not any(one.startswith(SHELL_WORDS) for one in arguments):
            raise ConfigError(f"{word}: write {word} install=bash, or another shell, or uninstall=bash")
        elif word in ALONE:
            flags.append(word)
        else:
            raise ConfigError(_unknown_flag(word, rest))
    return [*flags, *overrides]


def _with_value(word: str, rest: list[str]) -> list[str]:
    """A flag and its value, taken off the rest."""
    name, given, value = word.partition("=")
    if not given:
        if not rest:
            raise ConfigError(f"{name}: needs a value (see --help)")
        value = rest.pop(0)
    if name in CFG and value not in CFG_WORDS:
        raise ConfigError(f"{name}: must be one of {', '.join(CFG_WORDS)}, got '{value}'")
    return [name, value]


def _info(word: str, rest: list[str]) -> list[str]:
    """`--info` with what it shall tell; alone it tells all."""
    name, given, value = word.partition("=")
    if not given:
        value = rest.pop(0) if rest and "=" not in rest[0] and not rest[0].startswith("-") else "all"
    if value not in INFO_WORDS:
        raise ConfigError(f"{name}: must be one of {', '.join(INFO_WORDS)}, got '{value}'")
    return [name, value]


@contextlib.contextmanager
def errors_are_raised() -> Iterator[None]:
    """Have Hydra raise what it cannot compose, so that it is explained here; it would print it and exit 1.

    A user who set the variable wants the traceback and gets it.
    """
    global _traceback_wanted  # noqa: PLW0603 -- one command a process
    _traceback_wanted = os.environ.get(_FULL_ERROR) == "1"
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        composed()


def traceback_wanted() -> bool:
    """Whether the user asked for Hydra's own traceback."""
    return _traceback_wanted


def composed() -> None:
    """The configuration is composed: what fails from here on is no matter of Hydra's."""
    if not _traceback_wanted:
        os.environ.pop(_FULL_ERROR, None)


# --- what can be chosen ----------------------------------------------------------------------------------------------


def options(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Group → option → file, as the folders hold them; the first folder that has an option wins."""
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/*.yaml")):
            group = file.parent.name
            if group != "hydra":
                found.setdefault(group, {}).setdefault(file.stem, file)
    return {group: dict(sorted(of.items())) for group, of in sorted(found.items())}


def _folder(name: str) -> Path:
    folder = Path(name)
    if not name:
        raise ConfigError("--config-dir: name a directory, such as --config-dir mine")
    if not folder.is_dir():
        raise ConfigError(f"--config-dir: no such directory: '{name}'")
    return folder


def own_folders_in(arguments: Sequence[str]) -> list[Path]:
    """The folders of `--config-dir` that exist."""
    found: list[Path] = []
    for at, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name in CONFIG_DIR:
            following = arguments[at + 1] if at + 1 < len(arguments) else ""
            found.append(Path(value or following))
    return [folder for folder in found if folder.is_dir()]


def _choices(folders: Sequence[Path]) -> Iterator[str]:
    import textwrap

    for group, of in options(folders).items():
        text = ", ".join(of)
        yield textwrap.fill(f"{group}: {text}", SHOW_WIDTH, initial_indent="  ", subsequent_indent=" " * 6)


def _answer_own(asked: str, words: list[str], folders: Sequence[Path]) -> int:
    known = options(folders)
    if asked == "--options":
        for group in words or known:
            for option, file in _group(group, known).items():
                print(f"{f'{group}/{option}':26} {_summary(file)}".rstrip())
        return OK
    if not words:
        raise ConfigError(f"{asked}: name an option, such as {asked} model/sonnet")
    file = _file(words[0], known)
    if asked == "--show":
        return _say(file.read_text(encoding="utf-8", errors="replace").rstrip())
    if len(words) < 2:
        raise ConfigError(f"--copy: name your own folder too, such as --copy {words[0]} conf")
    return _copy(file, Path(words[1]))


def _group(name: str, known: dict[str, dict[str, Path]]) -> dict[str, Path]:
    if name not in known:
        raise ConfigError(f"{name}: no such group{nearest(name, list(known))}")
    return known[name]


def _file(word: str, known: dict[str, dict[str, Path]]) -> Path:
    group, slash, option = word.removesuffix(".yaml").partition("/")
    if not slash and (places := [name for name, of in known.items() if group in of]):
        raise ConfigError(
            f"{word}: name its group too; did you mean {' or '.join(f'{name}/{group}' for name in places)}?"
        )
    of = _group(group, known)
    if option not in of:
        raise ConfigError(f"{word}: no such option{nearest(option, list(of), f'{group}/')}")
    return of[option]


def _copy(file: Path, folder: Path) -> int:
    target = folder / file.parent.name / file.name
    if target.exists():
        raise ConfigError(f"--copy: '{target}' exists already; change it there, or remove it first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    except OSError as error:
        raise ConfigError(f"--copy: '{target}' cannot be written ({error.strerror})") from None
    group, option = file.parent.name, file.stem
    return _say(f"{target}\nUse it: python -m llmexp --config-dir {folder} {group}={option}")


def _summary(file: Path) -> str:
    """The first sentence of an option's file, where it begins with a comment: what it is."""
    import itertools
    import textwrap

    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    words = " ".join(line.lstrip("# ") for line in comment if "@package" not in line)
    first = re.split(r"(?<=[\w)`])(?:\. (?=[A-Z`])|[:;] )", words, maxsplit=1)[0].rstrip(".")
    return textwrap.shorten(first, SUMMARY_WIDTH, placeholder=" …")


def _say(text: str) -> int:
    print(text)
    return OK


def _unknown_flag(word: str, rest: Sequence[str]) -> str:
    """A flag that is mistyped, or a key that was typed as a flag."""
    from llmexp.config import keys

    flags = [flag for flag in (*WITH_VALUE, *CONFIG_DIR, *INFO, *ALONE, *OWN) if flag.startswith("--")]
    begun = [flag for flag in flags if flag.startswith(word) and len(word) > len("--")]
    near = begun or difflib.get_close_matches(word.partition("=")[0], flags, n=1, cutoff=0.8)
    meant = near[0] if near else ""
    if not near:
        name, given, value = word.lstrip("-").partition("=")
        if not given and rest and "=" not in rest[0] and not rest[0].startswith("-"):
            value = rest[0]
        found = keys.meant(name.replace("-", "_"))
        meant = f"{found}={value or ('true' if keys.is_flag(found) else 'VALUE')}" if found else ""
    remedy = f"did you mean {meant}? Keys" if meant else "keys"
    return f"{word}: unknown flag; {remedy} are set as key=value (see --help)"


def nearest(word: str, known: Sequence[str], prefix: str = "") -> str:
    """The remedy for a mistyped name: the nearest one, and all that there are."""
    near = difflib.get_close_matches(word, known, n=1)
    listed = ", ".join(sorted(known))
    return f"; did you mean {prefix}{near[0]}? Known: {listed}" if near else f"; known: {listed}"
