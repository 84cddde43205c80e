"""The paper's figures on CIFAR-10, in pieces that can be stopped, and what is asked of them.

    python benchmarks/cifar10.py CIFAR10 --run runs/cifar10 --out benchmarks/results/cifar10-gpu.json --minutes 8
    python benchmarks/cifar10.py cifar8k.npz --run runs/cifar --out benchmarks/results/cifar10-cpu.json --width 8 --epochs 16

Stopped at any moment, by Ctrl-C or by --minutes, the same command goes on: whole stages and finished rows are kept. A study that
is in RUN already keeps its settings.

study        `notbugs run SOURCE --recipe paper` in RUN, stage by stage: the paper's table, seconds a stage, memory
autoattack   the verdicts on the adversarially trained and the D_R models beside AutoAttack (torchattacks), same images
storage      random labels (never the old one), kept in 8 bits, as everywhere, and in 16-bit floats: what the rounding costs
floor        images a second of each kind of work, in float32, in bfloat16 and (with --compile) compiled, against bare float32
             forward and backward passes of the same network, and these against what matrix products reach on the same device
versions     other ways to build D_R, ordinary training on each: is there a better one?

What is printed goes to --out, from which `python benchmarks/table.py FILE.json` makes the tables.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from environment import facts  # the file beside this one

from notbugs import attacks, construct, data, metrics, models, search, train
from notbugs.data import Dataset
from notbugs.report.findings import replication
from notbugs.runs.folder import RunFolder, write_atomic
from notbugs.search import NormBall, objectives
from notbugs.study import config, pipeline, tasks
from notbugs.study.config import StudyConfig, known

Row = dict[str, Any]
PAPER_STEPS: Row = {"steps": 1000, "rule": construct.paper_update_rule(), "half": True}
PARTS = ("study", "autoattack", "storage", "floor", "versions")


class OutOfTime(KeyboardInterrupt):
    """Stops a study as Ctrl-C does."""


class Bench:
    """What every part is given, and the rows so far."""

    def __init__(self, options: argparse.Namespace, rows: list[Row]) -> None:
        self.folder, self.rows, self.options, self.began = options.run, rows, options, time.monotonic()
        device = "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device.replace("auto", "cpu")
        settings: Row = {"source": options.source}
        seeds = options.seeds or 3
        settings |= {name: getattr(options, name) for name in ("limit", "width", "epochs", "network", "half", "compile")}
        if (self.folder / "run.json").exists():
            known_run = RunFolder.read(self.folder).metadata
            settings = known_run["asked"] | {name: settings[name] for name in ("half", "compile")}
            seeds = options.seeds or known_run["seeds"][-1] - settings["seed"] + 1
        asked = StudyConfig(**settings, seeds=seeds, recipe="paper", device=device)
        self.plan = config.resolve(asked, config.load(asked))
        self.threat_model = NormBall(self.plan.norm, known(self.plan.epsilon))

    def over(self) -> bool:
        """Whether this piece has had its time."""
        return bool(self.options.minutes) and time.monotonic() - self.began > 60 * self.options.minutes

    def has(self, **what: Any) -> bool:
        return any(all(row.get(key) == value for key, value in what.items()) for row in self.rows)

    def seeds(self) -> range:
        return range(self.plan.seed, self.plan.seed + known(self.plan.seeds))

    def model(self, name: str, seed: int) -> models.Model:
        return tasks.load_model(self.plan, self.folder, seed, name)


# ---- the study ---------------------------------------------------------------------------------------------------------


def of_study(bench: Bench) -> Iterator[Row]:
    """The paper's recipe; its figures so far, whether or not it is finished."""
    command = f"notbugs run {bench.plan.source} --recipe paper"

    def report_progress(stage: str, share: float, words: str) -> None:
        if share >= 1 and not words:
            print(f"done: {stage}", flush=True)
            if bench.over():
                raise OutOfTime

    with suppress(OutOfTime):
        only = bench.options.stages or None
        pipeline.run(
            bench.plan, bench.folder, only=only, command=command, workers=bench.options.workers, report_progress=report_progress
        )
    run = RunFolder.read(bench.folder)
    yield from ({"part": "study", **row} for row in replication.replication_rows(run))
    columns, lines = replication.figure_3(run)
    yield from ({"part": "figure 3", **dict(zip(columns, line, strict=True))} for line in lines)
    spent: dict[str, list[float]] = {}
    for name, stage in run.metadata["stages"].items():
        spent.setdefault(name.split("/")[1], []).append(stage["seconds"])
    whole = sum(map(sum, spent.values()))
    for name, seconds in sorted(spent.items(), key=lambda one: -sum(one[1])):
        mean = sum(seconds) / len(seconds)
        yield {"part": "seconds", "stage": name, "seconds": mean, "share": sum(seconds) / whole, "seeds": len(seconds)}
    about = {
        "finished": run.metadata["finished"],
        "training_images": run.metadata["data"]["train"],
        "recipe": run.metadata["recipe"],
    }
    yield {"part": "whole", "seconds": whole, "seeds": len(run.metadata["seeds"]), **about, **memory(bench.plan.device)}


def memory(device: str) -> Row:
    """The most that this process has held, in MiB."""
    if device.startswith("cuda"):
        return {"peak_device_mib": torch.cuda.max_memory_allocated() / 2**20}
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


# ---- AutoAttack ----------------------------------------------------------------------------------------------------------


def of_autoattack(bench: Bench) -> Iterator[Row]:
    """Who leaves fewer images, at both radii, of the first seed's models; in pieces of 100 images."""
    import torchattacks

    splits = config.load(bench.plan)
    count = min(bench.options.images, len(splits.test))
    part = splits.test.select(torch.arange(count) * len(splits.test) // count)
    norm = {"l2": "L2", "linf": "Linf"}[bench.plan.norm]
    for name in ("adversarial", "on-robust", "on-robust-noise"):
        for radius in (bench.threat_model.epsilon / 2, bench.threat_model.epsilon):
            for first in range(0, count, 100):
                if bench.has(part="autoattack", model=name, radius=radius, first=first) or bench.over():
                    continue
                some = part.select(torch.arange(first, min(first + 100, count)))
                model = bench.model(name, bench.plan.seed).to(bench.plan.device)
                began = time.perf_counter()
                ours = metrics.robust_accuracy(
                    model, some, [replace(bench.threat_model, epsilon=radius)], device=bench.plan.device
                )[-1]
                middle = time.perf_counter()
                images, labels = some.pixels(slice(None)).to(bench.plan.device), some.labels.to(bench.plan.device)
                view = models.fuse_batchnorm(model, images, bench.plan.device)  # searched and judged on, as ours is
                attack = torchattacks.AutoAttack(view, norm=norm, eps=radius, n_classes=len(part.classes), seed=0)
                with models.frozen(view):
                    attacked = attack(images, labels)
                    theirs = int((view(attacked).argmax(1) == labels).sum())
                spent = {"seconds": middle - began, "autoattack_seconds": time.perf_counter() - middle}
                told = {"part": "autoattack", "model": name, "radius": radius, "first": first, "n": len(some)}
                yield told | {"ours": ours["correct"], "autoattack": theirs, **spent}


# ---- storage -------------------------------------------------------------------------------------------------------------


class Kept:
    """Images (N, C, H, W) of any type on the scale of 8-bit ones, to be trained on."""

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        self.images, self.labels, self.classes = images, labels, classes


def of_storage(bench: Bench) -> Iterator[Row]:
    """The same search, kept in 8 bits and in 16-bit floats (0 to 255): what ordinary training reads of the real test images."""
    for seed in bench.seeds():
        if all(bench.has(part="storage", seed=seed, kept=kept) for kept in ("8 bits", "float16")) or bench.over():
            continue
        splits = config.load(bench.plan, seed)
        labels = construct.random_labels(splits.train.labels, len(splits.train.classes), seed=seed)
        view = models.fuse_batchnorm(bench.model("standard", seed), splits.train.pixels(slice(0, 2)), bench.plan.device)
        threat_model = replace(bench.threat_model, epsilon=known(bench.plan.relabel_epsilon))

        def push(
            images: Tensor, index: Tensor, view: Any = view, threat_model: NormBall = threat_model, wanted: Tensor = labels
        ) -> Any:
            goal = objectives.targeted(view, wanted[index].to(images.device), "loss")
            rule = search.cosine_steps(threat_model, 2 * threat_model.epsilon, end=0.01)
            found = search.maximize(goal, images, threat_model, steps=bench.plan.relabel_steps, rule=rule).images
            return data.to_8bit(threat_model.round_to_8bit(found, images)), (255 * found).bf16()

        columns: Any = data.map_batches(push, splits.train, batch_size=250, device=bench.plan.device)
        for name, images in zip(("8 bits", "float16"), columns, strict=True):
            if bench.has(part="storage", seed=seed, kept=name):
                continue
            model = fresh(bench, "storage", seed)  # from the same weights
            fit = partial(train.fit, epochs=known(bench.plan.epochs), batch_size=known(bench.plan.batch_size), seed=seed)
            fit(
                model,
                Kept(images.cpu(), labels, splits.train.classes),
                learning_rate=known(bench.plan.relabel_learning_rate),
                weight_decay=known(bench.plan.weight_decay),
                patience=known(bench.plan.patience),
                device=bench.plan.device,
            )
            row = metrics.clean_accuracy(model, splits.test, device=bench.plan.device)
            apart = (images.cpu().float() / 255 - splits.train.pixels(slice(None))).flatten(1).norm(dim=1)
            yield {"part": "storage", "kept": name, "seed": seed, "mean_l2": float(apart.mean()), **row}


def fresh(bench: Bench, name: str, seed: int) -> models.Model:
    """A network of the plan's kind that nothing was taught yet."""
    shape, classes = config.load(bench.plan, seed).train.shape, config.load(bench.plan, seed).train.classes
    statistics = tasks.pixel_statistics(config.load(bench.plan, seed).train)
    settings = {"shape": shape, "classes": len(classes), "width": bench.plan.width, "seed": tasks.derive_seed(seed, name)}
    return models.build(str(bench.plan.network), **settings, **statistics)


# ---- floor ---------------------------------------------------------------------------------------------------------------


def of_floor(bench: Bench) -> Iterator[Row]:
    """Images a second: bare passes, then each kind of work in passes of the same kind; arithmetic from torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    device, steps = bench.plan.device, 10
    splits = config.load(bench.plan)
    part = splits.train.select(torch.arange(min(1000, len(splits.train))))
    model = fresh(bench, "floor", 0)
    view = models.fuse_batchnorm(model, part.pixels(slice(0, 2)), device)
    few = part.select(torch.arange(min(250, len(part))))
    batch, labels = few.pixels(slice(None)).to(device), few.labels.to(device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    threat_model, classes = bench.threat_model, len(part.classes)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(view(batch[:1].clone().requires_grad_()), labels[:1]).backward()  # the counter knows no autograd.grad
    flops = counter.get_total_flops()
    side = 4096 if device.startswith("cuda") else 1024
    one = torch.rand(side, side, device=device)
    matmul = 2 * side**3 / seconds(lambda: one @ one, device)

    def report(work: str, passes: float, images: int, spent: float, floor: float | None, per: int = flops) -> Row:
        rate = passes * images / spent
        told = {"part": "floor", "work": work, "passes_a_second": rate, "of_floor": rate / floor if floor else 1.0}
        return told | {"gflops": rate * per / 1e9, "of_matmul": rate * per / matmul, "threads": torch.get_num_threads()}

    bare = report("forward and input-backward, bare", 1, len(few), seconds(lambda: _bare(view, batch, labels), device), None)
    floor = bare["passes_a_second"]
    yield bare
    with models.frozen(view):
        spent = seconds(lambda: attacks.pgd(view, batch, labels, threat_model=threat_model, steps=steps), device)
    yield report(f"attack, {steps} steps", steps, len(few), spent, floor)
    wanted, long = construct.next_labels(few.labels, classes), 40
    ways: dict[str, Row] = {"float32": {"half": False}, "bfloat16": {"half": True}}
    if bench.options.compile:
        ways["compiled, bfloat16"] = {"half": True, "compile": True}
    for way, how in ways.items():
        relabelled = partial(construct.relabel, model, few, wanted, threat_model=threat_model, steps=steps, device=device, **how)
        yield report(f"relabelled set, {steps} steps, {way}", steps, len(few), seconds(relabelled, device), floor)
        inverted = partial(construct.invert_features, model, few, steps=long, device=device, **how)
        spent = seconds(inverted, device)
        yield report(f"D_R or D_NR, {long} steps with all that goes before, {way}", long, len(few), spent, floor)
    learner = fresh(bench, "floor", 0).to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(learner(batch[:2]), labels[:2]).backward()
    whole = counter.get_total_flops() // 2
    bare = report("forward and backward, bare", 1, len(few), seconds(lambda: _step(learner, batch, labels), device), None, whole)
    yield bare

    def fit(loss: train.Loss, how: Row) -> Callable[[], Any]:
        settings = {"epochs": 1, "batch_size": 250, "learning_rate": 1e-4, "augment": train.random_translate(4, flip=True)}
        return lambda: train.fit(learner, part, loss, device=device, **settings, **how)  # type: ignore[arg-type]

    inner = bench.plan.adversarial_steps
    attack = train.adversarial_loss(partial(attacks.pgd, threat_model=threat_model, steps=inner, loss="cross_entropy"))
    least = len(part) * (inner / floor + 1 / bare["passes_a_second"])
    for way, how in ways.items():
        spent = seconds(fit(train.cross_entropy, how), device, 3)
        yield report(f"ordinary training, augmented, {way}", 1, len(part), spent, bare["passes_a_second"], whole)
        spent = seconds(fit(attack, how), device, 3)
        told = {"part": "floor", "work": f"adversarial training, {inner} steps, {way}", "passes_a_second": len(part) / spent}
        yield told | {"of_floor": least / spent, "threads": torch.get_num_threads()}
    yield {"part": "floor", "work": "matrix product, bare", "gflops": matmul / 1e9, "threads": torch.get_num_threads()}


def _bare(view: Any, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(view(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def _step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]


def seconds(work: Callable[[], Any], device: str, rounds: int = 5) -> float:
    """The least of several rounds, after one to warm up."""
    spent = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return min(spent[1:])


# ---- other ways to D_R ---------------------------------------------------------------------------------------------------


class Sees(Protocol):
    """What a model looks at: images -> features (N, F)."""

    def features(self, images: Tensor) -> Tensor: ...


class Together(nn.Module):
    """The features of several models side by side, each model's as large as the others' on the whole."""

    def __init__(self, parts: list[Any], sample: Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        with torch.no_grad():
            self.sizes = [float(part.features(sample).norm(dim=1).mean()) for part in parts]

    def features(self, images: Tensor) -> Tensor:
        return torch.cat([part.features(images) / size for part, size in zip(self.parts, self.sizes, strict=True)], dim=1)


class Layers(nn.Module):
    """The penultimate layer and, a quarter as large, what the blocks before it say on the mean of each 4x4 tile."""

    def __init__(self, model: Any, sample: Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.sizes = [float(seen.norm(dim=1).mean()) for seen in self.seen(sample)]

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        body = [module for name, module in self.model.body.named_children()]
        handle = body[len(body) // 2].register_forward_hook(lambda *told: kept.append(told[2]))
        try:
            last = self.model.features(images)
        finally:
            handle.remove()
        return last, F.adaptive_avg_pool2d(kept[0], 4).flatten(1)

    def features(self, images: Tensor) -> Tensor:
        last, middle = self.seen(images)
        return torch.cat([last / self.sizes[0], 0.25 * middle / self.sizes[1]], dim=1)


class Noisy(nn.Module):
    """The features of images with fresh noise on them, each time that is looked: a faint trail does not survive it."""

    def __init__(self, model: Any, size: float) -> None:
        super().__init__()
        self.model, self.size, self.chance = model, size, torch.Generator().manual_seed(0)

    def features(self, images: Tensor) -> Tensor:
        noise = torch.randn(images.shape, generator=self.chance)
        seen: Tensor = self.model.features(images + self.size * noise.to(images))
        return seen


def of_versions(bench: Bench) -> Iterator[Row]:
    """Ways to build D_R from the same run's models; what ordinary training on each reads, unchanged and under attack."""
    for seed in bench.seeds():
        splits = config.load(bench.plan, seed)
        part = splits.train.select(torch.arange(min(bench.options.files, len(splits.train))))
        for name, way in ways_to_robust(bench, seed, part.pixels(slice(0, 100))).items():
            if bench.options.ways and name not in bench.options.ways:
                continue
            training = bool(bench.plan.bf16)
            if bench.has(part="versions", way=name, seed=seed, files=len(part), training_half=training) or bench.over():
                continue
            view, settings = way()
            began = time.perf_counter()
            settings = {"steps": known(bench.plan.invert_steps), "half": training, **settings}
            made = construct.invert_features(view, part, seed=seed, device=bench.plan.device, **settings)
            middle = time.perf_counter()
            # as many steps as on one version; `trained` sees to it only where there are more images than in the whole set
            share = len(part) / len(made.dataset) * max(1, len(made.dataset) / len(splits.train))
            rows = _taught(bench, made.dataset, splits.test, seed, share)
            told = {
                "part": "versions",
                "way": name,
                "seed": seed,
                "files": len(part),
                "half": settings["half"],
                "training_half": training,
                "feature_error": made.stats["feature_error"],
            }
            shares = {key: row["accuracy"] for key, row in zip(("clean", "half_radius", "radius"), rows, strict=True)}
            spent = {"seconds": middle - began, "training_seconds": time.perf_counter() - middle}
            yield told | shares | {"n": rows[0]["n"], **spent}


def ways_to_robust(bench: Bench, seed: int, sample: Tensor) -> dict[str, Callable[[], tuple[Any, Row]]]:
    """By name: what is to be seen alike, and the settings of `construct.inverted`."""
    robust = partial(bench.model, "adversarial", seed)

    def several(*others: models.Model) -> tuple[Any, Row]:
        return Together([models.fuse_batchnorm(model, sample) for model in (robust(), *others)], sample), {}

    return {
        "as in the study": lambda: (robust(), {}),
        "from noise": lambda: (robust(), {"start": "noise"}),
        "in float32": lambda: (robust(), {"half": False}),
        "in bfloat16": lambda: (robust(), {"half": True}),
        "by the paper's steps, 1,000 of 0.1, in bfloat16": lambda: (robust(), PAPER_STEPS),
        "80 steps": lambda: (robust(), {"steps": 80}),
        "two versions of each file, half the passes": lambda: (robust(), {"times": 2}),
        "four versions of each file, a quarter of the passes": lambda: (robust(), {"times": 4}),
        "through noise of 0.03": lambda: (Noisy(models.fuse_batchnorm(robust(), sample), 0.03), {}),
        "with a middle layer": lambda: (Layers(models.fuse_batchnorm(robust(), sample), sample), {}),
        "a model trained at twice the radius": lambda: (_stronger(bench, seed, "wide", 2.0), {}),
        "with the model trained at half the radius": lambda: several(bench.model("adversarial-half", seed)),
        "without labels: a robust model of which way up an image is": lambda: (_upright(bench, seed), {}),
        "with a second such model": lambda: several(_stronger(bench, seed, "again", 1.0)),
    }


def _stronger(bench: Bench, seed: int, name: str, radius: float) -> models.Model:
    """A further robust model, trained once and kept in RUN/models."""
    path = bench.folder / "models" / f"bench-{name}-seed{seed}.safetensors"
    if not path.exists():
        options: Row = {"loss": "adversarial", "on": "original", "seed": seed, "radius": radius, "path": path}
        tasks.train_classifier(bench.plan, config.load(bench.plan, seed).train, name, **options, report_progress=lambda *_: None)
    return models.load(path, bench.plan.network)[0]


def _upright(bench: Bench, seed: int) -> models.Model:
    """A robust model that was told no class: it learnt by how many quarter turns images were turned (Gidaris et al. 2018)."""
    path = bench.folder / "models" / f"bench-upright-seed{seed}.safetensors"
    if not path.exists():
        part = config.load(bench.plan, seed).train
        images = torch.cat([part.images[:].rot90(turns, (2, 3)) for turns in range(4)])
        turned = Dataset(images, torch.arange(4).repeat_interleave(len(part)), tuple("0123"), part.names * 4)
        options: Row = {"loss": "adversarial", "on": "original", "seed": seed, "path": path}
        tasks.train_classifier(
            bench.plan, turned, "upright", **options, report_progress=lambda *_: None
        )  # for a quarter of the passes, as long
    return models.load(path, bench.plan.network)[0]


def _taught(bench: Bench, part: Dataset, test: Dataset, seed: int, share: float) -> list[Row]:
    """Ordinary training as in the study, for a share of its passes, and what it reads."""
    own = replace(bench.plan, epochs=max(1, round(share * known(bench.plan.epochs))))
    model = tasks.train_classifier(
        own, part, "on-robust", loss="plain", on="robust", seed=seed, path=None, report_progress=lambda *_: None
    )[0]
    count = min(bench.options.images, len(test))
    some = test.select(torch.arange(count) * len(test) // count)
    radii = [replace(bench.threat_model, epsilon=bench.threat_model.epsilon / 2), bench.threat_model]
    return metrics.robust_accuracy(model, some, radii, device=bench.plan.device)


# ---- one command ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--run", type=Path, required=True, help="the study's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--stages", nargs="+", default=[], help="of `study`: these alone, without their seed, and what they need")
    parser.add_argument("--minutes", type=float, default=0, help="stop after the stage or row that is then at work; 0: never")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seeds", type=int, help="of a new study 3, of one that is there as many as it has")
    parser.add_argument("--network")
    parser.add_argument("--width", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, help="as of `notbugs run`")
    parser.add_argument("--compile", action="store_true", help="as of `notbugs run`")
    parser.add_argument("--images", type=int, default=1000, help="test images for `autoattack` and `versions`")
    parser.add_argument("--files", type=int, default=10**9, help="training images for `versions`")
    parser.add_argument("--ways", nargs="+", default=[], help="of `versions`: these alone")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    bench = Bench(options, report["rows"])
    ways = {"study": of_study, "autoattack": of_autoattack, "storage": of_storage, "floor": of_floor, "versions": of_versions}
    for part in options.parts:
        if bench.over():
            break
        if part in ("study", "floor"):  # told anew, whole
            again = {"study": ("study", "figure 3", "seconds", "whole"), "floor": ("floor",)}[part]
            bench.rows[:] = [row for row in bench.rows if row["part"] not in again]
        for row in ways[part](bench):
            print("  ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()))
            bench.rows.append({**row, "date": facts(bench.plan.device)["date"]})
            write_atomic(options.out, json.dumps({**facts(bench.plan.device), "rows": bench.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
