"""A function applied batch by batch, also by several ranks that share the batches."""

import re
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data.conftest import random_dataset
from torch import Tensor
from torch.distributed import HashStore

from notbugs import construct, data
from notbugs.construct import controls
from notbugs.data import LazyImages, batches, shard_files
from notbugs.data.images import encode_png
from notbugs.errors import InputError
from notbugs.runs import ranks


def test_map_batches_equals_the_function_of_the_whole() -> None:
    whole = random_dataset(7)
    pixels, index = data.map_batches(lambda images, index: (images.mean((1, 2, 3)), index), whole, batch_size=3)
    assert torch.allclose(pixels, whole.pixels(slice(None)).mean((1, 2, 3))) and index.tolist() == list(range(7))
    values = torch.randn(5, 2, requires_grad=True)
    twice = data.map_batches(lambda images, index: images * 2, values, batch_size=2)
    assert torch.equal(twice, values.detach() * 2) and not twice.requires_grad
    assert data.map_batches(lambda images, index: images.flatten(1), whole.select([])).shape == (0, 60)


def test_progress_counts_the_images() -> None:
    counts: list[int] = []
    data.map_batches(lambda images, index: index, torch.zeros(7, 1), batch_size=3, progress=counts.append)
    assert counts == [3, 3, 1]


# ---- ranks: threads here, each with a place of its own -------------------------------------------------------------------------


def on_ranks(count: int, folder: Path, work: Callable[[int], object], job: str = "job") -> list[object]:
    """What `work` returns, or raises, on each of several ranks."""
    store, found = HashStore(), dict[int, object]()

    def do(rank: int) -> None:
        with ranks.in_job(ranks.Ranks(rank, count, store, job)), ranks.in_stage(folder):
            try:
                found[rank] = work(rank)
            except InterruptedError as error:
                found[rank] = error

    threads = [threading.Thread(target=do, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return [found[rank] for rank in range(count)]


def means(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return images.mean((1, 2, 3)), index, (images.flatten(1) * 255).to(torch.uint8)


@pytest.mark.parametrize(("n", "count"), [(7, 1), (7, 2), (7, 3), (6, 3), (2, 3), (0, 2)])
def test_ranks_share_the_batches_and_all_return_what_one_does(n: int, count: int, tmp_path: Path) -> None:
    """Blocks that do not divide, and fewer blocks than ranks."""
    whole = random_dataset(7).select(slice(0, n))
    expected = data.map_batches(means, whole, batch_size=3)
    done: list[int] = []

    def counted(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        done.extend(index.tolist())
        return means(images, index)

    def work(_: int) -> tuple[Tensor, ...]:
        data.map_batches(means, whole, batch_size=4)  # another map of the same stage
        return data.map_batches(counted, whole, batch_size=3)

    for found in on_ranks(count, tmp_path, work):
        assert isinstance(found, tuple)
        assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(found, expected, strict=True))
    assert sorted(done) == list(range(n))  # each image once


def test_a_single_tensor_stays_single_and_nested_maps_are_not_shared(tmp_path: Path) -> None:
    def outer(images: Tensor, index: Tensor) -> Tensor:
        return data.map_batches(lambda inner, _: inner.flatten(1).sum(1), images, batch_size=1)

    values = torch.arange(5.0).reshape(5, 1)
    for found in on_ranks(2, tmp_path, lambda _: data.map_batches(outer, values, batch_size=2)):
        assert isinstance(found, Tensor) and torch.equal(found, values.squeeze(1))
    assert len([*tmp_path.glob("blocks/*")]) == 1


def test_what_is_not_worth_sharing_is_done_by_all(tmp_path: Path) -> None:
    done: list[int] = []

    def work(_: int) -> Tensor:
        return data.map_batches(
            lambda images, index: done.append(len(index)) or index, torch.zeros(4, 1), batch_size=2, share=False
        )

    on_ranks(2, tmp_path, work)
    assert done == [2, 2, 2, 2] and not [*tmp_path.iterdir()]


# ---- images that are too many for memory ---------------------------------------------------------------------------------------


def enlarged(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An image of the same shape, its number, and something else of it."""
    return 255 - data.to_8bit(images), index, images.mean((1, 2, 3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("most_blocks", [1, 2, 512])
def test_images_that_are_too_large_for_memory_are_png_files(
    channels: int, count: int, most_blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """count: of ranks; 0: a stage of one process."""
    monkeypatch.setattr(batches, "MOST_BLOCKS", most_blocks)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)
    whole = random_dataset(7, channels=channels)
    expected, columns = data.map_to_images(enlarged, whole, batch_size=2)
    assert isinstance(expected, Tensor) and torch.equal(expected, 255 - whole.images[:])
    monkeypatch.setattr(batches, "LARGE", expected.numel() - 1)
    done: list[int] = []

    def counted(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        done.extend(index.tolist())
        return enlarged(images, index)

    def work(_: int) -> tuple[data.Images, tuple[Tensor, ...]]:
        return data.map_to_images(counted, whole, batch_size=2)

    if count:
        results = on_ranks(count, tmp_path, work)
    else:
        with ranks.in_stage(tmp_path):
            results = [work(0)]
    for images, others in results:  # type: ignore[misc]
        assert isinstance(images, LazyImages) and images.shape == whole.images.shape
        assert torch.equal(images[:], expected) and torch.equal(images[[5, 2]], expected[[5, 2]])
        assert all(torch.equal(one, other) for one, other in zip(others, columns, strict=True))
        twice = data.joined([images, images])
        assert isinstance(twice, LazyImages) and torch.equal(twice[:], torch.cat([expected, expected]))
        assert [*shard_files.as_png(images.select([6, 0]))] == [*encode_png(expected[[6, 0]])]
    assert sorted(done) == list(range(7))
    files = [*tmp_path.rglob("*.png-files")]
    assert len(files) == min(most_blocks, 4) and not [*tmp_path.rglob("*.part")]
    monkeypatch.setattr(batches, "LARGE", expected.numel())
    with ranks.in_stage(tmp_path):
        assert isinstance(work(0)[0], Tensor)
    assert isinstance(data.joined([expected, expected]), Tensor)


def test_a_stage_of_one_process_goes_on_from_its_blocks_of_a_large_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)
    whole, done, counts = random_dataset(7), list[int](), list[int]()
    expected, _ = data.map_to_images(enlarged, whole)
    monkeypatch.setattr(batches, "LARGE", 7 * 60 - 1)

    def attempt(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        if len(counts) == 2 and len(done) == 4:
            raise InterruptedError
        done.extend(index.tolist())
        return enlarged(images, index)

    def work() -> data.Images:
        return data.map_to_images(attempt, whole, batch_size=2, progress=counts.append)[0]

    with ranks.in_stage(tmp_path), pytest.raises(InterruptedError):
        work()
    assert counts == [2, 2] and len([*tmp_path.rglob("*.pt")]) == 2 and not [*tmp_path.rglob("*.part")]
    done.clear()
    with ranks.in_stage(tmp_path):
        images = work()
        assert torch.equal(images[:], expected[:]) and done == [4, 5, 6] and counts[2:] == [4, 2, 1]
        stage = ranks.stage()
        assert stage is not None
        stage.trained = True
        done.clear()
        work()  # the next map of this stage, of other weights: nothing of it is there
        assert len(done) == 7


def test_batches_of_other_settings_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LARGE", 0)
    whole, done = random_dataset(4), list[str]()

    def work(settings: str) -> None:
        def one(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
            done.append(settings)
            return enlarged(images, index)

        with ranks.in_stage(tmp_path):
            data.map_to_images(one, whole, settings=settings)

    for settings in ("bf16 True", "bf16 True", "bf16 False"):
        work(settings)
    assert done == ["bf16 True", "bf16 False"]


@pytest.mark.parametrize("count", [0, 2])
def test_what_draws_random_numbers_is_done_in_order_by_each_process(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed command that goes on, and several ranks, give what one gives that nobody disturbed."""
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(controls, "BATCH", 2)
    whole = random_dataset(7)
    relabeled = whole.with_images(255 - whole.images[:])
    expected = construct.shuffled_perturbations(whole, relabeled).dataset.images[:]
    monkeypatch.setattr(batches, "LARGE", 0)
    found: list[object] = []
    if count:
        found = on_ranks(count, tmp_path, lambda _: construct.shuffled_perturbations(whole, relabeled).dataset.images[:])
    for last in (3, 9):  # the second attempt finds what is left of the first one
        with ranks.in_stage(tmp_path):
            found.append(construct.shuffled_perturbations(whole, relabeled).dataset.images[:])
        for block in [*tmp_path.rglob("*.pt")][last:]:
            block.unlink()
    assert all(torch.equal(each, expected) for each in found)  # type: ignore[arg-type]


def test_one_process_does_not_wait_for_blocks_that_somebody_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt has finished the stage: its unfinished work is removed."""
    monkeypatch.setattr(batches, "LARGE", 0)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)

    def removed(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        if int(index[-1]) == 3:
            next(tmp_path.rglob("*.pt")).unlink()
        return enlarged(images, index)

    with ranks.in_stage(tmp_path), pytest.raises(InputError, match="must keep what is unfinished, got 1 files removed"):
        data.map_to_images(removed, random_dataset(4), batch_size=2)


@pytest.mark.parametrize("change", ["shorter", "missing", "shorter later"])
def test_images_that_somebody_changed_are_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LARGE", 0)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)
    whole = random_dataset(4)

    def work() -> data.Images:
        with ranks.in_stage(tmp_path):
            return data.map_to_images(enlarged, whole, batch_size=2)[0]

    images = work()
    pack = sorted(tmp_path.rglob("*.png-files"))[1]
    if change == "missing":
        pack.unlink()
    else:
        pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}.*(remove it|repeat)"):
        _ = [*shard_files.as_png(images)] if change == "shorter later" else work()
    if change == "shorter later":
        with pytest.raises(InputError, match=rf"^{re.escape(str(pack))}"):
            images[:]


@pytest.mark.parametrize("batch_size", [2, 3, 100])
def test_repeated_images_are_those_of_copies(batch_size: int) -> None:
    whole = random_dataset(5)
    repeated, copies = data.Repeated(whole.images, 3), whole.images[:].repeat(3, 1, 1, 1)
    assert len(repeated) == 15 and repeated.shape == copies.shape
    found = data.map_batches(lambda images, index: (images, index), repeated, batch_size=batch_size)
    expected = data.map_batches(lambda images, index: (images, index), copies, batch_size=batch_size)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("form", ["npz", "folder", "parquet", "webdataset"])
def test_a_full_disk_is_one_line(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LARGE", 0)
    whole = random_dataset(7)
    rows = data.Rows(whole.labels, whole.classes, whole.names)
    whole.to_huggingface()  # imports what it needs before files are limited
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # a png has more
    try:
        with (
            ranks.in_stage(tmp_path),
            data.made_as(form),
            pytest.raises(InputError, match=r"must be on a disk with room, got a full"),
        ):
            data.map_to_images(enlarged, whole, batch_size=3, rows=rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [*tmp_path.rglob("*.part")]


@pytest.mark.parametrize(("trained", "done_again"), [(False, [2, 3, 4]), (True, [0, 1, 2, 3, 4])])
def test_after_a_killed_rank_finished_blocks_are_not_done_again(trained: bool, done_again: list[int], tmp_path: Path) -> None:
    """Unless the stage has trained a network meanwhile, whose weights may differ in the last bits."""
    values, done = torch.arange(5.0).reshape(5, 1), list[int]()

    def killed(images: Tensor, index: Tensor) -> Tensor:
        if index[0] == 2:
            raise InterruptedError
        return images.square()

    def again(images: Tensor, index: Tensor) -> Tensor:
        done.extend(index.tolist())
        return images.square()

    again.__qualname__ = killed.__qualname__  # as it is in a repeated command

    def work(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if (together := ranks.together()) and trained:
            together.trained = True
        return data.map_batches(function, values, batch_size=2)

    assert isinstance(on_ranks(1, tmp_path, lambda _: work(killed), "first")[0], InterruptedError)
    (found,) = on_ranks(1, tmp_path, lambda _: work(again), "second")
    assert isinstance(found, Tensor) and torch.equal(found, values.square()) and done == done_again


def test_blocks_of_another_batch_size_or_half_written_are_not_used(tmp_path: Path) -> None:
    values = torch.arange(5.0).reshape(5, 1)
    on_ranks(1, tmp_path, lambda _: data.map_batches(lambda images, index: images, values, batch_size=2))
    (folder,) = tmp_path.glob("blocks/*")
    (folder / "000001.pt").rename(folder / ".123.part")
    for size in (2, 3):
        (found,) = on_ranks(1, tmp_path, lambda _, size=size: data.map_batches(lambda x, index: x, values, batch_size=size))  # type: ignore[misc]
        assert torch.equal(found, values)  # type: ignore[arg-type]
    assert len([*tmp_path.glob("blocks/*")]) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"not of torch.save",
        [torch.zeros(2)],
        {"single": True},
        {"single": True, "columns": ()},
        {"single": True, "columns": [torch.zeros(3)]},
        {"single": True, "columns": [torch.zeros(1).expand(2)]},
        {"single": True, "columns": ["aa"]},
        {"single": True, "columns": [print]},
        {"single": True, "columns": [torch.zeros(2, 2)]},
        {"single": True, "columns": [torch.zeros(2, 1), torch.zeros(2, 1)]},
        {"single": True, "columns": [torch.zeros(2, 1, dtype=torch.complex64)]},
    ],
    ids=[
        "bytes",
        "list",
        "no columns",
        "none",
        "other length",
        "a claim",
        "text",
        "code",
        "other width",
        "one more",
        "other type",
    ],
)
def test_a_block_that_somebody_changed_is_refused(content: object, tmp_path: Path) -> None:
    values = torch.arange(5.0).reshape(5, 1)

    def work(_: int) -> Tensor:
        return data.map_batches(lambda images, index: images, values, batch_size=2)

    on_ranks(1, tmp_path, work)
    (folder,) = tmp_path.glob("blocks/*")
    block = folder / "000001.pt"
    block.unlink()  # it is mapped
    block.write_bytes(content) if isinstance(content, bytes) else torch.save(content, block)

    def refused(rank: int) -> str:
        with pytest.raises(InputError) as caught:
            work(rank)
        return str(caught.value)

    (found,) = on_ranks(1, tmp_path, refused)
    assert re.match(rf"{re.escape(str(block))}: cannot be read as unfinished work of this run, got .+; remove it$", str(found))


def test_progress_counts_the_images_of_all_ranks(tmp_path: Path) -> None:
    counts: list[int] = []

    def work(rank: int) -> Tensor:
        progress = counts.append if rank == 0 else None
        return data.map_batches(lambda images, index: index, torch.zeros(7, 1), batch_size=2, progress=progress)

    on_ranks(3, tmp_path, work)
    assert sum(counts) == 7 and min(counts) > 0
