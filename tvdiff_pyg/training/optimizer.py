"""Row-lazy Adam, whose cost follows the rows that a step touches, and a moving average of the weights."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch


class RowLazyAdam(torch.optim.SparseAdam):
    """Adam that leaves alone the rows of a table that have no gradient in a step, their moments too.

    It is torch's :class:`~torch.optim.SparseAdam`, which takes the sparse gradients of the tables, and the dense ones
    of small parameters as well. It is not Adam: a row's moments do not decay while it is not touched. Needs
    ``TVDiff(row_gradients=True)``, or it saves nothing.
    """

    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:
        """Do one step, after calling ``closure`` for the gradients if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None and not parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.to_sparse(1)
        super().step()
        return loss


class WeightAverage:
    r"""An exponential moving average of a model's parameters.

    After step :math:`k = 1, 2, \dots` it is :math:`\bar w \leftarrow a_k \bar w + (1 - a_k) w` with
    :math:`a_k = \min(a, k / (k + 9))`, so that the first weights do not linger. Buffers are the model's own.

    Args:
        model: the model, of which it starts as a copy.
        decay: a, in 0..1.

    Source: the warm-up of a is TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values: List[torch.Tensor] = [value.detach().clone() for value in model.parameters()]

    def to(self, device: torch.device) -> None:
        """Move it to where the model is."""
        self.values = [value.to(device) for value in self.values]

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take in the weights after another step: one pass over both, about 12 bytes a float32 parameter."""
        self.steps += 1
        torch._foreach_lerp_(self.values, [value.detach() for value in model.parameters()],
                             1 - min(self.decay, self.steps / (self.steps + 9)))

    @torch.no_grad()
    def copy_to(self, model: torch.nn.Module) -> None:
        """Give a model the average."""
        for value, average in zip(model.parameters(), self.values):
            value.copy_(average)

    @contextmanager
    def in_place_of(self, model: torch.nn.Module) -> Iterator[None]:
        """Let a model have the average for a while."""
        own = [value.data for value in model.parameters()]
        try:
            for value, average in zip(model.parameters(), self.values):
                value.data = average
            yield
        finally:
            for value, data in zip(model.parameters(), own):
                value.data = data

    def state_dict(self) -> Dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {'steps': self.steps, 'values': self.values}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.steps = state['steps']
        for value, kept in zip(self.values, state['values']):
            value.copy_(kept)
