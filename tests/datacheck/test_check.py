"""The findings: what is counted, which files are named, what is serious."""

import numpy as np
import pytest
import torch
from datacheck.conftest import halves, joined, version

from notbugs import data
from notbugs.data import Dataset
from notbugs.datacheck import DataCheck, check_data, duplicates, images, measure_mirroring
from notbugs.errors import InputError
from notbugs.runs.tables.data_check import DataCheckRow


def finding(check: DataCheck, problem: str) -> DataCheckRow:
    (row,) = [row for row in check.findings if row.problem == problem]
    return row


def problems(check: DataCheck) -> set[str]:
    return {row.problem for row in check.findings}


def files(check: DataCheck, problem: str) -> list[tuple[str, str, str]]:
    return [(row.part, row.file, row.other_file) for row in check.files if row.problem == problem]


def test_nothing_is_found_in_digits(digits: data.Splits) -> None:
    check = check_data(digits.train, digits.test, mirroring=False)
    assert not check.findings and not check.files
    assert check.summary.compared == 0 and check.summary.mirroring == "not measured" and check.summary.accuracy is None


def test_test_images_that_are_training_images(digits: data.Splits) -> None:
    train, test = halves(digits, 200)
    leaked = train.select([4, 7])
    check = check_data(train, joined(test, leaked), mirroring=False)
    row = finding(check, images.ACROSS)
    assert (row.count, row.n, row.serious) == (2, 202, False)  # below 1 %
    assert row.examples.startswith(f"train/{leaked.names[0]} = test/1/{leaked.names[0]}")
    wanted = [("test", f"1/{name}", name) for name in leaked.names]
    assert files(check, images.ACROSS) == wanted and problems(check) == {images.ACROSS}
    assert finding(check_data(train, leaked, mirroring=False), images.ACROSS).serious


def test_duplicates_within_a_part_and_with_different_labels(digits: data.Splits) -> None:
    train, test = halves(digits, 100)
    copies = train.select([0, 0, 1, 2])
    copies = copies.with_labels(torch.cat([copies.labels[:3], (copies.labels[3:] + 1) % 10]))
    check = check_data(joined(train, copies), joined(test, test.select([5])), mirroring=False)
    assert finding(check, images.WITHIN).count == 5
    assert ("train", f"1/{train.names[0]}", f"0/{train.names[0]}") in files(check, images.WITHIN)
    assert ("test", f"1/{test.names[5]}", f"0/{test.names[5]}") in files(check, images.WITHIN)
    name = train.names[2]
    assert files(check, images.OTHER_LABEL) == [("train", f"0/{name}", f"1/{name}"), ("train", f"1/{name}", f"0/{name}")]
    row = finding(check, images.OTHER_LABEL)
    assert row.count == 2 and row.examples == f"0/{name} = 1/{name}" and not row.serious


def test_near_duplicates_across_parts_with_another_label_and_within(photographs: Dataset) -> None:
    again = photographs.with_images(version(photographs.images[:], "saved as JPEG of quality 60"))
    other = again.select([0, 1]).with_labels(1 - again.labels[:2])
    check = check_data(joined(photographs, again.select([7, 8])), joined(again.select([10]), other), mirroring=False)
    across = finding(check, images.NEAR_ACROSS)
    assert (across.count, across.n, across.serious) == (3, 3, True)
    assert "--group" in across.remedy
    assert files(check, images.NEAR_ACROSS)[0] == ("test", f"0/{again.names[10]}", f"0/{photographs.names[10]}")
    assert finding(check, images.NEAR_OTHER_LABEL).count == 4
    within = finding(check, images.NEAR_WITHIN)
    assert within.count == 4 and not within.serious and within.examples.count(" = ") == 2
    assert all(0.98 < (row.value or 0) < 1 for row in check.files)
    assert check.findings[-1].serious is False and check.findings[0].serious is True


def test_many_near_duplicates_are_frames_of_scenes(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SCENE_IMAGES", 20)
    again = photographs.with_images(version(photographs.images[:], "brighter"))
    check = check_data(joined(photographs, again), photographs.select([0]), mirroring=False)
    row = finding(check, images.SCENE)
    assert row.serious and row.count == 22 and "--group" in row.remedy and images.NEAR_WITHIN not in problems(check)


def test_it_is_said_where_not_all_near_duplicates_were_compared(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    again = photographs.with_images(version(photographs.images[:], "brighter"))
    twice = joined(photographs, again, photographs.with_images(version(photographs.images[:], "darker")))
    said = "similar images: of each, that many were compared."
    assert not finding(check_data(twice, photographs.select([0]), mirroring=False), images.NEAR_WITHIN).meaning.endswith(said)
    monkeypatch.setattr(duplicates, "CANDIDATES", 1)
    row = finding(check_data(twice, photographs.select([0]), mirroring=False), images.NEAR_WITHIN)
    assert row.meaning.endswith(said) and " 11 images have more than" in row.meaning


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_images_are_checked(digits: data.Splits, count: int) -> None:
    train = digits.train.select(slice(0, count))
    check = check_data(train, digits.test.select([0]))
    assert (check.summary.train, check.summary.test, check.summary.mirroring) == (count, 1, "not measured")
    with pytest.raises(InputError, match="test: must have at least one image"):
        check_data(train, digits.test.select([]))
    with pytest.raises(InputError, match="two images or more for each of two classifiers"):
        measure_mirroring(train)


def test_near_duplicates_of_a_leaked_image_are_not_counted_twice(photographs: Dataset) -> None:
    check = check_data(photographs, photographs.select([3, 9]), mirroring=False)
    assert finding(check, images.ACROSS).count == 2 and images.NEAR_ACROSS not in problems(check)


def test_constant_flat_and_gray_images(photographs: Dataset) -> None:
    pixels = photographs.images[:].clone()
    pixels[0] = 17
    pixels[1] = 17 + pixels[1] // 100
    pixels[2] = pixels[2, :1]
    check = check_data(photographs.with_images(pixels), photographs.select([5, 6]), mirroring=False)
    name = photographs.names
    assert files(check, images.CONSTANT) == [("train", name[0], "")]
    assert files(check, images.FLAT) == [("train", name[1], "")]
    assert files(check, images.GRAY) == [("train", name[2], "")]
    assert finding(check, images.CONSTANT).serious and not finding(check, images.GRAY).serious
    assert finding(check, images.FLAT).remedy == "Look at them."  # --white is for gray images


def test_classes_that_are_too_small_missing_or_imbalanced(digits: data.Splits) -> None:
    train, labels = digits.train, digits.train.labels.numpy()
    kept = np.concatenate([np.flatnonzero(labels == label)[: 2 if label == 3 else 60] for label in range(10)])
    test = digits.test.select((digits.test.labels != 7).nonzero().squeeze(1))
    check = check_data(train.select(torch.from_numpy(kept)), test, folds=3, mirroring=False)
    small = finding(check, "classes with fewer than 3 training images")
    assert (small.count, small.n, small.examples, small.serious) == (1, 10, "3", True)
    assert finding(check, "classes without test images").examples == "7"
    uneven = finding(check, "imbalanced classes")
    assert (uneven.count, uneven.n, uneven.serious, uneven.examples) == (1, 10, True, "3: 2")
    assert uneven.unit == "classes have at most a third of the 60 images of 0"
    assert check.summary.imbalance == 30
    some = check_data(None, test.select(slice(0, 40)), mirroring=False, chosen=True)  # of which none is large or of class 7
    assert [row.problem for row in some.findings] == ["classes without attacked images"] and not some.findings[0].serious
    few = check_data(train, digits.test.select(slice(0, 40)), mirroring=False)
    assert not finding(few, "classes with fewer than 10 test images").serious


def test_test_images_alone(digits: data.Splits) -> None:
    test = digits.test
    check = check_data(None, joined(test, test.select([0])))
    assert problems(check) == {images.WITHIN} and check.summary.train == 0 and check.summary.mirroring == "not measured"
    assert finding(check, images.WITHIN).meaning == "Copies count several times: confidence intervals come out too narrow."


def test_of_test_images_alone_no_split_and_no_group_is_spoken(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = joined(photographs, photographs.with_images(version(photographs.images[:], "brighter")))
    assert finding(check_data(None, doubled), images.NEAR_WITHIN).remedy == "Keep one of each."
    monkeypatch.setattr(images, "SCENE_IMAGES", 20)
    row = finding(check_data(None, doubled), images.SCENE)
    assert "split" not in row.meaning and row.remedy == "Keep one of each scene."
