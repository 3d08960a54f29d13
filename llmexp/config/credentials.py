"""Credentials in a configuration: found before anything is written, wherever they stand, and named without their value.

Configs are written to files and to MLflow; they carry the *names* of variables. A credential is known by the name of
its key (at any depth), as part of a URL, as an option in a command line, by `Bearer …`, or because the value is that of
an environment variable with such a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from llmexp import secrets
from llmexp.secrets import SHORTEST, credentials_in_url, is_credential_name, is_path

_SCHEME = re.compile(
    r"(?:Bearer\s+\S{8,}|(?:Basic|Token)\s+(?:(?=\S*[\d=])\S{8,}|(?:[A-Za-z0-9+/]{4}){3,}))\s*", re.IGNORECASE
)
_FILLED = r"(?!-|['\"]?[{$])"
"""What a shell or a key of `deployment` fills in, in quotes or without."""
_OPTION = re.compile(rf"(?<!\S)--?([A-Za-z][\w-]*)(?:=|\s+){_FILLED}(\S+)")
_SENT = re.compile(r"([A-Za-z][\w-]*):\s*(?:Bearer\s+|Basic\s+|Token\s+)?(?![-{$])([^\s'\"]{8,})")
"""A header as a command line writes it: `-H 'Authorization: Bearer …'`."""
_ASSIGNMENT = re.compile(rf"(?<!\S)([A-Z][A-Z0-9_]*)={_FILLED}(\S+)")
_SHELL_VARIABLE = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?")
_IN_A_COMMAND = "put it in an environment variable and write $VARIABLE, which the shell fills in"
_INTERPOLATION = re.compile(r"\$\{oc\.env:\s*([^,}\s]+)")
_SHAPES = re.compile(
    r"(?<![\w-])(?:sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|gh[oprsu]_\w{30,}|"
    r"github_pat_\w{30,}|hf_[A-Za-z]{30,}|xox[abeprs]-[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY|https://hooks\.[\w.]+/\S{20,}"
)
"""How keys of well-known providers and signed tokens look, wherever they stand."""
_PAIR = re.compile(r"(?<![\w.-])([A-Za-z][\w.-]*)=(?!['\"]?[{$<])['\"]?([^\s;,&'\"]{8,})")
_HEADER_LINE = re.compile(r"([A-Za-z][\w-]*):\s*(?![{$<])((?:[A-Za-z]+\s+)?[^\s'\"]{8,})")
_NUMBER = re.compile(r"[-+]?\d*\.?\d+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LONG = 12
_IDENTITIES = frozenset({"model.name", "model.provider", "tracking.experiment"})
_SCHEMA_KEYS = frozenset({"properties", "$defs", "definitions"})
"""Below these a key is a field of a JSON schema: its name says nothing about the value."""
_HEADER = re.compile(r"auth|key|token|cookie|secret|password", re.IGNORECASE)


def problems(tree: Mapping[str, object], environ: Mapping[str, str]) -> list[str]:
    """A line with the remedy for each credential in a configuration, composed or resolved."""
    leaves = list(_leaves(tree, ()))
    named = {str(value) for path, value in leaves if _names_variable(path)}
    secret_values = {
        value: name
        for name, value in environ.items()
        if len(value) >= SHORTEST and (name in named or is_credential_name(name)) and not is_path(value)
    }
    found: dict[str, None] = {}
    for path, value in leaves:
        line = _problem(path, value, secret_values)
        if line is not None:
            found[line] = None
    return list(found)


def composed_problems(config: Mapping[str, object], overrides: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """The problems of a full composition, Hydra's own part included as far as a user's values get into it."""
    hydra = config.get("hydra")
    job = hydra.get("job") if isinstance(hydra, Mapping) else None
    ours = {key: value for key, value in config.items() if key != "hydra"}
    if isinstance(hydra, Mapping) and isinstance(job, Mapping):
        places = {part: _places(hydra.get(part)) for part in ("run", "sweep")}
        ours["hydra"] = {"job": {"env_set": job.get("env_set"), "name": job.get("name")}, **places}
    return list(dict.fromkeys([*problems(ours, environ), *override_problems(overrides, environ)]))


def _places(part: object) -> dict[str, object]:
    """Folders' names, which everybody sees."""
    return {name: part.get(name) for name in ("dir", "subdir")} if isinstance(part, Mapping) else {}


def override_problems(overrides: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """The same for overrides as they were typed, values of a sweep included: Hydra writes those down too."""
    found: dict[str, None] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            continue
        path = key.lstrip("+~").partition("@")[0].replace("/", ".")
        tree: object = value.strip().strip("'\"")
        for part in reversed(path.split(".")):
            tree = {part: tree}
        assert isinstance(tree, dict)
        found |= dict.fromkeys(problems(tree, environ))
        found |= dict.fromkeys(_in_inline_mapping(path, value))
    return list(found)


def _in_inline_mapping(path: str, value: str) -> Iterator[str]:
    """`model.params={api_key: x}`: Hydra's own grammar for mappings, of which only the names matter here."""
    for name in re.findall(r"[{,]\s*([\w.-]+)\s*:\s*[^\s,}{\[]", value):
        if is_credential_name(name) and "://" not in name:
            yield _named(f"{path}.{name}")


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(one, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one, path)
    else:
        yield path, value


def _holds(key: str, text: str, secret: str) -> bool:
    """Whether a value is a secret, or has a long one inside. Somebody's key may well be the word that names a model."""
    if key in _IDENTITIES and not _looks_drawn(secret):
        return False
    return secrets.holds(text, secret, LONG)


def _names_variable(path: tuple[str, ...]) -> bool:
    """Whether this key holds the name of the variable with a secret."""
    return path[-1:] == ("api_key_env",) or path[-2:-1] == ("headers_env",)


def _problem(path: tuple[str, ...], value: object, secret_values: Mapping[str, str]) -> str | None:
    if value is None or isinstance(value, bool) or value in ("", "???"):
        return None
    key, text = ".".join(path), str(value)
    if _names_variable(path):
        return _variable_problem(key, text)
    holder = next((one for one in secret_values if _holds(key, text, one)), None)
    if holder is not None:
        secrets.register(holder)
        return _exported(key, path, secret_values[holder])
    header = any(part.lower().endswith("headers") for part in path[:-1])
    variable = next((one for one in _INTERPOLATION.findall(text) if header or is_credential_name(one)), None)
    if variable is not None:
        return _exported(key, path, variable)
    for what, secret in credentials_in_url(text):
        secrets.register(secret)
        return f"{key}: this URL holds {what}; {_remedy(path, url=True)}"
    option = next(iter(_given_in_a_command(path, text)), None)
    if option is not None:
        return f"{key}: {option} holds a credential; {_IN_A_COMMAND}"
    if _by_variable(path, text):
        return None
    shape = _SHAPES.search(text)
    if shape is not None or _SCHEME.fullmatch(text) or _is_named(path, value):
        secrets.register(text, text.partition(" ")[2], shape and shape[0])
        return _named(key)
    said = next((said for name, said in _pairs(text) if is_credential_name(name) and not _is_number(said)), None)
    if said is not None:
        secrets.register(said)
        return _named(key)
    return next(filter(None, (_problem((*path, *inner), one, secret_values) for inner, one in _in_json(text))), None)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Names and values in a text: `a=b;c=d`, `?a=b&c=d`, or one header, `A: b`. Prose has none."""
    found: list[tuple[str, str]] = _PAIR.findall(text)
    header = _HEADER_LINE.fullmatch(text)
    return found if header is None else [*found, (header[1], header[2])]


def _in_json(text: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """The leaves of a text that is JSON."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield from ((path, one) for path, one in _leaves(json.loads(text), ()) if path)
        except (ValueError, RecursionError):
            return


def _given_in_a_command(path: tuple[str, ...], text: str) -> Iterator[str]:
    """Options (`--api-key x`), headers and assignments (`HF_TOKEN=x serve`) of a command that hold a credential."""
    if path[:2] == ("model", "deployment"):
        for name, _ in _SENT.findall(text):
            if is_credential_name(name):
                yield f"'{name}:'"
    for name, value in _OPTION.findall(text):
        if is_credential_name(name) and not _is_number(value):
            yield f"--{name}"
    for name, value in _ASSIGNMENT.findall(text):
        if is_credential_name(name) and not _is_number(value):
            yield name


_GIVEN = re.compile(
    r"(?<![\w-])-{0,2}([A-Za-z][\w.-]*)['\"]?(?:\s*[=:]\s*|\s+)['\"]?(?:[A-Za-z]+\s+)?\$\{?([A-Za-z_]\w*)\}?"
)


def variables_given(command: str) -> list[str]:
    """Variables by which a command is given a credential: `--api-key $KEY`, `-H "X-Auth: Bearer ${KEY}"`."""
    return [variable for name, variable in _GIVEN.findall(command) if is_credential_name(name)]


def _by_variable(path: tuple[str, ...], text: str) -> bool:
    """Whether a setting of a command names a variable, which the shell fills in."""
    return path[:2] == ("model", "deployment") and bool(_SHELL_VARIABLE.fullmatch(text))


def _is_number(text: str) -> bool:
    """Numbers are tokens and keys of a count, not of a door."""
    return bool(_NUMBER.fullmatch(text))


def _is_named(path: tuple[str, ...], value: object) -> bool:
    """Whether the key's name says that it holds a credential."""
    name = path[-1] if path else ""
    if _SCHEMA_KEYS & set(path[:-1]):
        return False
    if len(path) > 1 and path[-2] == "headers" and _HEADER.search(name):
        return "token" not in name.lower() or is_credential_name(name)
    words = name.rpartition(".")[2]
    if is_credential_name(words):
        return isinstance(value, str) or "pass" in words.lower()
    above = [part.rpartition(".")[2] for part in path[2:-1]]
    return isinstance(value, str) and len(value) >= SHORTEST and any(map(is_credential_name, above))


def _variable_problem(key: str, text: str) -> str | None:
    if _VARIABLE.fullmatch(text) and not _looks_drawn(text):
        return None
    secrets.register(text)
    return (
        f"{key}: must be the name of an environment variable, and this is no name; export the key and name its variable"
    )


def _looks_drawn(text: str) -> bool:
    """Whether a word looks like a key drawn at random that stands where its variable's name should."""
    return len(text) >= 20 and any(letter.isdigit() for letter in text) and any(letter.islower() for letter in text)


def _exported(key: str, path: tuple[str, ...], variable: str) -> str:
    return f"{key}: holds the value of the environment variable {variable}; {_remedy(path, exported=True)}"


def _named(key: str) -> str:
    return f"{key}: looks like a secret; {_remedy(tuple(key.split('.')))}"


def _remedy(path: tuple[str, ...], *, url: bool = False, exported: bool = False) -> str:
    """What to do instead, for each part of a configuration."""
    name_it = "name the variable" if exported else "export it as an environment variable, and name that"
    if path[:2] == ("model", "headers"):
        return f"{name_it} in model.headers_env.{'.'.join(path[2:])}"
    if path[:2] == ("tracking", "uri"):
        return "export MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, instead"
    if path[:1] == ("tracking",):
        return "tags are shown to everybody who sees the run: leave it out"
    if path[:1] == ("hydra",):
        return "export it before the command instead"
    if path[:2] == ("model", "deployment"):
        return _IN_A_COMMAND
    if path[:1] == ("model",) or "model" in path:
        first = "take it out of the URL, " if url else ""
        return f"{first}{name_it} in model.api_key_env or model.headers_env"
    return "leave it out here, and let the program that needs it read it from its environment"
