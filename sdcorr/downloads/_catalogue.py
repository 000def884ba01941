"""Which data sets can be fetched, from where, and what their folders are called.

No address could be tried where this was written. They are those that the projects' own scripts
and readers of these data sets name. Sizes are of the archives, as others report them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sdcorr.downloads._address import check_address
from sdcorr.errors import BadDownload, UnknownName

PROPOSAL_FLOW = "https://www.di.ens.fr/willow/research/proposalflow/dataset"
LISTS = "https://www.di.ens.fr/willow/research/cnngeometric/other_resources"
# Drive gives files above some 100 MB only to those who confirm that they were not scanned
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


@dataclass(frozen=True)
class Remote:
    """A file elsewhere.

    Args:
        name: what it is called here; its ending says what it holds.
        url: where it is.
    """

    name: str
    url: str


@dataclass(frozen=True)
class Source:
    """A data set that can be fetched.

    Args:
        name: as ``sdcorr eval`` takes it.
        title: official name.
        licence: in one line.
        size: of the archive, in words.
        folder: what the data set's root is called.
        needed: folders of the root by which it is known.
        archive: holds the root, or what the root holds.
        lists: further files of the root.
    """

    name: str
    title: str
    licence: str
    size: str
    folder: str
    needed: tuple[str, ...]
    archive: Remote
    lists: tuple[Remote, ...] = ()

    @property
    def files(self) -> tuple[Remote, ...]:
        """All that is fetched."""
        return (self.archive, *self.lists)

    def at(self, url: str) -> Source:
        """The same from a mirror.

        Args:
            url: of the archive; one that ends in ``/`` is a folder with all files by their names.

        Raises:
            BadDownload: it is no address of the web, or holds a password.
        """
        try:
            check_address(url)
        except ValueError as error:
            raise BadDownload(str(error)) from error
        if not url.endswith("/"):
            return replace(self, archive=replace(self.archive, url=url))
        archive, *lists = (replace(file, url=url + file.name) for file in self.files)
        return replace(self, archive=archive, lists=tuple(lists))

    def root(self, out: Path) -> Path:
        """Where the data set is to be."""
        return out / self.folder


_ALL = (
    Source(
        name="spair",
        title="SPair-71k",
        licence="none is stated; the photos are under the terms of PASCAL VOC and flickr",
        size="about 227 MB",
        folder="SPair-71k",
        needed=("JPEGImages", "ImageAnnotation", "PairAnnotation", "Layout"),
        archive=Remote(
            "SPair-71k.tar.gz",
            "https://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz",
        ),
    ),
    Source(
        name="pf-pascal",
        title="PF-PASCAL",
        licence="academic use only; the photos are under the terms of PASCAL VOC and flickr",
        size="not known",
        folder="PF-PASCAL",
        needed=("PF-dataset-PASCAL/JPEGImages", "PF-dataset-PASCAL/Annotations"),
        archive=Remote("PF-dataset-PASCAL.zip", f"{PROPOSAL_FLOW}/PF-dataset-PASCAL.zip"),
        # the list for training is not there; nothing here is trained
        lists=tuple(
            Remote(name, f"{LISTS}/{name}")
            for name in ("test_pairs_pf_pascal.csv", "val_pairs_pf_pascal.csv")
        ),
    ),
    Source(
        name="pf-willow",
        title="PF-WILLOW",
        licence="academic use only",
        size="not known",
        folder="PF-WILLOW",
        needed=("PF-dataset",),
        archive=Remote("PF-dataset.zip", f"{PROPOSAL_FLOW}/PF-dataset.zip"),
        lists=(Remote("test_pairs_pf.csv", f"{LISTS}/test_pairs_pf.csv"),),
    ),
    Source(
        name="tss",
        title="TSS",
        licence="research use only",
        size="not known",
        folder="TSS_CVPR2016",
        needed=("FG3DCar", "JODS", "PASCAL"),
        archive=Remote(
            "TSS_CVPR2016.zip",
            "http://www.hci.iis.u-tokyo.ac.jp/datasets/data/JointCorrCoseg/TSS_CVPR2016.zip",
        ),
    ),
    Source(
        name="ap10k",
        title="AP-10K",
        licence="CC BY 4.0",
        size="about 3.4 GB",
        folder="ap-10k",
        needed=("annotations", "data"),
        archive=Remote("ap-10k.zip", DRIVE.format("1-FNNGcdtAQRehYYkGY1y4wzFNg4iWNad")),
    ),
)
SOURCES = {source.name: source for source in _ALL}


def find_source(name: str) -> Source:
    """The data set of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in SOURCES:
        raise UnknownName("data set", name, SOURCES)
    return SOURCES[name]
