"""Contract suites: one call checks a part of your own against every rule that ours obey.

A suite takes a function that makes the part, feeds it small data full of corner cases, and raises ``AssertionError``
with the first rule that is broken and what was seen. Suites run on the CPU, in float64 unless a rule says otherwise,
in seconds, and leave torch's global generator and default type as they found them.
"""
from tvdiff_pyg.testing.contracts.conv import check_conv
from tvdiff_pyg.testing.contracts.dataset import check_dataset
from tvdiff_pyg.testing.contracts.denoiser import check_denoiser
from tvdiff_pyg.testing.contracts.entropy import check_entropy
from tvdiff_pyg.testing.contracts.model import check_model
from tvdiff_pyg.testing.contracts.sampler import check_sampler
from tvdiff_pyg.testing.contracts.timesteps import check_timesteps

__all__ = [
    'check_conv',
    'check_dataset',
    'check_denoiser',
    'check_entropy',
    'check_model',
    'check_sampler',
    'check_timesteps',
]
