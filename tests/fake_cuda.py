"""A GPU that is not there: tensors that say `cuda`, hold real values on the CPU and refuse what those on a GPU would refuse.

    with pretended() as gpu:
        ...  # device="cuda" works; mixed devices, .numpy(), a generator or an index from elsewhere raise as on a GPU
    gpu.waits, gpu.launches

launches: work that is more than a view, as torch's own operations; a GPU may need several for one. waits: for results, and for
copies from the CPU. How fast a GPU is, how it rounds, bfloat16 and what its own libraries say remains untried.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
CPU = torch.device("cpu")
ops: Any = torch.ops.aten
# what may meet tensors of both devices: copies, and a GPU's tensor indexed from the CPU
MIXED = {ops.copy_.default, ops._to_copy.default, ops.index.Tensor, ops.index_put.default, ops.index_put_.default}
INDEXED = MIXED - {ops.copy_.default, ops._to_copy.default}
# whose answer, or whose size, is not known before the work is done
ANSWERED = {ops._local_scalar_dense.default, ops.nonzero.default, ops.masked_select.default, ops.repeat_interleave.Tensor}
ANSWERED |= {ops.equal.default, ops.allclose.default, ops._unique2.default, ops.bincount.default, ops._linalg_eigh.default}


class There(torch.Tensor):
    """Says `cuda`; to torch's own code it is a tensor of the device `meta`, which computes nothing, and so never in its place."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "There":
        about: Any = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        found: There = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device="meta", **about)  # type: ignore[attr-defined]
        found.inner = inner.detach()
        return found

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.inner})"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} was called outside of `pretended`")


class Generator(torch._C.Generator):
    """A generator of either device; what it draws is the same."""

    place: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> "Generator":
        found = super().__new__(cls, "cpu")
        found.place = torch.device(device)
        return found

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place


def _there(device: object) -> bool:
    return isinstance(device, str | torch.device) and str(device).split(":")[0] in ("cuda", "meta")


class Works(TorchDispatchMode):
    """Whatever is computed: on the CPU, after a GPU's questions. launches: what is more than a view; waits: for results."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.waits = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = [each for each in given if isinstance(each, There)]
        if there and function not in MIXED and any(each.dim() for each in given if not isinstance(each, There)):
            raise RuntimeError(f"Expected all tensors to be on the same device: {function}")
        if there and function in INDEXED and not isinstance(args[0], There):
            raise RuntimeError(f"indices should be on the CPU or on the indexed tensor's device: {function}")
        if there and function in INDEXED and len(args) > 2 and args[2].dim() and not isinstance(args[2], There):
            raise RuntimeError(f"Expected all tensors to be on the same device: {function}")
        place = _there(kwargs["device"]) if kwargs.get("device") is not None else bool(there)
        if function is ops.copy_.default:
            place = isinstance(args[0], There)
        if "device" in kwargs:
            kwargs["device"] = CPU
        inner = [tree_map(lambda each: each.inner if isinstance(each, There) else each, part) for part in (args, kwargs)]
        found = function(*inner[0], **inner[1])
        self._count(function, args, given, there, place)
        if not place:
            return found if there else return_and_correct_aliasing(function, args, kwargs, found)
        wrapped = tree_map(lambda each: There(each) if isinstance(each, Tensor) else each, found)
        return return_and_correct_aliasing(function, args, kwargs, wrapped)

    def _count(self, function: Any, args: Any, given: list[Tensor], there: list[There], place: bool) -> None:
        here = [each for each in given if not isinstance(each, There) and each.dim()]
        masks = function in INDEXED and any(each.dtype == torch.bool for each in tree_leaves(args[1]) if isinstance(each, Tensor))
        asked = bool(there) and (not place or masks or function in ANSWERED)
        self.waits += asked or (place and bool(here))  # a copy from memory that is not pinned is waited for, too
        self.launches += place and not function.is_view


class Words(TorchFunctionMode):
    """Whatever is said in Python: `cuda` reaches torch as `meta`, which it takes without a GPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if isinstance(first, There) and function in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if isinstance(first, There) and function in (Tensor.cpu, Tensor.tolist, Tensor.__format__):
            return function(first.to("cpu"), *args[1:])
        if function in (torch.tensor, torch.as_tensor) and _there(kwargs.get("device")) and not isinstance(first, Tensor):
            return function(*args, **{**kwargs, "device": "cpu"}).to("meta")
        chance = kwargs.get("generator")
        if isinstance(chance, torch._C.Generator):
            place = _there(kwargs["device"]) if "device" in kwargs else any(isinstance(each, There) for each in args)
            if place != (chance.device.type == "cuda"):
                raise RuntimeError(f"Expected a {'cuda' if place else 'cpu'} generator but found {chance.device}: {function}")
        if function is not torch.device:
            args, kwargs = tree_map(lambda each: "meta" if _there(each) else each, (args, kwargs))
        return function(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[Works]:
    """One GPU, for this thread; models and tensors made on it are of no use afterwards."""

    def aside(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return function(*args, **kwargs)

        return called

    ways: dict[str, Any] = {
        "torch.Generator": Generator,
        "torch.cuda.get_rng_state": lambda *_: torch.get_rng_state(),
        "torch.cuda.set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "torch.cuda.manual_seed": torch.default_generator.manual_seed,
        "torch.cuda.get_device_name": lambda *_: "no GPU",
        "safetensors.torch.load_file": aside(safetensors.torch.load_file),
    }
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    works = Works()
    try:
        with ExitStack() as stack:
            for name, way in ways.items():
                stack.enter_context(mock.patch(name, way))
            stack.enter_context(Words())
            yield stack.enter_context(works)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
