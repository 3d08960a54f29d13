"""Why Hydra could not compose a configuration, in our words: the key, the value, what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from llmexp.command_line import nearest, options, own_folders_in, traceback_wanted


def explain(error: Exception, arguments: Sequence[str], conf: Path) -> str | None:
    """Why Hydra could not compose the configuration, in one message; None where it is no such error."""
    if traceback_wanted():
        return None
    from hydra.errors import (
        ConfigCompositionException,
        HydraException,
        MissingConfigException,
        OverrideParseException,
    )
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    folders = [*own_folders_in(arguments), conf]
    if isinstance(error, MissingConfigException):
        return _missing(error.missing_cfg_file or "", folders) or _first_line(error)
    if isinstance(error, ValueError) and (empty := next((word for word in arguments if word.startswith("=")), None)):
        return f"{empty}: is no override; write key=value, such as model=sonnet or concurrency=4"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, _first_line(error))
    if isinstance(error, UnicodeDecodeError) and (bad := _not_utf8(folders)) is not None:
        return f"{bad}: is not written in UTF-8; save it so"
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    if isinstance(error, ConfigCompositionException):
        return _composition(error, folders)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _first_line(error)
    return None


def _not_utf8(folders: Sequence[Path]) -> Path | None:
    """The option's file that holds other bytes than UTF-8; which one it was, the error does not say."""
    for file in (file for of in options(folders).values() for file in of.values()):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return file
    return None


def _composition(error: Exception, folders: Sequence[Path]) -> str:
    text = str(error)
    for pattern, said in _SAID:
        if found := re.match(pattern, text):
            return said(found, folders)
    if merged := re.match(r"Error merging override ([^=\s]+)=", text):
        return f"{merged[1].lstrip('+~')}: {_first_line(error.__cause__ or error)}"
    if "requires --multirun" in text:
        return f"{text.splitlines()[0]}: add -m"
    cause = f" ({_first_line(error.__cause__)})" if error.__cause__ is not None else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{' '.join(lines[:2])}{cause}" if lines else cause.strip(" ()")


def _unknown(found: re.Match[str], folders: Sequence[Path]) -> str:
    from llmexp.config.keys import unknown_key

    if found[1].startswith("hydra."):
        return f"{found[1]}: Hydra has no such key; --cfg hydra shows those it has"
    return unknown_key(found[1].split("."), groups=list(options(folders)))


def _twice(found: re.Match[str], _folders: Sequence[Path]) -> str:
    return f"+{found[1]}={found[2]}: an option of {found[1]} is chosen already; write {found[1]}={found[2]}"


def _forced(found: re.Match[str], _folders: Sequence[Path]) -> str:
    return f"++{found[1]}={found[2]}: an option is chosen without plus signs; write {found[1]}={found[2]}"


def _swept(found: re.Match[str], _folders: Sequence[Path]) -> str:
    return f"{found[1]}: several values make a sweep: add -m, or quote the value to send it as one"


def _no_group(found: re.Match[str], folders: Sequence[Path]) -> str:
    return f"{found[1]}: no such group{nearest(found[1].partition('@')[0], list(options(folders)))}"


def _listed(found: re.Match[str], _folders: Sequence[Path]) -> str:
    return f"{found[1]}.yaml: must hold keys and their values, not a list"


def _wrong_default(found: re.Match[str], folders: Sequence[Path]) -> str:
    """An entry of a file's defaults that overrides nothing."""
    file, group, known = found[1], found[2], options(folders)
    if group not in known:
        return f"{file}.yaml: override /{group}: no such group{nearest(group, list(known))}"
    return f"{file}.yaml: override /{group} takes effect at the top alone; begin the file with '# @package _global_'"


_SAID: tuple[tuple[str, Callable[[re.Match[str], Sequence[Path]], str]], ...] = (
    (r"Could not delete from config\. '([^']+)' does not exist", _unknown),
    (r"Could not override '([^']+)'", _unknown),
    (r"In '([^']+)': Could not override '([^'@]+)(?:@[^']*)?'", _wrong_default),
    (r"In '([^']+)': \w+ raised while composing config:\s*Cannot merge DictConfig with ListConfig", _listed),
    (r"Multiple values for ([^.]+)\. To override a value use 'override [^:]+: ([^']+)'", _twice),
    (r"force-add of config groups is not supported: '\+\+([^=]+)=(.*)'", _forced),
    (r"Ambiguous value for argument '([^']+)'", _swept),
    (r"Override (\S+) looks like a config group", _no_group),
)
"""What Hydra says when it cannot compose → what we say."""


def _missing(name: str, folders: Sequence[Path]) -> str | None:
    """An option that is in no folder, with the nearest one."""
    if not name:
        return "--config-path: is where llmexp's own files lie; give the folder of yours by --config-dir"
    if "/" not in name and name != "config":
        return f"--config-name: no such file: '{name}.yaml'"
    group, _, option = name.rpartition("/")
    known = options(folders).get(group)
    if not known:
        return None
    return f"{group}={option}: no such option{nearest(option, list(known), f'{group}=')}"


def _unreadable(override: str, why: str) -> str:
    if "=" not in override:
        return f"{override}: is no override; write key=value, such as model=sonnet or concurrency=4"
    key, _, value = override.partition("=")
    if not re.fullmatch(r"[+~]{0,2}[A-Za-z_][\w/@.-]*(?<![./@-])", key):
        return f"{override}: '{key}' is no key; write key=value, such as model=sonnet or run.seed=1"
    quoted = value.replace("'", "")
    return f"{key}: the value '{value}' cannot be read ({why}); quote it: \"{key}='{quoted}'\""


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
