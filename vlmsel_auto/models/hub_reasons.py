"""Why a file of a hub cannot be had, in one clear sentence without secrets."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.process import is_disk_error

_UNAUTHORISED, _TOO_MANY = 401, 429  # HTTP status


def endpoint() -> str:
    """Address of the hub, without a password that may stand in it."""
    parts = urlsplit(constants.ENDPOINT)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def explain(error: Exception, file: HubFile, *, cache: Path) -> str:  # noqa: PLR0911 - one return a reason
    """Say in one sentence why a file cannot be had.

    Args:
        error: that the client, the transfer or the disk raised.
        file: that was asked for.
        cache: folder that it was to be written to.
    """
    name, where = " or ".join(file.names), f"{file.repository!r} on {endpoint()}"
    match error:
        case HFValidationError():
            return f"A hub repository is named ORG/NAME, but got {file.repository!r}"
        case GatedRepoError():
            return f"The hub wants a token with access (HF_TOKEN), but got a refusal for {where}"
        case RepositoryNotFoundError() | FileNotFoundError():  # the other is fsspec's
            return f"The hub has no such repository or file, or hides it from you, but got {where}"
        case OfflineModeIsEnabled():
            return f"HF_HUB_OFFLINE is set and the cache lacks {name}: unset it or download it first, but got {where}"
        case HfHubHTTPError():
            return _explain_status(error, where=where)
        case TrialUnavailable():  # the transfer's own
            return f"The download of {name} {error} for {where}"
        case _ if is_disk_error(error):
            return f"Cannot write {name} to {str(cache)!r}: free space or give rights, but got {said(error)}"
        case _:
            return (
                f"Cannot reach the hub: check the network or HF_ENDPOINT, or use candidates on this disk (mini-zoo, "
                f"local-dir:...), but got {said(error)} for {where}"
            )


def _explain_status(error: HfHubHTTPError, *, where: str) -> str:
    status = error.response.status_code
    if status == _UNAUTHORISED:
        return f"The hub wants a valid token (HF_TOKEN), or has no such repository, but got {status} for {where}"
    if status == _TOO_MANY:
        wait = wait_asked_for(error)
        asked = "" if wait is None else f" and is to be asked again in {wait} s"
        return f"The hub has too many requests{asked}: wait or set HF_TOKEN, but got {status} for {where}"
    return f"The hub answered with an error, try again later, but got {status} for {where}"


def said(error: Exception) -> str:
    """What an error says, on one line and without secrets."""
    kinds = {kind.__name__ for kind in type(error).__mro__}  # the client is httpx or httpx2, by version
    if "TimeoutException" in kinds:
        return f"no answer for {constants.HF_HUB_DOWNLOAD_TIMEOUT} s ({type(error).__name__})"
    text = _without_secrets(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hide_secrets_in_logs() -> None:
    """Have huggingface_hub's own warnings, such as those of a transfer that it tries again, tell no password."""
    for name in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        logging.getLogger(name).addFilter(_hide)


def _hide(record: logging.LogRecord) -> bool:
    record.msg, record.args = _without_secrets(record.getMessage()), ()
    return True


def _without_secrets(text: str) -> str:
    password, at, _ = urlsplit(constants.ENDPOINT).netloc.rpartition("@")
    for secret in (get_token(), password + at):
        text = text.replace(secret, "***") if secret else text
    return text


def wait_asked_for(error: HfHubHTTPError) -> int | None:
    """Seconds that a hub with too many requests asks to wait; None if it does not."""
    asked = str(error.response.headers.get("Retry-After", ""))
    return int(asked) if error.response.status_code == _TOO_MANY and asked.isdigit() else None
