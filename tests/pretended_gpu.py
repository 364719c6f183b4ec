"""Tensors that only pretend to lie on a GPU: mixed devices fail, and what is waited for is listed."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
ATEN = torch.ops.aten

# They change their arguments in place and give nothing.
WITHOUT_PRETENDED_KERNEL = {ATEN._fused_adam_, ATEN._fused_adamw_}


class Watch(TorchDispatchMode):
    """Notes each moment at which the host would wait for the GPU, with the file of ours that asks for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()
        self.operations = 0
        self.calls: list[tuple[str, str]] = []  # each operation, and what a CUDA graph would repeat of its arguments

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if op is ATEN._local_scalar_dense.default:
            if args[0].is_cuda:
                self._note("value read")
            return True if args[0].dtype == torch.bool else 1.0
        if op is ATEN.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1]):
            # How many are true, only the GPU knows; here all are.
            self._note("boolean mask")
            args = (
                args[0],
                [torch.zeros(i.numel(), dtype=torch.long, device=i.device) for i in args[1] for _ in i.shape],
            )
        if op is ATEN.nonzero.default and args[0].is_cuda:
            self._note("nonzero")
        self.operations += op.namespace == "aten" and not op.is_view
        if op.namespace == "aten":
            self.calls.append((str(op), f"{repeated(args)} {repeated(kwargs or {})}"))
        if op.overloadpacket in WITHOUT_PRETENDED_KERNEL:
            return None
        result = op(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and args and isinstance(args[0], Tensor) and args[0].device != result.device:
            self._note(f"{args[0].device.type} to {result.device.type}")
        return result

    def _note(self, what: str) -> None:
        ours = [frame for frame in traceback.extract_stack() if "/hico_core/" in frame.filename]
        self.waits[f"{Path(ours[-1].filename).name}: {what}"] += 1


def repeated(argument: Any) -> Any:  # noqa: ANN401 - of an operation
    """Shape, layout, type and device of each tensor, and all other values."""
    if isinstance(argument, Tensor):
        return (*argument.shape, argument.stride(), argument.dtype, argument.device)
    if isinstance(argument, dict):
        return {key: repeated(value) for key, value in argument.items()}
    return [repeated(value) for value in argument] if isinstance(argument, list | tuple) else argument


def place(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    """Instead of nn.Module.to, which cannot exchange parameters for pretended ones."""
    device, _, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    for module in self.modules():
        for kind in (module._parameters, module._buffers):
            for name, old in list(kind.items()):
                if old is None:
                    continue
                new = old.detach().to(device or old.device)
                if layout is not None and new.dim() == 5:
                    new = new.contiguous(memory_format=layout)
                kind[name] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new  # type: ignore[assignment]
    return self


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch, model: Callable[[], nn.Module]) -> Iterator[nn.Module]:
    """A block in which tensors are fake, and a model on the GPU, whose backward pass gives gradients of its shapes."""
    with FakeTensorMode(), monkeypatch.context() as patch:
        patch.setattr(nn.Module, "to", place)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        made = model().to(GPU).to(memory_format=torch.channels_last_3d).train()

        def backward(self: Tensor) -> None:
            for parameter in made.parameters():
                parameter.grad = torch.empty_like(parameter)

        patch.setattr(Tensor, "backward", backward)
        yield made
