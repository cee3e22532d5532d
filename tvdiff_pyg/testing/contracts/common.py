"""What the contract suites share: how a rule is named, how values are compared, small data full of corner cases."""
from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix

NUM_STEPS = 5
DEVIATIONS = 4.5  # standard errors that an estimate may be off, on either side
EXACT = 0.0, 0.0  # relative and absolute tolerance
TIGHT = 1e-9, 1e-9  # float64, sums in another order
SINGLE = 1e-4, 1e-5  # float32 against float64
EXTREME = (0.0, 1e4, -1e4)


@contextmanager
def laboratory() -> Iterator[None]:
    """Compute in float64 from a fixed seed, and give torch's global state back as it was."""
    with torch.random.fork_rng(devices=[]), default_dtype(torch.float64):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed a GPU's generator too
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def rule(rule: str, case: str = '') -> Iterator[None]:
    """Name the rule, and the case, in whatever goes wrong inside."""
    where = f"{rule}{f' ({case})' if case else ''}"
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f'{where}: {error}') from error
    except Exception as error:
        raise AssertionError(f'{type(error).__name__} was raised, where the rule is: {where}: {error}') from error


@contextmanager
def global_generator_rests() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "torch's global generator was drawn from"


@contextmanager
def untouched(**arguments: Tensor) -> Iterator[None]:
    before = {name: value.detach().to_dense().clone() for name, value in arguments.items()}
    yield
    for name, value in arguments.items():
        assert torch.equal(before[name], value.detach().to_dense()), f"'{name}' was written to"


def close(actual: Any, expected: Any, tolerance: Tuple[float, float] = TIGHT) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance[0], atol=tolerance[1])


def raises_value_error(function: Callable[[], Any]) -> None:
    try:
        function()
    except ValueError:
        return
    raise AssertionError('no ValueError was raised')


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def has_shape(value: Tensor, *shape: int) -> None:
    assert value.shape == shape, f'shape {list(value.shape)} instead of {list(shape)}'


def is_finite(value: Tensor, what: str = 'the output') -> None:
    assert bool(value.isfinite().all()), f'{what} holds {value[~value.isfinite()].flatten()[:3].tolist()}'


def shaken(module: Any) -> Any:
    """Move every weight a little, so that none is zero and hides that it is left out."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module


def gradients(out: Tensor, inputs: Sequence[Tensor]) -> List[Tensor]:
    """Return the dense gradients of a fixed weighting of ``out``; zeros for what does not take part."""
    if not out.requires_grad:
        return [torch.zeros_like(value) for value in inputs]
    grads = torch.autograd.grad((out * normal(*out.shape, seed=9).to(out.dtype)).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(value) if grad is None else grad.to_dense() for value, grad in zip(inputs, grads)]


def reach(named: Sequence[Tuple[str, Tensor]], out: Tensor) -> None:
    for (name, _), grad in zip(named, gradients(out, [value for _, value in named])):
        is_finite(grad, f"the gradient of '{name}'")
        assert bool((grad != 0).any()), f"the gradient of '{name}' is zero"


def estimates(samples: Tensor, mean: Tensor) -> None:
    """Assert that independent samples ``[n, k]`` have this mean ``[k]``, two-sided."""
    error = (samples.mean(0) - mean).abs()
    bound = DEVIATIONS * samples.std(0) / samples.size(0) ** 0.5 + 1e-9
    assert bool((error <= bound).all()), f'means {samples.mean(0).tolist()} instead of {mean.tolist()}'


def check_reset(module: Any) -> None:
    if not list(module.parameters()):
        return
    drawn: List[List[Tensor]] = []
    for seed in (1, 1, 2):
        with rule('reset_parameters draws every weight anew'):
            twin = copy.deepcopy(module)
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter.fill_(7.0)
            torch.default_generator.manual_seed(seed)
            twin.reset_parameters()
            for name, parameter in twin.named_parameters():
                assert not bool((parameter == 7.0).all()), f"'{name}' stayed as it was"
            drawn.append([parameter.detach() for parameter in twin.parameters()])
    with rule('reset_parameters draws from torch.manual_seed alone'):
        first, same, other = drawn
        assert all(map(torch.equal, first, same)), 'the same seed gave other weights'
        assert not all(map(torch.equal, first, other)), 'another seed gave the same weights'


def check_state_dict(make: Callable[[], Any], output: Callable[[Any], Tensor],
                     prepare: Callable[[Any], object] = shaken) -> None:
    """Check that what ``prepare`` did to one instance reaches another by the state dict."""
    with rule('a state dict makes another instance give the same output'):
        one, other = make(), make()
        prepare(one)
        other.load_state_dict(one.state_dict())
        close(output(other), output(one), EXACT)


def corner_cases() -> InteractionMatrix:
    """10 items; user 1 saw nothing, 2 everything, 3 all but item 6, 4 a single item, 5 half of them."""
    seen = [[1, 4], [], list(range(10)), [0, 1, 2, 3, 4, 5, 7, 8, 9], [9], [2, 3, 5, 6, 8]]
    pairs = [(user, item) for user, items in enumerate(seen) for item in items]
    return InteractionMatrix(torch.tensor(pairs).t(), len(seen), 10)


def sparse_rows(num_users: int, num_items: int) -> InteractionMatrix:
    """A twentieth of all pairs, and the last user and the last item without any."""
    seen = torch.rand(num_users, num_items, generator=generator()) < 0.05
    seen[-1], seen[:, -1] = False, False
    return InteractionMatrix(seen.nonzero().t(), num_users, num_items)
