"""Pretended GPUs: tensors that say they are on `cuda:0` or `cuda:1`, and raise where a real one would.

A tensor's place is kept with its storage, so views, `.data` and parameters follow. Operations that mix places raise as
CUDA's do; `.to`, factories and generators follow their devices; values are the CPU's own, so that a whole trial trains
and evaluates, and its results can be compared with the CPU's to the bit.

Limits: a tensor that C++ makes during a backward pass has no place and goes with any; kernels are the CPU's, so what
only they can show (speed, memory, their rounding) needs a real GPU. torch's own pretended device (openreg) is not in
its wheels, and fake tensors have no values to train on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
# What may have arguments on several devices, as on a GPU: copies, and assignments of whole slices.
MOVES = {"copy_", "__setitem__", "set_", "__set__", "type_as"}
OWN_GENERATOR = torch.Generator


class WrongDevice(RuntimeError):
    """What a real GPU would have refused."""


class Generator(OWN_GENERATOR):
    """A generator of a device: the CPU's numbers, for tensors of that device alone."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls)
        made.place = _device(device)
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore
        return self.place


def _device(value: Any) -> torch.device:
    found = torch.device(f"cuda:{value}" if isinstance(value, int) else value)
    return torch.device("cuda", 0) if found.type == "cuda" and found.index is None else found


def _names_device(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu"))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _storage(tensor: torch.Tensor) -> Any:
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def place_of(tensor: torch.Tensor) -> torch.device | None:
    """Where a tensor pretends to be; None if nobody has said."""
    with torch._C.DisableTorchFunction():
        return getattr(_storage(tensor), "place", None)


def put(tensor: torch.Tensor, device: Any) -> torch.Tensor:
    """Let a tensor pretend to be there."""
    with torch._C.DisableTorchFunction():
        _storage(tensor).place = _device(device)
    return tensor


class Devices(TorchFunctionMode):
    """While it is active, tensors have pretended places."""

    def __init__(self) -> None:
        super().__init__()
        self.in_backward = False

    def where(self, tensor: torch.Tensor) -> torch.device:
        return place_of(tensor) or CPU

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if func == torch.Tensor.device.__get__:  # pyright: ignore
            return self.where(args[0])
        if func == torch.Tensor.is_cuda.__get__:  # pyright: ignore
            return self.where(args[0]).type == "cuda"
        if func == torch.Tensor.is_cpu.__get__:  # pyright: ignore
            return self.where(args[0]).type == "cpu"
        if name in ("to", "cpu", "cuda") and args and isinstance(args[0], torch.Tensor):
            return self.moved(func, name, list(args), kwargs)
        if name in ("numpy", "__array__") and self.where(args[0]).type == "cuda":
            raise WrongDevice("can't convert a cuda tensor to numpy")
        if func == torch.Tensor.grad.__get__:  # pyright: ignore  # made by autograd where its tensor lies
            found = func(*args, **kwargs)
            return found if found is None or place_of(found) else put(found, self.where(args[0]))
        if name == "__deepcopy__":
            return put(func(*args, **kwargs), self.where(args[0]))
        return self.computed(func, name, args, kwargs)

    def moved(self, func: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        here = there = self.where(args[0])
        if name == "to":
            for index, value in enumerate(args[1:], 1):
                if _names_device(value) or (isinstance(value, int) and not isinstance(value, bool) and index == 1):
                    there, args[index] = _device(value), CPU
                elif isinstance(value, torch.Tensor):
                    there = self.where(value)
            if kwargs.get("device") is not None:
                there, kwargs["device"] = _device(kwargs["device"]), CPU
            if "other" in kwargs:
                there = self.where(kwargs["other"])
        elif name == "cpu":
            there = CPU
        else:
            func, there, args, kwargs = torch.Tensor.to, _device("cuda"), [args[0], CPU], {}
        found = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if there != here and _storage(found) is _storage(args[0]):
                found = found.clone()
        return put(found, there)

    def computed(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        made = None
        if kwargs.get("device") is not None:
            made = _device(kwargs["device"])
            kwargs["device"] = CPU
        given = [*_tensors(args), *_tensors(kwargs)]
        generator = kwargs.get("generator")
        if generator is not None:
            target = made or next((self.where(tensor) for tensor in given), CPU)
            if getattr(generator, "place", CPU) != target:
                raise WrongDevice(f"{name}: expected a {target} generator, got one of {generator.device}")
        backward = func in (torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad)
        if not name.startswith("__get__") and not backward:
            self.check(name, args, given)
        found = func(*args, **kwargs)
        if func is torch.autograd.grad:
            inputs = [args[1]] if isinstance(args[1], torch.Tensor) else args[1]
            for one, of in zip(found, inputs, strict=True):
                if one is not None:
                    put(one, self.where(of))
            return found
        known = [place for tensor in given if (place := place_of(tensor)) is not None]
        there = made or next((place for place in known if place.type == "cuda"), None)
        if there is None and not (self.in_backward and not known):
            there = CPU
        if there is not None:
            self.settle(name, found, given, there)
        return found

    def watching(self, engine: Any) -> Any:
        """Autograd's engine, whose calls of Python (our own backward passes, recomputed layers) are watched, too."""

        def run(*args: Any, **kwargs: Any) -> Any:
            outer, self.in_backward = self.in_backward, True
            try:
                with self:
                    return engine(*args, **kwargs)
            finally:
                self.in_backward = outer

        return run

    def settle(self, name: str, found: Any, given: list[torch.Tensor], there: torch.device) -> None:
        """Give the results a place: that of the arguments, and of lists of tensors each its own."""
        with torch._C.DisableTorchFunction():
            old = {id(_storage(tensor)) for tensor in given}
        leaves = list(_tensors(found))
        each = name.startswith("_foreach_") and len(leaves) <= len(given)
        for index, leaf in enumerate(leaves):
            with torch._C.DisableTorchFunction():
                fresh = id(_storage(leaf)) not in old
            if fresh:
                put(leaf, self.where(given[index]) if each else there)

    def check(self, name: str, args: Any, given: list[torch.Tensor]) -> None:
        if name in MOVES:
            return
        if name.startswith("_foreach_"):  # torch groups lists by device before it gives them to its kernels
            lists = [value for value in args if isinstance(value, list | tuple)]
            for together in zip(*lists, strict=False):
                self.same(name, [one for one in together if isinstance(one, torch.Tensor)])
        elif name == "__getitem__":  # a GPU's tensor takes a CPU's indices, and not the other way round
            here = self.where(given[0])
            for index in given[1:]:
                there = place_of(index)
                if there is not None and there != here and there.type == "cuda":
                    raise WrongDevice(f"indices should be either on cpu or on {here}, found {there}")
        else:
            self.same(name, given)

    def same(self, name: str, given: list[torch.Tensor]) -> None:
        with torch._C.DisableTorchFunction():
            sized = [tensor for tensor in given if tensor.dim() > 0]
        places = {self.where(tensor) for tensor in sized if not (self.in_backward and place_of(tensor) is None)}
        places |= {place for tensor in given if (place := self.where(tensor)).type == "cuda"}
        if len(places) > 1:
            raise WrongDevice(
                f"{name}: expected all tensors to be on the same device, but found {sorted(map(str, places))}"
            )


def lay_out(model: Any, device_map: Any) -> Any:
    """What `from_pretrained` does with a device map: each part on its device, and hooks that move what enters it."""
    from accelerate import dispatch_model

    if not isinstance(device_map, dict):
        for tensor in (*model.parameters(), *model.buffers()):
            put(tensor, device_map)
        return model
    dispatch_model(model, {name: _device(place) for name, place in device_map.items()}, force_hooks=True)
    model.hf_device_map = device_map
    return model


def _loader(own: Any) -> Any:
    def loaded(*args: Any, device_map: Any = None, **options: Any) -> Any:
        found = own(*args, **options)
        if options.get("output_loading_info"):
            return lay_out(found[0], device_map), found[1]
        return lay_out(found, device_map)

    return loaded


@contextmanager
def gpus(count: int) -> Iterator[Devices]:
    """A machine with `count` pretended GPUs."""
    import transformers

    from rna import trial

    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "get_device_name": lambda *_: "pretended",
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
        "current_device": lambda: 0,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", Generator)
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        for auto in (transformers.AutoModelForCausalLM, transformers.AutoModel):
            patch.setattr(auto, "from_pretrained", _loader(auto.from_pretrained))
        trial.forget_model()
        mode = Devices()
        patch.setattr(torch.autograd, "_engine_run_backward", mode.watching(torch.autograd._engine_run_backward))
        try:
            with mode:
                yield mode
        finally:
            trial.forget_model()
