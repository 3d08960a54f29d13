"""The command line of a server that the job starts: what is filled in, and what must not stand in it.

| in the command | becomes |
| --- | --- |
| `{port}`, `{host}` | where the server shall listen |
| `{name}` | `model.name` |
| `{max_num_seqs}` | `model.deployment.max_num_seqs`; so with any key |
| `--flag {key}`, `--flag={key}` | `--flag VALUE`; nothing where the value is null or false; `--flag` where it is true |
| `--[no-]flag {key}` | `--flag` where the value is true, `--no-flag` where it is false, nothing where it is null |
| `{{key}}` | `{key}`, as it stands |

A value behind a flag is quoted for the shell. Anywhere else it stands as it is, so that a key may hold several
arguments. `$VARIABLE` is left to the shell, so that its value is in no file of ours.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmexp.config import Model, Served
from llmexp.errors import ConfigError

KEY = "model.deployment.command"
UNFILLED_PORT = "{port}"
"""In the place of a port that is not chosen yet."""
_PLACE = re.compile(
    r"""(?P<flag>(?<![^\s])--?[\w\[\]][\w.\[\]-]*)(?P<join>\s+|=)(?P<whole>["']?)\{(?P<key>[A-Za-z_]\w*)\}(?P=whole)(?=\s|$)
      | (?<![$\\{])\{(?P<alone>[A-Za-z_]\w*)\}(?!\})""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\{(\{[A-Za-z_]\w*\})\}")
_NO = "[no-]"
_VARIABLE = re.compile(r"\$\{?[A-Z_][A-Z0-9_]*")
_SETTINGS = re.compile(r"""\s*(?:[A-Za-z_]\w*=(?:'[^']*'|"[^"]*"|[^\s'"])*\s+)*""")
_PROGRAM = re.compile(r"[\w./~+-]+")


def fill(model: Model, deployment: Served, *, host: str, port: int | str) -> str:
    """The command as the shell gets it. Raises `ConfigError` for a place that nothing fills."""
    return _filled(KEY, deployment.command, _values(model, deployment, host, port))


def ready(model: Model, deployment: Served, *, host: str, port: int | str) -> str:
    """The path or URL that says when it serves, filled in as the command is."""
    return _filled("model.deployment.ready", deployment.ready, _values(model, deployment, host, port))


def _values(model: Model, deployment: Served, host: str, port: int | str) -> dict[str, object]:
    return {"name": model.name, **deployment.settings, "host": host, "port": port}


def _filled(whose: str, template: str, values: Mapping[str, object]) -> str:
    def filled(match: re.Match[str]) -> str:
        key = match["alone"] or match["key"]
        if key not in values:
            known = ", ".join(f"{{{name}}}" for name in sorted(values))
            raise ConfigError(
                f"{whose}: {{{key}}} is filled by nothing; set model.deployment.{key}, use one of {known}, or write "
                f"{{{{{key}}}}} where the braces shall stand"
            )
        value = values[key]
        if match["alone"]:
            if value is None:
                raise ConfigError(
                    f"model.deployment.{key}: is null, and in {whose} no flag of its own stands before it that "
                    "could be left out; give it a value"
                )
            return _text(value)
        return _with_flag(match["flag"], match["join"], value)

    escaped = [match.span() for match in _ESCAPED.finditer(template)]
    pieces, end = [], 0
    for start, stop in escaped:
        pieces += [_PLACE.sub(filled, template[end:start]), template[start + 1 : stop - 1]]
        end = stop
    pieces.append(_PLACE.sub(filled, template[end:]))
    return "".join(pieces).strip()


def _with_flag(flag: str, join: str, value: object) -> str:
    if value is None or (value is False and _NO not in flag):
        return ""
    if isinstance(value, bool):
        return flag.replace(_NO, "" if value else "no-")
    if isinstance(value, list) and join != "=":
        return f"{flag}{join}{' '.join(_quoted(_text(one)) for one in value)}"
    return f"{flag}{join}{_quoted(_text(value))}"


def _quoted(text: str) -> str:
    """One argument for the shell, in which `$VARIABLE` and a leading `~/` still mean what they do there."""
    if text == UNFILLED_PORT:
        return text
    home, text = ("~/", text[2:]) if text.startswith("~/") else ("", text)
    if not _VARIABLE.search(text):
        return home + shlex.quote(text)
    escaped = re.sub(r'(["\\`])', r"\\\1", text)
    return f'{home}"{escaped}"'


def _text(value: object) -> str:
    """A value as a command line has it: numbers and words as they are, mappings as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return json.dumps(value)


def problems(model: Model, deployment: Served, *, starts: bool) -> Iterator[str]:
    """What is wrong with the command; with `starts`, whether its program is here too."""
    try:
        command = fill(model, deployment, host="127.0.0.1", port="0")
        ready(model, deployment, host="127.0.0.1", port="0")
    except ConfigError as error:
        yield str(error)
        return
    if deployment.port is None and "{port}" not in deployment.command:
        yield f"{KEY}: must hold {{port}}, so that the server listens where the job looks for it"
    program = _program(command)
    if starts and program is not None and shutil.which(program, path=search_path()) is None:
        yield f"{KEY}: there is no program '{program}' here; install it, or name its whole path"


def _program(command: str) -> str | None:
    """The program that a plain command starts with; None where only the shell can know."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    first = next((word for word in words if not re.match(r"[A-Za-z_]\w*=", word)), "")
    if first in ("exec", "cd", "export", "set", "source", ".", "if", "for", "while", "ulimit", "umask", "unset"):
        return None
    return first if _PROGRAM.fullmatch(first) else None


def direct(line: str) -> str:
    """A plain command in the place of the shell that reads it: the kernel ends the first process with its keeper, and
    that is the server itself then. Anything that needs the shell to stay is left as it is.
    """
    program = _program(line)
    if program is None or "`" in line or "\n" in line or shutil.which(program, path=search_path()) is None:
        return line
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.commenters = ""
    if any(set(word) <= set("();<>|&") for word in words if word):
        return line
    settings = _SETTINGS.match(line)
    start = settings.end() if settings else 0
    return f"{line[:start]}exec {line[start:]}"


def search_path() -> str:
    """The user's PATH, and behind it the folder of this Python: a server installed beside this tool is found."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
