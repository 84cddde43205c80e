"""The budgets of the ensembles: names, and the same numbers as in docs/attacks.md."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from notbugs import attacks
from notbugs.attacks import budgets
from notbugs.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_names_of_ensembles_are_those_of_the_docs() -> None:
    assert list(attacks.BUDGETS) == ["quick", "standard", "thorough"]
    assert attacks.ensemble_name("standard") == "ensemble-standard v4"
    text = DOCS.read_text()
    for name in (attacks.GRADIENT_ENSEMBLE, *map(attacks.ensemble_name, attacks.BUDGETS)):
        assert f"| `{name}` |" in text
    with pytest.raises(InputError, match=r"^budget: must be one of quick, standard, thorough, got 'huge'$"):
        attacks.ensemble_name("huge")
    with pytest.raises(FrozenInstanceError):
        attacks.BUDGETS["quick"].angles = 1  # type: ignore[misc]


def row(title: str, step: str) -> list[str]:
    """The cells of the three budgets in a row of a table in docs/attacks.md, by section and first words."""
    section = DOCS.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    (line,) = (line for line in section.splitlines() if line.startswith(f"| {step}"))
    return [cell.strip() for cell in line.strip("|").split("|")][-3:]


ROWS = [
    ("L2, Linf and L1", "13 | Square Attack", "square_queries", "{:,} queries"),
    ("L2, Linf and L1", "15 | HopSkipJump", "hop_skip_jump_queries", "{:,} queries"),
    ("L0", "1 | candidates", "pixel_exchanges", "up to {} rounds"),
    ("L0", "4 | several pixels", "pixel_starts", "{} starts"),
    ("L0", "6 | random candidates", "random_pixel_candidates", "{:,} per pixel"),
    ("L0", "6 | random candidates", "random_pixel_exchanges", "up to {} rounds"),
    ("Rotations and translations", "1 | grid", "angles", "{} × "),
    ("Rotations and translations", "1 | grid", "translations", "× {} "),
    ("Rotations and translations", "2 | PGD", "spatial_steps", "{} gradients"),
    ("Models without gradients", "2 | Square Attack", "square_queries_without_gradients", "{:,} queries"),
    ("Models without gradients", "3 | HopSkipJump", "hop_skip_jump_queries", "{:,} queries"),
]


@pytest.mark.parametrize(("title", "step", "field", "form"), ROWS)
def test_the_docs_state_the_numbers_of_the_budgets(title: str, step: str, field: str, form: str) -> None:
    for budget, cell in zip(attacks.BUDGETS.values(), row(title, step), strict=True):
        number = getattr(budget, field)
        assert form.format(number) in cell if number else form.split()[-1] not in cell


def threshold(margin_lost: float | None) -> str:
    """A cell of docs/attacks.md."""
    if margin_lost is None:
        return "–"
    return f"images that lost at least {100 * margin_lost:.0f} % of their margin" if margin_lost else "all images"


def test_the_docs_state_thresholds_and_constants() -> None:
    title, table = "L2, Linf and L1", attacks.BUDGETS.values()
    assert row(title, "6 |") == [threshold(budget.targeted_margin_lost) for budget in table]
    for step in ("7 |", "8 |", "9 |"):
        assert row(title, step) == [threshold(budget.long_margin_lost) for budget in table]
    refined = [threshold(budget.long_margin_lost and budgets.REFINED_MARGIN_LOST) for budget in table]
    assert row(title, "10 |") == refined
    text, restarts, long = DOCS.read_text(), attacks.BUDGETS["standard"].restarts, budgets.LONG_STEPS
    assert f"the cross-entropy, then the margin, then the DLR, {long} steps each" in text
    assert budgets.LONG_LOSSES == ("cross_entropy", "margin", "dlr")
    assert f"PGD of {long} steps from {restarts} random starts" in text
    assert f"{budgets.REFINED_STEPS} short steps from the best perturbed image so far" in text
    shares = [19, 90, 3 * long, budgets.LONG_TARGET_CLASSES * long, restarts * long, budgets.REFINED_STEPS]
    assert f"| {sum(shares):,} |" in text and "; ".join(map(str, shares)) in text
    assert f"from random pixels, {budgets.PIXEL_START_CANDIDATES} candidates each" in text
    lost = f"{100 * budgets.PIXEL_START_MARGIN_LOST:.0f} % of their margin"
    assert (
        f"The first {budgets.PIXEL_STARTS_ON_ALL} starts are on all images, the others on those that lost at least {lost}" in text
    )
    assert f"Square Attack, {budgets.MASKING_QUERIES} queries" in text
    assert f"Square Attack anew, {attacks.BUDGETS['standard'].extra_square_queries:,} queries" in text
    assert f"APGD-CE, {attacks.BUDGETS['thorough'].apgd_steps} steps" in text
    assert sum(steps for steps, _ in budgets.UNTARGETED_ATTACKS) == 19
