"""The diffusion process on interaction rows: knows no users, graphs or losses."""
from tvdiff_pyg.diffusion.gaussian import GaussianDiffusion
from tvdiff_pyg.diffusion.latent import LatentReverse
from tvdiff_pyg.diffusion.schedule import NoiseSchedule
from tvdiff_pyg.diffusion.timesteps import LossHistoryTimesteps, TimestepSampler, UniformTimesteps

__all__ = ['GaussianDiffusion', 'NoiseSchedule', 'LatentReverse', 'TimestepSampler', 'UniformTimesteps',
           'LossHistoryTimesteps']
