"""What is a credential, by name and by value, and what becomes of it in a text."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from llmexp import secrets
from llmexp.benchmark import cluster
from llmexp.clients.aws_failures import http_failure
from llmexp.clients.base import Failure, Response, excerpt
from llmexp.config import credentials
from llmexp.endpoints import keeper
from llmexp.results import guard
from llmexp.secrets import streams, values

VALUE = 'p4ss/w+rd "ü&x='


CREDENTIALS = (
    "api_key apiKey apikey X-Api-Key Ocp-Apim-Subscription-Key Authorization x-auth auth access_token accessToken "
    "access_key aws_secret_access_key AWS_ACCESS_KEY_ID aws_session_token OPENAI_API_KEY HF_TOKEN token key password "
    "DB_PASSWORD passwd client_secret cookie Set-Cookie x-goog-api-key bearer credentials private_key "
    "MLFLOW_TRACKING_TOKEN hf_token authToken secretKey DB_PASS GITHUB_PAT MYSQL_PWD PGPASSWORD"
)
ALIKE = (
    "max_tokens max_completion_tokens prompt_cache_key cache_key stop_token_ids stop_token logit_bias eos_token "
    "bos_token pad_token min_tokens skip_special_tokens tokenizer token_ids truncate_prompt_tokens budget_tokens "
    "top_k author authority monkey idempotency-key api_key_env keys keyword return_tokens_as_token_ids "
    "usd_per_million_output_tokens PWD OLDPWD inter-token time_per_output_token safety_identifier "
    "top_logprobs SSH_AUTH_SOCK AWS_SHARED_CREDENTIALS_FILE first_pass pat"
)


@pytest.mark.parametrize("name", CREDENTIALS.split())
def test_names_of_credentials(name: str) -> None:
    assert secrets.is_credential_name(name)


@pytest.mark.parametrize("name", ALIKE.split())
def test_names_that_only_sound_alike(name: str) -> None:
    assert not secrets.is_credential_name(name)


def forms(value: str) -> list[str]:
    raw = value.encode()
    return [
        value,
        quote(value, safe=""),
        quote_plus(value),
        quote(value, safe="").lower() if value.islower() else quote(value),
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        html.escape(value),
        str(escape(value)),
        value.replace('"', '""'),
        value.replace("'", "''"),
        repr(value),
        base64.b64encode(raw).decode(),
        base64.b64encode(b"me:" + raw).decode(),
        base64.b64encode(b"user:" + raw + b"!").decode(),
        base64.urlsafe_b64encode(b"ab" + raw).decode(),
    ]


@pytest.mark.parametrize("value", [VALUE, "sk-abcdefgh", "0123456789abcdef"])
def test_a_value_is_found_in_every_form(value: str) -> None:
    secrets.register(value)
    core = base64.b64encode(value.encode()).decode()[4:-5]
    for form in forms(value):
        shown = secrets.redact(f"401: you sent {form}, no")
        assert secrets.MASK in shown
        assert value not in shown
        assert core not in shown
        assert shown.startswith("401: you sent ")


def go_json(text: str) -> str:
    """As encoding/json writes a text."""
    shown = json.dumps(text, ensure_ascii=False)
    return shown.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


WRITERS: dict[str, Callable[[str], str]] = {
    "json": json.dumps,
    "php json": lambda text: json.dumps(text).replace("/", "\\/"),
    "go json": go_json,
    "python": repr,
    "bytes": lambda text: repr(text.encode()),
    "html": html.escape,
    "html by number": lambda text: "".join(letter if letter.isalnum() else f"&#{ord(letter)};" for letter in text),
    "a shell's quotes": lambda text: "'" + text.replace("'", "'\\''") + "'",
    "csv": lambda text: text.replace('"', '""'),
    "url": quote,
    "url, all of it": lambda text: quote(text, safe=""),
    "url in javascript": lambda text: quote(text, safe="!'()*~"),
    "url in small letters": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text)),
    "form": quote_plus,
    "markdown": lambda text: re.sub(r"([!#*+_<`\\[\]])", r"\\\1", text),
}
WRAPPED = [
    *((one, one) for one in ("json", "html", "url, all of it")),
    *(("json", two) for two in ("php json", "go json", "html", "csv")),
    ("html", "go json"),
]


@pytest.mark.parametrize("written", [*((one,) for one in WRITERS), *WRAPPED], ids=" in ".join)
def test_a_value_is_found_whoever_wrote_it(written: tuple[str, ...]) -> None:
    value = "aB3/x+Yz&q<9=Pw'\"\u00e9\\t#%:k~ !_*`\u20ac\U0001f511"
    secrets.register(value)
    text = value
    for name in written:
        text = WRITERS[name](text)
    shown = secrets.redact(f"you sent {text}, no")
    assert shown.startswith("you sent ")
    assert len(shown.replace(secrets.MASK, "").replace("you sent ", "")) <= len(", no") + 6 * len(written)


def test_base64_is_found_in_urls_in_json_and_over_several_lines() -> None:
    value = "sk????>>>>/live~~~~" + "0123456789abcdef" * 6
    secrets.register(value)
    for before in ("", "a", "ab"):
        coded = base64.b64encode(f"{before}{value}".encode()).decode()
        assert not coded.isalnum()
        lines = base64.encodebytes(f"{before}{value}".encode()).decode()
        for form in (quote(coded, safe=""), coded.replace("/", "\\/"), lines, json.dumps(lines)):
            shown = secrets.redact(f"got {form}!")
            assert coded[8:30] not in shown
            assert coded[-30:-8] not in shown
    innocent = base64.encodebytes(bytes(range(200))).decode()
    assert secrets.redact(innocent) == innocent


def test_what_a_header_carries_is_known_by_itself() -> None:
    basic = base64.b64encode(b"user:basic-pass-99").decode()
    secrets.register("Bearer carried-by-bearer", f"Basic {basic}", "theme=dark; session=cookie-0123456789abcdef; x=1")
    said = f"carried-by-bearer {basic} basic-pass-99 cookie-0123456789abcdef dark"
    assert secrets.redact(said) == "*** *** *** *** dark"


@pytest.mark.parametrize(
    "variable",
    [
        "api-key=inside-0123,x=1",
        "authorization=Bearer%20inside-0123",
        "Authorization: Bearer inside-0123",
        "-Dstore.password=inside-0123 -Xmx1g",
        '{"nested": [{"client_secret": "inside-0123"}]}',
        "Server=h;Password=inside-0123;",
    ],
)
def test_a_credential_inside_of_an_innocent_variable_is_learned(variable: str) -> None:
    secrets.learn({"SETTINGS": variable})
    assert secrets.redact("you sent inside-0123, x=1 on h") == "you sent ***, x=1 on h"


@pytest.mark.parametrize(
    "value", ["a" * 300 + "/bcdefgh", "~nobody-is-called-so/abcdefgh", "abcdefgh\udcff", "a/\0bcdefgh"]
)
def test_a_secret_of_any_shape_stops_nothing(value: str) -> None:
    secrets.learn({"SOME_TOKEN": value})
    assert secrets.redact(f"it is {value}") == "it is ***"


@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_no_registered_value_survives(value: str, before: str, after: str) -> None:
    secrets.register(value)
    try:
        assert value not in secrets.redact(before + value + after).replace(secrets.MASK, "")
    finally:
        values._known.discard(value)
        values._pattern = None


def test_short_values_are_left_and_trees_are_walked() -> None:
    secrets.register("short", "")
    assert secrets.redact("a short word") == "a short word"
    secrets.register("tree-secret-1")
    found = secrets.redact_tree({"a": ["tree-secret-1", 1], "tree-secret-1": ("x tree-secret-1",), "n": None})
    assert found == {"a": ["***", 1], "***": ["x ***"], "n": None}


def test_passwords_in_urls_are_masked_whatever_their_length() -> None:
    assert secrets.redact("at postgresql://me:pw@host/db: no") == "at postgresql://me:***@host/db: no"
    for password in ("p/w", "p@w", "p#w"):
        assert secrets.redact(f"got 'http://me:{password}@h:80/v1'") == "got 'http://me:***@h:80/v1'"
    assert secrets.redact("postgresql://me:1234@h/db") == "postgresql://me:***@h/db"
    innocent = ("http://h:8000/m/org@rev", "http://h/m:8/org@rev", "http://a:80,http://b:81/x@y", "ws://h:80|a@b")
    for url in (*innocent, "<td>http://h:8080</td><td>a@b</td>", "<td>http://h:x</td><td>a@b</td>"):
        assert secrets.redact(url) == url


@pytest.mark.timeout(30)  # in time that grows with the square of the length, each would take many minutes
@pytest.mark.parametrize(
    "text", ["://a", "a://b:", "a://b:c@", "a://b:c@ ", "a:", "a.", "\\", "sk-", "A" * 76 + "\n", " "]
)
def test_what_a_server_writes_is_looked_through_once(text: str) -> None:
    secrets.register(
        "sk-sk-sk-sk-sk-x", "A" * 50 + "+b/" * 9, "\\" * 12 + "x y z", "  two  spaces  ", "x" + " + \n" * 6 + "y"
    )
    shown = secrets.redact(text * 20_000)
    assert (secrets.MASK in shown) == ("@" in text)
    secrets.learn({"ANY": text * 20_000})
    assert credentials.problems({"any": f"{text * 10_000} "}, {}) == [] or "@" in text


def test_an_environment_is_learned_by_names_and_urls() -> None:
    secrets.learn({"SOME_TOKEN": "tok-11223344", "HTTPS_PROXY": "http://u:pr0xy%2Fpass@h:1", "PLAIN": "plain-value"})
    assert secrets.redact("tok-11223344 pr0xy/pass pr0xy%2Fpass plain-value") == "*** *** *** plain-value"
    connection = "DefaultEndpointsProtocol=https;AccountName=not-secret;AccountKey=c0nnection+key==;EndpointSuffix=x"
    secrets.learn({"STORAGE": connection, "MY_API_KEY": "first-key-0,second-key-1"})
    assert secrets.redact("not-secret c0nnection+key== second-key-1") == "not-secret *** ***"


def test_what_the_chain_of_aws_and_a_judge_s_variable_give_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmexp.clients import credentials as lacking
    from llmexp.config import Model

    shared = tmp_path / "credentials"
    shared.write_text(
        "[work]\naws_access_key_id = AKIAPROFILE0123456\naws_secret_access_key = pr0file/secret+0123456789\n"
        "aws_session_token = s3ssion-of-the-profile-0123\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    monkeypatch.setenv("JUDGES", "judge-of-all-0123")
    aws = Model(name="eu.anthropic.claude-x", api="bedrock", region="eu-west-1", profile="work")
    judge = Model(name="m", api="openai", base_url="http://127.0.0.1:1/v1", api_key_env="JUDGES")
    assert lacking.problems(aws) == lacking.problems(judge) == []
    said = "AKIAPROFILE0123456 pr0file/secret+0123456789 s3ssion-of-the-profile-0123 judge-of-all-0123"
    assert secrets.redact(said) == "*** *** *** ***"


def test_ray_s_tokens_are_known_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(cluster._own_token(tmp_path)["RAY_AUTH_TOKEN_PATH"]).read_text()
    (tmp_path / "theirs").write_text("token-of-a-cluster-0123\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "theirs"))
    cluster._token_at_hand()
    assert secrets.redact(f"{own} token-of-a-cluster-0123") == "*** ***"


KEY_FILE = {
    "type": "service_account",
    "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvAIBADANBgkqhkiG9w0BAQ\n-----END PRIVATE KEY-----\n",
}


def test_a_key_of_several_lines_is_known_line_by_line() -> None:
    secrets.learn({"VERTEX_CREDENTIALS": json.dumps(KEY_FILE)})
    for shown in (KEY_FILE["private_key"], "at\n  MIIEvAIBADANBgkqhkiG9w0BAQ\n", json.dumps(KEY_FILE)):
        assert "MIIEvAIBADANBgkqhkiG9w0BAQ" not in secrets.redact(shown)


def test_a_text_is_cut_after_its_secrets_are_gone() -> None:
    secrets.register("cut-in-two-0123456789")
    assert secrets.trimmed("you sent cut-in-two-0123456789, no", 20) == "you sent ***, no"
    assert secrets.trimmed(f"{'x' * 30} cut-in-two-0123456789", 20) == f"{'x' * 19}…"
    error = ValueError(f"{'x' * 285} cut-in-two-0123456789")
    assert "cut-in" not in guard.one_line(error)


LONG = "eyJ" + "0123456789abcdef" * 150
TOKEN = "tok" + "0123456789abcdef" * 70
PHRASE = "correct horse  battery staple"


@pytest.mark.parametrize(
    "said",
    [
        f"you sent {LONG}",
        f"you sent {TOKEN} {TOKEN}",
        f"you sent {f'{TOKEN},' * 40}",
        f"you sent {f'{TOKEN} ' * 40}",
        f"{' ' * (secrets.LOOKED_AT - 9)}{LONG}",
        f"{'x' * (secrets.LOOKED_AT - 9)} {LONG}",
        f"{'x ' * (secrets.LOOKED_AT // 2 - 9)}{PHRASE}",
        f"you sent {f'{PHRASE} ' * 2000}",
    ],
    ids=range(8),
)
def test_no_part_of_a_long_secret_is_left_by_a_cut(said: str) -> None:
    secrets.register(LONG, TOKEN, PHRASE)
    failures = [Failure.of("auth", said, said), http_failure(Response(401, {}, [(0, said.encode())], complete=True))]
    shown = [excerpt(said.encode()), secrets.beginning(said)]
    for text in [*shown, *(part for one in failures for part in (one.message, str(one.code)))]:
        assert not re.search("0123456789a|correct|horse|batt|stap", text)
    assert len(secrets.beginning(said)) <= secrets.LOOKED_AT
    if said.startswith("you"):
        assert failures[0].message.startswith("you sent ***")


def test_what_was_typed_where_a_credential_stands_is_not_shown_by_its_refusal() -> None:
    secrets.learn_words(["+model.params.api_key='typed-in-7788'", "model.name=not-a-secret", "-m"])
    assert secrets.redact("'typed-in-7788' for not-a-secret") == "*** for not-a-secret"
    secrets.learn_words(
        ["--metadata=a,api_key=typed-in-99", "{'token': 'typed-in-66'", "quality.x={api_key: typed-in-55}"]
    )
    secrets.learn_words(
        ["+model.headers_env.X-Api-Key=NAME_OF_A_VARIABLE", "model.params.api_key=${oc.env:OTHER_NAME}"]
    )
    assert secrets.redact("typed-in-99 typed-in-66 typed-in-55") == "*** *** ***"
    assert secrets.redact("NAME_OF_A_VARIABLE OTHER_NAME") == "NAME_OF_A_VARIABLE OTHER_NAME"


@pytest.mark.parametrize("name", ["llmexp", "somebody.else"])
def test_no_log_file_holds_one_whoever_opened_it(name: str, tmp_path: Path) -> None:
    secrets.register("logged-secret-1", "raised-secret-2")
    factory, log, file = logging.getLogRecordFactory(), logging.getLogger(name), tmp_path / "job.log"
    handler = logging.FileHandler(file)
    if name != "llmexp":  # a logger that is not ours: the command's own factory is in place then
        logging.setLogRecordFactory(streams._Redacted)
    log.addHandler(handler)
    try:
        int("raised-secret-2")
    except ValueError:
        log.exception("key %s", "logged-secret-1")
    finally:
        log.removeHandler(handler)
        handler.close()
        logging.setLogRecordFactory(factory)
    said = file.read_text()
    assert "key ***" in said
    assert "with base 10: '***'" in said
    assert "-secret-" not in said


def test_a_log_s_format_cuts_no_secret_and_sees_no_traceback() -> None:
    class Shows:
        def __repr__(self) -> str:
            return "<logged-secret-1>"

    secrets.register("logged-secret-1", "raised-secret-2")
    try:
        int("raised-secret-2")
    except ValueError as error:
        raised = (type(error), error, error.__traceback__)
    parts = ("%.8s %r %d %s", ("logged-secret-1", Shows(), 7, Shows()))
    record = streams._Redacted("x", logging.ERROR, "x.py", 1, *parts, raised)
    assert record.getMessage() == "*** '<***>' 7 <***>"
    assert record.exc_info is None
    assert "-secret-" not in repr(vars(record))


def test_a_server_s_log_holds_no_secret_however_its_bytes_come(tmp_path: Path) -> None:
    names = credentials.variables_given("serve --api-key ${PLAIN} --models $HOME -H 'X-Auth: Bearer $OTHER'")
    assert names == ["PLAIN", "OTHER"]
    environment = {"PLAIN": "plain-secret-0123", "OTHER": "other-secret-4567", "HOME": "/home/of/somebody"}
    log = keeper.Log(tmp_path / "server.log", environment, names)
    for piece in (b"args: plain-sec", b"ret-0123 at /home/of/somebody\n", b"." * (keeper.LONGEST_LINE - 8)):
        log.take(piece)
    for at in range(40):  # a line without an end, in pieces that cut the secret at each of its letters
        log.take(b"other-secret-4567"[: at % 17])
        log.take(b"other-secret-4567"[at % 17 :] + b"." * keeper.LONGEST_LINE)
    log.move(tmp_path / "next.log", "")
    log._file.close()
    said = (tmp_path / "server.log").read_text()
    assert said.startswith("args: *** at /home/of/somebody\n")
    assert said.count("***") == 41
    assert "secret" not in said


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert secrets.printable("a\x1b[31mred\x07\u202e") == "a\\x1b[31mred\\x07\\u202e"
    assert secrets.printable("tab\tline\nümlaut") == "tab\tline\nümlaut"


REFUSED = {
    "model.base_url": "http://user:PW@h/v1",
    "model.base_url?": "http://h/v1?api_key=Q",
    "model.base_url#": "https://ghp_token@h/v1",
    "model.base_url??": "http://me:hunt/er@h/v1",
    "model.params.access_token": "hunter22",
    "model.params.extra.api_key": "hunter22",
    "model.params.extra_headers.Authorization": "Bearer abcdefgh",
    "model.params.list": ["Bearer abcdefgh"],
    "tracking.tags.api_key": "hunter22",
    "tracking.tags.note": "Bearer abcdefghij",
    "tracking.uri": "postgresql://me:pw@h/db",
    "model.metrics_url": "http://u:p@h/metrics",
    "model.headers.Authorization": "hunter22",
    "model.headers.X-Team": "in-the-environment",
    "model.headers.X-Raw": "${oc.env:MY_SECRET}",
    "model.headers.X-Any": "${oc.env:S}",
    "model.api_key_env": "sk-ant-abcdefgh",
    "model.headers_env.X-Key": "abc def ghi",
    "model.deployment.command": "vllm serve m --api-key sk-abc --port {port}",
    "model.deployment.env.HF_TOKEN": "hunter22",
    "hydra.job.env_set.OPENAI_API_KEY": "hunter22",
    "model.params.password": 12345678,
    "model.params.auth.value": "hunter2222",
    "tracking.tags.remark": "use sk-ant-api03-AbCdEfGh0123456789_-xyz for it",
    "workload.file": "data/AKIAIOSFODNN7EXAMPLE.jsonl",
    "model.base_url???": "https://h/v1?code=hunter2222",
    "model.params.extra_headers.X-Team": "${oc.env:S}",
    "model.deployment.probe": "curl -H 'Authorization: Bearer abcdefgh12'",
    "tracking.tags.connection": "Server=h;Password=hunter2222;",
    "tracking.tags.pair": "api_key=hunter2222",
    "tracking.tags.header": "X-Api-Key: hunter2222",
    "tracking.tags.pem": "-----BEGIN RSA PRIVATE KEY-----",
    "tracking.tags.hook": "https://hooks.example.com/services/T000/B000/XXXXXXXX",
    "tracking.tags.coded": f"id {base64.b64encode(b'me:in-the-environment').decode()}",
    "model.base_url????": "http://h/v1/in%2Dthe%2Denvironment",
    "model.headers.X-Part": "part-of-a-header-0123",
    "model.headers.X-Coded": "Basic dXNlcjpwYXNz",
}
ALLOWED = {
    "model.base_url": "http://h:8000/v1?api-version=2024-10-21",
    "model.params.prompt_cache_key": "x",
    "model.params.max_tokens": 5,
    "model.params.stop_token_ids": [1, 2],
    "model.params.logit_bias": {"50256": -100},
    "model.params.eos_token": "</s>",
    "model.params.tools": [{"function": {"parameters": {"properties": {"password": {"type": "string"}}}}}],
    "model.params.api_key": None,
    "model.headers.X-Tokens-Left": "5",
    "model.headers_env.Authorization": "MY_SECRET",
    "model.api_key_env": "OPENAI_API_KEY",
    "model.tokenizer": "o200k_base",
    "workload.instruction": "Basic understanding suffices. Token by token, answer with the key to it.",
    "tracking.uri": "postgresql://me@h/db",
    "tracking.tags.team": "search",
    "model.deployment.command": "vllm serve m --max-model-len 4096 --tokenizer-mode auto --api-key $KEY",
    "workload.prefix_tokens": 5,
    "model.params.auth.kind": "none",
    "model.revision": "sk-learn-of-2026-with-a-long-name-and-digits",
    "model.deployment.probe": 'curl -H "Authorization: Bearer $KEY"',
    "quality.judge.rubric": "Authorization: is it granted? Token: which one? Password: incorrect answers score 0.",
    "workload.instruction?": "stop_token=</s>, max_tokens=100000000, key=$SOMETHING, api_key=<your key>",
}


def tree_of(key: str, value: object) -> dict[str, object]:
    tree: object = value
    for part in reversed(key.rstrip("?#").split(".")):
        tree = {part: tree}
    assert isinstance(tree, dict)
    return tree


ENVIRON = {
    "MY_SECRET": "in-the-environment",
    "PLAIN": "search-plain",
    "GATE_AUTH": "Bearer part-of-a-header-0123",
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_credential_in_a_config_is_named_without_its_value(key: str) -> None:
    (line,) = credentials.problems(tree_of(key, REFUSED[key]), ENVIRON)
    assert line.startswith(f"{key.rstrip('?#')}: ")
    assert "; " in line
    assert str(REFUSED[key]) not in line
    assert "PW" not in line


def test_a_variable_that_the_config_names_is_known_by_its_value_too() -> None:
    tree = tree_of("model.api_key_env", "MINE") | {"workload": {"note": "x value-of-mine-1 y"}}
    (line,) = credentials.problems(tree, {"MINE": "value-of-mine-1"})
    assert line.startswith("workload.note: holds the value of the environment variable MINE")
    assert credentials.problems(tree_of("model.name", "my-model"), {"SOME_TOKEN": "my-model"}) == []


def test_the_words_that_stand_for_no_key_are_no_secrets() -> None:
    secrets.learn({"OPENAI_API_KEY": "anything"})
    assert secrets.redact("anything goes") == "anything goes"


@pytest.mark.parametrize("key", ALLOWED)
def test_what_only_sounds_alike_is_no_credential(key: str) -> None:
    assert credentials.problems(tree_of(key, ALLOWED[key]), ENVIRON) == []


def test_folders_names_are_part_of_a_config() -> None:
    hydra = {"run": {"dir": "outputs/${oc.env:SOME_TOKEN}"}, "sweep": {"dir": "a"}, "job": {"name": "llmexp"}}
    (line,) = credentials.composed_problems({"hydra": hydra}, [], {})
    assert line.startswith("hydra.run.dir: holds the value of the environment variable SOME_TOKEN")
    (line,) = credentials.composed_problems(
        {"search": {"space": {"model.params.api_key": {"choices": ["hunter2222"]}}}}, [], {}
    )
    assert line.startswith("search.space.model.params.api_key.choices: looks like a secret")


def test_overrides_are_checked_as_typed() -> None:
    bad = ["+model.params.api_key=a,b", "model.base_url=http://a/v1,http://u:p@b/v1", "~model.params={token: x}"]
    assert len(credentials.override_problems(bad, {})) == 3
    good = ["concurrency=1,4", "model.params.prompt_cache_key=x", "model=a,b", "hydra.job.env_copy=[HF_TOKEN]"]
    assert credentials.override_problems(good, {}) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"command": "sh --port {port} --api-key sk-123"}, "model.deployment.command: --api-key holds a credential"),
        ({"command": "HF_TOKEN=hf_abc sh --port {port}"}, "model.deployment.command: HF_TOKEN holds a credential"),
        ({"command": "sh {api_key}", "api_key": "sk-1"}, "model.deployment.api_key: looks like a secret"),
    ],
)
def test_a_credential_in_a_command_belongs_into_the_environment(settings: dict[str, object], words: str) -> None:
    (line,) = credentials.problems({"model": {"deployment": settings}}, {})
    assert line.startswith(words)
    assert line.endswith("put it in an environment variable and write $VARIABLE, which the shell fills in")


@pytest.mark.parametrize(
    "settings",
    [
        {"command": "sh --port {port} --max-tokens 5 --tokenizer x --inter-token 0.2"},
        {"command": "HF_TOKEN=$MINE sh --port {port} --api-key $KEY"},
        {"command": 'HF_TOKEN="$MINE" sh --port {port} --api-key "${KEY}"'},
        {"command": "sh --api-key {api_key}", "api_key": "${KEY}"},
        {"command": f"cd {Path.cwd()} && sh --port {{port}}"},
    ],
)
def test_a_command_that_only_names_variables_is_fine(settings: dict[str, object]) -> None:
    assert credentials.problems({"model": {"deployment": settings}}, {"PWD": str(Path.cwd())}) == []


def test_a_text_that_is_json_is_looked_into() -> None:
    (line,) = credentials.problems({"model": {"params": {"extra": '{"a": [{"api_key": "hunter2222"}]}'}}}, {})
    assert line.startswith("model.params.extra.a.api_key: looks like a secret")
    assert not credentials.problems(
        {"model": {"params": {"extra": '{"max_tokens": 5, "stop_token": "hunter2222"}'}}}, {}
    )
