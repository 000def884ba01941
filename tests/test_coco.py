"""COCO keypoints JSON: what is read, what is passed over, and what is refused in which words."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdcorr.annotations import Reference, References, Scheme
from sdcorr.coco import NEAR, VISIBLE, read_references
from sdcorr.errors import BadAnnotations, UnknownName
from sdcorr.geometry import Size
from tests.annotated import draw_photo

Content = dict[str, Any]
Change = Callable[[Content], object]

# two photos, 80 x 60 and upright, two cats of three parts, and an empty category without any
CONTENT: Content = {
    "info": {"year": 2026},
    "licenses": [],
    "images": [
        {"id": 3, "file_name": "wide.png", "width": 80, "height": 60, "license": 1},
        {"id": 4, "file_name": "below/high.png", "width": 60, "height": 80},
    ],
    "annotations": [
        {
            "id": 11, "image_id": 4, "category_id": 7, "iscrowd": 0, "bbox": [5, 30, 55, 50],
            "area": 2750, "num_keypoints": 3,
            "keypoints": [5.25, 70, 2, 59.5, 79, 2, 20, 30, 2],
        },
        {"id": 12, "image_id": 3, "category_id": 7, "keypoints": [10, 20.5, 2, 30, 40, 1, 0, 0, 0]},
    ],
    "categories": [
        {"id": 2, "name": "bird"},
        {
            "id": 7, "name": "black_cat", "supercategory": "animal",
            "keypoints": ["left eye", "right eye", "nose"],
            "skeleton": [[1, 3], [2, 3]],
            "symmetric": [["left eye", "right eye"]],
        },
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_photo(tmp_path / "wide.png", 80, 60, seed=0)
    draw_photo(tmp_path / "below" / "high.png", 60, 80, seed=1)
    return tmp_path


def write(path: Path, change: Change = lambda _: None) -> Path:
    content = copy.deepcopy(CONTENT)
    change(content)
    path.write_text(json.dumps(content))
    return path


def read(folder: Path, change: Change = lambda _: None, category: str | None = None) -> References:
    return read_references(write(folder / "cats.json", change), category=category)


def cat(content: Content) -> Content:
    found: Content = content["categories"][1]
    return found


def first(content: Content) -> Content:
    found: Content = content["annotations"][0]
    return found


def points(one: Reference) -> list[list[float]]:
    found: list[list[float]] = one.points.tolist()
    return found


def add(content: Content, **fields: Any) -> None:
    """One more annotation, of photo 3."""
    content["annotations"].append({"id": 99, "image_id": 3, "category_id": 7} | fields)


# What is read


def test_a_file_by_hand(folder: Path):
    found = read(folder)
    scheme = found.scheme
    assert scheme.keypoints == ("left eye", "right eye", "nose")
    assert scheme.symmetric == (("left eye", "right eye"),)
    assert scheme.skeleton == [(0, 2), (1, 2)]  # the file counts from 1
    assert (scheme.name, scheme.subject) == ("black_cat", "black cat")
    assert scheme.category == CONTENT["categories"][1]
    high, wide = found.objects
    assert (high.annotation, wide.annotation) == (11, 12)
    assert (high.photo, wide.photo) == (folder / "below/high.png", folder / "wide.png")
    assert (high.size, wide.size) == (Size(height=80, width=60), Size(height=60, width=80))
    assert points(high) == [[5.25, 70], [59.5, 79], [20, 30]]
    assert high.visible.tolist() == [True, True, True]
    assert points(wide)[0] == [10, 20.5]
    assert wide.visible.tolist() == [True, False, False]  # v = 2, 1 and 0
    assert high.points.dtype == torch.float64
    assert found.never_visible == []


def test_the_constants_by_hand():
    assert (VISIBLE, NEAR) == (2, 1)


def test_keypoints_that_no_reference_shows_are_told(folder: Path):
    found = read(folder, lambda content: first(content).update(keypoints=[1, 2, 2, *[0] * 6]))
    assert found.never_visible == ["right eye", "nose"]


def test_a_scheme_needs_no_skeleton_and_no_symmetry(folder: Path):
    for nothing in (None, []):
        scheme = read(folder, lambda c, n=nothing: cat(c).update(skeleton=n, symmetric=n)).scheme
        assert (scheme.skeleton, scheme.symmetric) == ([], ())
    plain = read(folder, lambda content: [cat(content).pop(k) for k in ("skeleton", "symmetric")])
    assert (plain.scheme.skeleton, plain.scheme.symmetric) == ([], ())
    assert Scheme({"name": "a"}, ("b",)).skeleton == []


@pytest.mark.parametrize("crowd", [1, True])
def test_crowds_are_passed_over(folder: Path, crowd: object):
    found = read(folder, lambda content: first(content).update(iscrowd=crowd))
    assert [one.annotation for one in found.objects] == [12]


@pytest.mark.parametrize(
    "fields", [{}, {"num_keypoints": 0}, {"keypoints": None}, {"keypoints": [0] * 9},
               {"keypoints": [5, 5, 1] * 3}],
    ids=["box", "none counted", "null", "not labelled", "hidden"],
)  # fmt: skip
def test_objects_without_visible_keypoints_are_passed_over(folder: Path, fields: Content):
    found = read(folder, lambda content: add(content, bbox=[1, 2, 3, 4], **fields))
    assert [one.annotation for one in found.objects] == [11, 12]


def test_an_empty_list_of_keypoints_is_none(folder: Path):
    """As tools write it for boxes."""
    found = read(folder, lambda content: add(content, keypoints=[], num_keypoints=0))
    assert [one.annotation for one in found.objects] == [11, 12]


@pytest.mark.parametrize(
    "mask",
    [
        [[1.5, 2.5, 10, 2, 10, 20]],
        {"size": [80, 60], "counts": [30, 20, 4750]},
        {"size": [80, 60], "counts": "PZ1:h06K4M2O2M3N1O1O"},
        [],
        None,
    ],
    ids=["polygon", "uncompressed", "compressed", "empty", "null"],
)
def test_masks_are_not_read(folder: Path, mask: object):
    found = read(folder, lambda content: first(content).update(segmentation=mask))
    assert [one.annotation for one in found.objects] == [11, 12]
    assert found.digest == read(folder).digest


def test_a_photo_that_no_annotation_names_need_not_exist(folder: Path):
    def change(content: Content) -> None:
        content["images"].append({"id": 5, "file_name": "nowhere.png"})
        add(content, image_id=5, keypoints=[0] * 9)  # nor one of which nothing is taken

    assert len(read(folder, change).objects) == 2


def test_several_objects_of_a_photo_are_several_references(folder: Path):
    found = read(folder, lambda content: add(content, keypoints=[1, 2, 2] * 3))
    assert [(one.annotation, one.photo.name) for one in found.objects] == [
        (11, "high.png"), (12, "wide.png"), (99, "wide.png"),
    ]  # fmt: skip


def test_photos_may_lie_in_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    path = write(tmp_path_factory.mktemp("elsewhere") / "cats.json")
    with pytest.raises(BadAnnotations, match=r"no photo .*elsewhere.*--images"):
        read_references(path)
    found = read_references(path, folder)
    assert [one.photo for one in found.objects] == [folder / "below/high.png", folder / "wide.png"]


def test_a_file_name_may_be_absolute(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Then no folder matters."""
    path = tmp_path_factory.mktemp("elsewhere") / "cats.json"
    for image in (content := copy.deepcopy(CONTENT))["images"]:
        image["file_name"] = str(folder / image["file_name"])
    path.write_text(json.dumps(content))
    for images in (None, Path("nowhere")):
        found = read_references(path, images)
        assert [one.photo.parent for one in found.objects] == [folder / "below", folder]


def test_a_byte_order_mark_is_no_letter(folder: Path):
    path = write(folder / "cats.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_references(path).objects) == 2


@pytest.mark.parametrize(
    ("image", "category", "annotation"),
    [(10**30, 10**31, 10**32), ("image", "Katze", "π"), (-1, 0, -(2**63)), ("4", 4, "")],
    ids=["huge", "text", "negative", "like"],
)
def test_ids_are_numbers_or_text_of_any_size(folder: Path, image, category, annotation):
    def change(content: Content) -> None:
        content["images"][1]["id"] = image
        cat(content)["id"] = category
        content["annotations"][1]["category_id"] = category
        first(content).update(id=annotation, image_id=image, category_id=category)

    high, wide = read(folder, change).objects
    assert (high.annotation, high.photo.name) == (annotation, "high.png")
    assert (wide.annotation, wide.photo.name) == (12, "wide.png")


def test_a_number_and_its_text_are_two_ids(folder: Path):
    refused = pytest.raises(BadAnnotations, match=r"annotation 11 has image_id '4', which is not")
    with refused:
        read(folder, lambda content: first(content).update(image_id="4"))


# Which category


def two_categories(content: Content) -> None:
    content["categories"].append({"id": 8, "name": "dog", "keypoints": ["tail"]})
    add(content, category_id=8, keypoints=[1, 2, 2])


def test_of_several_categories_one_is_chosen_by_name(folder: Path):
    words = r"cats\.json annotates several categories, black_cat, dog; choose one with --category"
    with pytest.raises(BadAnnotations, match=words):
        read(folder, two_categories)
    assert read(folder, two_categories, "dog").scheme.keypoints == ("tail",)
    assert [one.annotation for one in read(folder, two_categories, "dog").objects] == [99]
    assert len(read(folder, two_categories, "black_cat").objects) == 2


def test_categories_without_annotation_or_keypoints_do_not_count(folder: Path):
    def change(content: Content) -> None:
        content["categories"].append({"id": 8, "name": "dog", "keypoints": ["tail"]})
        add(content, category_id=2, bbox=[1, 2, 3, 4])  # a bird, which has no keypoints

    assert read(folder, change).scheme.name == "black_cat"


@pytest.mark.parametrize(
    "fields", [{"bbox": [1, 2, 3, 4]}, {"keypoints": [1, 2, 2], "iscrowd": 1}], ids=["box", "crowd"]
)
def test_categories_without_annotated_keypoints_do_not_count(folder: Path, fields: Content):
    def change(content: Content) -> None:
        content["categories"].append({"id": 8, "name": "dog", "keypoints": ["tail"]})
        add(content, category_id=8, **fields)

    assert read(folder, change).scheme.name == "black_cat"


def test_an_unknown_category_is_told_with_the_nearest(folder: Path):
    words = "no category called 'black_cats'; did you mean 'black_cat'. known: bird, black_cat"
    with pytest.raises(UnknownName, match=words):
        read(folder, category="black_cats")


def test_categories_of_one_name_cannot_be_told_apart(folder: Path):
    def change(content: Content) -> None:
        content["categories"][0]["name"] = "black_cat"

    with pytest.raises(BadAnnotations, match="2 categories are called 'black_cat'"):
        read(folder, change, "black_cat")
    assert len(read(folder, change).objects) == 2  # of one alone there are annotations


def test_a_category_that_is_asked_for_needs_keypoints_and_a_visible_one(folder: Path):
    with pytest.raises(BadAnnotations, match=r"'bird': expected keypoints, a list of names, got N"):
        read(folder, category="bird")
    words = "'black_cat' has a visible keypoint; set v to 2 where one can be seen; objects: 1"
    with pytest.raises(BadAnnotations, match=words):
        read(folder, lambda c: c.update(annotations=[c["annotations"][1] | {"keypoints": [0] * 9}]))


# Points and sizes


@pytest.mark.parametrize(
    ("point", "clamped"),
    [
        ([79.5, 59.5], [79.5, 59.5]),
        ([80, 60], [79.5, 59.5]),  # a corner where pixels are counted from their edges
        ([80.5, 60.5], [79.5, 59.5]),
        ([-1.5, -1.5], [-0.5, -0.5]),
        ([-0.25, 3.125], [-0.25, 3.125]),
    ],
)
def test_points_within_a_pixel_of_the_photo_are_moved_onto_it(folder: Path, point, clamped):
    found = read(folder, lambda c: c["annotations"][1]["keypoints"].__setitem__(slice(2), point))
    assert points(found.objects[1])[0] == clamped


@pytest.mark.parametrize(("x", "y"), [(80.51, 5), (5, 60.51), (-1.51, 5), (5, -1.51), (1e300, 5)])
def test_points_outside_the_photo_are_refused(folder: Path, x: float, y: float):
    def change(content: Content) -> None:
        content["annotations"][1]["keypoints"][3:6] = [x, y, 2]

    words = rf"annotation 12: keypoint 'right eye' at \({x:g}, {y:g}\) lies outside wide.png, 80 x"
    with pytest.raises(BadAnnotations, match=words.replace("+", r"\+")):
        read(folder, change)


def test_points_that_are_not_visible_may_lie_anywhere(folder: Path):
    def change(content: Content) -> None:
        content["annotations"][1]["keypoints"][3:9] = [-999, 5, 1, 5, 999, 0]

    assert read(folder, change).objects[1].visible.tolist() == [True, False, False]


def test_a_photo_without_annotated_size_is_taken_as_it_is(folder: Path):
    def change(content: Content) -> None:
        content["images"][0].pop("width")
        content["images"][0].update(height=None)
        content["annotations"][1]["keypoints"][:2] = [79.75, 5]  # cannot be judged yet

    wide = read(folder, change).objects[1]
    assert (wide.size, points(wide)[0]) == (None, [79.75, 5])


# What is refused


def mutate(*path: Any, **fields: Any) -> Change:
    """Update the object at a path of keys."""

    def change(content: Content) -> None:
        for key in path:
            content = content[key]
        content.update(fields)

    return change


def numbers(*values: object) -> Change:
    return mutate("annotations", 0, keypoints=list(values))


ANNOTATION = ("annotations", 0)
CATEGORY = ("categories", 1)
GOOD = [5, 70, 2, 59, 79, 2]
HUGE = 10**400  # a whole number beyond float64

REFUSED: dict[str, tuple[Change, str]] = {
    "no images": (lambda c: c.pop("images"), "expected COCO keypoints JSON.* images is no list"),
    "no annotations": (lambda c: c.pop("annotations"), "; annotations is no list of objects"),
    "no categories": (lambda c: c.pop("categories"), "; categories is no list of objects"),
    "an object of images": (mutate(images={}), "images is no list of objects"),
    "numbers in images": (mutate(images=[3]), "images is no list of objects"),
    "null in annotations": (mutate(annotations=[None]), "annotations is no list of objects"),
    "lists in categories": (mutate(categories=[[]]), "categories is no list of objects"),
    "no image id": (lambda c: c["images"][0].pop("id"), "images holds an object with id None"),
    "a list as id": (mutate(*ANNOTATION, id=[1]), r"annotations holds an object with id \[1\]"),
    "a fraction as id": (mutate(*CATEGORY, id=1.5), "categories holds an object with id 1.5"),
    "true as id": (mutate(*ANNOTATION, id=True), "annotations holds an object with id True"),
    "image id twice": (mutate("images", 0, id=4), "images holds id 4 twice"),
    "annotation id twice": (mutate(*ANNOTATION, id=12), "annotations holds id 12 twice"),
    "category id twice": (mutate(*CATEGORY, id=2), "categories holds id 2 twice"),
    "no file_name": (lambda c: c["images"][1].pop("file_name"), "image 4 has no file_name"),
    "empty file_name": (mutate("images", 0, file_name=""), "image 3 has no file_name"),
    "file_name a number": (mutate("images", 0, file_name=3), "image 3 has no file_name"),
    "file_name twice": (
        mutate("images", 0, file_name="below/high.png"),
        "images holds file_name 'below/high.png' twice",
    ),
    "unknown image": (
        mutate(*ANNOTATION, image_id=5),
        "annotation 11 has image_id 5, which is not in the file",
    ),
    "no image_id": (lambda c: first(c).pop("image_id"), "annotation 11 has image_id None"),
    "a list as image_id": (mutate(*ANNOTATION, image_id=[4]), r"11 has image_id \[4\], which"),
    "an object as category_id": (mutate(*ANNOTATION, category_id={}), r"11 has category_id \{\}"),
    "unknown category": (
        mutate(*ANNOTATION, category_id=9),
        "annotation 11 has category_id 9, which is not in the file",
    ),
    "no category_id": (lambda c: first(c).pop("category_id"), "annotation 11 has category_id None"),
    "category without name": (lambda c: c["categories"][0].pop("name"), "category 2 has no name"),
    "category named 3": (mutate(*CATEGORY, name=3), "category 7 has no name"),
    "category named nothing": (mutate(*CATEGORY, name=""), "category 7 has no name"),
    "no keypoints at all": (
        lambda c: cat(c).pop("keypoints"),
        r"no category has both keypoints \(a list of names\) and an annotation",
    ),
    "no annotation at all": (mutate(annotations=[]), "no category has both keypoints"),
    "keypoints no list": (
        mutate(*CATEGORY, keypoints="nose"),
        "category 'black_cat': expected keypoints, a list of names, got 'nose'",
    ),
    "keypoints not named": (mutate(*CATEGORY, keypoints=[1, 2, 3]), r"names, got \[1, 2, 3\]"),
    "keypoint twice": (
        mutate(*CATEGORY, keypoints=["nose", "eye", "nose"]),
        "category 'black_cat' has keypoint 'nose' twice",
    ),
    "skeleton from 0": (
        mutate(*CATEGORY, skeleton=[[0, 1]]),
        "'black_cat': expected skeleton, pairs of keypoint numbers from 1 to 3",
    ),
    "skeleton beyond": (mutate(*CATEGORY, skeleton=[[1, 4]]), "expected skeleton"),
    "skeleton of three": (mutate(*CATEGORY, skeleton=[[1, 2, 3]]), "expected skeleton"),
    "skeleton of names": (mutate(*CATEGORY, skeleton=[["nose", "nose"]]), "expected skeleton"),
    "skeleton flat": (mutate(*CATEGORY, skeleton=[1, 2]), "expected skeleton"),
    "skeleton an object": (mutate(*CATEGORY, skeleton={"1": 2}), "expected skeleton"),
    "symmetric unknown": (
        mutate(*CATEGORY, symmetric=[["nose", "tail"]]),
        "'black_cat': expected symmetric, pairs of keypoint names",
    ),
    "symmetric of numbers": (mutate(*CATEGORY, symmetric=[[1, 2]]), "expected symmetric"),
    "symmetric of one": (mutate(*CATEGORY, symmetric=[["nose"]]), "expected symmetric"),
    "symmetric text": (mutate(*CATEGORY, symmetric=["nose"]), "expected symmetric"),
    "symmetric of lists": (mutate(*CATEGORY, symmetric=[[["nose"], {}]]), "expected symmetric"),
    "symmetric to itself": (
        mutate(*CATEGORY, symmetric=[["nose", "nose"]]),
        "symmetric gives a keypoint two partners, or itself",
    ),
    "symmetric to two": (
        mutate(*CATEGORY, symmetric=[["nose", "left eye"], ["right eye", "nose"]]),
        "two partners",
    ),
    "too few numbers": (
        numbers(*GOOD),
        "annotation 11: expected 9 numbers in keypoints, x, y, v of each of the 3 of category "
        "'black_cat', got 6",
    ),
    "too many numbers": (numbers(*GOOD, *GOOD), "got 12"),
    "keypoints text": (mutate(*ANNOTATION, keypoints="123456789"), "got '123456789'"),
    "keypoints missing": (
        lambda c: first(c).pop("keypoints"),  # but num_keypoints is 3
        "annotation 11: expected 9 numbers in keypoints.*, got None",
    ),
    "text in keypoints": (numbers(*GOOD, "5", 5, 2), "something else than finite numbers"),
    "null in keypoints": (numbers(*GOOD, None, 5, 2), "annotation 11: keypoints holds something"),
    "lists in keypoints": (numbers(*GOOD, [5], 5, 2), "something else than finite numbers"),
    "NaN in keypoints": (numbers(*GOOD, math.nan, 5, 2), "something else than finite numbers"),
    "Infinity in keypoints": (numbers(*GOOD, 5, math.inf, 2), "else than finite numbers"),
    "-Infinity in keypoints": (numbers(*GOOD, 5, -math.inf, 0), "else than finite numbers"),
    "v of 3": (numbers(*GOOD, 5, 5, 3), "annotation 11: expected v of 0, 1 or 2 in keypoints"),
    "v of -1": (numbers(*GOOD, 5, 5, -1), "expected v of 0, 1 or 2"),
    "v of 1.5": (numbers(*GOOD, 5, 5, 1.5), "expected v of 0, 1 or 2"),
    "width alone": (
        lambda c: c["images"][1].pop("height"),
        r"image 'below/high.png' has height and width \(None, 60\)",
    ),
    "width of 0": (mutate("images", 1, width=0), r"has height and width \(80, 0\)"),
    "width below 0": (mutate("images", 1, width=-60), r"has height and width \(80, -60\)"),
    "width text": (mutate("images", 1, width="60"), r"has height and width \(80, '60'\)"),
    "one photo missing": (
        mutate("images", 0, file_name="gone.png"),
        r"there is no photo \S+gone.png; file_name is relative to \S+, --images names another",
    ),
    "a folder as photo": (mutate("images", 1, file_name="below"), "there is no photo"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_each_mistake_has_its_sentence(folder: Path, change: Change, words: str):
    with pytest.raises(BadAnnotations, match=words) as caught:
        read(folder, change)
    assert str(folder / "cats.json") in str(caught.value)
    assert "\n" not in str(caught.value)


CRASHES: dict[str, Change] = {
    "a huge point": numbers(*GOOD, HUGE, 5, 0),
    "a huge size": mutate("images", 1, width=HUGE),
    "a long file_name": mutate("images", 1, file_name="x" * 300),
    "skeleton of fractions": mutate(*CATEGORY, skeleton=[[1.0, 3.0]]),  # no list takes as index
    "skeleton of truths": mutate(*CATEGORY, skeleton=[[True, 3]]),
    "NaN in the category": mutate(*CATEGORY, sigmas=[math.nan]),  # cannot be written in the end
}


@pytest.mark.parametrize("change", CRASHES.values(), ids=CRASHES)
def test_odd_mistakes_have_their_sentence_too(folder: Path, change: Change):
    with pytest.raises(BadAnnotations, match=r"cats\.json"):
        read(folder, change)


def test_missing_photos_are_counted(folder: Path):
    for number, photo in enumerate(("wide.png", "below/high.png")):
        (folder / photo).unlink()
        more = (r"wide\.png;", r"high\.png \(and 1 more\);")[number]
        with pytest.raises(BadAnnotations, match=rf"there is no photo \S+{more}"):
            read(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected COCO keypoints JSON, an object with images, annotations and categories; E"),
        (b"file_name,x,y", "expected COCO keypoints JSON"),
        (b'{"images": [', "expected COCO keypoints JSON"),
        (b'{"images": [], "images": []}', "the name 'images' stands in it twice"),
        (b"\xff\xfe{\x00}\x00", "it is not text in UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b"[]", "expected COCO keypoints JSON.*; got a list"),
        (b"3", "got a int"),
        (b"null", "got a NoneType"),
        (b"{}", "images is no list of objects"),
        (b"1" * 5000, "expected COCO keypoints JSON"),
    ],
    ids=["empty", "csv", "cut", "repeated", "utf-16", "deep", "list", "number", "null", "object",
         "digits"],
)  # fmt: skip
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: bytes, words: str):
    (tmp_path / "cats.json").write_bytes(text)
    with pytest.raises(BadAnnotations, match=rf"cats\.json: {words}|cats\.json: .*{words}"):
        read_references(tmp_path / "cats.json")


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path):
    with pytest.raises(BadAnnotations, match=r"cannot read \S+cats\.json: No such file"):
        read_references(tmp_path / "cats.json")
    with pytest.raises(BadAnnotations, match=r"cannot read \S+: Is a directory"):
        read_references(tmp_path)


# The digest: resuming depends on it


def test_the_digest_knows_what_decides_the_labels(folder: Path):
    changes: dict[str, Change] = {
        "as it is": lambda _: None,
        "a point": numbers(5.25, 70, 2, 59.5, 79, 2, 20, 30.001, 2),
        "visibility": numbers(5.25, 70, 2, 59.5, 79, 2, 20, 30, 1),
        "a name": mutate(*CATEGORY, keypoints=["left eye", "right eye", "snout"]),
        "two names exchanged": mutate(*CATEGORY, keypoints=["right eye", "left eye", "nose"]),
        "the category's name": mutate(*CATEGORY, name="cat"),
        "symmetric": mutate(*CATEGORY, symmetric=[]),
        "skeleton": mutate(*CATEGORY, skeleton=[[1, 3]]),
        "one object less": lambda content: content["annotations"].pop(),
        "two objects exchanged": lambda content: content["annotations"].reverse(),
    }
    digests = {name: read(folder, change).digest for name, change in changes.items()}
    assert len(set(digests.values())) == len(changes), digests
    assert all(len(one) == 64 for one in digests.values())


def test_the_digest_knows_the_bytes_of_the_photos(folder: Path):
    before = read(folder).digest
    for photo in ("wide.png", "below/high.png"):
        there = (folder / photo).read_bytes()
        (folder / photo).write_bytes(there + b"x")
        assert read(folder).digest != before
        (folder / photo).write_bytes(there)
    assert read(folder).digest == before


def test_the_digest_knows_which_photo_shows_which_object(folder: Path):
    """The middle one of three cats moves from the first photo to the second."""
    cats = [{"id": n, "category_id": 7, "keypoints": [9 + n, 9, 2] * 3} for n in range(3)]

    def change(*photos: int) -> Change:
        both = zip(cats, photos, strict=True)
        annotations = [one | {"image_id": photo} for one, photo in both]
        return lambda content: content.update(annotations=annotations)

    assert read(folder, change(3, 3, 4)).digest != read(folder, change(3, 4, 4)).digest


def test_the_digest_does_not_know_points_that_are_not_visible(folder: Path):
    def change(content: Content) -> None:
        content["annotations"][1]["keypoints"][3:6] = [31, 41, 1]

    assert read(folder, change).digest == read(folder).digest


def test_the_digest_does_not_know_what_decides_nothing(folder: Path):
    """Folders, ids, other images and categories, and how the JSON is laid out."""
    before = read(folder).digest
    moved = folder.with_name(f"{folder.name} moved")
    shutil.copytree(folder, moved)
    assert read(moved).digest == before
    elsewhere = write(moved / "below" / "other.json")
    assert read_references(elsewhere, images=folder).digest == before

    def change(content: Content) -> None:
        content["images"].append({"id": 9, "file_name": "nowhere.png"})
        content["images"][1].update(id=44, date_captured="2026", file_name="high.png")
        first(content).update(image_id=44, id=111, area=3, bbox=[0, 0, 1, 1], segmentation=[])
        content["categories"].pop(0)

    shutil.copy(folder / "below" / "high.png", folder / "high.png")
    assert read(folder, change).digest == before

    def turned(value: Any) -> Any:
        """The names of every object in another order."""
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(one) for one in value] if isinstance(value, list) else value

    (folder / "turned.json").write_text(json.dumps(turned(CONTENT), indent=3))
    assert read_references(folder / "turned.json").digest == before
