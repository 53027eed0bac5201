"""One file from a model hub, or one clear error soon.

huggingface_hub retries an unreachable hub for half a minute a file and open_clip tries several names for each, with all
errors but the last swallowed. Asking once, without retries, before open_clip starts tells a person in seconds what is
wrong: no network, no such repository, no such file, no permission.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.events import Notice, Sink, discard

_TIMEOUT = 10.0  # seconds for one answer of the hub


def hub_file(repository: str, names: Sequence[str], *, sink: Sink = discard) -> Path:
    """Return the path of the first of ``names`` that is in the local cache, else download the first that the hub has.

    ``repository`` is ``ORG/NAME`` on the hub that ``HF_ENDPOINT`` names; ``sink`` takes a notice before a download.

    Raises:
        TrialUnavailable: the hub cannot be reached or refuses, has none of the files, or the download broke off.
    """
    try:
        cached = (try_to_load_from_cache(repository, name) for name in names)
        known = next((path for path in cached if isinstance(path, str)), None)
        if known is not None:
            return Path(known)
        found = next((name for name in names if _is_on_hub(repository, name)), None)
    except Exception as error:  # the HTTP client of huggingface_hub has errors of its own: refused, timeout, DNS, TLS
        raise TrialUnavailable(_explain(error, repository=repository, names=names)) from error
    if found is None:
        raise TrialUnavailable(
            f"The hub repository lacks every file of {list(names)!r}, but got {repository!r} on {constants.ENDPOINT}"
        )
    sink(Notice(text=f"Downloading {found} of {repository} from {constants.ENDPOINT}"))
    try:
        return Path(hf_hub_download(repository, found))
    except Exception as error:  # as above; also a full disk, a broken connection, a digest that does not fit
        raise TrialUnavailable(
            f"The download of {found} from {repository!r} failed, but got {type(error).__name__}: {error}"
        ) from error


def cached_revision(repository: str, name: str) -> str:
    """Return the revision (commit) of a cached file; an empty text if it is not in the cache."""
    cached = try_to_load_from_cache(repository, name)
    return Path(cached).parent.name if isinstance(cached, str) else ""


def _is_on_hub(repository: str, name: str) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(repository, name), timeout=_TIMEOUT)
    except EntryNotFoundError:
        return False
    return True


def _explain(error: Exception, *, repository: str, names: Sequence[str]) -> str:
    where = f"{repository!r} on {constants.ENDPOINT}"
    match error:
        case HFValidationError():
            return f"A hub repository is named ORG/NAME, but got {repository!r}"
        case GatedRepoError():
            return f"The hub wants a token with access (HF_TOKEN), but got a refusal for {where}"
        case RepositoryNotFoundError():
            return f"The hub has no such repository, or hides it from you, but got {where}"
        case OfflineModeIsEnabled():
            return (
                f"HF_HUB_OFFLINE is set and the cache lacks {' and '.join(names)}: unset it or download them first, "
                f"but got {where}"
            )
        case HfHubHTTPError():
            status = error.response.status_code
            return f"The hub answered with an error, try again later, but got {status} for {where}"
        case _:
            return (
                f"Cannot reach the hub: check the network or HF_ENDPOINT, or use candidates on this disk (mini-zoo, "
                f"local-dir:...), but got {type(error).__name__}: {error} for {where}"
            )
