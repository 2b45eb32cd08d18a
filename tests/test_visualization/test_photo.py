import numpy as np
import pytest

from knet_plugin.visualization.photo import as_rgb, font_size, line_width, strips


def test_8_bit_images_keep_their_values() -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(as_rgb(colour), colour)
    assert as_rgb(colour) is not colour
    np.testing.assert_array_equal(as_rgb(np.dstack([colour, colour])), colour)
    for grey in (colour[..., 0], colour[..., :1], colour[..., :2]):
        np.testing.assert_array_equal(as_rgb(grey), np.repeat(colour[..., :1], 3, axis=2))


@pytest.mark.parametrize('dtype', [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_other_types_are_stretched(dtype: type) -> None:
    values = np.linspace(100, 4000, 10_000).reshape(100, 100).astype(dtype)
    drawn = as_rgb(values)
    assert drawn.dtype == np.uint8
    assert drawn.min() == 0 and drawn.max() == 255
    assert (np.diff(drawn[..., 0].ravel().astype(int)) >= 0).all()
    assert abs(int(np.median(drawn)) - 128) <= 2


@pytest.mark.parametrize('image', [
    np.full((4, 5), 7, np.uint16), np.full((4, 5, 3), np.nan), np.array([[np.inf, 1.0]]), np.ones((4, 5), bool),
    np.zeros((1, 1, 7), np.float32)])
def test_images_without_contrast_or_numbers(image: np.ndarray) -> None:
    assert as_rgb(image).shape == (*image.shape[:2], 3)


@pytest.mark.parametrize('shape', [(4,), (0, 4), (4, 0, 3), (4, 4, 0), (1, 2, 3, 4)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(shape[-1])):
        as_rgb(np.zeros(shape, np.uint8))


def test_strips_cover_all_rows_once() -> None:
    for shape in ((1, 1), (5000, 3000), (3, 10 ** 7)):
        rows = [row for strip in strips(*shape) for row in range(strip.start, strip.stop)]
        assert rows == list(range(shape[0]))


def test_lines_and_letters_grow_with_the_image() -> None:
    assert line_width(200, 200) == 1
    assert 3 <= line_width(4000, 4000) <= 8
    assert font_size(200, 200) == 10
    assert 50 <= font_size(4000, 4000) <= 90
    assert font_size(20, 4000) <= 20
