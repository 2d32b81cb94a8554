"""A second device for tests on machines without a GPU: CPU memory behind tensors that say they are elsewhere.

Every operation gives the CPU's own bits. As on a GPU, an operation on tensors of both devices is an error (indices and
scalars apart), and NumPy cannot see a tensor before it is copied back. Not thread-safe for tensors that are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["OTHER", "OtherDevice"]

# A name that this PyTorch knows and has nothing behind; any other asks for its driver.
OTHER = "lazy"


class _Elsewhere(Tensor):
    """A tensor of the other device around the CPU tensor that holds its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(OTHER, 0),
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """While it is entered, this thread has a device called ``OTHER``."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    name = function.overloadpacket.__name__  # type: ignore[attr-defined]
    held_args, held_kwargs = tree_map(_held, (args, kwargs))
    if name == "_local_scalar_dense":
        return held_args[0].numpy().item()
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    elsewhere = [tensor for tensor in tensors if isinstance(tensor, _Elsewhere)]
    copies = name in ("_to_copy", "copy_")
    if elsewhere and not copies and not name.startswith("index"):
        strays = [tensor for tensor in tensors if not isinstance(tensor, _Elsewhere) and tensor.dim()]
        if strays:
            raise RuntimeError(f"tensors of two devices in {name}")
    asked = kwargs.get("device")
    if asked is not None:
        held_kwargs["device"] = torch.device("cpu")
    result = function(*held_args, **held_kwargs)
    if isinstance(args[0] if args else None, Tensor) and name.endswith("_") and not name.endswith("__"):
        return args[0]
    is_elsewhere = torch.device(asked).type == OTHER if asked is not None else bool(elsewhere)
    return tree_map(_put_elsewhere, result) if is_elsewhere else result


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _Elsewhere) else value


def _put_elsewhere(value: Any) -> Any:
    return _Elsewhere(value) if isinstance(value, Tensor) and not isinstance(value, _Elsewhere) else value
