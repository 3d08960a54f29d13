"""What every AWS client shares: the credential chain, region and endpoint as boto3 finds them, signatures.

Bodies may be prepared minutes ahead; `Signer.sign` comes shortly before the send, because AWS refuses a signature older
than five minutes and session credentials rotate. It signs whoever prepared the request, LiteLLM included. Nothing here
sends a request, except what the credential chain itself needs (SSO, STS, instance metadata).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound
from botocore.session import Session

from llmexp import secrets
from llmexp.clients import address
from llmexp.clients.base import HttpRequest, Target
from llmexp.config import Model
from llmexp.errors import ConfigError, JobError

SIGNATURE_LIFETIME_S = 60.0
EVENT_STREAM = "application/vnd.amazon.eventstream"
_REDIRECTED_REGION = "us-east-1"
_SIGNATURE_HEADERS = frozenset({"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "date"})


@dataclass(frozen=True, slots=True)
class Service:
    """One runtime API."""

    name: str
    """As boto3 calls its client; `AWS_ENDPOINT_URL_<NAME>` redirects it."""
    signing_name: str
    bearer_variable: str | None = None
    """AWS's variable of an API key that takes the signature's place."""


BEDROCK = Service("bedrock-runtime", "bedrock", "AWS_BEARER_TOKEN_BEDROCK")
SAGEMAKER = Service("sagemaker-runtime", "sagemaker")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a runtime is."""

    target: Target
    prefix: str
    """Path that comes before every request's own."""
    region: str
    """The region that signatures name."""


def open_session(model: Model) -> Session:
    """A botocore session with the model's profile, or the credential chain's own."""
    session = Session(profile=model.profile)
    try:
        session.get_scoped_config()
    except BotoCoreError as error:
        raise ConfigError(explain_error(error, model)) from None
    return session


def region_of(model: Model, session: Session, base_url: str | None = None) -> str:
    """The region: model.region, boto3's search, variables of other SDKs, the ARN's; a redirected model needs none."""
    arn = model.name.split(":")
    candidates = (
        model.region,
        session.get_config_variable("region"),
        os.environ.get("AWS_REGION"),
        os.environ.get("AWS_REGION_NAME"),
        arn[3] if arn[0] == "arn" and len(arn) > 5 else None,
        _REDIRECTED_REGION if base_url else None,
    )
    found = next((region for region in candidates if region), None)
    if found is None:
        raise ConfigError(
            "model.region: no AWS region found; set model.region=us-east-1, AWS_REGION, or the profile's region"
        )
    return found


def find_endpoint(model: Model, service: Service, base_url: str | None, session: Session | None = None) -> Endpoint:
    """Where the runtime is: base_url, else as boto3 resolves it (variables, profile, partition), else AWS's own."""
    session = session or open_session(model)
    region = region_of(model, session, base_url)
    try:
        # Placeholder keys keep the client from walking the credential chain; it only tells its address.
        client = session.create_client(
            service.name,
            region_name=region,
            endpoint_url=base_url,
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"model: no endpoint of {service.name} in region '{region}': {error}") from None
    found = client.meta.endpoint_url
    return Endpoint(address.target(found), urlsplit(found).path.rstrip("/"), region)


def path_segment(text: str) -> str:
    """One label of a path, encoded as botocore does: an ARN's colons and slashes too."""
    return quote(text, safe="-._~")


def bearer_key(model: Model, service: Service) -> str | None:
    """Bedrock's API key, from the variable that the model names or AWS's own; None: the request is to be signed."""
    if service.bearer_variable is None:
        return None
    return address.api_key(model) or os.environ.get(service.bearer_variable) or None


class Signer:
    """Signs requests to one runtime with the credentials of the moment.

    Credentials that expire are refreshed by botocore before they do; a shared credentials or config file that was
    written anew (as sign-on tools do) is read again.
    """

    def __init__(self, model: Model, service: Service, endpoint: Endpoint, session: Session | None = None) -> None:
        self._model, self._service, self._endpoint = model, service, endpoint
        self._session = session or open_session(model)
        self._files = _file_stamps(self._session)
        self._credentials: _Credentials | None = None

    def sign(self, http: HttpRequest) -> HttpRequest:
        """The request with a fresh signature in place of any older one.

        Raises `JobError` when the chain has no valid credentials any more.
        """
        bare = tuple(header for header in http.headers if header[0].lower() not in _SIGNATURE_HEADERS)
        if token := bearer_key(self._model, self._service):
            return http.with_headers((*bare, ("Authorization", f"Bearer {token}")))
        target = self._endpoint.target
        url = f"{target.scheme}://{target.authority}{http.path}"
        request = AWSRequest(method=http.method, url=url, headers=dict(bare), data=http.body)
        SigV4Auth(self._frozen(), self._service.signing_name, self._endpoint.region).add_auth(request)
        return http.with_headers(tuple(request.headers.items()))

    def _frozen(self) -> ReadOnlyCredentials:
        try:
            self._reload_if_rewritten()
            if self._credentials is None:
                self._credentials = load_credentials(self._session)
            frozen = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, ConfigError) as error:
            raise JobError(explain_error(error, self._model)) from None
        return remembered(frozen)

    def _reload_if_rewritten(self) -> None:
        files = _file_stamps(self._session)
        if files != self._files:
            self._session, self._files, self._credentials = open_session(self._model), files, None


def remembered(frozen: ReadOnlyCredentials) -> ReadOnlyCredentials:
    """The credentials, known from now on to the funnel that keeps them out of texts."""
    secrets.register(frozen.access_key, frozen.secret_key, frozen.token)
    return frozen


class _Credentials(Protocol):
    def get_frozen_credentials(self) -> ReadOnlyCredentials: ...


def load_credentials(session: Session) -> _Credentials:
    """What the chain finds; raises botocore's own errors, `NoCredentialsError` among them."""
    credentials: _Credentials | None = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    return credentials


def _file_stamps(session: Session) -> tuple[int, ...]:
    """When the shared files were last written; 0 for one that is not there."""
    paths = (session.get_config_variable(name) for name in ("credentials_file", "config_file"))
    return tuple(_written_ns(Path(path).expanduser()) for path in paths)


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


# --- messages --------------------------------------------------------------------------------------------------------


def explain_error(error: Exception, model: Model) -> str:
    """What is wrong with the credentials and what to do, in one line; never a secret."""
    variable = next((name for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE") if os.environ.get(name)), None)
    profile = model.profile or (os.environ[variable] if variable else None)
    named = f"profile '{profile}'" if profile else "the default credential chain"
    option = f" --profile {profile}" if profile else ""
    if isinstance(error, ProfileNotFound):
        key = "model.profile" if model.profile or variable is None else variable
        return f"{key}: AWS profile '{profile}' is in no AWS config file; see `aws configure list-profiles`"
    if isinstance(error, NoCredentialsError):
        return (
            f"model: no AWS credentials in {named}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            f"or run `aws sso login{option}`"
        )
    kind = type(error).__name__
    remedy = f"; run `aws {'sso ' if 'Login' not in kind else ''}login{option}`" if _is_sign_on(kind) else ""
    return f"model: AWS credentials of {named}: {' '.join(str(error).split())}{remedy}"


def _is_sign_on(kind: str) -> bool:
    return any(word in kind for word in ("SSO", "Login", "TokenRetrieval"))
