"""Pictures. Every function returns a figure and shows nothing; nothing is computed here."""

from sdcorr.viz._files import save_figure as save_figure
from sdcorr.viz._pairs import label_offsets as label_offsets
from sdcorr.viz._pairs import plot_heatmap as plot_heatmap
from sdcorr.viz._pairs import plot_matches as plot_matches
from sdcorr.viz._photo import COLOURS as COLOURS
from sdcorr.viz._photos import plot_parts as plot_parts
from sdcorr.viz._photos import plot_pca as plot_pca
from sdcorr.viz._warps import plot_flow as plot_flow
from sdcorr.viz._warps import plot_swap as plot_swap
