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
    assert attacks.ensemble_name("standard") == "ensemble-standard v6"
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
    line = next(line for line in section.splitlines() if line.startswith(f"| {step}"))
    return [cell.strip() for cell in line.strip("|").split("|")][-3:]


ROWS = [
    ("L2, Linf and L1", "10 | Square Attack", "square_queries", "{:,} queries"),
    ("L2, Linf and L1", "12 | HopSkipJump", "hop_skip_jump_queries", "{:,} queries"),
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


def attack_row(each: budgets.FurtherAttack) -> str:
    """The cells of a further attack in docs/attacks.md, without its number."""
    loss = {"margin": "the margin", "cross_entropy": "the cross-entropy", "dlr": "the DLR"}[each.loss]
    kind = "APGD" if each.auto else "PGD"
    what = f"targeted {kind} at nearest class {each.rank}" if each.rank else f"{kind}, maximizes {loss}"
    start, shrinks = "random" if each.random_start else "clean image", "yes" if each.shrink else "no"
    return f"| {what} | {each.steps} | {start} | {shrinks} |"


def test_the_docs_list_the_further_attacks() -> None:
    section = DOCS.read_text().split("\n### Further gradient attacks\n")[1].split("\n### ")[0]
    found: list[str] = []
    for line in section.splitlines():
        if line[:3].strip("| ").isdigit():
            numbers, what, *others = (cell.strip() for cell in line.strip("|").split("|"))
            first, last = int(numbers.split(" to ")[0]), int(numbers.split(" to ")[-1])
            assert first == len(found) + 1
            if last == first:
                alone = [what]
            elif what.startswith("targeted"):
                words, ranks = what.split("class ")
                alone = [f"{words}class {rank}" for rank in ranks.split(", ")]
            else:
                words, losses = what.split("maximizes ")
                alone = [f"{words}maximizes {loss}" for loss in losses.split(", ")]
            assert len(alone) == last - first + 1
            found += [f"| {' | '.join([each, *others])} |" for each in alone]
    assert found == [attack_row(each) for each in budgets.FURTHER_ATTACKS]
    standard, thorough = (attacks.BUDGETS[name].margin_left for name in ("standard", "thorough"))
    assert standard and thorough and budgets.ATTACKS_ON_TRIAL == 4 and budgets.COMPARED_ATTACKS == 5
    text = " ".join(section.split())
    rule = f"r ≤ {budgets.DIFFERENCES} (b₁ − b₅) + {100 * standard:.0f} percentage points"
    assert f"After the first four an image continues only while {rule} (`ensemble-thorough`: {100 * thorough:.0f})" in text
    assert "r is the share of its margin that is left" in text and "the best and the fifth best attack" in text


def test_the_docs_state_thresholds_and_constants() -> None:
    title, table = "L2, Linf and L1", attacks.BUDGETS.values()
    further = [cell.removesuffix(", while one of the next may succeed") for cell in row(title, "6 |")]
    assert further == [threshold(budget.further_margin_lost) for budget in table]
    thresholds = ", then ".join(f"{100 * lost:.0f} %" for lost in sorted({lost for lost, *_ in budgets.REFINED}))
    refined = f"images that lost at least {thresholds} of their margin"
    assert row(title, "7 |") == [refined if budget.margin_left else "–" for budget in table]
    text = DOCS.read_text()
    assert (
        f"{budgets.REFINED_STEPS} steps from the best perturbed image so far: short ones, long ones, and short ones again" in text
    )
    first, second, third = (f"{size:g} ε" for _, size, _ in budgets.REFINED)
    assert (
        f"- **Step 7**: first steps of {first}, {second} and {third}, decayed along a cosine towards a hundredth. In L1" in text
    )
    assert [sparse for *_, sparse in budgets.REFINED] == [False, False, True]
    shares = [19, sum(each.steps for each in budgets.FURTHER_ATTACKS), len(budgets.REFINED) * budgets.REFINED_STEPS]
    assert f"| {sum(shares):,} |" in text and "; ".join(map(str, shares)) in text
    classes = f"at each of the nearest classes (at most {budgets.TARGET_CLASSES}), {budgets.TARGETED_STEPS} steps each"
    assert classes in row(title, "5 |")[1]
    assert f"from random pixels, {budgets.PIXEL_START_CANDIDATES} candidates each" in text
    lost = f"{100 * budgets.PIXEL_START_MARGIN_LOST:.0f} % of their margin"
    assert (
        f"The first {budgets.PIXEL_STARTS_ON_ALL} starts are on all images, the others on those that lost at least {lost}" in text
    )
    assert f"Square Attack, {budgets.MASKING_QUERIES} queries" in text
    assert f"Square Attack anew, {attacks.BUDGETS['standard'].extra_square_queries:,} queries" in text
    assert f"APGD-CE, {attacks.BUDGETS['thorough'].apgd_steps} steps" in text
    assert sum(steps for steps, _ in budgets.UNTARGETED_ATTACKS) == 19
