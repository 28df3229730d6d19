"""Factors of an image: background, edges, margins and the nearest of others."""

import numpy as np
import pytest
import torch

from clsp_utils.evaluation import background_match, edges, margin, nearest_images

BACKGROUND = np.random.default_rng(0).random((400, 8, 8, 3)).astype(np.float32)
IMAGES = np.rint(BACKGROUND * 255).astype(np.uint8)


def test_background_match_of_same_inverted_and_shuffled():
    assert background_match(IMAGES, BACKGROUND) == pytest.approx(1, abs=1e-3)
    assert background_match(255 - IMAGES, BACKGROUND) == pytest.approx(-1, abs=1e-3)
    # 96 correlations of deviation 1/20 each: their mean is within 0.02.
    assert abs(background_match(np.roll(IMAGES, 1, 0), BACKGROUND)) < 0.02


def test_background_match_ignores_the_scale_and_the_middle():
    images = IMAGES.copy()
    images[:, :, 2:-2] = 0
    assert background_match(images, BACKGROUND * 7 - 3) == pytest.approx(1, abs=1e-3)
    images[:, :, 1] = images[::-1, :, 1]  # a margin column does count
    assert background_match(images, BACKGROUND) < 0.9


def test_background_match_counts_constant_pixels_as_chance():
    images = IMAGES.copy()
    images[:, :, 0] = 128  # one of the four columns
    assert background_match(images, BACKGROUND) == pytest.approx(0.75, abs=1e-3)
    assert background_match(np.full_like(IMAGES, 9), BACKGROUND) == 0


def test_edges_against_a_slow_loop():
    images = IMAGES[:3]
    down, right = [], []
    for image in images.astype(int):
        down += [abs(image[y + 1] - image[y]) for y in range(7)]
        right += [abs(image[:, x + 1] - image[:, x]) for x in range(7)]
    assert edges(images) == pytest.approx((np.mean(down) + np.mean(right)) / 2)


def test_edges_of_a_flat_image_and_of_a_stroke():
    images = np.full((2, 8, 8, 3), 200, np.uint8)
    assert edges(images) == 0
    images[:, :, 4] = 0  # two jumps of 200 among the seven differences to the right
    assert edges(images) == pytest.approx(200 * 2 / 7 / 2)
    assert edges(images / 255) == pytest.approx(edges(images) / 255)


def test_margin_is_of_the_outer_columns_alone():
    images = np.full((4, 8, 8, 3), 77, np.uint8)
    images[:, :, :2], images[:, :, -2:] = 100, 50
    assert margin(images) == (75, 0)
    # Half of the images are brighter: a deviation of 10 everywhere.
    images[::2, :, :2] += 20
    images[::2, :, -2:] += 20
    assert margin(images) == (85, 10)


def test_nearest_images_against_a_slow_loop():
    images, others = IMAGES[:5], IMAGES[5:25]
    distance, index = nearest_images(images, others)
    slow = [[np.abs(x - y).mean() for y in others.astype(float)] for x in images.astype(float)]
    assert index.tolist() == np.argmin(slow, 1).tolist()
    assert distance.dtype == torch.float32
    np.testing.assert_allclose(distance, np.min(slow, 1), rtol=1e-5)


def test_nearest_images_finds_a_copy():
    rows = np.array([17, 3, 250])
    distance, index = nearest_images(IMAGES[rows], IMAGES)
    assert index.tolist() == rows.tolist() and distance.tolist() == [0, 0, 0]
