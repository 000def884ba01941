"""Published data sets, from their official addresses to folders that the readers take.

An archive comes as ``NAME.part``, goes on where it stopped, is looked through before it gets its
name, and is unpacked next to the place where the data set is to be. Its SHA-256 is pinned beside
it, and the data set moved to its place in one step. Nothing else ever stands under the final names.
"""

from sdcorr.downloads._catalogue import SOURCES, Remote, Source, find_source
from sdcorr.downloads._download import download, is_there
from sdcorr.downloads._fetch import Patience
from sdcorr.downloads._members import Bounds
from sdcorr.downloads._watch import Quiet, Watch

__all__ = [
    "SOURCES",
    "Bounds",
    "Patience",
    "Quiet",
    "Remote",
    "Source",
    "Watch",
    "download",
    "find_source",
    "is_there",
]
