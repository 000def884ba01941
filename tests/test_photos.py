"""Which photos folders, globs, lists and names mean, and what they are called."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sdcorr.errors import BadImage
from sdcorr.photos import Photos, find_photos


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; ``make`` fills it. Nobody looks into the photos."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    return home


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*places: str, root: str | None = None) -> tuple[str, ...]:
    """Names of the photos of some places."""
    return find_photos(places, None if root is None else Path(root)).names


def test_a_folder_is_searched_to_its_bottom_and_is_the_root() -> None:
    make("photos/b.jpg", "photos/a.PNG", "photos/deep/down/c.Tiff", "photos/d.webp", "photos/e.gif")
    make("photos/notes.txt", "photos/movie.mp4", "photos/jpg", "photos/a.jpg.safetensors")
    photos = find_photos(["photos"])
    assert photos == Photos(
        Path("photos"), ("a.PNG", "b.jpg", "d.webp", "deep/down/c.Tiff", "e.gif")
    )
    assert photos.path("deep/down/c.Tiff") == Path("photos/deep/down/c.Tiff")


def test_hidden_files_and_folders_are_passed_over_unless_they_are_named() -> None:
    make("photos/a.jpg", "photos/.a.jpg", "photos/.trash/b.jpg", "photos/._a.jpg", ".own/c.jpg")
    assert found("photos") == ("a.jpg",)
    assert found(".own") == ("c.jpg",)
    assert found("photos/.a.jpg") == (".a.jpg",)


def test_a_photo_alone_has_its_own_name() -> None:
    make("photos/deep/a.jpg")
    assert find_photos(["photos/deep/a.jpg"]) == Photos(Path.cwd() / "photos" / "deep", ("a.jpg",))


def test_several_places_are_named_below_the_lowest_folder_above_all() -> None:
    make("photos/cats/a.jpg", "photos/cats/deep/b.jpg", "photos/dogs/a.jpg", "other/x.jpg")
    photos = find_photos(["photos/cats", "photos/dogs/a.jpg"])
    assert photos.root == Path.cwd() / "photos"
    assert photos.names == ("cats/a.jpg", "cats/deep/b.jpg", "dogs/a.jpg")
    assert all(photos.path(name).is_file() for name in photos.names)
    assert found("photos/cats/deep", "other")[0] == "other/x.jpg"


def test_a_root_is_above_all_photos() -> None:
    make("photos/cats/a.jpg", "photos/dogs/a.jpg")
    assert found("photos/cats", root="photos") == ("cats/a.jpg",)
    assert found("photos/cats", root=".") == ("photos/cats/a.jpg",)
    assert found("photos/cats", root=str(Path.cwd())) == ("photos/cats/a.jpg",)
    assert found("photos/cats", root="..") == ("home/photos/cats/a.jpg",)
    assert found("photos/cats", root="photos/dogs/..") == ("cats/a.jpg",)
    for root in ("photos/cats", "nowhere", "photos/dog"):
        with pytest.raises(BadImage, match=r"dogs/a\.jpg lies outside the root .*; give a --root"):
            found("photos/dogs", root=root)


def test_globs_find_photos_and_nothing_else() -> None:
    make("photos/a1.jpg", "photos/a2.jpg", "photos/b.jpg", "photos/a3.txt", "photos/a4.jpg/c.jpg")
    make("photos/.a5.jpg", "photos/deep/down/a6.jpg")
    assert found("photos/a*") == ("a1.jpg", "a2.jpg")
    assert found("photos/a[12].jpg") == ("a1.jpg", "a2.jpg")
    assert found("photos/?.jpg") == ("b.jpg",)
    assert found("photos/**/a*.jpg") == ("a1.jpg", "a2.jpg", "deep/down/a6.jpg")
    with pytest.raises(BadImage, match=r"photos/\*\.bmp matches no photo; expected a folder, a gl"):
        found("photos/*.bmp")


def test_stars_stand_for_any_folders_but_links() -> None:
    make("d/a.jpg", "d/s/b.jpg", "d/s/s/c.jpg", "d/s/.h/e.jpg", "d/t/s/f.png")
    for name in ("loop", "s/loop", "s/other"):  # 2**40 ways to go round
        Path("d", name).symlink_to(".")
    every = ("a.jpg", "s/b.jpg", "s/s/c.jpg", "t/s/f.png")
    for pattern in ("d/**", "**", "d/**/*", "./d/**/*.*", "d/**/**", f"{Path.cwd()}/d/**"):
        assert found(pattern) == every
    assert found("d/**/*.jpg", "d/**.jpg") == every[:3]
    assert found("**/s/*.jpg") == ("b.jpg", "s/c.jpg")
    assert found("d/**/s/**/*.png", root="d") == ("t/s/f.png",)
    assert found("*/s/**/c.jpg", root="d") == ("s/s/c.jpg",)
    with pytest.raises(BadImage, match=r"d/\*\*/z\*\.jpg matches no photo"):
        found("d/**/z*.jpg")


def test_a_name_that_exists_is_no_pattern() -> None:
    make("we [12]/a [1].jpg", "we [12]/a 1.jpg", "we 1/a 1.jpg", "what?/*.jpg", "what?/b.jpg")
    assert found("we [12]") == ("a 1.jpg", "a [1].jpg")
    assert found("we [12]/a [1].jpg") == ("a [1].jpg",)
    assert found("what?/*.jpg") == ("*.jpg",)
    assert found("we ?/a [1].jpg") == ("a 1.jpg",)


def test_a_list_names_a_photo_a_line_from_where_the_command_runs() -> None:
    make("photos/a.jpg", "photos/b c.jpg", "lists/x")
    Path("lists/list.TXT").write_bytes(
        b"\xef\xbb\xbfphotos/a.jpg\r\n\r\n  photos/b c.jpg  \n"
        b"photos/gone.jpg\n./photos/../photos/a.jpg"
    )
    assert found("lists/list.TXT") == ("a.jpg", "b c.jpg", "gone.jpg")
    assert found("lists/list.TXT", root=".")[0] == "photos/a.jpg"
    Path("absolute.txt").write_text(f"{Path.cwd()}/photos/a.jpg\n")
    assert found("absolute.txt", "photos") == ("a.jpg", "b c.jpg")


def test_a_name_may_hold_what_unicode_takes_for_the_end_of_a_line() -> None:
    Path("list.txt").write_text("d/a\u2028b.jpg\nd/c\x0bd.jpg\n", encoding="utf-8")
    assert found("list.txt") == ("a\u2028b.jpg", "c\x0bd.jpg")


def test_a_list_in_another_encoding_is_told() -> None:
    Path("list.txt").write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(BadImage, match=r"list\.txt is no list in UTF-8; save it as that"):
        found("list.txt")


def test_a_list_may_name_whatever_its_ending() -> None:
    make("photos/raw", "photos/scan.jp2")
    Path("list.txt").write_text("photos/raw\nphotos/scan.jp2\n")
    assert found("list.txt") == ("raw", "scan.jp2")
    assert found("photos/raw") == ("raw",)


def test_an_empty_list_or_folder_is_told() -> None:
    Path("empty.txt").write_text("\n  \n")
    Path("empty").mkdir()
    make("texts/a.txt")
    with pytest.raises(BadImage, match=r"empty\.txt lists no photo; expected one a line"):
        found("empty.txt")
    for name in ("empty", "texts"):
        with pytest.raises(BadImage, match=rf"{name} holds no photo \(\.bmp, "):
            found(name)
    with pytest.raises(BadImage, match="no photo is given"):
        found()


@pytest.mark.parametrize("place", ["gone", "gone.jpg", "gone/a.jpg", "a.jpg/b.jpg", "gone.txt"])
def test_what_is_not_there_is_told(place: str) -> None:
    make("a.jpg")
    with pytest.raises(
        BadImage, match=f"{place} does not exist; expected a folder, a glob, a .txt"
    ):
        found("a.jpg", place)


def test_what_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("x" * 300, "x" * 300 + "*.jpg"):
        with pytest.raises(BadImage, match=r"cannot read x+.*: File name too long"):
            found(place)
    make("photos/a.jpg", "photos/closed/b.jpg")
    look = os.scandir

    def closed(place: str) -> object:
        if str(place).endswith("closed"):  # root may read what is closed to others
            raise PermissionError(13, "Permission denied", str(place))
        return look(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(BadImage, match="cannot read photos/closed: Permission denied"):
        found("photos")  # never a part of the photos, as if it were all


def test_a_photo_is_found_once_by_whatever_places() -> None:
    make("photos/a.jpg", "photos/deep/b.jpg")
    Path("list.txt").write_text("photos/a.jpg\n")
    places = ("photos", "photos/", "./photos/deep", "photos/*.jpg", "list.txt", "photos/a.jpg")
    assert found(*places) == ("a.jpg", "deep/b.jpg")
    assert found("photos/deep/../deep/b.jpg", str(Path.cwd() / "photos/deep/b.jpg")) == ("b.jpg",)


def test_links_to_photos_keep_their_names_and_links_to_folders_are_not_followed() -> None:
    make("store/1.jpg", "store/deep/2.jpg", "photos/a.jpg")
    Path("photos/linked.jpg").symlink_to("../store/1.jpg")
    Path("photos/broken.jpg").symlink_to("nowhere.jpg")
    Path("photos/store").symlink_to("../store")
    Path("photos/loop").symlink_to(".")
    assert found("photos") == ("a.jpg", "broken.jpg", "linked.jpg")
    assert found("photos/linked.jpg", "store/1.jpg") == ("photos/linked.jpg", "store/1.jpg")
    Path("album").symlink_to("store")
    assert find_photos(["album"]) == Photos(Path("album"), ("1.jpg", "deep/2.jpg"))


def test_names_of_every_kind() -> None:
    names = ("-x.jpg", "a b.jpg", "two\nlines.jpg", "~a.jpg", "猫 é.jpg", "# 1.jpg", "a\\b.jpg")
    make(*(f"photos/{name}" for name in names))
    assert found("photos") == tuple(sorted(names))
    assert found("photos/*.jpg") == tuple(sorted(names))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name files in UTF-8 only")
def test_names_that_are_no_text() -> None:
    Path("photos").mkdir()
    Path(os.fsdecode(b"photos/caf\xe9.jpg")).touch()
    Path("list.txt").write_bytes(b"photos/caf\xe9.jpg\n")
    for place in ("photos", "photos/caf*", "list.txt"):
        photos = find_photos([place])
        assert photos.names == (os.fsdecode(b"caf\xe9.jpg"),)
        assert photos.path(photos.names[0]).is_file()


def test_the_order_does_not_depend_on_places() -> None:
    make(*(f"photos/{name}/{index}.jpg" for name in "cab" for index in range(3)))
    assert (
        found("photos/c", "photos/a", "photos/b")
        == found("photos")
        == tuple(sorted(found("photos")))
    )
