"""The processes of one job, through ``torch.distributed``; without it there is one."""
from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator, Tuple

import torch
import torch.distributed as dist


def launched() -> bool:
    """Tell whether ``torchrun`` started this process as one of several."""
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ['WORLD_SIZE']) > 1


def nodes_and_devices() -> Tuple[int, int]:
    """Return on how many machines ``torchrun`` started how many processes each."""
    local = int(os.environ['LOCAL_WORLD_SIZE'])
    return int(os.environ['WORLD_SIZE']) // local, local


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that ``torchrun`` started, for as long as the block lasts; do nothing where it did not.

    Raises:
        ValueError: there are GPUs, but fewer than processes on this machine.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        devices, gpus = nodes_and_devices()[1], torch.cuda.device_count()
        if devices > gpus:
            raise ValueError(f'torchrun started {devices} processes on this machine, which has {gpus} GPUs: start one '
                             f'a GPU, or set CUDA_VISIBLE_DEVICES to nothing to train on processors')
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    dist.init_process_group('cpu:gloo,cuda:nccl' if torch.cuda.is_available() else 'gloo')
    try:
        yield
    finally:
        dist.destroy_process_group()


def lost_process(error: RuntimeError) -> bool:
    """Tell whether an error is what torch raises where another process has gone."""
    return launched() and (isinstance(error, dist.DistError)
                           or any(name in str(error) for name in ('gloo', 'NCCL')))


def rank() -> int:
    """Return which process this is."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes are here."""
    sum_over_processes(torch.zeros(1))


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process through the block before the others: it may write what they read."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def sum_over_processes(*tensors: torch.Tensor) -> None:
    """Replace tensors by their sums over the processes, which must all call this; where there is one, do nothing."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def longest_of_processes(seconds: float) -> float:
    """Return the largest of the processes' times, which must all call this: they must agree on when to stop."""
    if world_size() > 1:
        longest = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        return float(longest)
    return seconds
