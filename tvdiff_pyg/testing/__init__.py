"""What tests need, ours and those of extenders: contract suites, dense references and planted data.

Needs what the package itself needs, and nothing more.
"""
from tvdiff_pyg.testing.contracts import (
    check_conv,
    check_dataset,
    check_denoiser,
    check_entropy,
    check_model,
    check_sampler,
    check_timesteps,
)
from tvdiff_pyg.testing.oracle import (
    bce_entropy,
    betas,
    bpr_entropy,
    dense_interactions,
    energy,
    free_energy,
    item_codes,
    nll_entropy,
    normalized,
    posterior_coefficients,
    reverse_process,
    scores,
    successive_draws,
    time_features,
    tvdiff_scores,
)
from tvdiff_pyg.testing.planted import PlantedBlocks, planted_blocks
from tvdiff_pyg.testing.statistics import assert_frequencies, frequencies_p_value

__all__ = [
    'check_conv',
    'check_denoiser',
    'check_entropy',
    'check_sampler',
    'check_timesteps',
    'check_model',
    'check_dataset',
    'dense_interactions',
    'normalized',
    'item_codes',
    'time_features',
    'scores',
    'betas',
    'posterior_coefficients',
    'reverse_process',
    'tvdiff_scores',
    'successive_draws',
    'energy',
    'bce_entropy',
    'nll_entropy',
    'bpr_entropy',
    'free_energy',
    'PlantedBlocks',
    'planted_blocks',
    'assert_frequencies',
    'frequencies_p_value',
]
