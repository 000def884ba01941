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
    **options: Any,
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
        options: for the class itself, as ``add_pooling_layer=False``.

    Raises:
        BadCheckpoint: weights are missing, of another shape, unreadable, or more than the config
            has layers for.
    """
    is_diffusers = kind.__module__.startswith("diffusers.")
    named: dict[str, Any] = {"torch_dtype": dtype}
    if not is_diffusers:  # a weight of another shape is told by its name, below
        named = {"dtype": dtype, "ignore_mismatched_sizes": True}
    where = folder / subfolder
    try:
        with _quiet():
            model, report = kind.from_pretrained(  # type: ignore[attr-defined]
                folder,
                subfolder=subfolder,
                use_safetensors=True,
                output_loading_info=True,
                **named,
                **options,
            )
    except Exception as error:  # a wrong value in a config raises nearly anything
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"{where} cannot be loaded as {kind.__name__}: {reason}") from error
    _check_whole(model, report, where, unused)
    loaded: Model = model.eval().requires_grad_(False)
    return loaded


def load_over(
    kind: type[Model], config: dict[str, Any], weights: Path, dtype: torch.dtype
) -> Model:
    """A diffusers model of one checkpoint's config with the weights of another file.

    Args:
        kind: the concrete class.
        config: as in its ``config.json``.
        weights: safetensors with the names of ``kind``'s parameters.
        dtype: dtype of the loaded weights.

    Raises:
        BadCheckpoint: weights are missing, left over, of another shape, or unreadable.
    """
    from accelerate import init_empty_weights
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name: value.to(dtype) for name, value in load_file(weights).items()}
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(f"{weights} is no readable safetensors file: {error}") from error
    try:
        with _quiet(), init_empty_weights():
            model = kind.from_config(config)  # type: ignore[attr-defined]
    except Exception as error:  # a wrong value in a config raises nearly anything
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"the config for {weights} cannot be used: {reason}") from error
    wanted = model.state_dict()
    shared = wanted.keys() & tensors.keys()
    report = {
        "missing_keys": wanted.keys() - tensors.keys(),
        "unexpected_keys": tensors.keys() - wanted.keys(),
        "mismatched_keys": [key for key in shared if wanted[key].shape != tensors[key].shape],
    }
    _check_whole(model, report, weights, unused=())
    model.load_state_dict(tensors, assign=True)
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
    prefix = f"{getattr(model, 'base_model_prefix', '')}."  # of checkpoints that have a head
    surplus = sorted(
        key
        for key in report["unexpected_keys"]
        # transformers' checkpoints may hold heads of other tasks, and tables that are computed now
        if from_diffusers or {key.split(".")[0], key.removeprefix(prefix).split(".")[0]} & parts
        if "position_ids" not in key
        if not key.startswith(unused)
    )
    if surplus:
        raise BadCheckpoint(
            f"{where} holds {len(surplus)} weights that its config has no place for, first "
            f"{surplus[0]!r}"
        )
    if report["mismatched_keys"]:
        names = (key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"])
        first = min(names)
        raise BadCheckpoint(f"{where} does not fit its config: {first} has another shape")


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
