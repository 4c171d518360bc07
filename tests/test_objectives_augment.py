"""DiffAug: what each operation does to a picture, and that pictures draw for themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rae_dit.objectives.augment import augment, change_colors, cut_out, translate

SIDE = 16
NOTHING = {"probability": 1.0, "translation": 0.0, "color": False, "cutout": 0.0}


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(9), (SIDE, SIDE, 3), minval=0.1, maxval=0.9)


def run(keys, images, **changes):
    return jax.jit(functools.partial(augment, **(NOTHING | changes)))(keys, images)


def test_with_everything_off_nothing_changes(image):
    np.testing.assert_allclose(run(keys(1), image[None])[0], image, atol=1e-6)
    changed = {"translation": 0.25, "color": True, "cutout": 0.5}
    same = run(keys(4), jnp.stack([image] * 4), probability=0.0, **changed)
    np.testing.assert_allclose(same, jnp.stack([image] * 4), atol=1e-6)


def test_translation_moves_up_to_its_share_and_grey_enters(image):
    count, largest = 200, 2  # 0.125 of 16 pixels
    moved = np.asarray(run(keys(count), jnp.stack([image] * count), translation=0.125))
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), constant_values=0.5)
    found = set()
    for picture in moved:
        fits = [
            (dy, dx)
            for dy in range(-3, 4)
            for dx in range(-3, 4)
            if np.allclose(picture, padded[4 - dy : 20 - dy, 4 - dx : 20 - dx], atol=1e-6)
        ]
        assert len(fits) == 1
        found.add(fits[0])
    every = {(dy, dx) for dy in range(-largest, 3) for dx in range(-largest, 3)}
    assert found == every  # 25 shifts, 200 draws: one is missed with probability 0.7 %


def test_the_gradient_of_a_translation_is_the_shift_back(image):
    key = jax.random.key(3)
    move = functools.partial(translate, key, share=0.25)
    y, pull_back = jax.vjp(move, image)
    assert not np.allclose(y, image)
    np.testing.assert_allclose(jnp.vdot(y, y), jnp.vdot(pull_back(y)[0], image), rtol=1e-5)


def test_colours_follow_the_three_equations(image):
    key = jax.random.key(5)
    x = np.asarray(image) - 0.5
    brightness, saturation, contrast = np.asarray(jax.random.uniform(key, (3,)))
    y = x + (brightness - 0.5) / 2
    grey = y.mean(axis=-1, keepdims=True)
    y = grey + 2 * saturation * (y - grey)
    y = y.mean() + (contrast + 0.5) * (y - y.mean())
    np.testing.assert_allclose(change_colors(key, jnp.asarray(x)), y, atol=1e-6)
    spans = np.asarray(run(keys(300), jnp.stack([image] * 300), color=True))
    shift = spans.mean(axis=(1, 2, 3)) - np.mean(image)  # brightness alone moves the mean
    assert -0.26 < shift.min() < -0.2
    assert 0.2 < shift.max() < 0.26


def test_cutout_blanks_a_square_that_may_reach_over_the_edge():
    ones = jnp.ones((SIDE, SIDE, 3))
    cut = jax.vmap(lambda key: cut_out(key, ones, share=0.5))(keys(300))
    blank = np.asarray(cut == 0).all(axis=-1)
    rows, columns = blank.any(axis=2).sum(axis=1), blank.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(blank.sum(axis=(1, 2)), rows * columns)  # rectangles
    assert rows.max() == columns.max() == 8
    assert rows.min() >= 3  # the centre stays inside
    assert 4 in rows
    assert blank.any(axis=0).all()


def test_an_image_draws_by_its_own_key_and_as_often_as_asked(image):
    settings = {"translation": 0.125, "color": True, "cutout": 0.25}
    images = jnp.stack([image, image[::-1], image])
    together = run(keys(3), images, **settings)
    alone = run(keys(3)[1:2], images[1:2], **settings)
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)
    assert not np.allclose(together[0], together[2])
    half = run(keys(400), jnp.stack([image] * 400), probability=0.5, color=True)
    changed = jnp.abs(half - image).max(axis=(1, 2, 3)) > 1e-5
    assert 0.4 < changed.mean() < 0.6
