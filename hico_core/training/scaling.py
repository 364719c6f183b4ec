"""Loss scaling, without which many gradients would underflow to 0 in float16."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hico_core.base.errors import HicoError

# A scale below 1 would make the gradients smaller than they are.
_SMALLEST_SCALE = 1.0


class LossScaling:
    """PyTorch's `GradScaler`, and a count of the steps that it skips.

    The loss is multiplied by a scale and the gradients are divided by it. If they overflow, the step is skipped:
    neither weights nor momentum change, and the scale is halved. After many good steps, it is doubled.

    All of it stays on the device; the host reads its values together with the next step's loss.

    Processes that train together need not agree: the gradients that each one checks are means over all processes, which
    are not finite if those of one process are not.

    Args:
        device: where the model computes.
        enabled: False: loss and gradients stay unscaled, and no step is skipped.

    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        self.skipped_steps = 0  # before the last step whose loss the host has read
        self._scaler = torch.amp.GradScaler(device.type, enabled=enabled)
        self._one, self._skipped = torch.ones((), device=device), torch.zeros((), device=device)

    def measured(self) -> list[Tensor]:
        """Values that `take` needs to be read with the next loss: skipped steps and scale; empty without scaling."""
        return [self._skipped, self._scale()] if self.enabled else []

    def take(self, measured: Sequence[Tensor]) -> None:
        """Take the values that were read.

        Raises:
            HicoError: the scale has fallen too far for training to recover.

        """
        if not self.enabled:
            return
        skipped, scale = measured
        self.skipped_steps = int(skipped)
        if float(scale) < _SMALLEST_SCALE:
            raise HicoError(
                f"the gradients overflow float16 even without loss scaling; {self.skipped_steps} steps were "
                "skipped; start a new run with -o train.precision=fp32 and another --name"
            )

    def descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Do the backward pass and the update of the weights.

        Nothing here is read by the host or depends on values that only the device knows, so that a CUDA graph can hold
        it. Gradients are dropped rather than set to 0, as PyTorch advises for such a graph: its backward pass then
        makes them in memory of the graph, at the same place each time.
        """
        optimizer.zero_grad(set_to_none=True)
        before = self._scale()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update()
        if self.enabled:
            self._skipped += self._scale() < before  # the scale falls only if a step is skipped

    def _scale(self) -> Tensor:
        """A copy of the scale; 1 without scaling."""
        return self._scaler.scale(self._one)

    def state_dict(self) -> dict[str, int | float]:
        """Plain values from which a run continues exactly; empty without scaling."""
        return {**self._scaler.state_dict(), "skipped_steps": int(self._skipped)} if self.enabled else {}

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        """Continue from `state_dict`; start afresh if a checkpoint was written without scaling.

        Raises:
            HicoError: the state is not one of loss scaling.

        """
        if self.enabled and state:
            if state.keys() != self.state_dict().keys():
                raise HicoError(f"the state of the loss scaling has the entries {', '.join(state)}; hico wrote others")
            self._scaler.load_state_dict(state)
            self._skipped.fill_(state["skipped_steps"])
