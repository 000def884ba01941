from __future__ import annotations

import pytest
import torch

from sdcorr.backbones._windows import cut_windows, merge_windows, window_starts


@pytest.mark.parametrize(
    ("size", "window", "overlap", "starts"),
    [
        (960, 512, 64, (0, 448)),  # the paper's [0, 512) and [448, 960)
        (512, 512, 64, (0,)),
        (960, 512, 128, (0, 384, 448)),  # the last one ends at the edge
        (1024, 512, 0, (0, 512)),
    ],
)
def test_starts_by_hand(size, window, overlap, starts):
    assert window_starts(size, window, overlap) == starts


def test_cut_windows_are_row_by_row():
    canvas = torch.arange(36.0).reshape(1, 6, 6)
    windows = cut_windows(canvas, (0, 2), 4)
    assert windows.shape == (4, 1, 4, 4)
    assert [window[0, 0, 0].item() for window in windows] == [0, 2, 12, 14]


@pytest.mark.parametrize("k", [8, 16, 32])
def test_merging_equals_a_loop_over_cells(k):
    starts, window, size = (0, 448), 512, 960
    side = size * k // window
    maps = torch.randn(4, 3, k, k, generator=torch.Generator().manual_seed(0))
    merged = merge_windows(maps, starts, window, size)
    assert merged.shape == (3, side, side)
    edges = [start // (window // k) for start in starts]
    for row in range(side):
        for column in range(side):
            values = [
                maps[2 * j + i, :, row - edges[j], column - edges[i]]
                for j in range(2)
                for i in range(2)
                if 0 <= row - edges[j] < k and 0 <= column - edges[i] < k
            ]
            expected = torch.stack(values).mean(dim=0)
            torch.testing.assert_close(merged[:, row, column], expected)


def test_published_cell_ranges():
    """1/64: [0:8] and [7:15]; 1/16: [0:32] and [28:60] (A Tale of Two Features' code)."""
    for k, side, second in ((8, 15, 7), (16, 30, 14), (32, 60, 28)):
        maps = torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None, None, None].expand(4, 1, k, k)
        merged = merge_windows(maps, (0, 448), 512, 960)
        assert merged.shape == (1, side, side)
        assert merged[0, 0, :second].eq(1).all()  # the first window alone
        assert merged[0, 0, second:k].eq(0.5).all()  # both
        assert merged[0, 0, k:].eq(0).all()


def test_merging_undoes_cutting():
    canvas = torch.randn(2, 15, 15, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(merge_windows(cut_windows(canvas, (0, 7), 8), (0, 7), 8, 15), canvas)
