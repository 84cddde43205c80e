"""What peers.py measures: the attacks of each tool, and the rows of reference_library.py as rows of one table."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from attacks_common import FOREIGN_NORMS, SEED, Tool, evenly_spaced, in_batches, is_correct, outcome
from attacks_speed import SHARES, pgd_tools
from attacks_strength import autoattack as torchattacks_autoattack
from harness import Row
from reference_adapter import Library, load_library
from reference_timing import Clock, Run, Work
from reference_timing import in_turns as shortest_of_rounds
from reference_work import WORK as REFERENCE
from reference_work import training_images
from study_benchmark import Benchmark
from torch import Tensor, nn

from notbugs import attacks, models
from notbugs.data import Dataset
from notbugs.search import NormBall

PGD_STEPS, APGD_STEPS, TRAINING_STEPS = 20, 100, 7
NOT_INSTALLED: Row = {"status": "not installed"}
Method = tuple[str, str, int | None]  # tool, method and steps


# ---- attacks -----------------------------------------------------------------------------------------------------------------


def pgd(benchmark: Benchmark) -> Iterator[Row]:
    """PGD-20 on the cross-entropy, with steps of ε / 8."""
    model, threat_model = _attacked(benchmark)
    tools = pgd_tools(model, threat_model, SHARES[1], benchmark.options.batch_size)
    named: dict[Method, Tool | None] = {(name, "PGD", PGD_STEPS): tool for name, tool in tools.items()}
    yield from _attack_rows(benchmark, model, threat_model, named, benchmark.options.images, benchmark.options.rounds)


def apgd(benchmark: Benchmark) -> Iterator[Row]:
    """APGD on the cross-entropy, 100 steps from a random start."""
    import torchattacks

    model, threat_model = _attacked(benchmark)
    epsilon, norm = float(threat_model.epsilon), FOREIGN_NORMS[threat_model.norm]

    def notbugs_apgd(images: Tensor, labels: Tensor) -> Tensor:
        fused, generator = models.fuse_batchnorm(model, images[:2]), torch.Generator().manual_seed(SEED)
        return attacks.apgd(
            fused, images, labels, threat_model=threat_model, steps=APGD_STEPS, loss="cross_entropy", generator=generator
        ).images

    tools: dict[str, Tool | None] = {
        "notbugs": notbugs_apgd,
        "torchattacks": torchattacks.APGD(model, norm=norm, eps=epsilon, steps=APGD_STEPS, n_restarts=1, loss="ce"),
        "AutoAttack's authors": _authors_apgd(benchmark, model, threat_model),
        "ART": _art_attack(
            benchmark,
            model,
            threat_model,
            "AutoProjectedGradientDescent",
            eps_step=epsilon / 10,
            max_iter=APGD_STEPS,
            nb_random_init=1,
            loss_type="cross_entropy",
        ),
    }
    named: dict[Method, Tool | None] = {(name, "APGD-CE", APGD_STEPS): tool for name, tool in tools.items()}
    yield from _attack_rows(benchmark, model, threat_model, named, benchmark.options.images, benchmark.options.rounds)


def autoattack(benchmark: Benchmark) -> Iterator[Row]:
    """The two ensembles beside AutoAttack, on fewer images and once each."""
    model, threat_model = _attacked(benchmark)
    original = _original(benchmark)
    tools: dict[Method, Tool | None] = {
        ("notbugs", attacks.ensemble_name(budget), None): partial(_ensemble, model, threat_model, budget)
        for budget in ("standard", "thorough")
    }
    tools["AutoAttack's authors", "AutoAttack", None] = original and partial(_authors_autoattack, original, model, threat_model)
    tools["torchattacks", "AutoAttack, 10 steps", None] = torchattacks_autoattack(model, threat_model)
    tools["ART", "AutoAttack", None] = _art_attack(
        benchmark, model, threat_model, "AutoAttack", eps_step=float(threat_model.epsilon) / 10
    )
    yield from _attack_rows(benchmark, model, threat_model, tools, benchmark.options.autoattack_images, 1)


def _attacked(benchmark: Benchmark) -> tuple[nn.Module, NormBall]:
    """The study's adversarially trained model and its threat model."""
    config = benchmark.config
    model = benchmark.model("adversarial", benchmark.options.seed).to(config.device).eval()
    return model, NormBall(config.norm, config.epsilon)


def _attack_rows(
    benchmark: Benchmark,
    model: nn.Module,
    threat_model: NormBall,
    tools: Mapping[Method, Tool | None],
    count: int,
    rounds: int,
) -> Iterator[Row]:
    """A row for each tool: time, ratio to the first one, images that are still classified correctly."""
    dataset = evenly_spaced(benchmark.splits(benchmark.options.seed).test, count)
    device = benchmark.config.device
    images, labels = dataset.pixels(slice(None)).to(device), dataset.labels.to(device)
    installed = {method: tool for method, tool in tools.items() if tool}
    turns = _in_turns(installed, images, labels, benchmark, rounds)
    first = _seconds(turns[next(iter(tools))][1], device)
    common = {"model": "adversarial", "norm": threat_model.norm, "epsilon": float(threat_model.epsilon), "n": len(dataset)}
    clean = int(is_correct(model, images, labels).sum())
    for method in tools:
        row = {**common, **_columns(method)}
        if method not in turns:
            yield row | NOT_INSTALLED
            continue
        perturbed, spent = turns[method]
        row |= {"clean_correct": clean, **outcome(model, images, labels, perturbed, threat_model), "rounds": rounds}
        times = {"seconds": spent.seconds, "cpu_seconds": spent.cpu, "images_per_second": len(dataset) / spent.seconds}
        yield row | times | {"cpu_time_ratio": _seconds(spent, device) / first}


def _in_turns(
    tools: Mapping[Method, Tool], images: Tensor, labels: Tensor, benchmark: Benchmark, rounds: int
) -> dict[Method, tuple[Tensor, Clock]]:
    """What each tool finds, and its shortest time; every second round in reverse order."""
    device, batch_size = benchmark.config.device, benchmark.options.batch_size
    found: dict[Method, tuple[Tensor, Clock]] = {}
    for tool in tools.values():
        tool(images[:2], labels[:2])  # a warm-up
    for number in range(rounds):
        for method in list(tools)[:: -1 if number % 2 else 1]:
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # ART draws from here
            start = Clock.now(device)
            perturbed = in_batches(tools[method], images, labels, batch_size)
            spent = Clock.now(device).since(start)
            known = found[method][1] if method in found else spent
            found[method] = perturbed, Clock(*map(min, known, spent))
    return found


def _seconds(spent: Clock, device: str) -> float:
    """CPU time; on a GPU the time that has passed."""
    return spent.cpu if device == "cpu" else spent.seconds


def _columns(method: Method) -> Row:
    tool, name, steps = method
    return {"tool": tool, "method": name} | ({"steps": steps} if steps else {})


def _ensemble(model: Any, threat_model: NormBall, budget: str, images: Tensor, labels: Tensor) -> Tensor:
    fused = models.fuse_batchnorm(model, images[:2])
    return attacks.adaptive_ensemble(fused, images, labels, threat_model=threat_model, budget=budget).images


# ---- the other tools ---------------------------------------------------------------------------------------------------------


def _original(benchmark: Benchmark) -> Any:
    """The package of AutoAttack's authors, or None."""
    if benchmark.options.original is None:
        return None
    sys.path.insert(0, str(benchmark.options.original))
    return importlib.import_module("autoattack")


def _authors_autoattack(original: Any, model: nn.Module, threat_model: NormBall, images: Tensor, labels: Tensor) -> Tensor:
    attack = original.AutoAttack(
        model,
        norm=FOREIGN_NORMS[threat_model.norm],
        eps=float(threat_model.epsilon),
        version="standard",
        device=str(images.device),
        verbose=False,
        seed=SEED,
    )
    found: Tensor = attack.run_standard_evaluation(images, labels, bs=len(images))
    return found


def _authors_apgd(benchmark: Benchmark, model: nn.Module, threat_model: NormBall) -> Tool | None:
    if _original(benchmark) is None:
        return None
    attack = importlib.import_module("autoattack.autopgd_base").APGDAttack(
        model,
        n_iter=APGD_STEPS,
        norm=FOREIGN_NORMS[threat_model.norm],
        eps=float(threat_model.epsilon),
        n_restarts=1,
        seed=SEED,
        loss="ce",
        device=benchmark.config.device,
    )

    def run(images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = attack.perturb(images, labels)
        return found

    return run


def _art_attack(benchmark: Benchmark, model: nn.Module, threat_model: NormBall, name: str, **options: Any) -> Tool | None:
    """An attack of ART by its name; None if ART is not installed."""
    try:
        from art.attacks import evasion
    except ImportError:
        return None
    attack = getattr(evasion, name)(
        estimator=art_classifier(benchmark, model),
        norm=np.inf if threat_model.norm == "linf" else int(threat_model.norm[1]),
        eps=float(threat_model.epsilon),
        batch_size=benchmark.options.batch_size,
        **options,
    )
    if hasattr(attack, "verbose"):
        attack.verbose = False

    def run(images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = torch.from_numpy(attack.generate(images.cpu().numpy(), y=labels.cpu().numpy())).to(images.device)
        return found

    return run


def art_classifier(benchmark: Benchmark, model: nn.Module, **options: Any) -> Any:
    """A network as ART takes it."""
    from art.estimators.classification import PyTorchClassifier

    test = benchmark.splits(benchmark.options.seed).test
    return PyTorchClassifier(
        model,
        device_type="cpu" if benchmark.config.device == "cpu" else "gpu",
        loss=nn.CrossEntropyLoss(),
        input_shape=test.shape,
        nb_classes=len(test.classes),
        clip_values=(0.0, 1.0),
        **options,
    )


# ---- constructions and training ------------------------------------------------------------------------------------------------


def _beside_library(part: str, benchmark: Benchmark) -> Iterator[Row]:
    """The rows of reference_library.py, without its ratios, and one of ART in `adversarial-training`."""
    try:
        library: Library = load_library()
    except SystemExit:
        yield {"tool": "robustness", **NOT_INSTALLED}
        return
    rows = [row for row in REFERENCE[part](benchmark, library) if "tool" in row]
    if part == "adversarial-training":
        rows += _art_training(benchmark)
    yield from _with_ratios(rows, benchmark.config.device)


def _with_ratios(rows: Sequence[Row], device: str) -> Iterator[Row]:
    """Rows of notbugs first; times over those of the first of them, with the fewest steps."""
    column = "cpu_seconds" if device == "cpu" else "seconds"
    ordered = sorted(rows, key=lambda row: (row["tool"] != "notbugs", row["tool"], -row.get("steps", 0)))
    own = [row for row in ordered if row["tool"] == "notbugs"]
    first = min(own, key=lambda row: row["steps"])
    ordered.remove(first)
    for row in (first, *ordered):
        yield row | ({"cpu_time_ratio": row[column] / first[column]} if column in row else {})


def _art_training(benchmark: Benchmark) -> Iterator[Row]:
    """One epoch of ART's adversarial trainer on PGD with the library's steps."""
    try:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.defences.trainer import AdversarialTrainer
    except ImportError:
        yield {"tool": "ART", **NOT_INSTALLED}
        return
    config, options = benchmark.config, benchmark.options
    dataset: Dataset = training_images(benchmark, options.training_images)
    images, labels = dataset.pixels(slice(None)).numpy(), dataset.labels.numpy()

    def run(steps: int) -> tuple[Clock, None]:
        model = benchmark.model("adversarial", options.seed).to(config.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        classifier = art_classifier(benchmark, model, optimizer=optimizer)
        attack = ProjectedGradientDescentPyTorch(
            classifier,
            norm=np.inf if config.norm == "linf" else 2,
            eps=config.epsilon,
            eps_step=config.epsilon / 5,
            max_iter=steps,
            batch_size=config.batch_size,
            verbose=False,
        )
        start = Clock.now(config.device)
        AdversarialTrainer(classifier, attack, ratio=1.0).fit(images, labels, batch_size=config.batch_size, nb_epochs=1)
        return Clock.now(config.device).since(start), None

    train: Run = run
    columns = {"epsilon": config.epsilon, "batch_size": config.batch_size}
    works = [Work("ART", "AdversarialTrainer", TRAINING_STEPS, train)]
    yield from shortest_of_rounds(works, len(dataset), options.rounds, lambda _: {}, **columns)


WORK: dict[str, Callable[[Benchmark], Iterator[Row]]] = {
    "pgd": pgd,
    "apgd": apgd,
    "autoattack": autoattack,
    **{part: partial(_beside_library, part) for part in ("relabeling", "robust-version", "adversarial-training")},
}
