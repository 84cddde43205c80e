"""Adversarial Examples Are Not Bugs, They Are Features (Ilyas et al. 2019), from top to bottom, on handwritten digits.

    python examples/paper.py            # about a minute on two cores; writes paper.svg

The paper's claim: what adversarial perturbations change are *features*. They are useful on new images (a classifier can rely on
them), and not robust (a small perturbation turns them). If that is so, then
  1. data with the features of a robust classifier alone (D_R) make standard training robust,
  2. data with the features of a standard classifier alone (D_NR) do not, although accuracy on clean images stays high,
  3. images that a classifier takes for another class, and that are labeled as that class (D_rand, D_det), teach the true classes,
     though to a person every label is wrong.
One seed and few images: the figures show the method. `notbugs run mnist5k --full` has seeds, intervals and controls.
"""

import importlib.util
import sys
from pathlib import Path

import altair
import torch

import notbugs
from notbugs import metrics, models
from notbugs.api import train  # notbugs.train, with types
from notbugs.data import Dataset
from notbugs.search import NormBall

IMAGES = 1200  # training images, of 14x14 pixels; a paper takes all of a data set
EPSILON = 0.75  # L2, for pixels in [0, 1]
EPOCHS = 8
ATTACKED = 100  # test images


def main(images: int = IMAGES, epochs: int = EPOCHS, attacked: int = ATTACKED, out: Path = Path("paper.svg")) -> None:
    digits = notbugs.load_dataset("mnist5k", limit=images, resize=14)
    ball = NormBall("l2", EPSILON)

    # ---- 1. A standard and a robust classifier (section 2). The loss is the only difference.
    standard = train(digits, network="small", width=16, epochs=epochs, seed=0)
    robust = train(digits, network="small", width=16, epochs=epochs, seed=0, loss="adversarial", epsilon=EPSILON)

    # ---- 2. Features are what the last layer reads. rho: correlation with the label; gamma: what a perturbation leaves of it.
    features = {"standard": usefulness(standard, digits.test, ball), "robust": usefulness(robust, digits.test, ball)}

    # ---- 3. Data with the robust, and with the non-robust features alone (section 3.1): labels are kept.
    made = {
        "D_R": notbugs.make_robust(robust, digits, steps=30).dataset,
        "D_NR": notbugs.make_nonrobust(standard, digits, steps=30).dataset,
        # ---- 4. Perturbed towards another class, and labeled as that class (section 3.2): every label looks wrong.
        "D_rand": notbugs.relabel(standard, digits, "random", epsilon=2 * EPSILON, steps=30).dataset,
        "D_det": notbugs.relabel(standard, digits, "next", epsilon=2 * EPSILON, steps=30).dataset,
    }
    for name, dataset in made.items():
        changed = (dataset.labels != digits.train.labels).double().mean()
        print(f"{name:7} {len(dataset)} images, {changed:.0%} with another label")

    # ---- 5. Standard training on each, from another initialization. The test images are always the original ones.
    classifiers = {"original": standard, "adversarial training": robust}
    for name, dataset in made.items():
        classifiers[name] = train(dataset, network="small", width=16, epochs=epochs, seed=1)

    # ---- 6. Robust accuracy under an ensemble of attacks: an upper bound, which sanity checks and AutoAttack question.
    print(f"\n{'trained on':21} {'clean':>7} {'L2 ' + str(EPSILON):>8}   95 % CI, {attacked} test images")
    for name, classifier in classifiers.items():
        clean, attacked_accuracy = notbugs.attack(classifier, digits, ball, images=attacked, budget="quick")
        interval = f"[{100 * attacked_accuracy.ci_low:.1f}, {100 * attacked_accuracy.ci_high:.1f}]"
        print(f"{name:21} {clean.accuracy:7.1%} {attacked_accuracy.accuracy:8.1%}   {interval}")
    cross_check(robust, digits.test, ball, attacked)

    # ---- 7. The figure: each point is a feature. Robust training leaves features that perturbations cannot turn.
    figure(features).save(out)
    print(f"\nThe figure: {out}")


def usefulness(classifier: models.Model, test: Dataset, ball: NormBall) -> list[tuple[float, float, str]]:
    """rho and gamma of each feature for the class that it is most useful for, and its category (section 2.1)."""
    rows = metrics.per_feature(classifier, test, ball, steps=4, sample=50)
    best = metrics.best_class_rows(rows)
    counts = {kind: sum(row.category == kind for row in best) for kind in ("robust", "non-robust", "useless")}
    print("features: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return [(row.usefulness, row.robust_usefulness, row.category) for row in best]


def cross_check(classifier: models.Model, test: Dataset, ball: NormBall, images: int) -> None:
    """AutoAttack (Croce & Hein 2020) on the robust classifier: independent attacks must not find much more.

    Without its Square Attack, which in torchattacks fails on images this small.
    """
    if importlib.util.find_spec("torchattacks") is None:
        print("AutoAttack is not installed: pip install torchattacks")
        return
    import torchattacks

    part = test.select(torch.arange(min(images, len(test)) // 2))
    pixels, labels = part.pixels(slice(None)), part.labels
    given = {"norm": "L2", "eps": float(ball.epsilon), "seed": 0}
    attacks = [
        torchattacks.APGD(classifier, loss="ce", **given),
        torchattacks.APGDT(classifier, n_classes=len(test.classes), **given),
        torchattacks.FAB(classifier, multi_targeted=True, n_classes=len(test.classes), **given),
    ]
    with models.frozen(classifier):
        found = int((classifier(torchattacks.MultiAttack(attacks)(pixels, labels)).argmax(1) == labels).sum())
    ours = notbugs.attack(classifier, part, ball)[1].correct
    print(f"robust classifier, {len(part)} images: {ours} stay correct under ensemble-standard,")
    print(f"    {found} under AutoAttack without Square (APGD-CE, APGD-T, FAB-T)")


def figure(features: dict[str, list[tuple[float, float, str]]]) -> altair.HConcatChart:
    """rho against gamma of all features, a panel for each classifier."""
    panels = []
    for name, points in features.items():
        values = [{"rho": rho, "gamma": gamma, "category": category} for rho, gamma, category in points]
        panels.append(
            altair.Chart({"values": values}, title=f"{name} training, {len(values)} features")
            .mark_point(filled=True)
            .encode(
                x=altair.X("rho:Q", title="usefulness ρ"),
                y=altair.Y("gamma:Q", title=f"robust usefulness γ (L2 ε = {EPSILON})"),
                color=altair.Color("category:N", title=None),
                tooltip=["rho:Q", "gamma:Q", "category:N"],
            )
        )
    return altair.hconcat(*panels)


if __name__ == "__main__":
    main(out=Path(sys.argv[1] if len(sys.argv) > 1 else "paper.svg"))
