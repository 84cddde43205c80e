"""What the tests share: one thread, the digits, and two small networks that were trained on them once."""

import os
import shutil
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from notbugs import attacks, data, models, train
from notbugs.search import NormBall

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start, too: two threads each would fight for the cores
settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")


@pytest.fixture(scope="session")
def digits() -> data.Splits:
    """1,347 training and 450 test images, 8x8."""
    return data.load("digits")


def _trained(digits: data.Splits, loss: train.Loss, epochs: int) -> models.Model:
    model = models.build("small", shape=digits.train.shape, classes=10, width=16)
    train.fit(model, digits.train, loss, epochs=epochs, batch_size=64)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def standard(digits: data.Splits) -> models.Model:
    """Ordinary training: right, and easy to fool."""
    return _trained(digits, train.cross_entropy, 6)


@pytest.fixture(scope="session")
def robust(digits: data.Splits) -> models.Model:
    """Trained against changes of L2 norm 0.75: harder to fool."""
    return _trained(digits, train.adversarial_loss(partial(attacks.pgd, threat_model=NormBall("l2", 0.75), steps=3)), 6)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser, for whatever ends in a page; one a module, for two of them cannot be started in one process."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.fail("no Chromium: pages are tested in a real browser; install it with `apt-get install chromium`")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
