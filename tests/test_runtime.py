from __future__ import annotations

import json

import pytest
import torch

from sdcorr import runtime
from sdcorr.errors import BadDevice
from sdcorr.runtime import Runtime, available_devices, library_versions, resolve_runtime


class Machine:
    """Makes torch see other hardware."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cuda = 0
        self.mps = False
        self.capabilities: dict[str, object] = {}
        monkeypatch.setattr(torch.cuda, "device_count", lambda: self.cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: self.cuda > 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU at {device}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: self.mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: self.capabilities)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A CPU without bfloat16 and no accelerator."""
    return Machine(monkeypatch)


def test_auto_picks_float16_on_the_first_gpu(machine: Machine):
    machine.cuda, machine.mps = 2, True
    machine.capabilities = {"amx_bf16": True}
    chosen = resolve_runtime()
    assert (str(chosen.device), chosen.dtype) == ("cuda:0", torch.float16)


def test_auto_picks_float32_on_mps(machine: Machine):
    machine.mps = True
    machine.capabilities = {"amx_bf16": True}
    chosen = resolve_runtime()
    assert (str(chosen.device), chosen.dtype) == ("mps", torch.float32)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False, "amx_tile": True}, torch.float32),
        ({"avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_picks_bfloat16_only_on_a_cpu_that_has_it(
    machine: Machine, capabilities: dict[str, object], dtype: torch.dtype
):
    machine.capabilities = capabilities
    chosen = resolve_runtime()
    assert (str(chosen.device), chosen.dtype) == ("cpu", dtype)


def test_auto_dtype_is_that_of_the_device_asked_for(machine: Machine):
    machine.cuda = 1
    assert resolve_runtime("cpu").dtype == torch.float32
    assert resolve_runtime("cuda").dtype == torch.float16


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_dtype_asked_for_is_kept(machine: Machine, name: str):
    machine.cuda = 1
    for device in ("cpu", "cuda"):
        chosen = resolve_runtime(device, name)
        assert chosen.dtype == getattr(torch, name)
        assert chosen.dtype_name == name


def test_a_device_asked_for_is_kept(machine: Machine):
    machine.cuda, machine.mps = 2, True
    assert available_devices() == ["cuda:0", "cuda:1", "mps", "cpu"]
    for name in available_devices():
        assert str(resolve_runtime(name).device) == name
    assert str(resolve_runtime("cuda").device) == "cuda:0"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu", ""])
def test_a_device_that_is_not_here_is_refused(machine: Machine, name: str):
    with pytest.raises(BadDevice, match=f"no device '{name}' here; expected auto or one of: cpu"):
        resolve_runtime(name)


def test_a_gpu_beyond_the_last_is_refused_and_the_others_named(machine: Machine):
    machine.cuda = 2
    with pytest.raises(BadDevice, match=r"no device 'cuda:2' here; .*cuda:0, cuda:1, cpu"):
        resolve_runtime("cuda:2")


def test_cuda_is_refused_where_mps_is_best(machine: Machine):
    machine.mps = True
    with pytest.raises(BadDevice, match=r"no device 'cuda' here; .*mps, cpu"):
        resolve_runtime("cuda")


@pytest.mark.parametrize("name", ["float64", "half", "fp16", "torch.float16", ""])
def test_an_unknown_dtype_is_refused_and_the_known_named(machine: Machine, name: str):
    with pytest.raises(BadDevice, match=f"'{name}'; expected auto, float32, bfloat16, float16"):
        resolve_runtime(dtype=name)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(machine: Machine, batch: int):
    with pytest.raises(BadDevice, match=f"at least 1, got {batch}"):
        resolve_runtime(batch=batch)


def test_a_batch_of_one_is_kept(machine: Machine):
    assert resolve_runtime(batch=1).batch == 1


def test_the_description_is_made_for_json():
    description = Runtime(torch.device("cpu"), torch.bfloat16, batch=3).describe()
    assert json.loads(json.dumps(description)) == description
    assert description["device"] == "cpu"
    assert description["dtype"] == "bfloat16"
    assert description["batch"] == 3
    assert description["threads"] == torch.get_num_threads()
    assert description["device_name"]
    assert description["versions"] == library_versions()


def test_the_description_of_a_gpu_names_it(machine: Machine):
    machine.cuda = 2
    description = resolve_runtime("cuda:1").describe()
    assert description["device"] == "cuda:1"
    assert description["device_name"] == "GPU at cuda:1"
    assert description["dtype"] == "float16"


def test_the_description_of_a_cpu_names_it(machine: Machine):
    machine.capabilities = {"cpu_name": "Abacus 3"}
    assert Runtime().describe()["device_name"] == "Abacus 3"


def test_a_library_that_is_not_installed_is_said_to_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "LIBRARIES", ("torch", "surely-no-such-library"))
    assert library_versions() == {
        "torch": torch.__version__,
        "surely-no-such-library": "not installed",
    }
