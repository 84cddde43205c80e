"""The same work by the paper's own library (`robustness`, of the paper's authors) and by notbugs: speed, and what comes out.

    python benchmarks/peer.py CIFAR10 --run runs/cifar10 --out benchmarks/results/peer-gpu.json
    python benchmarks/peer.py cifar8k.npz --run runs/cifar --out benchmarks/results/peer-cpu.json --device cpu --images 100

RUN is a study's folder with the models `standard` and `adversarial`. Both tools get the same network with the same weights, the
same images, targets and batches, on the same device, and take turns; of the rounds' times the least counts. What was made is
rounded to 8 bits and judged by one plain pass of the model on the CPU, the same for both.

relabelled   a set with random labels (D_rand), from the standard model: their targeted attack with the paper's settings, and with
             as many steps as ours; `construct.relabelled` with the study's
robust       the robust version of a set (D_R), from the adversarial model: their inversion, 1000 steps of 0.1, and with as many
             steps as ours; `construct.inverted` with the study's
training     one pass of adversarial training, no augmentation: their loop with 7 steps, `train.fit` with the study's and with 7

seconds_a_step_an_image is all that was spent over steps and images, with what a tool does before and after its steps; where both
take equally many it compares the tools' speed alone. A row with `compared` divides two others: `times` is how many times as many
images a second ours makes, cpu_times the same by processor time, which a busy machine disturbs less (and which says nothing of a
GPU). Rounding to the nearest levels takes many images a little out of the ball; ours are rounded inside it. reached_inside is the
share of targets reached once those outside are drawn back. In the robust part their ways are several:

notebook       steps of a fixed length, the last image: as in the code that the authors published
best           the same, and the image with the least loss is kept: the library's default
unconstrained  0.1 times the bare gradient of the batch's mean loss: the more images a batch has, the shorter the steps

Each tool computes as it does by itself: on a GPU ours moves images and trains in bfloat16 (--no-half: it does not), theirs in
float32. Their inversion passes every image through the network twice a step, once for logits that nobody looks at.
The library calls .cuda() wherever it works. With --device cpu these calls are made to do nothing, and each row says so.
It needs torchvision. Of its many requirements, what is used here runs with

    pip install torchvision dill pandas tqdm tensorboardX && pip install --no-deps robustness cox
"""

import argparse
import copy
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from cifar10 import Bench, Row  # the file beside this one
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from environment import facts

from notbugs import attacks, construct, data, models, train
from notbugs.data import Dataset
from notbugs.runs.folder import write_atomic
from notbugs.search import NormBall
from notbugs.study import config, tasks
from notbugs.study.config import known

PARTS = ("relabelled", "robust", "training")
WAYS = {  # of the library's inversion: what its attacker is told
    "notebook": {"constraint": "2", "eps": 1000, "use_best": False},
    "best": {"constraint": "2", "eps": 1000, "use_best": True},
    "unconstrained": {"constraint": "unconstrained", "eps": 1000, "use_best": False},
}
RELABEL_STEPS, INVERT_STEPS, TRAIN_STEPS = 100, 1000, 7  # the paper's
INVERT_SIZE = 0.1
INSTALL = "pip install torchvision dill pandas tqdm tensorboardX && pip install --no-deps robustness cox"


# ---- the library ---------------------------------------------------------------------------------------------------------


class Library(NamedTuple):
    """What is used of it: the loop, the maker of attackable models, and its bag of arguments."""

    train_model: Callable[..., Any]
    make_and_restore_model: Callable[..., Any]
    arguments: Callable[[dict[str, Any]], Any]


def library() -> Library:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its missing mixed precision, and of what is old in it
            from cox.utils import Parameters  # type: ignore[import-not-found]
            from robustness.model_utils import make_and_restore_model  # type: ignore[import-not-found]
            from robustness.train import train_model  # type: ignore[import-not-found]
    except ImportError as error:
        raise SystemExit(f"the library to compare with cannot be imported: {error}\nto install it: {INSTALL}") from None
    return Library(train_model, make_and_restore_model, Parameters)


@contextmanager
def without_cuda() -> Iterator[None]:
    """Inside, `.cuda()` gives back what it is called on, and DataParallel the module it is given."""

    def same(it: Any, *_: Any, **__: Any) -> Any:
        return it

    with patch.object(Tensor, "cuda", same), patch.object(nn.Module, "cuda", same), patch.object(nn, "DataParallel", same):
        yield


class AsTheirs(nn.Module):
    """A network of ours behind the library's door: normalised pixels in; logits out, and the features with `with_latent`.

    fake_relu and no_relu are about a last layer that is a ReLU. They are taken and not followed: our own search does without.
    """

    def __init__(self, model: models.Classifier) -> None:
        super().__init__()
        self.body, self.head = model.body, model.head

    def forward(self, images: Tensor, with_latent: bool = False, fake_relu: bool = False, no_relu: bool = False) -> Any:
        features = self.body(images)
        logits = self.head(features)
        return (logits, features) if with_latent else logits


class Statistics(NamedTuple):
    """All that the library asks of a data set when it wraps a model: mean and std of the pixels (C,)."""

    mean: Tensor
    std: Tensor


def wrapped(theirs: Library, model: models.Model, device: str) -> Any:
    """The library's attackable model, of a copy with the same weights."""
    if not isinstance(model, models.Classifier):
        raise SystemExit("only notbugs' own networks can be compared: a wrapped one hides its features from the library")
    own = copy.deepcopy(model).to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    statistics = Statistics(own.get_buffer("mean").flatten(), own.get_buffer("std").flatten())
    return theirs.make_and_restore_model(arch=AsTheirs(own), dataset=statistics)[0].eval()


# ---- turns ---------------------------------------------------------------------------------------------------------------


class Clock(NamedTuple):
    """A moment, or a time between two. cpu: of all threads of this process."""

    seconds: float
    cpu: float

    def since(self, began: "Clock") -> "Clock":
        return Clock(self.seconds - began.seconds, self.cpu - began.cpu)


class Work(NamedTuple):
    """One way to do a part's work. run: number of steps -> the time it took and the uint8 images it made, if any."""

    tool: str
    way: str
    steps: int
    run: Callable[[int], tuple[Clock, Tensor | None]]


def now(device: str) -> Clock:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return Clock(time.perf_counter(), time.process_time())


def timed(make: Callable[[int], Tensor], device: str) -> Callable[[int], tuple[Clock, Tensor | None]]:
    def run(steps: int) -> tuple[Clock, Tensor | None]:
        began = now(device)
        made = make(steps)
        return now(device).since(began), made

    return run


def in_turns(works: list[Work], images: int, rounds: int, judge: Callable[[Tensor], Row], **about: Any) -> Iterator[Row]:
    """A row for each, the least of its rounds, as soon as its last one is done; before them one step of each to warm up."""
    for work in works:
        work.run(1)
    least = [Clock(float("inf"), float("inf"))] * len(works)
    for turn in range(rounds):
        for place, work in enumerate(works):
            spent, made = work.run(work.steps)
            least[place] = Clock(*map(min, least[place], spent))
            if turn + 1 < rounds:
                continue
            row: Row = {"tool": work.tool, "way": work.way, "steps": work.steps, "n": images, **about, "rounds": rounds}
            row |= {"seconds": least[place].seconds, "cpu_seconds": least[place].cpu}
            row |= {"images_a_second": images / least[place].seconds}
            if made is not None:
                row |= {"seconds_a_step_an_image": least[place].seconds / images / work.steps, **judge(made)}
            yield row


def with_ratios(rows: Iterator[Row], pairs: dict[str, tuple[tuple[str, int], tuple[str, int]]]) -> Iterator[Row]:
    """The rows, then what pairs of them give. pairs: by name, way and steps of ours and of theirs."""
    seen: dict[tuple[str, int], Row] = {}
    for row in rows:
        seen[row["way"], row["steps"]] = row
        yield row
    for name, (one, other) in pairs.items():
        ours, theirs = seen[one], seen[other]
        told: Row = {"compared": name, "ours": " ".join(map(str, one)), "theirs": " ".join(map(str, other)), "n": ours["n"]}
        told |= {"times": theirs["seconds"] / ours["seconds"], "cpu_times": theirs["cpu_seconds"] / ours["cpu_seconds"]}
        if "seconds_a_step_an_image" in ours:
            told["times_a_step"] = theirs["seconds_a_step_an_image"] / ours["seconds_a_step_an_image"]
        yield told


# ---- the parts -----------------------------------------------------------------------------------------------------------


def of_relabelled(bench: Bench, theirs: Library) -> Iterator[Row]:
    device, options = bench.plan.device, bench.options
    part, model = some(bench, options.images), bench.model("standard", options.seed)
    threat_model = NormBall("l2", known(bench.plan.relabel_epsilon))
    targets = construct.random_labels(part.labels, len(part.classes), seed=options.seed)
    attackable = wrapped(theirs, model, device)
    told = {
        "constraint": "2",
        "eps": threat_model.epsilon,
        "step_size": threat_model.epsilon / 5,
        "targeted": True,
        "do_tqdm": False,
    }

    def of_theirs(steps: int) -> Tensor:
        return batches(bench, part, lambda images, index: attacked(attackable, images, targets[index], steps, **told))

    def of_ours(steps: int) -> Tensor:
        return tensor(
            construct.relabel(model, part, targets, threat_model=threat_model, steps=steps, **our_settings(bench)).dataset
        )

    def judge(made: Tensor) -> Row:
        originals = part.pixels(slice(None))
        apart = threat_model.distance(data.from_8bit(made) - originals)
        inside = data.to_8bit(threat_model.round_to_8bit(data.from_8bit(made), originals))
        names = {"reached": made, "reached_inside": inside}
        shares = {name: (seen_by(model, images).argmax(1) == targets).float().mean().item() for name, images in names.items()}
        return {**shares, "mean_l2": apart.mean().item(), "max_l2": apart.max().item()}

    usual = bench.plan.relabel_steps
    works = [
        Work("robustness", "targeted attack", RELABEL_STEPS, timed(of_theirs, device)),
        Work("notbugs", "relabelled", usual, timed(of_ours, device)),
        Work("robustness", "targeted attack", usual, timed(of_theirs, device)),
    ]
    pairs = {
        "usual settings": (("relabelled", usual), ("targeted attack", RELABEL_STEPS)),
        "equal steps": (("relabelled", usual), ("targeted attack", usual)),
    }
    about = {"epsilon": threat_model.epsilon, "batch_size": options.batch_size}
    yield from with_ratios(in_turns(works, len(part), options.rounds, judge, **about), pairs)


def of_robust(bench: Bench, theirs: Library) -> Iterator[Row]:
    device, options = bench.plan.device, bench.options
    part, model = some(bench, options.images), bench.model("adversarial", options.seed)
    attackable = wrapped(theirs, model, device)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(options.seed))
    partner = torch.empty_like(order).scatter(0, order, order.roll(1))  # as `construct.inverted` pairs them: the same starts
    starts = part.pixels(partner)

    def distance(network: Any, images: Tensor, wanted: Tensor) -> tuple[Tensor, None]:
        seen = network(images, with_latent=True, fake_relu=True)[1]
        return (seen - wanted).norm(dim=1) / wanted.norm(dim=1), None

    def of_theirs(way: str) -> Callable[[int], Tensor]:
        told = {**WAYS[way], "step_size": INVERT_SIZE, "targeted": True, "do_tqdm": False, "custom_loss": distance}

        def invert(steps: int, images: Tensor, index: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = attackable(images, with_latent=True)[0][1]
            return attacked(attackable, starts[index].to(device), wanted, steps, **told)

        return lambda steps: batches(bench, part, partial(invert, steps))

    def of_ours(steps: int) -> Tensor:
        return tensor(construct.invert_features(model, part, steps=steps, seed=options.seed, **our_settings(bench)).dataset)

    def judge(made: Tensor) -> Row:
        wanted, seen = seen_by(model.features, tensor(part)), seen_by(model.features, made)
        return {"feature_error": ((seen - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-6)).mean().item()}

    usual, long = known(bench.plan.invert_steps), options.their_steps
    longest = [Work("robustness", way, long, timed(of_theirs(way), device)) for way in options.ways]
    works = [Work("notbugs", "inverted", usual, timed(of_ours, device)), *longest]
    works.append(Work("robustness", options.ways[0], usual, timed(of_theirs(options.ways[0]), device)))
    pairs = {f"usual settings, {way}": (("inverted", usual), (way, long)) for way in options.ways}
    pairs["equal steps"] = (("inverted", usual), (options.ways[0], usual))
    about = {"step_size": INVERT_SIZE, "paper_steps": INVERT_STEPS, "batch_size": options.batch_size}
    for row in with_ratios(in_turns(works, len(part), options.rounds, judge, **about), pairs):
        if row.get("tool") == "notbugs":  # finds its own lengths, and no other number of steps is usual
            del row["step_size"], row["paper_steps"]
        yield row


def of_training(bench: Bench, theirs: Library) -> Iterator[Row]:
    device, options = bench.plan.device, bench.options
    part, model = some(bench, options.training_images), bench.model("adversarial", options.seed)
    threat_model, batch_size = NormBall("l2", known(bench.plan.epsilon)), known(bench.plan.batch_size)

    def of_theirs(steps: int) -> tuple[Clock, None]:
        """From the call to the end of the last training step: what the loop then validates and writes is not counted."""
        ends: list[Clock] = []
        told = {
            **{"adv_train": 1, "adv_eval": 0, "epochs": 1, "log_iters": 1, "save_ckpt_iters": -1, "mixed_precision": False},
            **{"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "step_lr": 50, "step_lr_gamma": 0.1},
            **{"custom_lr_multiplier": None, "custom_eps_multiplier": None, "random_start": 0, "random_restarts": 0},
            **{
                "attack_steps": steps,
                "constraint": "2",
                "eps": threat_model.epsilon,
                "attack_lr": threat_model.epsilon / 5,
                "use_best": 1,
            },
            "iteration_hook": lambda *_: ends.append(now(device)),
        }
        attackable = wrapped(theirs, model, device)
        pairs = TensorDataset(part.pixels(slice(None)), part.labels)
        chance = torch.Generator().manual_seed(0)
        loader = DataLoader(pairs, batch_size, shuffle=True, generator=chance, pin_memory=device.startswith("cuda"))
        one = [torch.cuda.current_device()] if device.startswith("cuda") else None
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # its bars
            began = now(device)
            # nothing to validate on
            theirs.train_model(theirs.arguments({**told, "out_dir": folder}), attackable, (loader, []), dp_device_ids=one)
        return ends[-1].since(began), None

    def of_ours(steps: int) -> tuple[Clock, None]:
        learner = copy.deepcopy(model)
        attack = train.adversarial_loss(partial(attacks.pgd, threat_model=threat_model, steps=steps, loss="cross_entropy"))
        settings = our_settings(bench) | {"batch_size": batch_size}
        began = now(device)
        train.fit(learner, part, attack, epochs=1, learning_rate=1e-3, **settings)
        return now(device).since(began), None

    usual = bench.plan.adversarial_steps
    works = [
        Work("robustness", "train_model", TRAIN_STEPS, of_theirs),
        Work("notbugs", "fit", usual, of_ours),
        Work("notbugs", "fit", TRAIN_STEPS, of_ours),
    ]
    pairs = {
        "usual settings": (("fit", usual), ("train_model", TRAIN_STEPS)),
        "equal steps": (("fit", TRAIN_STEPS), ("train_model", TRAIN_STEPS)),
    }
    about = {"epsilon": threat_model.epsilon, "batch_size": batch_size}
    yield from with_ratios(in_turns(works, len(part), options.rounds, lambda _: {}, **about), pairs)


def our_settings(bench: Bench) -> Row:
    """What each work of ours is told."""
    speed = {"half": bench.plan.bf16, "compile": bench.plan.compile}
    return {"batch_size": bench.options.batch_size, "device": bench.plan.device, **speed}


def some(bench: Bench, count: int) -> Dataset:
    """So many training images, evenly from the set."""
    whole = config.load(bench.plan, bench.options.seed).train
    count = min(count, len(whole))
    return whole.select(torch.arange(count) * len(whole) // count)


def attacked(attackable: Any, images: Tensor, targets: Tensor, steps: int, **told: Any) -> Tensor:
    """What the library's users call, and the image out of what they get."""
    made: Tensor = attackable(images, targets.to(images.device), make_adv=True, iterations=steps, **told)[1]
    return made.detach()


def batches(bench: Bench, part: Dataset, make: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """uint8 images made batch by batch: (images, their places) -> images."""
    places = torch.split(torch.arange(len(part)), bench.options.batch_size)
    return torch.cat([data.to_8bit(make(part.pixels(index).to(bench.plan.device), index)).cpu() for index in places])


def seen_by(view: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What a model of the run, as it is stored and on the CPU, sees in uint8 images."""
    with torch.no_grad():
        seen: Tensor = data.map_batches(lambda some, _: view(some), images)
    return seen


def tensor(made: Dataset) -> Tensor:
    assert isinstance(made.images, Tensor)
    return made.images


# ---- one command ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--run", type=Path, required=True, help="the study's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="told anew; rows of others in OUT are kept")
    parser.add_argument("--seed", type=int, help="whose models of the study (default: its first)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=200, help="for `relabelled` and `robust`")
    parser.add_argument("--training-images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=250, help="of both tools, for `relabelled` and `robust`")
    parser.add_argument("--their-steps", type=int, default=INVERT_STEPS, help="of their inversion")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="of their inversion; equal steps: of the first")
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, help="ours, as of `notbugs run`")
    parser.add_argument("--compile", action="store_true", help="ours, as of `notbugs run`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.set_defaults(limit=None, seeds=None, network=None, width=None, epochs=None, minutes=0)  # the study says
    options = parser.parse_args()
    if not (options.run / "run.json").exists():
        parser.error(f"{options.run} holds no study: make one with `notbugs run {options.source} --out {options.run}`")
    theirs = library()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error("the library works on CUDA devices alone, and torch finds none here; --device cpu measures it all the same")
    torch.set_num_threads(options.threads)
    report = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    bench = Bench(options, [row for row in report["rows"] if row["part"] not in options.parts])
    options.seed = bench.plan.seed if options.seed is None else options.seed
    for name in ("standard", "adversarial"):
        place = tasks.model_path(bench.plan, options.run, options.seed, name)
        if not place.exists():
            parser.error(f"{place} is not there: the study has not come to it, or --seed is another's")
    if bench.plan.norm != "l2":
        parser.error("the paper's settings are in L2, and this study is not")
    on_cpu = bench.plan.device == "cpu"
    if ":" in bench.plan.device:
        torch.cuda.set_device(bench.plan.device)  # where .cuda() leads
    always: Row = {"seed": options.seed, "threads": options.threads, "cuda_calls": "neutralised" if on_cpu else "as they are"}
    always |= {"our_half": bench.plan.bf16, "our_compile": bench.plan.compile}
    works = {"relabelled": of_relabelled, "robust": of_robust, "training": of_training}
    with without_cuda() if on_cpu else nullcontext():
        for part in options.parts:
            for row in works[part](bench, theirs):
                row = {"part": part, **row, **always}
                told = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
                print("  ".join(f"{key}={value}" for key, value in told.items()), flush=True)
                known_facts = facts(bench.plan.device, ("robustness", "torchvision"))
                bench.rows.append({**row, "date": known_facts["date"]})
                write_atomic(options.out, json.dumps({**known_facts, "rows": bench.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
