"""Usefulness against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notbugs import metrics


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_usefulness_is_the_mean_of_y_times_the_standardized_feature(seed: int, scale: float, offset: float) -> None:
    """By its definition, both sides equally likely; independent of the feature's scale and offset; within [-1, 1]."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(60) % 3)
    values = generator.normal(size=(60, 4)) + labels[:, None] * generator.normal(size=4)
    table = metrics.usefulness(torch.from_numpy(scale * values + offset), torch.from_numpy(labels), 3)
    for label in range(3):
        own = labels == label
        weight = np.where(own, 0.5 / own.sum(), 0.5 / (~own).sum())
        mean = weight @ values
        standardized = (values - mean) / np.sqrt(weight @ (values - mean) ** 2)
        assert table.value[:, label] == pytest.approx((weight * np.where(own, 1, -1)) @ standardized, abs=1e-6)
    assert np.abs(table.value).max() <= 1
    assert (table.ci_low <= table.value).all() and (table.value <= table.ci_high).all()


def test_constant_features_and_classes_with_one_image_are_useless() -> None:
    """Usefulness 0, and an interval that contains everything; of noise, one that contains 0."""
    labels = torch.tensor([0] * 20 + [1] * 20 + [2])
    values = torch.stack([torch.full((41,), 3.0), torch.randn(41, generator=torch.Generator().manual_seed(0))], dim=1)
    table = metrics.usefulness(values, labels, 3)
    assert table.value[0].tolist() == [0, 0, 0]
    assert (table.ci_low[0], table.ci_high[0]) == (pytest.approx([-1] * 3), pytest.approx([1] * 3))
    assert table.value[1, 2] == 0 and table.ci_low[1, 0] < 0 < table.ci_high[1, 0]
