"""A fake GPU: tensors that report the device `cuda`, hold real values on the CPU, and raise where those on a GPU would raise.

    with fake_gpu() as gpu:
        ...  # device="cuda" works; mixed devices, .numpy(), a generator or an index of another device raise as on a GPU
    gpu.synchronizations, gpu.launches

launches: operations of torch other than views; a GPU may need several kernels for one. synchronizations: the CPU waits for a
result, or for a copy to the GPU. Not tested: speed, rounding, bfloat16 and errors of a GPU's own libraries.
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

GPU = torch.device("cuda:0")
CPU = torch.device("cpu")
ops: Any = torch.ops.aten
# operations that take tensors of both devices: copies, and indexing a GPU tensor with an index on the CPU
MIXED = {ops.copy_.default, ops._to_copy.default, ops.index.Tensor, ops.index_put.default, ops.index_put_.default}
INDEXING = MIXED - {ops.copy_.default, ops._to_copy.default}
# operations whose result, or its size, the CPU has to wait for
SYNCHRONIZING = {ops._local_scalar_dense.default, ops.nonzero.default, ops.masked_select.default, ops.repeat_interleave.Tensor}
SYNCHRONIZING |= {ops.equal.default, ops.allclose.default, ops._unique2.default, ops.bincount.default, ops._linalg_eigh.default}


class FakeCudaTensor(torch.Tensor):
    """Reports `cuda`. Inside torch it is on the device `meta`, which computes nothing, so nothing can bypass `FakeCudaMode`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "FakeCudaTensor":
        options: Any = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        found: FakeCudaTensor = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device="meta", **options)  # type: ignore[attr-defined]
        found.inner = inner.detach()
        return found

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FakeCudaTensor({self.inner})"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} was called outside of `fake_gpu`")


class Generator(torch._C.Generator):
    """A generator of either device; both draw the same numbers."""

    own_device: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> "Generator":
        found = super().__new__(cls, "cpu")
        found.own_device = torch.device(device)
        return found

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.own_device


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """A value with each leaf of its tuples, lists and dicts changed. With torch's `tree_map` tests take three times as long."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([_mapped(change, each) for each in value])
    return {name: _mapped(change, each) for name, each in value.items()} if kind is dict else change(value)


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in tuples, lists and dicts."""
    found: list[Tensor] = []
    _mapped(lambda each: found.append(each) if isinstance(each, Tensor) else None, value)
    return found


def _is_cuda(device: object) -> bool:
    return isinstance(device, str | torch.device) and str(device).split(":")[0] in ("cuda", "meta")


class FakeCudaMode(TorchDispatchMode):
    """Runs every operation on the CPU, after the checks of a GPU, and counts launches and synchronizations."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.synchronizations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = _tensors((args, kwargs))
        on_gpu = [each for each in given if isinstance(each, FakeCudaTensor)]
        if on_gpu and function not in MIXED and any(each.dim() for each in given if not isinstance(each, FakeCudaTensor)):
            raise RuntimeError(f"Expected all tensors to be on the same device: {function}")
        if on_gpu and function in INDEXING and not isinstance(args[0], FakeCudaTensor):
            raise RuntimeError(f"indices should be on the CPU or on the indexed tensor's device: {function}")
        if on_gpu and function in INDEXING and len(args) > 2 and args[2].dim() and not isinstance(args[2], FakeCudaTensor):
            raise RuntimeError(f"Expected all tensors to be on the same device: {function}")
        to_gpu = _is_cuda(kwargs["device"]) if kwargs.get("device") is not None else bool(on_gpu)
        if function is ops.copy_.default:
            to_gpu = isinstance(args[0], FakeCudaTensor)
        if "device" in kwargs:
            kwargs["device"] = CPU
        inner = _mapped(lambda each: each.inner if isinstance(each, FakeCudaTensor) else each, (args, kwargs))
        found = function(*inner[0], **inner[1])
        self._count(function, args, given, on_gpu, to_gpu)
        if not to_gpu:
            return found if on_gpu else return_and_correct_aliasing(function, args, kwargs, found)
        wrapped = _mapped(lambda each: FakeCudaTensor(each) if isinstance(each, Tensor) else each, found)
        return return_and_correct_aliasing(function, args, kwargs, wrapped)

    def _count(self, function: Any, args: Any, given: list[Tensor], on_gpu: list[FakeCudaTensor], to_gpu: bool) -> None:
        on_cpu = [each for each in given if not isinstance(each, FakeCudaTensor) and each.dim()]
        masks = function in INDEXING and any(each.dtype == torch.bool for each in _tensors(args[1]))
        waits = bool(on_gpu) and (not to_gpu or masks or function in SYNCHRONIZING)
        self.synchronizations += waits or (to_gpu and bool(on_cpu))  # a copy from memory that is not pinned synchronizes, too
        self.launches += to_gpu and not function.is_view


class CudaAsMeta(TorchFunctionMode):
    """Replaces the device `cuda` in calls from Python by `meta`, which torch accepts without a GPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if isinstance(first, FakeCudaTensor) and function in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if isinstance(first, FakeCudaTensor) and function in (Tensor.cpu, Tensor.tolist, Tensor.__format__):
            return function(first.to("cpu"), *args[1:])
        if function in (torch.tensor, torch.as_tensor) and _is_cuda(kwargs.get("device")) and not isinstance(first, Tensor):
            return function(*args, **{**kwargs, "device": "cpu"}).to("meta")
        generator = kwargs.get("generator")
        if isinstance(generator, torch._C.Generator):
            cuda = _is_cuda(kwargs["device"]) if "device" in kwargs else any(isinstance(each, FakeCudaTensor) for each in args)
            if cuda != (generator.device.type == "cuda"):
                raise RuntimeError(f"Expected a {'cuda' if cuda else 'cpu'} generator but found {generator.device}: {function}")
        if function is not torch.device:
            args, kwargs = _mapped(lambda each: "meta" if _is_cuda(each) else each, (args, kwargs))
        return function(*args, **kwargs)


@contextmanager
def fake_gpu() -> Iterator[FakeCudaMode]:
    """One fake GPU, for this thread; models and tensors on it cannot be used afterwards."""

    def without_modes(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return function(*args, **kwargs)

        return called

    replacements: dict[str, Any] = {
        "torch.Generator": Generator,
        "torch.cuda.get_rng_state": lambda *_: torch.get_rng_state(),
        "torch.cuda.set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "torch.cuda.manual_seed": torch.default_generator.manual_seed,
        "torch.cuda.get_device_name": lambda *_: "fake GPU",
        "safetensors.torch.load_file": without_modes(safetensors.torch.load_file),
    }
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    mode = FakeCudaMode()
    try:
        with ExitStack() as stack:
            for name, replacement in replacements.items():
                stack.enter_context(mock.patch(name, replacement))
            stack.enter_context(CudaAsMeta())
            yield stack.enter_context(mode)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
