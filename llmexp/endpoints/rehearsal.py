"""What a rehearsal puts in place of a provider: address, keys that open nothing, AWS files of its own."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmexp.config import Model, Simulated

_REGION = "us-east-1"
_PREFIXES = {"openai": "/v1", "gemini": "/v1beta"}


def wire_of(model: Model) -> str:
    """The wire that the model's provider speaks."""
    if model.api != "litellm":
        return model.api
    family = (model.provider or "").split("/")[0]
    for name, wire in (("bedrock", "bedrock"), ("sagemaker", "sagemaker"), ("vertex_ai", "gemini")):
        if family.startswith(name):
            return wire
    return family if family in ("anthropic", "gemini") else "openai"


def base_url(wire: str, address: str) -> str:
    """The simulator's address as clients of this wire take it."""
    return address + _PREFIXES.get(wire, "")


REHEARSED = 0.8
"""Share of right answers of a model that the simulator plays, where its rehearsal profile says nothing else."""


def knowing(model: Model, accuracy: float = REHEARSED) -> Model:
    """The model with what its rehearsal needs to be graded: a share of right answers."""
    if model.rehearsal.accuracy is not None:
        return model
    return model.model_copy(update={"rehearsal": model.rehearsal.model_copy(update={"accuracy": accuracy})})


def as_judge(model: Model) -> Model:
    """The model as a simulator plays a judge: it knows right from wrong, where its options do not say how well."""
    deployment = model.deployment
    if isinstance(deployment, Simulated) and deployment.profile.accuracy is None:
        profile = deployment.profile.model_copy(update={"accuracy": 1.0})
        model = model.model_copy(update={"deployment": deployment.model_copy(update={"profile": profile})})
    return knowing(model, 1.0)


@dataclass(frozen=True, slots=True)
class Throwaway:
    """Credentials that exist for one rehearsal."""

    aws: tuple[str, str, str]
    """Access key id, secret, session token."""
    environment: dict[str, str]
    """For every process that prepares or signs requests. It hides whatever the user has: empty counts as not set."""


@contextmanager
def throwaway(model: Model) -> Iterator[Throwaway]:
    """Credentials for everything that the model's configuration names."""
    key_id, secret = f"AKIAREHEARSAL{secrets.token_hex(4).upper()}", secrets.token_urlsafe(30)
    token, region = secrets.token_urlsafe(60), model.region or _REGION
    with tempfile.TemporaryDirectory(prefix="llmexp-rehearsal-") as folder:
        environment = {
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_SESSION_TOKEN": token,
            "AWS_SECURITY_TOKEN": token,
            "AWS_BEARER_TOKEN_BEDROCK": "",
            "AWS_PROFILE": model.profile or "default",
            "AWS_DEFAULT_PROFILE": model.profile or "default",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            **_files(Path(folder), model.profile, (key_id, secret, token)),
            **{name: "rehearsal" for name in (model.api_key_env, *model.headers_env.values()) if name},
        }
        yield Throwaway((key_id, secret, token), environment)


def _files(folder: Path, profile: str | None, keys: tuple[str, str, str]) -> dict[str, str]:
    """AWS's two files, knowing the model's profile and nothing of the user's."""
    config, credentials = folder / "config", folder / "credentials"
    names = dict.fromkeys(("default", profile or "default"))
    config.write_text("".join(f"[{name if name == 'default' else f'profile {name}'}]\n" for name in names))
    fields = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    section = "".join(f"{field} = {key}\n" for field, key in zip(fields, keys, strict=True))
    credentials.write_text("".join(f"[{name}]\n{section}" for name in names))
    return {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
