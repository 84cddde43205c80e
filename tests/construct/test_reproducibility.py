"""All constructions: the same seed gives the same data set, the model stays as it is, progress is reported."""

from collections.abc import Callable
from pathlib import Path

import pytest
import rank_jobs
import torch
from construct.conftest import pixels
from torch import nn

from notbugs import construct, models
from notbugs.construct import Constructed
from notbugs.data import Dataset, from_8bit
from notbugs.search import NormBall

CONSTRUCTIONS: dict[str, Callable[[models.Model, Dataset, int], Constructed]] = {
    "inverted": lambda model, part, seed: construct.invert_features(model, part, steps=3, seed=seed, batch_size=50),
    "inverted from noise": lambda model, part, seed: construct.invert_features(
        model, part, start="noise", steps=3, seed=seed, batch_size=50
    ),
    "relabeled": lambda model, part, seed: construct.relabel(
        model, part, construct.random_labels(part.labels, 10, seed=seed), threat_model=NormBall("l2", 0.5), steps=3, batch_size=50
    ),
    "shuffled": lambda model, part, seed: construct.shuffled_perturbations(
        part, part.with_images(255 - part.images[:]), seed=seed
    ),
}


@pytest.mark.parametrize("name", list(CONSTRUCTIONS))
def test_the_same_seed_gives_the_same_data_set_and_leaves_the_model_as_it_was(name: str, part: Dataset) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, two, other = (CONSTRUCTIONS[name](model, part, seed) for seed in (1, 1, 2))
    assert torch.equal(one.dataset.images[:], two.dataset.images[:])
    assert one.stats == two.stats
    assert not torch.equal(one.dataset.images[:], other.dataset.images[:])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_progress_is_reported_and_any_network_will_do(part: Dataset) -> None:
    counts: list[int] = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    model = models.wrap(network, part.pixels(slice(0, 2)))
    made = construct.invert_features(model, part, steps=5, batch_size=50, progress=counts.append)
    assert counts == [50, 50, 20]
    start = construct.invert_features(model, part, steps=0, batch_size=50).stats.feature_error
    assert made.stats.feature_error is not None and start is not None
    assert made.stats.feature_error < start
    with torch.no_grad():
        wanted, found = model.features(pixels(part)), model.features(from_8bit(made.dataset.images[:]))
    error = ((found - wanted).norm(dim=1) / wanted.norm(dim=1)).mean()
    assert made.stats.feature_error == pytest.approx(float(error), rel=1e-3)


@pytest.mark.slow
def test_any_number_of_processes_constructs_the_same_images(tmp_path: Path) -> None:
    expected = rank_jobs.constructed()
    for count in (1, 2, 3):
        folder = tmp_path / str(count)
        folder.mkdir()
        for found in rank_jobs.on_ranks(count, folder, rank_jobs.constructed):
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert len([*folder.glob("blocks/*/*.pt")]) == 9
