"""Row-lazy Adam: an optimiser whose cost follows the rows that a step touches."""
from __future__ import annotations

from typing import Any, Callable, Optional

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
