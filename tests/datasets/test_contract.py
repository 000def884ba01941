"""What every data set with keypoints promises, checked on each file of the folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sdcorr import plugins
from sdcorr.datasets.pf_pascal import PfPascal
from sdcorr.datasets.pf_willow import PfWillow
from sdcorr.errors import BadDataset
from sdcorr.metrics import keypoint_box_side
from sdcorr.preprocess import read_size
from tests.annotated import write_pf_pascal, write_pf_willow, write_spair
from tests.annotated_ap10k import write_ap10k

# a new file in the folder needs a line in both
WRITERS = {
    "ap10k": write_ap10k,
    "pf_pascal": write_pf_pascal,
    "pf_willow": write_pf_willow,
    "spair": write_spair,
}
LISTS = {
    "ap10k": "annotations/ap10k-test-split1.json",
    "pf_pascal": "test_pairs_pf_pascal.csv",
    "pf_willow": "test_pairs.csv",
    "spair": "Layout/large/test.txt",
}
NAMES = sorted(WRITERS)
FLOW = {"tss"}  # annotated with dense flow, and tested on its own
ONE_WAY = {"ap10k"}  # of two photos one is always the source


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: WRITERS[name](tmp_path_factory.mktemp(name) / "data") for name in NAMES}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def dataset(roots, name):
    return plugins.find("datasets", name)(roots[name])


def test_every_file_of_the_folder_is_tested():
    assert set(plugins.names("datasets")) == {*NAMES, *FLOW}


def test_a_config_is_frozen_and_hashable(dataset):
    assert hash(dataset) == hash(dataclasses.replace(dataset))
    assert dataset == dataclasses.replace(dataset)
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.root = Path()


def test_only_the_root_has_no_default(dataset, roots, name):
    fields = dataclasses.fields(dataset)
    bare = [field.name for field in fields if field.default is dataclasses.MISSING]
    assert bare == ["root"]
    assert dataset.root == roots[name]


def test_its_name_is_that_of_its_file(dataset, name):
    assert plugins.name_of(dataset) == name


def test_the_usual_rule_is_declared_for_the_class(dataset):
    for one in (dataset, type(dataset)):
        assert one.threshold in ("box", "keypoints", "image")
        assert one.alphas
        assert all(0 < alpha <= 1 for alpha in one.alphas)


def test_every_pair_has_the_frame_of_the_usual_threshold(dataset):
    for pair in dataset.pairs():
        if dataset.threshold == "box":
            x0, y0, x1, y1 = pair.target_box
            assert x0 < x1
            assert y0 < y1
        if dataset.threshold == "keypoints":
            assert keypoint_box_side(pair.target_keypoints) > 0


def test_pairs_have_ids_of_their_own_and_words_for_tables_and_prompts(dataset):
    pairs = dataset.pairs()
    assert pairs
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert all(pair.id and pair.category and pair.subject for pair in pairs)


def test_pairs_are_the_same_when_asked_again(dataset):
    first, second = dataset.pairs(), dataset.pairs()
    assert [pair.id for pair in first] == [pair.id for pair in second]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.source_keypoints, other.source_keypoints)
        assert np.array_equal(one.target_keypoints, other.target_keypoints)
        assert np.array_equal(one.source_only, other.source_only)


def test_photos_are_there_below_the_root_and_of_the_annotated_size(dataset):
    shapes = set()
    for pair in dataset.pairs():
        ends = ((pair.source, pair.source_size), (pair.target, pair.target_size))
        for photo, annotated in ends:
            assert photo.is_relative_to(dataset.root)
            size = read_size(photo)
            assert annotated in (None, size)
            shapes.add(size)
    assert shapes == {(60, 80), (80, 60)}  # both ways round, or a swapped size would pass


def test_points_are_float64_and_those_that_both_photos_show(dataset):
    for pair in dataset.pairs():
        assert pair.source_keypoints.dtype == pair.target_keypoints.dtype == np.float64
        assert pair.source_keypoints.shape == (len(pair.keypoint_ids), 2)
        assert set(pair.keypoint_ids).isdisjoint(pair.source_only_ids)


def test_a_pair_and_its_reverse_swap_their_points(dataset, name):
    pairs = {(pair.category, pair.source, pair.target): pair for pair in dataset.pairs()}
    for pair in pairs.values():
        if name in ONE_WAY:
            assert (pair.category, pair.target, pair.source) not in pairs
            continue
        back = pairs[pair.category, pair.target, pair.source]
        assert back.keypoint_ids == pair.keypoint_ids
        assert np.array_equal(back.source_keypoints, pair.target_keypoints)
        assert np.array_equal(back.target_keypoints, pair.source_keypoints)


def test_a_relative_root_will_do(dataset, roots, name, monkeypatch):
    monkeypatch.chdir(roots[name].parent)
    relative = dataclasses.replace(dataset, root=Path(roots[name].name))
    assert [pair.id for pair in relative.pairs()] == [pair.id for pair in dataset.pairs()]
    assert relative.pairs()[0].source == dataset.pairs()[0].source.relative_to(Path.cwd())


def test_a_root_that_does_not_exist_is_named(name, tmp_path):
    root = tmp_path / "nowhere"
    with pytest.raises(BadDataset, match=r"nowhere does not exist; expected the folder that holds"):
        plugins.find("datasets", name)(root).pairs()


def test_a_file_is_no_root(name, tmp_path):
    root = tmp_path / "photo.jpg"
    root.touch()
    with pytest.raises(BadDataset, match=r"photo\.jpg is no folder; expected the folder that hold"):
        plugins.find("datasets", name)(root).pairs()


def test_an_empty_folder_is_told_what_it_lacks(name, tmp_path):
    with pytest.raises(BadDataset, match=r" is not a whole \S+: no (folder|list) \w+"):
        plugins.find("datasets", name)(tmp_path).pairs()


def test_the_parent_folder_is_told_which_folder_was_meant(name, roots):
    with pytest.raises(BadDataset, match=r"did you mean its folder data\?"):
        plugins.find("datasets", name)(roots[name].parent).pairs()


@pytest.mark.parametrize("write", [write_pf_willow, write_pf_pascal])
def test_a_list_without_column_names_costs_no_pair_in_silence(tmp_path, write):
    root = write(tmp_path)
    kind = PfWillow if write is write_pf_willow else PfPascal
    for file in root.glob("*.csv"):
        file.write_text(file.read_text().partition("\n")[2])
    with pytest.raises(BadDataset, match="expected a line of column names first, got "):
        kind(root).pairs()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 64, b"\xff\xfe\xd8"], ids=["empty", "zero bytes", "no text"]
)
def test_a_list_that_holds_no_pairs_is_damaged(name, tmp_path, content):
    """As after a full disk or a download that was cut off; zero pairs are no data set."""
    root = WRITERS[name](tmp_path)
    (root / LISTS[name]).write_bytes(content)
    with pytest.raises(BadDataset, match="is not a whole "):
        plugins.find("datasets", name)(root).pairs()
