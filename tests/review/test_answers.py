"""Accuracy of people on each set, and differences, against known figures and against simulated reviewers."""

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from review.conftest import SETS, read_key, scripted, write_export, write_review
from scipy import stats

from notbugs import data
from notbugs.review import answers
from notbugs.review.answers import load_answers
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.review import ReviewAnswerRow, ReviewDifferenceRow, ReviewSummaryRow


def answer(name: str, file: str, correct: bool, reviewer: str = "A") -> ReviewAnswerRow:
    label = "1" if correct else "2"
    return ReviewAnswerRow(reviewer=reviewer, set=name, file=file, label="1", answer=label, correct=correct, seconds=1.0)


def test_a_difference_has_newcombes_interval() -> None:
    """His example (1998, table II, method 10): 56 of 70 against 48 of 80, 0.2 (0.0524 to 0.3339)."""
    rows = [
        answer(name, str(place), place < correct)
        for name, correct, n in (("original", 48, 80), ("robust", 56, 70))
        for place in range(n)
    ]
    (row,) = answers.differences(rows)
    assert (row.difference, row.ci_low, row.ci_high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def clustered(samples: Sequence[np.ndarray]) -> tuple[float, float]:
    """95 % CI from a variance clustered by images and by reviewers, of one set's answers (reviewers, images) or of two sets'."""
    value = samples[0].mean() - sum(sample.mean() for sample in samples[1:])
    influences = [sign * (sample - sample.mean()) / sample.size for sign, sample in zip((1, -1), samples, strict=False)]
    of_images = sum((each.sum(0) ** 2).sum() * each.shape[1] / (each.shape[1] - 1) for each in influences)
    reviewers = len(samples[0])
    among = (sum(each.sum(1) for each in influences) ** 2).sum() * reviewers / (reviewers - 1)
    variance = max(of_images + among - sum((each**2).sum() for each in influences), of_images, among)
    degrees = variance**2 / (of_images**2 / sum(each.shape[1] - 1 for each in influences) + among**2 / (reviewers - 1))
    low, high = stats.t.interval(0.95, max(degrees, 1), loc=value, scale=variance**0.5)
    return low, high


def over_images(shares: Sequence[float], n: int) -> tuple[float, float]:
    """Wilson's interval, or Newcombe's."""
    ends = [stats.binomtest(round(share * n), n).proportion_ci(method="wilson") for share in shares]
    if len(shares) == 1:
        return ends[0].low, ends[0].high
    (p, q), gap = shares, shares[0] - shares[1]
    return gap - math.hypot(p - ends[0].low, ends[1].high - q), gap + math.hypot(ends[0].high - p, q - ends[1].low)


@pytest.mark.slow
def test_reviewers_and_images_are_both_samples(run: Path) -> None:
    write_review(run, count=20)
    key = read_key(run)
    shares = {"A": (20, 18, 1), "B": (19, 16, 0), "C": (18, 9, 5)}  # both ends of an interval leave [0, 1]
    correct = {}
    for name, counts in shares.items():
        given = scripted(key, {of: (count, 0) for of, count in zip(SETS, counts, strict=True)})
        write_export(run / f"review/{name}.csv", name, given)
        correct[name] = [[given[row["id"]] == row["label"] for row in key if row["set"] == of] for of in SETS]
    matrices = [np.array([own[place] for own in correct.values()], float) for place in range(3)]
    rows = load_answers(run)
    assert len(rows) == 180
    for row, matrix in zip(answers.summary(rows), matrices, strict=True):
        ends = np.array([clustered([matrix]), over_images([matrix.mean()], 20)])
        assert (row.ci_low, row.ci_high) == pytest.approx((max(ends[:, 0].min(), 0), min(ends[:, 1].max(), 1)))
        assert (row.reviewers, row.images, row.answers, row.interval_over) == (3, 20, 60, "images and reviewers")
        assert row.accuracy == pytest.approx(matrix.mean()) and row.seconds == 1.5
    for difference, matrix in zip(answers.differences(rows), matrices[1:], strict=True):
        ends = np.array([clustered([matrix, matrices[0]]), over_images([matrix.mean(), matrices[0].mean()], 20)])
        assert difference.difference == pytest.approx(matrix.mean() - matrices[0].mean())
        found = difference.ci_low, difference.ci_high
        assert found == pytest.approx((max(ends[:, 0].min(), -1), min(ends[:, 1].max(), 1)))
        assert (difference.against, difference.interval_over) == ("original", "images and reviewers")
        assert difference.reviewers == 3
        assert (difference.accuracy, difference.accuracy_against) == pytest.approx((matrix.mean(), matrices[0].mean()))


@pytest.mark.slow
def test_agreement_is_not_taken_for_certainty(run: Path) -> None:
    """Reviewers who all answer alike on the same images say no more of other images than one does; one slip changes little."""
    write_review(run, count=20)
    given = scripted(read_key(run), {"original": (20, 0), "robust": (16, 0)})
    for name in "ABCD":
        write_export(run / f"review/{name}.csv", name, given)
    (same,) = answers.differences(load_answers(run))
    assert (same.ci_low, same.ci_high) == pytest.approx(over_images([0.8, 1.0], 20)) and same.reviewers == 4
    first = next(image_id for image_id, each in given.items() if each)
    write_export(run / "review/D.csv", "D", given | {first: ""})
    (slip,) = answers.differences(load_answers(run))
    assert slip.ci_low == pytest.approx(same.ci_low, abs=0.03) and slip.ci_high == pytest.approx(same.ci_high, abs=0.03)


@pytest.mark.slow
def test_who_saw_one_set_only_is_left_out_of_the_difference(run: Path) -> None:
    write_review(run, count=20)
    given = scripted(read_key(run), {"original": (20, 0), "robust": (16, 0)})
    write_export(run / "review/A.csv", "A", given)
    write_export(run / "review/C.csv", "C", dict.fromkeys(list(given)[:20], ""))  # of the first set only
    original, _ = answers.summary(load_answers(run))
    assert (original.reviewers, original.accuracy, original.unsure) == (2, 0.5, 0.5)
    (robust,) = answers.differences(load_answers(run))
    assert (robust.reviewers, robust.interval_over, robust.accuracy_against) == (1, "images", 1)
    alone = [row for row in load_answers(run) if row.set == "robust"]
    assert answers.differences(alone) == [] == answers.differences([]) == answers.summary([])


@pytest.mark.slow
@pytest.mark.parametrize("reviewers", [1, 3, 10])
def test_intervals_hold_the_truth_if_images_and_people_differ(reviewers: int) -> None:
    """No difference between the sets; hard and easy images, better and worse reviewers: the CI misses 0 in 5 % at most."""
    generator, missed, studies = np.random.default_rng(0), 0, 60
    for _ in range(studies):
        skill, rows = generator.normal(0, 0.5, reviewers), []
        for name in ("original", "robust"):
            shares = 1 / (1 + np.exp(-(2 + skill[:, None] + generator.normal(0, 1.5, 20))))
            for reviewer, correct in enumerate(generator.random(shares.shape) < shares):
                rows += [answer(name, f"{name}{i}", bool(each), str(reviewer)) for i, each in enumerate(correct)]
        (row,) = answers.differences(rows)
        missed += not row.ci_low <= 0 <= row.ci_high
    assert missed <= 0.05 * studies + 3


@pytest.mark.slow
def test_correct_on_a_relabeled_set_is_its_own_label(run: Path) -> None:
    write_review(run, sets=("random-labels", "original"), count=30)
    key, digits = read_key(run), data.load("digits", limit=300).train
    true = {name: digits.classes[int(label)] for name, label in zip(digits.names, digits.labels, strict=True)}
    assert {row["set"]: row["label"] == true[row["file"]] for row in key} == {"random-labels": False, "original": True}
    write_export(run / "review/A.csv", "A", {row["id"]: true[row["file"]] for row in key})  # a person who sees well
    original, relabeled = answers.summary(load_answers(run))
    assert (original.accuracy, relabeled.set, relabeled.accuracy) == (1, "random-labels", 0)
    assert set(Counter(row["label"] for row in key if row["set"] == "random-labels").values()) == {3}


@pytest.mark.slow
def test_the_last_answer_counts_and_reviewers_are_kept_apart(run: Path) -> None:
    write_review(run, count=2)
    place, (first, second, *_) = run / "review", read_key(run)
    assert load_answers(run) == []
    write_export(place / "answers-A.csv", "A", {first["id"]: "1", second["id"]: "2"})
    write_export(place / "answers-A (2).csv", " A ", {first["id"]: "3"}, 2)
    write_export(place / "answers-A (10).csv", "A", {first["id"]: first["label"]}, 2.25)  # the third download of the same name
    write_export(place / "answers-B.CSV", "B", {first["id"]: ""})
    (place / "excel.csv").write_text("\ufeffreviewer,id,answer,seconds\n" + f"C,{second['id']},{second['label']},3\n")
    (place / "notes.txt").write_text("not read")
    rows = load_answers(run)
    assert [(row.reviewer, row.answer, row.correct, row.seconds) for row in rows] == [
        ("A", first["label"], True, 2.25),
        ("A", "2", second["label"] == "2", 1.5),
        ("B", "", False, 1.5),
        ("C", second["label"], True, 3.0),
    ]
    assert (rows[0].set, rows[0].file, rows[0].label) == (first["set"], first["file"], first["label"])


@pytest.mark.slow
def test_tables_are_merged_and_removed_with_their_answers(run: Path) -> None:
    write_review(run, count=2)
    path = run / "review/A.csv"
    write_export(path, "A", {row["id"]: row["label"] for row in read_key(run)})
    answers.merge(RunFolder.read(run))
    tables = [
        run / "tables" / f"{row_type.table}{suffix}"
        for row_type in (ReviewSummaryRow, ReviewDifferenceRow, ReviewAnswerRow)
        for suffix in (".csv", ".parquet")
    ]
    assert all(table.is_file() for table in tables)
    assert tables[-2].read_text().count("\n") == 7
    path.unlink()
    answers.merge(RunFolder.read(run))
    assert not any(table.exists() for table in tables)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[" * 200_000, "{}", '{"images": 1}', '{"images": [{"id": [], "source": 3}]}'], ids=range(4))
def test_a_page_that_is_not_ours_shows_no_picture(run: Path, content: str) -> None:
    path = write_review(run, count=20)
    write_export(run / "review/A.csv", "A", scripted(read_key(run)))
    path.write_text(f'<script type="application/json" id="review">{content}</script>')
    found = answers.misclassified_images(run, load_answers(run))
    assert found["nonrobust"] and {image.picture for images in found.values() for image in images} == {""}
    path.unlink()
    os.mkfifo(path)
    assert answers.misclassified_images(run, load_answers(run)) == found


@pytest.mark.slow
def test_reading_answers_needs_no_torch(run: Path) -> None:
    write_review(run, count=2)
    write_export(run / "review/A.csv", "A", {row["id"]: row["label"] for row in read_key(run)})
    code = (
        "import sys; from notbugs.review import answers; rows = answers.load_answers(sys.argv[1])\n"
        "answers.summary(rows), answers.differences(rows)\n"
        "print(len(rows), sorted({'torch', 'datasets', 'altair', 'sklearn', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "6 []"
