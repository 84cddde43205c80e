"""New datasets out of old ones: every stated fact is recomputed from the 8-bit images that would be stored."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from notbugs import attacks, construct, data, models, search
from notbugs.construct import Constructed
from notbugs.data import Dataset, from_8bit
from notbugs.errors import InputError
from notbugs.search import NormBall

BALLS = [NormBall("l2", 1.5), NormBall("l2", 0.3), NormBall("linf", 0.2), NormBall("linf", 0.03)]


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """120 digits: enough to have batches that are not full."""
    return digits.train.select(slice(0, 120))


def noise_set(n: int, shape: tuple[int, int, int], low: int = 0, high: int = 256) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(low, high, (n, *shape), generator=generator, dtype=torch.uint8)
    return Dataset(images, torch.arange(n) % 4, tuple("abcd"), tuple(f"{i}.png" for i in range(n)))


def pixels(part: Dataset) -> Tensor:
    return part.pixels(slice(None))


def assert_kept(made: Constructed, part: Dataset) -> None:
    assert made.dataset.names == part.names
    assert made.dataset.classes == part.classes
    assert made.dataset.shape == part.shape
    assert isinstance(made.dataset.images, Tensor)
    assert made.dataset.images.dtype == torch.uint8


def assert_sizes(made: Constructed, part: Dataset) -> None:
    """The change, in double precision."""
    change = (made.dataset.images[:].double() - part.images[:].double()).flatten(1) / 255
    assert made.stats["mean_l2"] == pytest.approx(float(change.norm(dim=1).mean()), rel=1e-5)
    assert made.stats["max_l2"] == pytest.approx(float(change.norm(dim=1).max()), rel=1e-5)
    assert made.stats["max_linf"] == pytest.approx(float(change.abs().max()), rel=1e-5)


# ---- inverted -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 50])
def test_the_start_is_another_image_and_each_is_used_once(n: int, standard: models.Model) -> None:
    part = noise_set(n, (1, 8, 8))
    for seed in range(5):
        starts = construct.invert_features(standard, part, steps=0, seed=seed, batch_size=20).dataset.images[:]
        matches = (starts.flatten(1)[:, None] == part.images[:].flatten(1)[None]).all(2)
        assert matches.sum(0).tolist() == matches.sum(1).tolist() == [1] * n
        assert not matches.diagonal().any()


def test_the_start_can_be_noise(standard: models.Model, part: Dataset) -> None:
    starts = construct.invert_features(standard, part, start="noise", steps=0, batch_size=50).dataset.images[:]
    assert stats.kstest((starts.flatten() + torch.rand(starts.numel())) / 256, "uniform").pvalue > 0.001
    assert len({image.numpy().tobytes() for image in starts}) == len(part)


@pytest.mark.parametrize("start", ["image", "noise"])
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_inverted_images_look_alike_to_the_model(start: str, which: str, request: pytest.FixtureRequest, part: Dataset) -> None:
    model = request.getfixturevalue(which)
    made = construct.invert_features(model, part, start=start, steps=40, batch_size=50)
    assert_kept(made, part)
    assert_sizes(made, part)
    assert torch.equal(made.dataset.labels, part.labels)
    wanted, seen = model.features(pixels(part)), model.features(pixels(made.dataset))
    error = float(((seen - wanted).norm(dim=1) / wanted.norm(dim=1)).mean())
    assert made.stats["feature_error"] == pytest.approx(error, rel=1e-3)
    assert made.stats["steps"] == 40
    before = construct.invert_features(model, part, start=start, steps=0, batch_size=50).stats["feature_error"]
    papers = construct.invert_features(model, part, start=start, steps=40, rule=construct.paper_update_rule(), batch_size=50)
    assert error < papers.stats["feature_error"] < before
    assert error < 0.2 * before


def test_an_inversion_that_breaks_down_keeps_its_start_and_never_the_answer(standard: models.Model, part: Dataset) -> None:
    """What is no number falls back to the start: falling back to the image itself would be a perfect, and worthless, match."""

    def broken(now: search.StepState, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return now.images * torch.nan, memory

    found = construct.invert_features(standard, part, steps=3, rule=broken)
    starts = construct.invert_features(standard, part, steps=0)
    assert torch.equal(found.dataset.images[:], starts.dataset.images[:])


def test_the_root_of_the_covariance_in_closed_form() -> None:
    """Two channels of white noise, blurred around the edges and mixed: at every frequency |blur| times the root of M Mᵀ."""
    generator = torch.Generator().manual_seed(0)
    height, width, mix = 6, 8, torch.tensor([[2.0, 0.5], [1.0, 1.0]])
    blur = torch.fft.rfft2(torch.rand(height, width, generator=generator) / 10 + torch.eye(height, width))

    def grown(white: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", torch.fft.irfft2(torch.fft.rfft2(white) * blur, s=(height, width)), mix.T)

    shaped = construct.spectral_covariance_sqrt(0.5 + grown(torch.randn(20_000, 2, height, width, generator=generator)))
    values, ways = torch.linalg.eigh(mix @ mix.T)
    root = (ways * values.sqrt() @ ways.T).cfloat()
    gradient = torch.randn(5, 2, height, width, generator=generator)
    exact = torch.fft.irfft2(torch.einsum("nchw,cd->ndhw", torch.fft.rfft2(gradient) * blur.abs(), root), s=(height, width))
    found = shaped(gradient)
    assert torch.stack([found.flatten(), exact.flatten()]).corrcoef()[0, 1] > 0.999
    other = torch.randn(5, 2, height, width, generator=generator)
    assert torch.allclose((found * other).sum(), (gradient * shaped(other)).sum(), rtol=1e-4, atol=1e-4)  # symmetric
    assert (found * gradient).flatten(1).sum(1).min() > 0  # positive definite


@pytest.mark.parametrize("images", [torch.zeros(3, 1, 8, 8), torch.rand(1, 3, 9, 5)], ids=["all alike", "only one"])
def test_images_that_do_not_vary_have_no_preference(images: Tensor) -> None:
    gradient = torch.randn(2, *images.shape[1:])
    shaped = construct.spectral_covariance_sqrt(images)(gradient)
    assert torch.allclose(shaped, shaped.norm() / gradient.norm() * gradient, atol=1e-5)


def test_the_metric_evens_out_how_features_answer() -> None:
    """Four features A x, the first a hundred times as strong: C = A Aᵀ, so the metric is (A Aᵀ / mean + 1)^(−1/2)."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 64, generator=generator) * torch.tensor([100.0, 1, 1, 1])[:, None]
    images = torch.rand(40, 1, 8, 8, generator=generator)
    found = construct.whitened_metric(lambda seen: seen.flatten(1) @ matrix.T, images.repeat(50, 1, 1, 1))
    exact = (matrix @ matrix.T).double()
    values, vectors = torch.linalg.eigh(exact / exact.trace() * 4)
    assert torch.allclose(found.double(), vectors * (values + 1).rsqrt() @ vectors.T, atol=0.03)
    assert found[0, 0] < 0.55 < 0.97 < found[1, 1]


def test_a_view_that_answers_to_nothing_has_the_plain_metric() -> None:
    assert torch.equal(construct.whitened_metric(lambda seen: torch.zeros(len(seen), 3), torch.rand(2, 1, 8, 8)), torch.eye(3))


def test_sixty_steps_come_nearer_than_hundreds_of_the_papers(standard: models.Model, part: Dataset) -> None:
    ours = construct.invert_features(standard, part, steps=60).stats["feature_error"]
    paper = construct.invert_features(standard, part, steps=400, rule=construct.paper_update_rule()).stats["feature_error"]
    assert ours < paper


def test_versions_of_one_image_grow_from_different_starts(standard: models.Model, part: Dataset) -> None:
    once = construct.invert_features(standard, part, steps=0, seed=3).dataset
    made = construct.invert_features(standard, part, steps=0, seed=3, times=3)
    versions = made.dataset.images[:].reshape(3, len(part), -1)
    assert torch.equal(versions[0], once.images[:].flatten(1))
    known = {image.numpy().tobytes(): number for number, image in enumerate(part.images[:])}
    starts = torch.tensor([[known[image.numpy().tobytes()] for image in version] for version in versions])
    assert all(sorted(version.tolist()) == list(range(len(part))) for version in starts)
    assert not (starts == torch.arange(len(part))).any()
    assert all((starts[one] == starts[other]).sum() < 10 for one, other in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(made.dataset.labels, part.labels.repeat(3))
    stem = part.names[5].removesuffix(".png")
    assert made.dataset.names[5 :: len(part)] == (f"{stem}.png", f"{stem}~2.png", f"{stem}~3.png")
    assert_sizes(made, part.select(torch.arange(len(part)).repeat(3)))


@given(st.lists(st.text(st.sampled_from("ab./2"), min_size=1), min_size=2, unique=True), st.integers(1, 3))
def test_their_names_stay_apart(names: list[str], times: int) -> None:
    part = noise_set(len(names), (1, 2, 2))
    made = Dataset(part.images, part.labels, part.classes, tuple(names)).repeat(times)
    assert made.names[: len(names)] == tuple(names)
    assert len(set(made.names)) == len(made) == times * len(names)


def test_versions_that_would_take_the_name_of_another_file_are_refused(standard: models.Model, part: Dataset) -> None:
    two = Dataset(part.images[:2], part.labels[:2], part.classes, ("cat.png", "cat~2.png"))
    with pytest.raises(InputError, match=r"^times: must leave files apart"):
        construct.invert_features(standard, two, steps=0, times=2)
    with pytest.raises(InputError, match=r"^times: must be 1 or more, got 0$"):
        construct.invert_features(standard, part, times=0)


def test_an_unknown_start_is_refused(standard: models.Model, part: Dataset) -> None:
    with pytest.raises(InputError, match=r"^start: must be image or noise, got 'zeros'$"):
        construct.invert_features(standard, part, start="zeros")


# ---- relabelled ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_relabelled_images_are_stored_inside_the_ball(threat_model: NormBall, standard: models.Model, part: Dataset) -> None:
    labels = construct.next_labels(part.labels, 10)
    made = construct.relabel(standard, part, labels, threat_model=threat_model, steps=10, batch_size=50)
    assert_kept(made, part)
    assert_sizes(made, part)
    steps = (made.dataset.images[:].int() - part.images[:].int()).flatten(1)  # whole numbers of 255ths: nothing to round
    if threat_model.norm == "l2":
        assert float(steps.square().sum(1).max()) <= (threat_model.epsilon * 255) ** 2
    else:
        assert float(steps.abs().max()) <= threat_model.epsilon * 255
    reached = standard(pixels(made.dataset)).argmax(1) == labels
    assert made.stats["reached"] == pytest.approx(float(reached.float().mean()), abs=1e-6)
    assert (made.stats["reached"] > 0.5) == (threat_model.epsilon in (1.5, 0.2))
    assert torch.equal(made.dataset.labels, labels)
    assert (made.stats["changed_labels"], made.stats["epsilon"]) == (120, threat_model.epsilon)


def test_what_rounding_undoes_was_not_reached(part: Dataset) -> None:
    """In a ball of less than half a grey level targets are reached, but no file can hold it: nothing is stored, none counted."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.normal_(network[1].weight)
    model, threat_model = models.wrap(network.requires_grad_(False), part.pixels(slice(0, 2))), NormBall("linf", 0.48 / 255)
    second = model(pixels(part)).topk(2).indices[:, 1]
    found = attacks.targeted_pgd(model, pixels(part), second, threat_model=threat_model)
    assert int((found.margins > 0).sum()) > 3
    made = construct.relabel(model, part, second, threat_model=threat_model)
    assert torch.equal(made.dataset.images[:], part.images[:])
    assert (made.stats["reached"], made.stats["max_linf"]) == (0, 0)


def test_with_room_enough_every_target_is_reached(standard: models.Model, part: Dataset) -> None:
    labels = construct.random_labels(part.labels, 10)
    for loss in ("cross_entropy", "margin"):
        assert (
            construct.relabel(standard, part, labels, threat_model=NormBall("l2", 2.0), steps=20, loss=loss).stats["reached"]
            > 0.97
        )


def test_labels_that_stay_are_not_counted_as_changed(standard: models.Model, part: Dataset) -> None:
    labels = construct.random_labels(part.labels, 10, keep=True, seed=4)
    made = construct.relabel(standard, part, labels, threat_model=NormBall("l2", 0.5), steps=1)
    assert made.stats["changed_labels"] == int((labels != part.labels).sum()) < len(part)


# ---- labels -------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 50))
def test_new_labels_are_never_the_old(classes: int, seed: int, n: int) -> None:
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    new = construct.random_labels(labels, classes, seed=seed)
    assert new.dtype == torch.int64
    assert not bool((new == labels).any())
    assert bool(((new >= 0) & (new < classes)).all())
    assert construct.next_labels(labels, classes).tolist() == [(label + 1) % classes for label in labels.tolist()]


def test_new_labels_are_drawn_evenly_by_seed() -> None:
    labels = torch.full((9000,), 3)
    others = construct.random_labels(labels, 10).bincount(minlength=10)
    assert stats.chisquare(torch.cat([others[:3], others[4:]])).pvalue > 0.01
    anything = construct.random_labels(labels, 10, keep=True).bincount(minlength=10)
    assert stats.chisquare(anything).pvalue > 0.01
    for keep in (True, False):
        one, two, other = (construct.random_labels(labels, 10, keep=keep, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


# ---- the control --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ball", [NormBall("l2", 0.5), NormBall("l2", 2.0), NormBall("linf", 8 / 255), NormBall("linf", 0.03)], ids=str
)
def test_the_control_has_the_same_norms_and_labels_and_nothing_else(threat_model: NormBall) -> None:
    """Grey pictures: the pixel range is never in the way. What it stands for: a gradient, or the signs of one."""
    part = noise_set(30, (3, 16, 16), 60, 196)
    generator = torch.Generator().manual_seed(7)
    change = 0.95 * threat_model.epsilon * threat_model.steepest_direction(torch.randn(30, 3, 16, 16, generator=generator))
    model_made = part.with_images(data.to_8bit(threat_model.round_to_8bit(pixels(part) + change, pixels(part)))).with_labels(
        (part.labels + 1) % 4
    )
    made = construct.shuffled_perturbations(part, model_made)
    assert_kept(made, part)
    assert_sizes(made, part)
    assert torch.equal(made.dataset.labels, model_made.labels)
    ours, theirs = ((pixels(each) - pixels(part)).flatten(1) for each in (made.dataset, model_made))
    assert torch.allclose(ours.norm(dim=1), theirs.norm(dim=1))
    sizes = [(255 * each).round().abs().sort(1).values for each in (ours, theirs)]
    assert torch.equal(*sizes)  # the very same changes, scattered: no norm can tell
    alike = (ours * theirs).sum(1) / (ours.norm(dim=1) * theirs.norm(dim=1))
    assert abs(float(alike.mean())) < 4 / (30 * 768) ** 0.5
    assert float(alike.abs().max()) < 4.5 / 768**0.5
    assert made.stats["changed_labels"] == 30


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
def test_the_control_of_digits(threat_model: NormBall, standard: models.Model, part: Dataset) -> None:
    """Half of their pixels are black or white: noise is cut off there, and the rest made longer as far as the ball allows."""
    labels = construct.random_labels(part.labels, 10)
    model_made = construct.relabel(standard, part, labels, threat_model=threat_model, steps=10)
    made = construct.shuffled_perturbations(part, model_made.dataset)
    steps = (made.dataset.images[:].int() - part.images[:].int()).flatten(1)
    limit = threat_model.epsilon * 255
    assert float(steps.square().sum(1).max() if threat_model.norm == "l2" else steps.abs().max()) <= (
        limit**2 if threat_model.norm == "l2" else limit
    )
    assert made.stats["mean_l2"] <= model_made.stats["mean_l2"] * 1.02
    assert made.stats["mean_l2"] >= model_made.stats["mean_l2"] * (0.97 if threat_model.norm == "l2" else 0.7)
    read = standard(pixels(made.dataset)).argmax(1) == labels
    assert float(read.float().mean()) < 0.25 * model_made.stats["reached"] + 0.05


def test_no_change_has_no_change_as_its_control(part: Dataset) -> None:
    assert torch.equal(construct.shuffled_perturbations(part, part).dataset.images[:], part.images[:])


# ---- all of them --------------------------------------------------------------------------------------------------------


MAKERS: dict[str, Callable[[models.Model, Dataset, int], Constructed]] = {
    "inverted": lambda model, part, seed: construct.invert_features(model, part, steps=3, seed=seed, batch_size=50),
    "from noise": lambda model, part, seed: construct.invert_features(
        model, part, start="noise", steps=3, seed=seed, batch_size=50
    ),
    "relabelled": lambda model, part, seed: construct.relabel(
        model, part, construct.random_labels(part.labels, 10, seed=seed), threat_model=NormBall("l2", 0.5), steps=3, batch_size=50
    ),
    "control": lambda model, part, seed: construct.shuffled_perturbations(
        part, part.with_images(255 - part.images[:]), seed=seed
    ),
}


@pytest.mark.parametrize("name", list(MAKERS))
def test_the_same_seed_gives_the_same_set_and_leaves_the_model_alone(name: str, part: Dataset) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, two, other = (MAKERS[name](model, part, seed) for seed in (1, 1, 2))
    assert torch.equal(one.dataset.images[:], two.dataset.images[:])
    assert one.stats == two.stats
    assert not torch.equal(one.dataset.images[:], other.dataset.images[:])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_progress_is_told_and_a_users_network_will_do(part: Dataset) -> None:
    told: list[int] = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    model = models.wrap(network, part.pixels(slice(0, 2)))
    made = construct.invert_features(model, part, steps=5, batch_size=50, progress=told.append)
    assert told == [50, 50, 20]
    assert made.stats["feature_error"] < construct.invert_features(model, part, steps=0, batch_size=50).stats["feature_error"]
    with torch.no_grad():
        wanted, seen = model.features(pixels(part)), model.features(from_8bit(made.dataset.images[:]))
    error = ((seen - wanted).norm(dim=1) / wanted.norm(dim=1)).mean()
    assert made.stats["feature_error"] == pytest.approx(float(error), rel=1e-3)
