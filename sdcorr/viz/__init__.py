"""Pictures. Every function returns a figure and shows nothing; nothing is computed here."""

from sdcorr.viz._pairs import COLOURS as COLOURS
from sdcorr.viz._pairs import label_offsets as label_offsets
from sdcorr.viz._pairs import plot_heatmap as plot_heatmap
from sdcorr.viz._pairs import plot_matches as plot_matches
