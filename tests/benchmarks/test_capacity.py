"""The capacity formulas against what was measured."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip('pytorch_lightning')
from benchmarks.capacity import Shape, compare, main, query_flops, step_products, training_bytes  # noqa: E402
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import AnisotropicDenoiser, HelmholtzFreeEnergy, TVDiff  # noqa: E402
from tvdiff_pyg.sampling import UniformSampler  # noqa: E402
from tvdiff_pyg.typing import Batch  # noqa: E402


def test_formulas_lie_near_the_stored_measurements() -> None:
    compared = compare()
    assert len(compared) > 20
    for where, what, formula, measured in compared:
        within = 0.10 if 'GFLOP' in what else 0.25
        assert formula == pytest.approx(measured, rel=within), (where, what)


def test_flops_of_a_step_and_of_a_list() -> None:
    torch.manual_seed(0)
    seen = torch.rand(200, 300) < 0.1
    train = InteractionMatrix(seen.nonzero().t(), 200, 300)
    process = GaussianDiffusion(NoiseSchedule(num_steps=6))
    model = TVDiff(train, AnisotropicDenoiser(200, 300, 64, 4, dropout=0.0), process,
                   HelmholtzFreeEnergy('bce', 1.0), UniformSampler(), num_probes=16)
    shape = Shape(200, 300, train.num_interactions, 64, batch=100, probes=16, pool=0, steps=6)
    with FlopCounterMode(display=False) as counter:
        model.training_loss(Batch(torch.arange(100)), torch.Generator().manual_seed(0)).loss.backward()
    assert step_products(shape) == pytest.approx(counter.get_total_flops(), rel=0.1)
    scorer = model.scorer()
    with FlopCounterMode(display=False) as counter:
        scorer(torch.arange(100))
    assert 100 * query_flops(replace(shape, interactions=0)) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_memory_grows_with_each_size() -> None:
    shape = Shape(1e6, 1e5, 1e8, 64)
    for name in ('users', 'items', 'interactions', 'width', 'batch', 'probes', 'pool'):
        assert training_bytes(replace(shape, **{name: 2 * getattr(shape, name)})) > training_bytes(shape), name


def test_it_prints_both_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr('sys.argv', ['capacity', '--users', '1e6', '--items', '1e5', '--interactions', '1e8'])
    main()
    printed = capsys.readouterr().out
    assert '| gowalla, d = 1000, ar-gsp | step, memory, MB |' in printed and 'lists for everybody' in printed
