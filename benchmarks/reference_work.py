"""The three parts of reference_library.py: relabeling, inversion, adversarial training."""

import copy
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from functools import partial
from typing import Any

import torch
from harness import Row
from reference_adapter import Library, attack, attackable, in_batches
from reference_timing import Clock, Method, Run, Work, in_turns, timed, with_ratios
from study_benchmark import Benchmark
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import notbugs.train as train
from notbugs import attacks, construct, data
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.search import NormBall

RELABEL_STEPS, INVERT_STEPS, TRAINING_STEPS = 100, 1000, 7  # the paper's
INVERT_STEP_SIZE = 0.1
METHOD_OPTIONS = {  # of the library's inversion
    "notebook": {"constraint": "2", "eps": 1000, "use_best": False},
    "best": {"constraint": "2", "eps": 1000, "use_best": True},
    "unconstrained": {"constraint": "unconstrained", "eps": 1000, "use_best": False},
}
TRAINING_OPTIONS = {
    **{"adv_train": 1, "adv_eval": 0, "epochs": 1, "log_iters": 1, "save_ckpt_iters": -1, "mixed_precision": False},
    **{"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "step_lr": 50, "step_lr_gamma": 0.1},
    **{"custom_lr_multiplier": None, "custom_eps_multiplier": None, "random_start": 0, "random_restarts": 0},
    **{"constraint": "2", "use_best": 1},
}


# ---- relabeling ------------------------------------------------------------------------------------------------------------


def relabeling(benchmark: Benchmark, library: Library) -> Iterator[Row]:
    """D_rand: images perturbed towards random other classes."""
    device, options, config = benchmark.config.device, benchmark.options, benchmark.config
    dataset, model = training_images(benchmark, options.images), benchmark.model("standard", options.seed)
    threat_model = NormBall("l2", config.relabel_epsilon)
    targets = construct.random_labels(dataset.labels, len(dataset.classes), seed=options.seed)
    model_of_library = attackable(library, model, device)

    def of_library(steps: int) -> Tensor:
        def perturb(images: Tensor, index: Tensor) -> Tensor:
            step = threat_model.epsilon / 5
            known = {"constraint": "2", "eps": threat_model.epsilon, "step_size": step, "targeted": True, "do_tqdm": False}
            return attack(model_of_library, images, targets[index], steps, **known)

        return in_batches(perturb, dataset, options.batch_size, device)

    def of_notbugs(steps: int) -> Tensor:
        settings = _settings(benchmark)
        return _stored(construct.relabel(model, dataset, targets, threat_model=threat_model, steps=steps, **settings).dataset)

    steps = config.relabel_steps
    works = [
        Work("robustness", "targeted attack", RELABEL_STEPS, timed(of_library, device)),
        Work("notbugs", "relabel", steps, timed(of_notbugs, device)),
        Work("robustness", "targeted attack", steps, timed(of_library, device)),
    ]
    pairs: dict[str, tuple[Method, Method]] = {
        "default settings": (("relabel", steps), ("targeted attack", RELABEL_STEPS)),
        "equal steps": (("relabel", steps), ("targeted attack", steps)),
    }
    evaluate = partial(_evaluate_relabeled, model, dataset, targets, threat_model)
    columns = {"epsilon": config.relabel_epsilon, "batch_size": options.batch_size}
    yield from with_ratios(in_turns(works, len(dataset), options.rounds, evaluate, **columns), pairs)


def _evaluate_relabeled(
    model: Model, dataset: Dataset, targets: Tensor, threat_model: NormBall, images: Tensor
) -> dict[str, float]:
    """Targets reached, as stored and after projection onto the ball, and the norms of the perturbations."""
    clean, stored = dataset.pixels(slice(None)), data.from_8bit(images)
    norms = threat_model.distance(stored - clean)
    inside = data.to_8bit(threat_model.round_to_8bit(stored, clean))
    reached, reached_inside = ((_evaluated(model, each).argmax(1) == targets).float().mean().item() for each in (images, inside))
    return {
        "target_reached": reached,
        "target_reached_within_epsilon": reached_inside,
        "mean_l2": norms.mean().item(),
        "max_l2": norms.max().item(),
    }


# ---- inversion -------------------------------------------------------------------------------------------------------------


def robust_version(benchmark: Benchmark, library: Library) -> Iterator[Row]:
    """D_R: features of the adversarially trained model, inverted from other images."""
    options, config, device = benchmark.options, benchmark.config, benchmark.config.device
    dataset, model = training_images(benchmark, options.images), benchmark.model("adversarial", options.seed)
    of_library = partial(_library_inversion, benchmark, attackable(library, model, device), dataset)

    def of_notbugs(steps: int) -> Tensor:
        settings = _settings(benchmark)
        return _stored(construct.invert_features(model, dataset, steps=steps, seed=options.seed, **settings).dataset)

    def evaluate(images: Tensor) -> Row:
        wanted, found = _evaluated(model.features, _stored(dataset)), _evaluated(model.features, images)
        return {"feature_error": ((found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-6)).mean().item()}

    steps, library_steps, own = config.invert_steps, options.library_steps, "invert_features"
    works = [Work("notbugs", own, steps, timed(of_notbugs, device))]
    works += [Work("robustness", name, library_steps, timed(of_library(name), device)) for name in options.methods]
    works.append(Work("robustness", options.methods[0], steps, timed(of_library(options.methods[0]), device)))
    pairs = {f"default settings, {name}": ((own, steps), (name, library_steps)) for name in options.methods}
    pairs["equal steps"] = (own, steps), (options.methods[0], steps)
    columns = {"step_size": INVERT_STEP_SIZE, "paper_steps": INVERT_STEPS, "batch_size": options.batch_size}
    for row in with_ratios(in_turns(works, len(dataset), options.rounds, evaluate, **columns), pairs):
        if row.get("tool") == "notbugs":  # its step sizes adapt, and no other number of steps is its default
            del row["step_size"], row["paper_steps"]
        yield row


def _library_inversion(benchmark: Benchmark, model: Any, dataset: Dataset, method: str) -> Callable[[int], Tensor]:
    """The library's inversion as a function of the number of steps, from the same starts as `construct.invert_features`."""
    options, device = benchmark.options, benchmark.config.device
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(options.seed))
    starts = dataset.pixels(torch.empty_like(order).scatter(0, order, order.roll(1)))
    known = METHOD_OPTIONS[method] | {
        **{"step_size": INVERT_STEP_SIZE, "targeted": True, "do_tqdm": False, "custom_loss": _feature_distance}
    }

    def invert(steps: int, images: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = model(images, with_latent=True)[0][1]
        return attack(model, starts[index].to(device), wanted, steps, **known)

    return lambda steps: in_batches(partial(invert, steps), dataset, options.batch_size, device)


def _feature_distance(network: Any, images: Tensor, wanted: Tensor) -> tuple[Tensor, None]:
    """The loss that the library minimizes: relative distance to the wanted features."""
    features = network(images, with_latent=True, fake_relu=True)[1]
    return (features - wanted).norm(dim=1) / wanted.norm(dim=1), None


# ---- adversarial training --------------------------------------------------------------------------------------------------


def adversarial_training(benchmark: Benchmark, library: Library) -> Iterator[Row]:
    """One epoch of adversarial training."""
    options, config = benchmark.options, benchmark.config
    dataset, model = training_images(benchmark, options.training_images), benchmark.model("adversarial", options.seed)
    steps = config.adversarial_steps
    of_notbugs = partial(_notbugs_epoch, benchmark, model, dataset)
    works = [
        Work("robustness", "train_model", TRAINING_STEPS, _library_epoch(benchmark, library, model, dataset)),
        Work("notbugs", "fit", steps, of_notbugs),
        Work("notbugs", "fit", TRAINING_STEPS, of_notbugs),
    ]
    pairs: dict[str, tuple[Method, Method]] = {
        "default settings": (("fit", steps), ("train_model", TRAINING_STEPS)),
        "equal steps": (("fit", TRAINING_STEPS), ("train_model", TRAINING_STEPS)),
    }
    columns = {"epsilon": config.epsilon, "batch_size": config.batch_size}
    yield from with_ratios(in_turns(works, len(dataset), options.rounds, lambda _: {}, **columns), pairs)


def _notbugs_epoch(benchmark: Benchmark, model: Model, dataset: Dataset, steps: int) -> tuple[Clock, None]:
    config, duplicate = benchmark.config, copy.deepcopy(model)
    attack = partial(attacks.training_pgd, threat_model=NormBall("l2", config.epsilon), steps=steps)
    settings = _settings(benchmark) | {"batch_size": config.batch_size}
    start = Clock.now(config.device)
    train.fit(duplicate, dataset, train.adversarial_loss(attack), epochs=1, learning_rate=1e-3, **settings)
    return Clock.now(config.device).since(start), None


def _library_epoch(benchmark: Benchmark, library: Library, model: Model, dataset: Dataset) -> Run:
    """From the call to the end of the last training step: validation and writing after it are not counted."""
    config, device = benchmark.config, benchmark.config.device

    def run(steps: int) -> tuple[Clock, None]:
        ends: list[Clock] = []
        known: dict[str, Any] = TRAINING_OPTIONS | {
            "attack_steps": steps,
            "eps": config.epsilon,
            "attack_lr": config.epsilon / 5,
            "iteration_hook": lambda *_: ends.append(Clock.now(device)),
        }
        model_of_library = attackable(library, model, device)
        pairs = TensorDataset(dataset.pixels(slice(None)), dataset.labels)
        generator, pinned = torch.Generator().manual_seed(0), device.startswith("cuda")
        loader = DataLoader(pairs, config.batch_size, shuffle=True, generator=generator, pin_memory=pinned)
        devices = [torch.cuda.current_device()] if pinned else None
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # its progress bars
            start = Clock.now(device)
            # an empty list: nothing to validate on
            arguments = library.arguments({**known, "out_dir": folder})
            library.train_model(arguments, model_of_library, (loader, []), dp_device_ids=devices)
        return ends[-1].since(start), None

    return run


# ---- shared ----------------------------------------------------------------------------------------------------------------


def _settings(benchmark: Benchmark) -> dict[str, Any]:
    """Of every work of notbugs."""
    config = benchmark.config
    speed = {"bf16": config.bf16, "compile": config.compile}
    return {"batch_size": benchmark.options.batch_size, "device": config.device, **speed}


def training_images(benchmark: Benchmark, count: int) -> Dataset:
    """At most `count` training images, evenly spaced."""
    dataset = benchmark.splits(benchmark.options.seed).train
    return dataset.select(data.evenly_spaced(count, len(dataset)))


def _evaluated(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Outputs of a model of the study, as it is stored and on the CPU, for uint8 images."""
    with torch.no_grad():
        outputs: Tensor = data.map_batches(lambda batch, _: forward(batch), images)
    return outputs


def _stored(dataset: Dataset) -> Tensor:
    """The images of a data set in memory."""
    assert isinstance(dataset.images, Tensor)
    return dataset.images


WORK: dict[str, Callable[[Benchmark, Library], Iterator[Row]]] = {
    "relabeling": relabeling,
    "robust-version": robust_version,
    "adversarial-training": adversarial_training,
}
