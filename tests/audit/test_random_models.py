"""Audits of models that are random, whose logits turn NaN, or whose gradients are missing: what the figures count and say."""

from pathlib import Path

import pytest
import torch
from audit.conftest import DIGITS, accuracy, write_module
from torch import Tensor, nn

from notbugs import attacks, audit, data, report
from notbugs.audit import AuditConfig
from notbugs.audit.batch import attack_batch
from notbugs.audit.evaluate import NOT_FINITE
from notbugs.audit.random_batch import attack_random_batch
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import CheckRow, ConfusionRow, CurveRow, ImageRow, PredictionRow
from notbugs.search import NormBall

LABELS = torch.tensor([0, 0, 1, 1])


class Noisy(nn.Module):
    """Two classes by the mean brightness, with noise on the logits."""

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, images: Tensor) -> Tensor:
        score = 20 * (images.mean((1, 2, 3)) - 0.5) + self.noise * torch.randn(len(images))
        return torch.stack([-score, score], dim=1)


class Overflow(Noisy):
    """The same without noise; NaN where the mean brightness is near one half, between the classes."""

    def forward(self, images: Tensor) -> Tensor:
        self.noise = 0.0
        return torch.where(((images.mean((1, 2, 3)) - 0.5).abs() < 0.01)[:, None], torch.nan, super().forward(images))


@pytest.fixture
def images() -> Tensor:
    values = torch.tensor([0.2, 0.48, 0.52, 0.8]).reshape(4, 1, 1, 1).expand(4, 1, 4, 4)
    return (values * 255).round() / 255


@pytest.mark.slow
def test_images_of_a_random_model_count_by_their_share_of_correct_draws(images: Tensor) -> None:
    threats = [NormBall("linf", 0.02), NormBall("linf", 0.1)]
    result = attack_random_batch(Noisy(), images, LABELS, threats, "quick", seed=0)
    assert result.minimum_norms.shape == (4, 1) and bool(result.minimum_norms.isnan().all())
    assert result.clean_correct_draws[[0, 3]].tolist() == [20, 20]
    assert result.correct_draws.shape == (4, 2) and not bool(result.by_minimum_norm.any())
    shares = torch.tensor([0.66, 0.66]) * 20  # a score of -0.4: the normal distribution up to 0.4
    assert torch.allclose(result.clean_correct_draws[1:3].float(), shares, atol=6)
    assert bool((result.correct_draws[1:3, 1] <= 3).all())  # of 1.6
    assert torch.equal(result.misclassified, result.correct_draws <= 10)
    again = attack_random_batch(Noisy(), images, LABELS, threats, "quick", seed=0)
    assert torch.equal(result.images, again.images) and torch.equal(result.correct_draws, again.correct_draws)


@pytest.mark.slow
def test_stored_images_reproduce_the_figures_of_a_random_model(images: Tensor) -> None:
    many = images.repeat(5, 1, 1, 1)[:, :, :2, :2].contiguous()
    result = attack_random_batch(Noisy(), many, LABELS.repeat(5), [NormBall("linf", 0.05)], "quick", seed=0)
    figure = result.correct_draws_8bit.sum() / (20 * attacks.DRAWS)
    stored = data.from_8bit(result.images[:, 0])
    with torch.no_grad():
        logits = attacks.randomness.draw_logits(Noisy(), stored, 200)
    share = (logits.argmax(2) == LABELS.repeat(5)[:, None]).float().mean()
    assert abs(float(figure - share)) < 0.06


def test_logits_that_turn_nan_count_as_misclassified_and_have_no_predicted_class(images: Tensor) -> None:
    result = attack_batch(Overflow(), images[:3], LABELS[:3], [NormBall("linf", 0.1)], "quick")
    assert result.misclassified[:, 0].tolist() == [False, True, True]
    assert result.predicted[:, 0].tolist() == [0, -1, -1] == result.predicted_8bit[:, 0].tolist()
    assert result.clean_predicted.tolist() == [0, 0, 1]
    assert (result.correct_draws == -1).all()


CODE = """
import torch
from torch import nn
from notbugs import data
def network(classes):
    digits, linear = data.load("digits").train, nn.Linear(64, classes)
    pixels = digits.pixels(slice(None)).flatten(1)
    means = torch.stack([pixels[digits.labels == number].mean(0) for number in range(classes)])
    linear.weight.data, linear.bias.data = 8 * means, -4 * means.square().sum(1)  # the nearest mean
    return nn.Sequential(nn.Flatten(), linear)
class Flawed(nn.Module):
    def __init__(self, network, flaw):
        super().__init__()
        self.network, self.flaw = network, flaw
    def forward(self, images):
        return self.flaw(self.network, images)
def noisy(classes): return Flawed(network(classes), lambda net, images: net(images + 0.3 * torch.randn_like(images)))
def detached(classes): return Flawed(network(classes), lambda net, images: net(images.detach()))
def overflow(classes): return Flawed(network(classes), lambda net, images: net(images) + nan(images))
def nan(images):
    changed = ((images * 16 - (images * 16).round()).abs() > 0.1).flatten(1).any(1)
    return torch.where(changed, torch.nan, 0.0)[:, None]
"""


def audited(name: str, folder: Path, patch: pytest.MonkeyPatch) -> RunFolder:
    """An audit of ten digits with one of the models of `CODE`."""
    write_module(folder, "flawed_models", CODE)
    patch.chdir(folder)
    config = AuditConfig(f"flawed_models:{name}", DIGITS, threats=("l2:0.5",), images=10, budget="quick")
    done = audit.run(config, folder / "run", workers=1)
    report.write(folder / "run")
    return done


@pytest.mark.slow
def test_an_audit_of_a_random_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = audited("noisy", tmp_path, monkeypatch)
    rows, page = accuracy(done), (tmp_path / "run" / "report.html").read_text()
    assert rows["l2 0.5"].draws == 20 == done.audit().draws and rows["l2 0.5"].attack == "ensemble-quick v6 + EOT-20"
    assert rows["l2 0.5"].correct_by_minimum_norm is None and not done.rows(CurveRow)
    predictions, images = done.rows(PredictionRow), done.rows(ImageRow)
    for threat, correct in (
        ("l2 0.5", [row.correct_draws for row in predictions]),
        ("clean", [row.correct_draws for row in images]),
    ):
        assert all(draws is not None and 0 <= draws <= 20 for draws in correct)
        assert rows[threat].accuracy == pytest.approx(sum(draws or 0 for draws in correct) / 20 / 10)
    assert all(row.minimum_l2 is None for row in images)
    checks = {row.check: row.passed for row in done.rows(CheckRow)}
    assert checks["deterministic"] == "no" and checks["randomness averaged"] == "yes"
    assert "random model, mean of 20 draws" in page and "Each image counts by its share of correct draws" in page


@pytest.mark.slow
def test_an_audit_says_how_many_logits_are_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = audited("overflow", tmp_path, monkeypatch)
    row, page = accuracy(done)["l2 0.5"], (tmp_path / "run" / "report.html").read_text()
    count = sum(row.predicted == NOT_FINITE for row in done.rows(PredictionRow))
    assert 0 < count == row.not_finite <= row.n - row.correct and row.draws == 1
    confusion = [cell for cell in done.rows(ConfusionRow) if cell.predicted == NOT_FINITE]
    assert sum(cell.count for cell in confusion) == count
    checks = {row.check: row.passed for row in done.rows(CheckRow)}
    assert checks["finite logits"] == "no" and checks["randomness averaged"] == "yes"
    assert f"the logits of {count} of 10 perturbed images are NaN or infinite" in page


@pytest.mark.slow
def test_an_audit_says_why_gradients_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = audited("detached", tmp_path, monkeypatch)
    reason = "its outputs do not depend on the pixels for PyTorch: look for no_grad, detach"
    assert done.audit().missing_gradient.startswith(reason) and not done.audit().gradient
    assert "The model was attacked without gradients: " + reason in (tmp_path / "run" / "report.html").read_text()
    assert any(reason in row.observed for row in done.rows(CheckRow) if row.check == "gradients")
