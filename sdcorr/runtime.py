"""On what, and in which precision, the models run. Resolved once, recorded with every result."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from sdcorr.errors import BadDevice, OutOfMemory

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LIBRARIES = (
    "sdcorr", "torch", "diffusers", "transformers", "huggingface_hub", "numpy", "pillow",
    "opencv-python",
)  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """How features are computed; never part of a recipe.

    Args:
        device: a torch device, as in ``"cpu"`` or ``"cuda:1"``.
        dtype: precision inside the models; feature maps always leave them as float32.
        batch: photos, or windows of photos, in one forward pass; lower it to save memory. A
            benchmark on a GPU encodes so many photos together.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    batch: int = 4

    @property
    def photos(self) -> int:
        """Photos worth encoding together: one on a CPU, which is no quicker with several."""
        return 1 if self.device.type == "cpu" else self.batch

    @property
    def dtype_name(self) -> str:
        """``"float32"``, ``"bfloat16"`` or ``"float16"``."""
        return str(self.dtype).removeprefix("torch.")

    def describe(self) -> dict[str, object]:
        """What a reader needs to repeat a result on a like machine; made for JSON."""
        return {
            "device": str(self.device),
            "device_name": device_name(self.device),
            "dtype": self.dtype_name,
            "batch": self.batch,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": library_versions(),
        }


def resolve_runtime(device: str = "auto", dtype: str = "auto", batch: int = 4) -> Runtime:
    """The runtime for this machine.

    Args:
        device: ``"auto"`` picks cuda, then mps, then cpu; else any torch device.
        dtype: ``"auto"`` picks float16 on cuda, bfloat16 on a CPU with AMX or AVX512-BF16,
            float32 otherwise.
        batch: at least 1.

    Raises:
        BadDevice: the device is not here, or the dtype or batch is none.
    """
    if batch < 1:
        raise BadDevice(f"batch must be at least 1, got {batch}")
    place = _find_device(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise BadDevice(f"unknown dtype {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return Runtime(place, _auto_dtype(place) if dtype == "auto" else DTYPES[dtype], batch)


@contextmanager
def memory_in_words(recipe: str, runtime: Runtime) -> Iterator[None]:
    """Turn the many ways of running out of memory into one sentence on what to lower.

    Raises:
        OutOfMemory: in place of what torch or Python raised.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory on {runtime.device} in {runtime.dtype_name} with recipe {recipe!r}; "
            f"lower --batch (now {runtime.batch}), use --dtype bfloat16 or float16, another "
            "--device, or a smaller recipe"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is one of the errors by which Python and torch's devices say so."""
    words = str(error).lower()
    told = "allocate memory" in words or "out of memory" in words
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)


def available_devices() -> list[str]:
    """Devices that ``device=`` accepts here, best first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def library_versions() -> dict[str, str]:
    """Installed version of each library that can change a feature."""
    return {name: _version(name) for name in LIBRARIES}


def device_name(device: torch.device) -> str:
    """What the hardware calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout, or another build of the same library
        return "not installed"


def _find_device(name: str) -> torch.device:
    known = available_devices()
    if name == "auto":
        return torch.device(known[0])
    if name == "cuda" and known[0].startswith("cuda"):
        return torch.device("cuda:0")
    if name not in known:
        raise BadDevice(f"no device {name!r} here; expected auto or one of: {', '.join(known)}")
    return torch.device(name)


def _auto_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
