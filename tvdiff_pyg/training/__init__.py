"""Training: recipes, the Lightning module, run folders."""
from tvdiff_pyg.split import PROTOCOLS, Split
from tvdiff_pyg.training.building import build_model, load_data
from tvdiff_pyg.training.callbacks import EpochWatcher, FailureSignatures, FalseNegativesWatcher, ThermodynamicsWatcher
from tvdiff_pyg.training.data import InteractionDataModule
from tvdiff_pyg.training.fitting import fit
from tvdiff_pyg.training.folder import RunError
from tvdiff_pyg.training.module import RecommenderModule, TrainingDiverged, TrainingInterrupted
from tvdiff_pyg.training.optimizer import RowLazyAdam
from tvdiff_pyg.training.recipe import (
    DatasetConfig,
    DiffusionConfig,
    LossConfig,
    ModelConfig,
    Recipe,
    SamplerConfig,
    TrainingConfig,
    load_recipe,
    recipe_names,
    recipe_path,
)
from tvdiff_pyg.training.run import Run

__all__ = [
    'Recipe',
    'DatasetConfig',
    'ModelConfig',
    'DiffusionConfig',
    'LossConfig',
    'SamplerConfig',
    'TrainingConfig',
    'recipe_names',
    'recipe_path',
    'load_recipe',
    'load_data',
    'build_model',
    'Split',
    'PROTOCOLS',
    'InteractionDataModule',
    'RecommenderModule',
    'RowLazyAdam',
    'EpochWatcher',
    'ThermodynamicsWatcher',
    'FalseNegativesWatcher',
    'FailureSignatures',
    'TrainingDiverged',
    'TrainingInterrupted',
    'Run',
    'RunError',
    'fit',
]
