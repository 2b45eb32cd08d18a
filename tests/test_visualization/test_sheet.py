import numpy as np
import pytest
from picture_cases import photo

from knet_plugin.visualization import sheet


def _coloured(value: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_keep_their_aspect_ratio_on_white() -> None:
    page = sheet([[_coloured(50, 100, 200), _coloured(90, 200, 100)]], ['photo', 'truth'], width=800)
    assert page.shape[1] == 800
    assert (page[[0, -1]] == 255).all() and (page[:, [0, -1]] == 255).all()
    for value, aspect in ((50, 2.0), (90, 0.5)):
        rows, columns = np.nonzero((page == value).all(axis=2))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(aspect, rel=0.05)


def test_columns_have_titles_above_them() -> None:
    pictures = [[_coloured(50, 30, 40)] * 3] * 2
    titled, bare = sheet(pictures, ['photo', 'Wahrheit', 'x' * 200], 600), sheet(pictures, [], 600)
    head = titled.shape[0] - bare.shape[0]
    assert head > 10
    np.testing.assert_array_equal(titled[head:], bare)
    for third in np.split(titled[:head], 3, axis=1):
        assert third.min() < 100


@pytest.mark.parametrize('rows', [[], [[]], [[None]], [[photo(30, 40)], []], [[photo(30, 40), None, photo(1, 1)]],
                                  [[np.zeros((20, 10), np.uint16)]], [[photo(1, 500)]], [[photo(900, 2)]]])
def test_any_rows(rows: list) -> None:
    assert sheet(rows, ['photo'], 400).shape[1] == 400
    assert sheet(rows, (), 400).shape[1] == 400


def test_all_cells_have_one_size() -> None:
    rows = [[photo(30, 40), photo(30, 40)], [photo(60, 80), photo(300, 400)]]
    page = sheet(rows, (), 404)
    cells = (page != 255).all(axis=2)
    heights = np.flatnonzero(np.diff(cells.any(axis=1).astype(int)))
    assert heights[1] - heights[0] == heights[3] - heights[2]
