"""Shared by the tests: one thread, small attack budgets, the digits, and two small networks trained on them once per session."""

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import small_budgets
import stand_in_timm
import torch
from filelock import FileLock
from hypothesis import settings

from notbugs import attacks, data, models, train
from notbugs.allocator import keep_freed_memory
from notbugs.attacks import budgets, ensemble
from notbugs.models import trial
from notbugs.runs import workers
from notbugs.search import NormBall
from notbugs.study import bfloat16

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)
keep_freed_memory()
os.environ["OMP_NUM_THREADS"] = "1"  # for commands that tests start, too: two threads each would slow each other down
settings.register_profile("no-deadline", deadline=None, max_examples=50)  # a slow machine is no failure
settings.load_profile("no-deadline")

LONGEST = {
    ("study", "test_pipeline.py"),
    ("tests", "test_device.py"),
    ("report", "test_shared_parts.py"),
    ("attacks", "test_ensemble.py"),
    ("runs", "test_executors.py"),
}


def shared_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object], *, copy: bool = True
) -> Path:
    """A folder that is made once for all worker processes of a session; each gets a copy of its own, if it is to have one."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made, finished = base / f"shared-{name}", base / f"shared-{name}.finished"
    with FileLock(base / f"shared-{name}.lock"):
        if not finished.exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make(made)
            finished.touch()
    if not copy:
        return made
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("shared") / name))


@pytest.hookimpl(optionalhook=True)  # without the plug-in (`-p no:xdist`) tests run, too
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores: for a fifth of their time tests wait, for processes, pages, and disks."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """In a new checkout one worker process comes first: it rewrites the assertions of all modules, and the others read those."""
    if "PYTEST_XDIST_WORKER" not in os.environ or sys.dont_write_bytecode:
        return (yield)
    base = Path(session.config.getoption("basetemp")).parent
    with FileLock(base / "collection.lock"):
        if not (base / "collection").exists() and not any(Path(__file__).parent.rglob("__pycache__/test_*-pytest-*.pyc")):
            (base / "collection").touch()
            return (yield)
    return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest first, so that no worker process is left alone with one of them."""
    items.sort(key=lambda item: item.path.parts[-2:] not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _small_budgets() -> Iterator[None]:
    """Small attack budgets, here and in the scheduler's processes, but not in commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "BUDGETS", small_budgets.BUDGETS)
        for module, values in small_budgets.SMALL.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        patch.setattr(workers, "_start_worker", small_budgets.start_worker)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """No test cuts the power, and waiting for the disk took as long as a hundred tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _trusted_programs() -> Iterator[None]:
    """Programs that tests make are not tried in a process of their own, which takes two seconds to import PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_run", lambda tried: (0, trial.BEGUN + trial.DONE))
        yield


@pytest.fixture(scope="session", autouse=True)
def _float32() -> Iterator[None]:
    """Whether bfloat16 pays is not timed: what tests compute must not depend on the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bfloat16, "pays", lambda *_, **__: False)
        yield


@pytest.fixture
def whole_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack budgets as they are."""
    monkeypatch.setattr(ensemble, "BUDGETS", budgets.BUDGETS)
    small_budgets.restore(monkeypatch)


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package called timm, with one small network."""
    with stand_in_timm.importable(tmp_path_factory.mktemp("packages")):
        yield


@pytest.fixture(scope="session")
def digits() -> data.Splits:
    """The digits of scikit-learn: 1,347 training and 450 test images of 8x8 pixels."""
    return data.load("digits")


def _trained(factory: pytest.TempPathFactory, name: str, digits: data.Splits, loss: train.Loss) -> models.Model:
    """A small network after a few epochs, trained once for all worker processes; its parameters have no gradients."""

    def make(made: Path) -> None:
        model = models.build("small", shape=digits.train.shape, classes=10, width=16)
        train.fit(model, digits.train, loss, epochs=6, batch_size=64)
        models.save(model, made / "model.safetensors")

    path = shared_folder(factory, name, make, copy=False) / "model.safetensors"
    return models.load(path)[0].requires_grad_(False)


@pytest.fixture(scope="session")
def standard(digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    """Standard training: high clean accuracy, low robust accuracy."""
    return trained_standard(tmp_path_factory, digits)


@pytest.fixture(scope="session")
def robust(digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    """Adversarial training at L2 ε = 0.75: higher robust accuracy."""
    return trained_robust(tmp_path_factory, digits)


def trained_standard(tmp_path_factory: pytest.TempPathFactory, digits: data.Splits) -> models.Model:
    return _trained(tmp_path_factory, "standard", digits, train.cross_entropy)


def trained_robust(tmp_path_factory: pytest.TempPathFactory, digits: data.Splits) -> models.Model:
    loss = train.adversarial_loss(partial(attacks.pgd, threat_model=NormBall("l2", 0.75), steps=3))
    return _trained(tmp_path_factory, "robust", digits, loss)


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A real browser for tests of HTML pages; one per module, because one process cannot start two."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.fail("no Chromium: HTML pages are tested in a real browser; install it with `apt-get install chromium`")
    from playwright.sync_api import sync_playwright  # only here: a machine without it can run all other tests

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


OPERATORS = (  # of torchvision, that its Python code names as it is imported
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float scale, int height, int width, int ratio, bool aligned) -> Tensor",
)


@pytest.fixture(scope="session")
def torchvision_operators() -> Iterator[None]:
    """torchvision can be imported also where its compiled operators do not fit this build of PyTorch: they are declared alone.

    Networks for classification need none of them.
    """
    library = None
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "DEF")  # declared as long as it is kept
            for operator in OPERATORS:
                library.define(operator)
            importlib.import_module("torchvision")
    yield
    del library
