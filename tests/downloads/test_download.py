"""Each data set goes from its archive to a folder that its reader takes, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sdcorr.datasets.ap10k import Ap10k
from sdcorr.datasets.pf_pascal import PfPascal
from sdcorr.datasets.pf_willow import PfWillow
from sdcorr.datasets.spair import Spair
from sdcorr.datasets.tss import Tss
from sdcorr.downloads import SOURCES, Bounds, Source, download, find_source, is_there
from sdcorr.errors import BadDownload, BadOutput, UnknownName
from sdcorr.pairs import Dataset
from sdcorr.plugins import names
from tests.annotated import write_pf_pascal, write_pf_willow, write_spair
from tests.annotated_ap10k import write_ap10k
from tests.annotated_tss import write_tss
from tests.downloads.archives import pack, tar_member, tar_of, zip_of
from tests.downloads.server import Answer, Site


@dataclass(frozen=True)
class Official:
    """A small data set as it is published.

    Args:
        write: makes its root.
        top: the folder that its archive holds, below the root or the root itself.
        reader: takes the root.
        lists: by the name that the lists have there, the name that ``write`` gives.
    """

    write: Callable[[Path], Path]
    top: str
    reader: Callable[[Path], Dataset]
    lists: tuple[str, ...] = ()


def _willow(root: Path) -> Path:
    return write_pf_willow(root, list_name="test_pairs_pf.csv")


OFFICIAL = {
    "spair": Official(write_spair, ".", Spair),
    "pf-pascal": Official(
        write_pf_pascal, "PF-dataset-PASCAL", PfPascal,
        ("test_pairs_pf_pascal.csv", "val_pairs_pf_pascal.csv"),
    ),
    "pf-willow": Official(_willow, "PF-dataset", PfWillow, ("test_pairs_pf.csv",)),
    "tss": Official(write_tss, ".", Tss),
    "ap10k": Official(write_ap10k, ".", Ap10k),
}  # fmt: skip
LITTER = [("__MACOSX/._x", b"x"), ("Readme.txt", b"x")]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Callable[[str], dict[str, bytes]]:
    """The files of a data set as its servers have them, by name."""
    made: dict[str, dict[str, bytes]] = {}

    def _published(name: str) -> dict[str, bytes]:
        if name not in made:
            source, official = SOURCES[name], OFFICIAL[name]
            root = official.write(tmp_path_factory.mktemp(name) / source.folder)
            packed = pack(root / official.top, source.archive.name, LITTER)
            lists = {one: (root / one).read_bytes() for one in official.lists}
            made[name] = {source.archive.name: packed, **lists}
        return made[name]

    return _published


@pytest.fixture
def mirror(site, published) -> Callable[[str], Source]:
    """A data set from a server that has all of its files."""

    def _mirror(name: str) -> Source:
        for file, content in published(name).items():
            site.put(file, Answer(content))
        return SOURCES[name].at(site.url)

    return _mirror


def tree(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_all_benchmarks_can_be_fetched():
    assert set(SOURCES) == set(OFFICIAL)
    assert set(SOURCES) <= {name.replace("_", "-") for name in names("datasets")}
    with pytest.raises(UnknownName, match="did you mean 'spair'"):
        find_source("spiar")


@pytest.mark.parametrize("name", SOURCES)
def test_the_reader_takes_what_comes(mirror, published, tmp_path, patience, name):
    source = mirror(name)
    root = download(source, tmp_path, patience=patience)
    assert root == tmp_path / source.folder
    assert OFFICIAL[name].reader(root).pairs()
    kept = {file.name for file in source.files}
    assert {path.name for path in tmp_path.iterdir()} == {source.folder} | kept | {
        f"{one}.sha256" for one in kept
    }
    for file, content in published(name).items():
        assert (tmp_path / file).read_bytes() == content
        pin = f"{hashlib.sha256(content).hexdigest()}  {file}\n"  # as sha256sum writes it
        assert (tmp_path / f"{file}.sha256").read_text() == pin


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_catalogue_is_of_the_web_and_of_this_folder(source):
    assert source.root(Path("data")) == Path("data") / source.folder
    for file in source.files:
        assert urlsplit(file.url).scheme in ("http", "https")
        assert file.name == Path(file.name).name
    assert "" not in (source.licence, source.size)


def test_what_is_there_is_not_fetched_again(site, mirror, tmp_path, patience):
    source = mirror("pf-willow")
    assert not is_there(source, tmp_path)
    download(source, tmp_path, patience=patience)
    assert is_there(source, tmp_path)
    site.requests.clear()
    download(source, tmp_path, patience=patience)
    assert site.requests == []


def test_another_folder_of_that_name_is_left_alone(site, mirror, tmp_path):
    (tmp_path / "PF-WILLOW").mkdir()
    (tmp_path / "PF-WILLOW" / "mine.txt").write_text("mine")
    with pytest.raises(BadDownload, match="is not PF-WILLOW: it has no folder PF-dataset; move"):
        download(mirror("pf-willow"), tmp_path)
    assert site.requests == []
    assert (tmp_path / "PF-WILLOW" / "mine.txt").read_text() == "mine"


def test_an_archive_put_there_by_hand_is_used_and_pinned(
    site, mirror, published, tmp_path, patience
):
    source = mirror("tss")
    (tmp_path / source.archive.name).write_bytes(published("tss")[source.archive.name])
    assert Tss(download(source, tmp_path, patience=patience)).pairs()
    assert site.requests == []
    assert (tmp_path / f"{source.archive.name}.sha256").exists()


def test_a_mirror_of_the_archive_alone_leaves_the_lists_where_they_are():
    source = SOURCES["pf-willow"].at("https://example.org/a?b=c")
    assert source.archive.url == "https://example.org/a?b=c"
    assert source.lists == SOURCES["pf-willow"].lists


def test_a_file_that_is_not_the_pinned_one_is_refused(site, mirror, published, tmp_path, patience):
    """The server has another archive than the first time; both digests are told."""
    source = mirror("tss")
    archive = tmp_path / source.archive.name
    shutil.rmtree(download(source, tmp_path, patience=patience))
    old, new = published("tss")[archive.name], zip_of(("TSS_CVPR2016/FG3DCar/a", b"1"))
    archive.unlink()
    site.put(archive.name, Answer(new))
    with pytest.raises(BadDownload) as got:
        download(source, tmp_path, patience=patience)
    for content in (old, new):
        assert hashlib.sha256(content).hexdigest() in str(got.value)
    assert f"delete {archive}.sha256 and give the same command again" in str(got.value)
    assert tree(tmp_path) == {f"{archive.name}{end}" for end in (".part", ".part.json", ".sha256")}

    archive.write_bytes(new)  # the same by hand
    with pytest.raises(BadDownload, match="and give the same command again, else delete"):
        download(source, tmp_path, patience=patience)
    archive.write_bytes(old)
    assert Tss(download(source, tmp_path, patience=patience)).pairs()


def test_a_file_published_anew_is_taken_when_the_pin_is_deleted(site, mirror, tmp_path, patience):
    source = mirror("tss")
    pin = tmp_path / f"{source.archive.name}.sha256"
    pin.write_text(f"{'0' * 64}  {source.archive.name}\n")
    with pytest.raises(BadDownload, match=f"says '{'0' * 64}'"):
        download(source, tmp_path, patience=patience)
    pin.unlink()
    site.requests.clear()
    assert Tss(download(source, tmp_path, patience=patience)).pairs()
    assert site.requests == []  # what had come was whole


def test_a_pin_in_another_form_is_honoured_and_left(mirror, published, tmp_path, patience):
    """As sha256sum -b writes it, in capitals."""
    source = mirror("tss")
    digest = hashlib.sha256(published("tss")[source.archive.name]).hexdigest()
    pin = tmp_path / f"{source.archive.name}.sha256"
    pin.write_text(f"{digest.upper()} *{source.archive.name}\n")
    download(source, tmp_path, patience=patience)
    assert pin.read_text() == f"{digest.upper()} *{source.archive.name}\n"


def test_a_damaged_archive_that_was_fetched_is_deleted_and_fetched_again(
    site, mirror, published, tmp_path, patience
):
    source = mirror("spair")
    name = source.archive.name
    content = published("spair")[name]
    site.put(name, Answer(content[:-2000]), Answer(content))
    with pytest.raises(BadDownload, match=r"is damaged.*and was deleted: give the same command"):
        download(source, tmp_path, patience=patience)
    assert tree(tmp_path) == set()
    assert Spair(download(source, tmp_path, patience=patience)).pairs()


def test_a_damaged_archive_put_there_by_hand_is_left_and_not_pinned(mirror, tmp_path, patience):
    source = mirror("tss")
    archive = tmp_path / source.archive.name
    archive.write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(BadDownload, match=f"is damaged.*; delete {archive} to have it fetched"):
        download(source, tmp_path, patience=patience)
    assert tree(tmp_path) == {archive.name}


@pytest.mark.parametrize(
    ("content", "problem"), [(b"<!doctype html>", "is a web page"), (b"", "is empty")]
)
def test_a_page_saved_by_hand_is_told(mirror, tmp_path, content, problem):
    source = mirror("ap10k")
    (tmp_path / "ap-10k.zip").write_bytes(content)
    with pytest.raises(BadDownload, match=f"ap-10k.zip {problem}; delete .* to have it fetched"):
        download(source, tmp_path)


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def put_link_that_leads_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("name", ["PF-dataset.zip", "test_pairs_pf.csv", "PF-dataset.zip.sha256"])
@pytest.mark.parametrize(
    "put", [Path.mkdir, put_pipe, put_link_to_a_pipe, put_link_that_leads_nowhere]
)
def test_what_is_no_file_is_told_and_left(mirror, tmp_path, name, put):
    """To open a pipe would wait without end."""
    put(tmp_path / name)
    with pytest.raises(BadDownload) as got:
        download(mirror("pf-willow"), tmp_path)
    assert str(got.value) == (
        f"{tmp_path / name} is neither a file nor a link to one; move it away and give the same "
        "command again"
    )
    assert os.path.lexists(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_an_archive_that_is_a_link_is_used_and_its_target_left(
    site, mirror, published, tmp_path, patience
):
    source = mirror("tss")
    (tmp_path / "elsewhere").write_bytes(published("tss")[source.archive.name])
    (tmp_path / source.archive.name).symlink_to("elsewhere")
    assert Tss(download(source, tmp_path, patience=patience)).pairs()
    assert site.requests == []
    assert (tmp_path / "elsewhere").read_bytes() == published("tss")[source.archive.name]


ERRORS = [b'{"error": "gone", "code": 404}', b"Sorry, not here", b"a,b\n1,2\n", b"imageA\0,imageB"]


@pytest.mark.parametrize("content", ERRORS)
def test_an_error_in_place_of_a_list_is_told(site, mirror, tmp_path, patience, content):
    source = mirror("pf-willow")
    site.put("test_pairs_pf.csv", Answer(content, kind="application/json"))
    problem = "no list of pairs .*, and lists begin with source_image,target_image,class or imageA,"
    with pytest.raises(BadDownload, match=problem):
        download(source, tmp_path, patience=patience)
    (tmp_path / "test_pairs_pf.csv").write_bytes(content)
    with pytest.raises(BadDownload, match=r"test_pairs_pf\.csv is no list of pairs .*; delete"):
        download(source, tmp_path, patience=patience)


def test_an_archive_is_bounded_while_it_comes(site, mirror, tmp_path, patience):
    source = mirror("tss")
    site.put(source.archive.name, Answer(b"PK\x03\x04", length="", extra=bytes(3000)))
    with pytest.raises(BadDownload, match=r"has more than 2\.0 kB, the most that is taken"):
        download(source, tmp_path, patience=patience, bounds=Bounds(size=2000))
    assert tree(tmp_path) == set()


def test_a_list_is_bounded_while_it_comes(site, mirror, tmp_path, patience, monkeypatch):
    """By far less than the archive."""
    monkeypatch.setattr("sdcorr.downloads._download._LONGEST_LIST", 2000)
    source = mirror("pf-willow")
    site.put("test_pairs_pf.csv", Answer(b"imageA,imageB\n", length="", extra=bytes(3000)))
    with pytest.raises(BadDownload, match=r"test_pairs_pf\.csv has more than 2\.0 kB, the most"):
        download(source, tmp_path, patience=patience)


def test_a_malicious_archive_leaves_nothing(site, mirror, tmp_path, patience):
    source = mirror("spair")
    evil = tar_of(tar_member("SPair-71k/JPEGImages/a", b"1"), tar_member("../../evil", b"2"))
    site.put(source.archive.name, Answer(evil))
    out = tmp_path / "deep" / "data"
    with pytest.raises(BadDownload, match=r"'\.\./\.\./evil' does not stay in the folder"):
        download(source, out, patience=patience)
    assert tree(out) == set()
    assert tree(tmp_path) == {"deep"}


def test_another_data_set_is_refused(site, mirror, published, tmp_path, patience):
    source = mirror("tss")
    site.put(source.archive.name, Answer(zip_of(("cats/a.jpg", b"1"))))
    with pytest.raises(BadDownload, match="is not TSS: it has no folder FG3DCar; delete it"):
        download(source, tmp_path, patience=patience)
    assert tree(tmp_path) == {source.archive.name}  # and no digest is pinned


def test_a_list_that_is_a_page_leaves_no_root(site, mirror, tmp_path, patience):
    source = mirror("pf-willow")
    site.put("test_pairs_pf.csv", Answer(b"<html>moved</html>", kind="text/html"))
    with pytest.raises(BadDownload, match=r"a web page, where test_pairs_pf\.csv was expected"):
        download(source, tmp_path, patience=patience)
    assert tree(tmp_path) == {"PF-dataset.zip"}


def test_a_full_disk_while_unpacking_leaves_only_the_archive(
    site, mirror, tmp_path, patience, monkeypatch
):
    source = mirror("pf-willow")

    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sdcorr.downloads._download.shutil.copyfile", full)
        with pytest.raises(BadOutput, match=r"cannot unpack in .*: No space left on device"):
            download(source, tmp_path, patience=patience)
    assert tree(tmp_path) == {file.name for file in source.files}
    site.requests.clear()
    assert PfWillow(download(source, tmp_path, patience=patience)).pairs()
    assert site.requests == []


def test_a_disk_without_room_is_found_before_unpacking(mirror, tmp_path, patience, monkeypatch):
    """Three files of 10 bytes each take 3 x 4096 more, at most; one byte less is free."""
    source = mirror("tss")
    files = [(f"{name}/a", bytes(10)) for name in ("FG3DCar", "JODS", "PASCAL")]
    (tmp_path / source.archive.name).write_bytes(zip_of(*files))
    usage = type("Usage", (), {"free": 3 * 4096 + 29})
    monkeypatch.setattr("sdcorr.downloads._part.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(BadOutput, match=r"TSS_CVPR2016.zip, unpacked, takes up to 12\.3 kB"):
        download(source, tmp_path)
    usage.free += 1
    assert download(source, tmp_path).is_dir()


def test_ctrl_c_while_unpacking_leaves_no_root(mirror, tmp_path, patience):
    source = mirror("spair")

    class Interrupted:
        def __call__(self, what: str, _done: int, _total: int | None) -> None:
            if what.startswith("unpacking"):
                assert (tmp_path / ".sdcorr-spair.tmp").is_dir()
                raise KeyboardInterrupt

        def say(self, line: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        download(source, tmp_path, Interrupted(), patience)
    assert tree(tmp_path) == {source.archive.name}


def test_what_a_killed_process_left_is_cleared(mirror, tmp_path, patience):
    (tmp_path / ".sdcorr-tss.tmp" / "TSS_CVPR2016").mkdir(parents=True)
    download(mirror("tss"), tmp_path, patience=patience)
    assert ".sdcorr-tss.tmp" not in tree(tmp_path)


def test_two_at_once_are_refused(mirror, tmp_path, patience):
    """Another process holds the lock until its input ends."""
    code = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / ".sdcorr-tss.lock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BadDownload, match="another process is fetching the same into"):
            download(mirror("tss"), tmp_path, patience=patience)
        other.communicate()
    assert download(mirror("tss"), tmp_path, patience=patience)


def test_bounds_are_those_that_are_given(mirror, tmp_path, patience):
    with pytest.raises(BadDownload, match="holds more than 3 members"):
        download(mirror("tss"), tmp_path, patience=patience, bounds=Bounds(members=3))


def test_an_out_that_is_a_file_is_refused(mirror, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(BadOutput, match=r"cannot make .*data: File exists"):
        download(mirror("tss"), tmp_path / "data")


def test_a_server_that_drops_all_the_time_gives_the_data_set(
    site: Site, mirror, published, tmp_path, patience
):
    """1000 bytes a connection: the reader takes what comes in the end."""
    source = mirror("pf-willow")
    name = source.archive.name
    content = published("pf-willow")[name]
    site.put(name, Answer(content, drop=1000))
    root = download(source, tmp_path, patience=replace(patience, tries=2))
    assert len(site.ranges(name)) == -(-len(content) // 1000)
    assert PfWillow(root).pairs()
