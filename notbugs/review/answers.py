"""Can people read the sets? A page that asks them, blind; their answers, merged. Only what reads the sets needs torch.

    review/review.html   one image at a time, of which set is not said; it saves the answers as answers-NAME.csv
    review/key.csv       which image is which: id, set, file, label; not for reviewers
    review/*.csv         what reviewers sent back: reviewer, id, answer ("" is cannot tell), seconds
    tables/people.csv, people_differences.csv, people_answers.csv     all of it together, as often as the report is written

Right is the label that the image's set gives it: on a relabelled set a person who sees well is wrong.
"""

import base64
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, get_type_hints

from notbugs.errors import InputError
from notbugs.report import render
from notbugs.report.results import SETS, Rows, in_order, number
from notbugs.runs.folder import Cell, RunFolder, as_csv, write_atomic

if TYPE_CHECKING:
    from notbugs.data import Dataset
    from notbugs.study.config import StudyConfig

KEY = ["id", "set", "file", "label"]
EXPORT = ["reviewer", "id", "answer", "seconds"]
LARGEST = 10_000_000  # bytes of a file of answers: some 200,000 of them
LARGEST_PAGE = 300_000_000  # bytes of the page that asks
LETTERS = "bcdfghjklmnpqrstvwxz"  # of ids: no spreadsheet takes them for a number or a formula, nobody for a word
# A reviewer's name, the same rule on the page: on one line, and nothing that a spreadsheet would run
NAME = r"[^=+\-@\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]{0,99}"
SIDE, BLOCK = 352, 24  # pixels on the screen: of an image at most, if it is enlarged (by a whole number), and of its pixels


def write_page(folder: Path, *, sets: Sequence[str] = ("original", "robust", "nonrobust"), count: int, seed: int = 0) -> Path:
    """Write review/review.html and review/key.csv into a study's folder; returns the page's path.

    sets: `original` (the training images) and finished sets of the study's first seed. count: images of each, as even over its
    labels as there are images; no file is shown in two sets. seed: of the choice, the order and the ids. Where a key is there
    already, only the same arguments are taken, and write the same bytes. Raises BadInput.
    """
    run = RunFolder.read(folder)
    plan = _plan(run)
    for option, value, least in (("--count", count, 1), ("--seed", seed, 0)):
        if value < least:
            raise InputError(option, f"must be {least} or more", value)
    parts = _load_datasets(run, plan, sets)
    chosen = _choose(parts, count, Random(seed))
    pictures, rows = _pictures(parts, chosen), list[dict[str, str]]()
    for name, places in chosen.items():
        part = parts[name]
        rows += [{"set": name, "file": part.names[i], "label": part.classes[int(part.labels[i])]} for i in places]
    # not from the seed alone: it could be guessed, and another page with the same one must not have the same ids
    digest = sha256(repr((seed, rows, pictures)).encode())
    chance, ids = Random(digest.hexdigest()), dict[str, None]()
    while len(ids) <= len(rows):
        ids["".join(chance.choices(LETTERS, k=10))] = None
    order = chance.sample(range(len(rows)), len(rows))
    own, *tokens = ids
    key = as_csv([{"id": token, **rows[i]} for token, i in zip(tokens, order, strict=True)])
    place = run.folder / "review"
    if (place / "key.csv").exists() and _bytes(place / "key.csv") != key.encode(errors="replace"):
        raise InputError(
            "RUN",
            "must hold no review of other sets, count or seed, so that answers keep their meaning",
            _printable(place),
            "repeat its arguments, or move that folder away",
        )
    _, height, width = next(iter(parts.values())).shape
    scale = max(1, min(BLOCK, SIDE // max(height, width)))
    content = {
        "review": {
            "id": own,
            "classes": list(next(iter(parts.values())).classes),
            "images": [{"id": token, "source": pictures[i]} for token, i in zip(tokens, order, strict=True)],
        },
        "width": scale * width,
        "height": scale * height,
        "name": NAME,
    }
    write_atomic(place / "key.csv", key)
    write_atomic(place / "review.html", render.fill("review.html.jinja", content))
    return place / "review.html"


# ---- what is asked -------------------------------------------------------------------------------------------------------


def _plan(run: RunFolder) -> "StudyConfig":
    """The plan of a study, on the CPU, with its first seed."""
    from notbugs.study.config import StudyConfig

    given, kinds = run.metadata["asked"], get_type_hints(StudyConfig)

    def fits(name: str, value: object) -> bool:
        return name in kinds and (isinstance(value, kinds[name]) or (isinstance(value, int) and isinstance(0.0, kinds[name])))

    if run.metadata.get("kind") or "source" not in given or not all(fits(name, value) for name, value in given.items()):
        raise InputError("RUN", "must be a study's folder", _printable(run.folder), "make one: notbugs run SOURCE --out FOLDER")
    return StudyConfig(**given, device="cpu")


def _load_datasets(run: RunFolder, plan: "StudyConfig", sets: Sequence[str]) -> dict[str, "Dataset"]:
    """The sets by name; raises BadInput for one that is not there, and where the data is no longer that of the run."""
    from notbugs.data.load import fingerprint
    from notbugs.study.config import load
    from notbugs.study.datasets import ALL, is_inverted
    from notbugs.study.tasks import dataset_path, load_dataset

    if not sets or len({*sets}) < len(sets):
        raise InputError("--sets", "must be one set or several different ones", ", ".join(sets) or "none")
    if unknown := [name for name in sets if name not in ("original", *ALL)]:
        raise InputError("--sets", f"must be of original, {', '.join(ALL)}", repr(unknown[0]))
    for name in sets:
        if name != "original" and not run.done(f"seed{plan.seed}/set-{name}"):
            raise InputError("--sets", "must be finished sets", f"{name}, which {run.folder} has not yet", "go on with that run")
        if name != "original" and not dataset_path(plan, run.folder, plan.seed, name).exists():
            raise InputError("--sets", "must be sets that could be made", f"{name}, which {run.folder} has not")
    splits = load(plan, plan.seed)
    if fingerprint(load(plan).train, load(plan).test) != run.metadata.get("fingerprint"):
        raise InputError(plan.source, "must hold the same images as when the run began")
    parts = {name: splits.train if name == "original" else load_dataset(plan, run.folder, plan.seed, name) for name in sets}
    # of several versions of a file the first, which has the file's name: nobody is to see one file twice
    return {name: part.select(slice(len(splits.train))) if is_inverted(name) else part for name, part in parts.items()}


def _choose(parts: Mapping[str, "Dataset"], count: int, chance: Random) -> dict[str, list[int]]:
    """Positions in each set. Each in turn takes an image of the label that it has least of; ties go the same way in all."""
    labels = list(range(max(len(part.classes) for part in parts.values())))
    chance.shuffle(labels)
    left: dict[str, dict[int, list[int]]] = {name: {label: [] for label in labels} for name in parts}
    for name, part in parts.items():
        for i in chance.sample(range(len(part)), len(part)):
            left[name][int(part.labels[i])].append(i)
    chosen: dict[str, list[int]] = {name: [] for name in parts}
    taken = {name: dict.fromkeys(labels, 0) for name in parts}
    used: set[str] = set()

    def take(name: str) -> bool:
        for label in sorted(labels, key=taken[name].__getitem__):
            while left[name][label]:
                i = left[name][label].pop()
                if parts[name].names[i] not in used:
                    used.add(parts[name].names[i])
                    chosen[name].append(i)
                    taken[name][label] += 1
                    return True
        return False

    fewest_first = sorted(parts, key=lambda name: len(parts[name]))
    for done in range(count):
        if not all(take(name) for name in fewest_first):
            raise InputError("--count", f"must be at most {done} for these sets, no file being shown in two", count)
    return chosen


def _pictures(parts: Mapping[str, "Dataset"], chosen: Mapping[str, list[int]]) -> list[str]:
    """The images as data addresses: bare PNGs of one mode, not compressed, or their length in bytes would tell the sets apart."""
    from PIL import Image

    colour, pictures = any(part.shape[0] == 3 for part in parts.values()), []
    for name, places in chosen.items():
        for image in parts[name].images[places]:
            buffer = io.BytesIO()
            picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).convert("RGB" if colour else "L")
            picture.save(buffer, "PNG", compress_level=0)
            pictures.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    return pictures


# ---- what is answered ----------------------------------------------------------------------------------------------------


def merge(run: RunFolder) -> None:
    """Write the tables of what people answered; where nobody did, or a file is wrong, there are none."""
    rows, _ = answers_or_problem(run.folder)
    tables = {"people": summary(rows), "people_differences": differences(rows), "people_answers": rows}
    for name, table in tables.items():
        path = run.folder / "tables" / f"{name}.csv"
        if table:
            write_atomic(path, as_csv(table))
        else:
            path.unlink(missing_ok=True)


def answers_or_problem(folder: Path) -> tuple[Rows, str]:
    """What `answers` returns, or nothing and what is wrong with a file: a report is not to fail for it."""
    try:
        return load_answers(folder), ""
    except InputError as error:
        return [], str(error)


def load_answers(folder: Path) -> Rows:
    """What reviewers answered, from the key and every other .csv in review/: one row an answer, its last one; none: no review.

    Columns: reviewer, set, file, label, answer (a class; "" is cannot tell), right (1 or 0; 0 for cannot tell), seconds.
    Files are read in the order of their names, numbers by their size: `answers-A (1).csv` after `answers-A.csv`.
    Raises BadInput for a file that is no such table, and for a row with an id or a class that the review does not have.
    """
    run = RunFolder.read(folder)
    place = run.folder / "review"
    files = [path for path in sorted(place.iterdir(), key=_numbered) if _of_answers(path)] if place.is_dir() else []
    if not files:
        return []
    if not (place / "key.csv").exists():
        raise InputError(_printable(place), "must hold key.csv, which says what the answers are about", remedy="put it back")
    key = {token: told for _, (token, *told) in _table(place / "key.csv", KEY)}
    classes = {*run.metadata.get("data", {}).get("classes", ())}
    found: dict[tuple[str, str], Any] = {}
    for path in files:
        if path.name == "key.csv":
            continue
        for line, (reviewer, token, answer, seconds) in _table(path, EXPORT):
            where, reviewer = f"{_printable(path)}, line {line}", reviewer.strip()
            if not re.fullmatch(NAME, reviewer):
                rule = "must name its reviewer, in 100 letters at most, the first of them no =, +, - or @"
                raise InputError(where, rule, _got(reviewer))
            if token not in key:
                raise InputError(where, "must have an id of this review", _got(token), "take out what belongs to another page")
            if answer and answer not in classes:
                raise InputError(where, "must have a class of the data as its answer, or nothing", _got(answer))
            if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", seconds, re.ASCII):
                raise InputError(where, "must have its seconds, as a number", _got(seconds))
            name, file, label = key[token]
            told = {"set": name, "file": file, "label": label, "answer": answer, "right": int(answer == label)}
            found[reviewer, token] = {"reviewer": reviewer, **told, "seconds": float(seconds)}
    return list(found.values())


def summary(rows: Rows) -> Rows:
    """Of what `answers` returns, one row a set: how much of it people read.

    Columns: set, reviewers, images, answers, right, accuracy (the mean of the reviewers') with its 95 % interval low and high,
    unsure (share of cannot tell), other (share that names another class), seconds (median), over: what the interval is over.
    See `_interval`.
    """
    told: Rows = []
    for name in in_order(SETS, (str(row["set"]) for row in rows)):
        own = [row for row in rows if row["set"] == name]
        low, high, over = _interval([own])
        unsure = sum(row["answer"] == "" for row in own)
        told.append(
            {
                "set": name,
                "reviewers": len(by_reviewer(own)),
                "images": len({row["file"] for row in own}),
                "answers": len(own),
                "right": sum(int(row["right"]) for row in own),
                "accuracy": fmean(by_reviewer(own).values()),
                "low": max(low, 0.0),
                "high": min(high, 1.0),
                "unsure": unsure / len(own),
                "other": sum(not row["right"] for row in own) / len(own) - unsure / len(own),
                "seconds": median(number(row["seconds"]) for row in own),
                "over": over,
            }
        )
    return told


def differences(rows: Rows, against: str = "original") -> Rows:
    """Of what `answers` returns, one row for each other set: its accuracy minus that of `against`, for those who saw both.

    Columns: set, against, reviewers, accuracy and accuracy_against (theirs), difference in [-1, 1] with its 95 % interval low and
    high, over. See `_interval`.
    """
    names = in_order(SETS, (str(row["set"]) for row in rows))
    by_set = {name: [row for row in rows if row["set"] == name] for name in names}
    told = Rows()
    for name in names:
        both = by_reviewer(by_set[name]).keys() & by_reviewer(by_set.get(against, [])).keys()
        if name == against or not both:
            continue
        pair = [[row for row in by_set[one] if row["reviewer"] in both] for one in (name, against)]
        p, q = (fmean(by_reviewer(part).values()) for part in pair)
        low, high, over = _interval(pair)
        row: dict[str, Cell] = {"set": name, "against": against, "reviewers": len(both)}
        row |= {"accuracy": p, "accuracy_against": q, "difference": p - q}
        told.append({**row, "low": max(low, -1.0), "high": min(high, 1.0), "over": over})
    return told


def _interval(parts: Sequence[Rows]) -> tuple[float, float, str]:
    """95 % interval of the accuracy on one set, or of its difference from that on another, and what it is over.

    Images are a sample, and so are reviewers. Over images: Wilson's interval of the mean accuracy, of a difference Newcombe's.
    Several reviewers: also Student's, from a variance clustered by images and by reviewers (Cameron, Gelbach & Miller 2011;
    degrees of freedom by Satterthwaite); the wider at either end counts, so that agreement is not taken for certainty.
    """
    from scipy.stats import t

    shares = [by_reviewer(part) for part in parts]
    means = [fmean(own.values()) for own in shares]
    value = means[0] - sum(means[1:])
    ends = [_wilson(mean, len({row["file"] for row in part})) for mean, part in zip(means, parts, strict=True)]
    low, high = ends[0]
    if len(parts) == 2:
        (low_p, high_p), (low_q, high_q) = ends
        low = value - math.hypot(means[0] - low_p, high_q - means[1])
        high = value + math.hypot(high_p - means[0], means[1] - low_q)
    reviewers = len(shares[0])
    if reviewers == 1:
        return low, high, "images"
    of_images, of_reviewers, of_answers, seen = 0.0, dict.fromkeys(shares[0], 0.0), 0.0, 0
    for sign, mean, own, part in zip((1, -1), means, shares, parts, strict=False):
        counts, by_image = Counter(str(row["reviewer"]) for row in part), dict[Cell, float]()
        for row in part:
            name = str(row["reviewer"])
            pull = sign * (int(row["right"]) - mean) / (len(own) * counts[name])  # of this answer on the value
            by_image[row["file"]] = by_image.get(row["file"], 0.0) + pull
            of_reviewers[name] += pull
            of_answers += pull**2
        of_images += sum(pull**2 for pull in by_image.values()) * len(by_image) / max(len(by_image) - 1, 1)
        seen += len(by_image) - 1
    among = sum(pull**2 for pull in of_reviewers.values()) * reviewers / (reviewers - 1)
    variance = max(of_images + among - of_answers, of_images, among)
    if variance > 0:
        freedom = variance**2 / (of_images**2 / max(seen, 1) + among**2 / (reviewers - 1) or variance**2)
        reach = float(t.ppf(0.975, max(freedom, 1.0))) * math.sqrt(variance)
        low, high = min(low, value - reach), max(high, value + reach)
    return low, high, "images and reviewers"


def misclassified_images(folder: Path, rows: Rows, most: int = 6) -> dict[str, Rows]:
    """Of what `answers` returns, by set the images that most people did not read as labelled, at most so many of each.

    In a relabelled set these are the ones that people read well. Columns: file, label, wrong (answers that are not the label),
    answers, said (those, commonest first) and picture (a data address from review.html; "" where it is gone).
    """
    images: dict[tuple[str, str], Rows] = {}
    for row in rows:
        images.setdefault((str(row["set"]), str(row["file"])), []).append(row)
    pictures: dict[tuple[str, str], str] = _shown_pictures(folder) if images else {}
    told: dict[str, Rows] = {name: [] for name in in_order(SETS, (name for name, _ in images))}
    for (name, file), own in images.items():
        said = Counter(str(one["answer"]) or "cannot tell" for one in own if not one["right"])
        listed = ", ".join(f"{word} ({count})" if len(own) > 1 else word for word, count in sorted(said.items(), key=_common))
        if said:
            line: dict[str, Cell] = {"file": file, "label": own[0]["label"], "wrong": said.total(), "answers": len(own)}
            told[name].append({**line, "said": listed, "picture": pictures.get((name, file), "")})
    for rows in told.values():
        rows.sort(key=lambda row: (-number(row["wrong"]) / number(row["answers"]), -number(row["wrong"])))
    return {name: rows[:most] for name, rows in told.items() if rows}


def _common(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def _shown_pictures(folder: Path) -> dict[tuple[str, str], str]:
    """What review.html shows: by set and file, the address of the picture. Empty where the page is gone or another."""
    place = folder / "review"
    key = {token: (name, file) for _, (token, name, file, _) in _table(place / "key.csv", KEY)}
    try:
        text = _bytes(place / "review.html", LARGEST_PAGE).decode("utf-8")
        images = json.loads(re.findall(r'<script type="application/json" id="review">(.*?)</script>', text, re.S)[0])["images"]
        found = {key[image["id"]]: str(image["source"]) for image in images if image["id"] in key}
    except (InputError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {image: source for image, source in found.items() if re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", source)}


def _of_answers(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.name.startswith(".")


def by_reviewer(rows: Rows) -> dict[str, float]:
    """Of what `answers` returns, each reviewer's accuracy."""
    right: dict[str, list[int]] = {}
    for row in rows:
        right.setdefault(str(row["reviewer"]), []).append(int(row["right"]))
    return {reviewer: sum(own) / len(own) for reviewer, own in right.items()}


def _wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n images."""
    from scipy.stats import binomtest

    found = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


# ---- files that others wrote ---------------------------------------------------------------------------------------------


def _table(path: Path, columns: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file with these columns, each with the line it ends on; empty lines are left out. Raises BadInput."""
    try:
        reader = csv.reader(io.StringIO(_bytes(path).decode("utf-8-sig"), newline=""), strict=True)
        if (head := next(reader, [])) != columns:
            raise InputError(_printable(path), f"must have the columns {','.join(columns)}", _got(",".join(head)))
        for row in filter(None, reader):
            if len(row) != len(columns):
                rule = f"must have {len(columns)} cells with commas between them"
                raise InputError(f"{_printable(path)}, line {reader.line_num}", rule, len(row))
            yield reader.line_num, row
    except UnicodeDecodeError:
        raise InputError(_printable(path), "must be text in UTF-8", remedy="send the file as the page saved it") from None
    except csv.Error as error:
        raise InputError(_printable(path), "must be a CSV file", str(error), "send the file as the page saved it") from None


def _bytes(path: Path, largest: int = LARGEST) -> bytes:
    """A file of the review folder itself: nothing that a link leads to. Raises BadInput."""
    if path.is_symlink() or not path.is_file():
        raise InputError(_printable(path), "must be a file, and no link", remedy="take it out")
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(_printable(path), "must be readable", error.strerror) from None
    if len(content) > largest:
        raise InputError(_printable(path), f"must have at most {largest:,} bytes", "more", "send the file as the page saved it")
    return content


def _numbered(path: Path) -> tuple[list[str | int], str]:
    """To sort by: the name without its ending, numbers as such."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", path.stem))], path.name


def _printable(path: Path) -> str:
    """For messages: what would break the line or the terminal is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(path))


def _got(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
