"""Load one part of a checkpoint folder, whole or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sdcorr.errors import BadCheckpoint
from sdcorr.runtime import is_out_of_memory

Model = TypeVar("Model", bound=nn.Module)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of the checkpoint; raises BadCheckpoint where it is not one."""
    try:
        config = json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{folder / name} is not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{folder / name} holds a {type(config).__name__}, expected an object")
    return config


def load_part(
    kind: type[Model],
    folder: Path,
    subfolder: str,
    dtype: torch.dtype,
    unused: tuple[str, ...] = (),
) -> Model:
    """A transformers or diffusers model from safetensors, in eval mode and without gradients.

    Both libraries fill missing weights with random values or leave them empty, without an
    error; this refuses them.

    Args:
        kind: the concrete class.
        folder: checkpoint folder.
        subfolder: part of it, ``""`` for the folder itself.
        dtype: dtype of the loaded weights.
        unused: prefixes of weights that may be missing since they are never run.

    Raises:
        BadCheckpoint: weights are missing, of another shape, unreadable, or more than the config
            has layers for.
    """
    is_diffusers = kind.__module__.startswith("diffusers.")
    where = folder / subfolder
    try:
        with _quiet():
            model, report = kind.from_pretrained(  # type: ignore[attr-defined]
                folder,
                subfolder=subfolder,
                use_safetensors=True,
                output_loading_info=True,
                **{"torch_dtype" if is_diffusers else "dtype": dtype},
            )
    except Exception as error:  # a wrong value in a config raises nearly anything
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"{where} cannot be loaded as {kind.__name__}: {reason}") from error
    _check_whole(model, report, where, unused)
    loaded: Model = model.eval().requires_grad_(False)
    return loaded


def _check_whole(
    model: nn.Module, report: dict[str, Any], where: Path, unused: tuple[str, ...]
) -> None:
    """Refuse a model some of whose weights were missing, left over, or of another shape."""
    name = type(model).__name__
    from_diffusers = type(model).__module__.startswith("diffusers.")
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if missing:
        raise BadCheckpoint(
            f"{where} is no whole {name}: {len(missing)} weights are missing, first {missing[0]!r}"
        )
    parts = {name for name, _ in model.named_children()}
    surplus = sorted(
        key
        for key in report["unexpected_keys"]
        # transformers' checkpoints may hold heads of other tasks, and tables that are computed now
        if (from_diffusers or key.split(".")[0] in parts) and "position_ids" not in key
        if not key.startswith(unused)
    )
    if surplus:
        raise BadCheckpoint(
            f"{where} holds {len(surplus)} weights that its config.json has no place for, first "
            f"{surplus[0]!r}"
        )
    if report["mismatched_keys"]:
        first = sorted(map(str, report["mismatched_keys"]))[0]
        raise BadCheckpoint(f"{where} does not fit its config.json: {first} has another shape")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loaders' bars and reports; what matters of them is checked above."""
    import transformers.utils.logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
