"""What a recipe's settings stand for: its data set, its sampler and its model."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Union

from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import DATASETS, InteractionFile, MovieLensSmall, load_dataset
from tvdiff_pyg.datasets.interactions import check_attribute_names
from tvdiff_pyg.diffusion import GaussianDiffusion, LossHistoryTimesteps, NoiseSchedule, UniformTimesteps
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import (
    EASE,
    GFCF,
    IALS,
    AnisotropicDenoiser,
    DiffRec,
    HelmholtzFreeEnergy,
    ItemKNN,
    LightGCN,
    Popularity,
    TVDiff,
)
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.sampling import ARGumbelSampler, NegativeSampler, PopularitySampler, UniformSampler, WarmUpSampler
from tvdiff_pyg.training.recipe import INTERACTION_FILE, READING, DatasetConfig, Recipe, SamplerConfig
from tvdiff_pyg.training.storage import TEXT_FIELDS
from tvdiff_pyg.transforms import RATES


def load_data(config: DatasetConfig, data_root: Union[str, Path, None] = None) -> HeteroData:
    """Load the data set that a recipe names."""
    if config.name is None:
        raise ValueError(f"'dataset.name' must name a data set ({', '.join(sorted(DATASETS))}) or "
                         f"'{INTERACTION_FILE}', unless fit is given 'data'")
    if config.name == INTERACTION_FILE:
        assert config.path is not None
        return InteractionFile(
            config.path, test_path=config.test_path, validation_path=config.validation_path,
            time_column=config.time_column, k_core=config.k_core, split=config.split, test_ratio=config.test_ratio,
            seed=config.split_seed, **{name: getattr(config, name) for name in READING})[0]
    if data_root is not None and not Path(data_root).is_dir():
        raise ValueError(f"'data_root' {data_root} is no folder: name the one that holds {config.name}/raw/, or make "
                         f"it, and the files are downloaded there")
    if config.name == MovieLensSmall.name:
        return MovieLensSmall(seed=config.split_seed)[0]
    return load_dataset(config.name, None if data_root is None else str(data_root))


def check_data(data: HeteroData, config: DatasetConfig) -> None:
    """Raise ``ValueError`` unless ``data`` is a loaded data set, and one that a recipe does not contradict."""
    if not isinstance(data, HeteroData):
        raise ValueError(f"'data' must be a HeteroData, as InteractionFrame(frame)[0] is; got {type(data).__name__}")
    missing = [name for name in TEXT_FIELDS if name not in data]
    if missing or RATES not in data.edge_types:
        raise ValueError(f"'data' has no {', '.join(missing) or RATES}: take the graph of a data set, dataset[0], or "
                         f"build it with tvdiff_pyg.datasets.interaction_data")
    if config.name not in (None, data.name):
        raise ValueError(f"'dataset.name' is {config.name}, but 'data' is {data.name}: set 'dataset.name' to None, or "
                         f"omit 'data'")
    check_attribute_names(data.item_attributes)
    for name, values in data.item_attributes.items():  # may have been set by hand; a run keeps them as JSON
        if not isinstance(values, list) or len(values) != data['item'].num_nodes:
            raise ValueError(f"'data.item_attributes' {name} must be a list of {data['item'].num_nodes} values, one an "
                             f"item in the order of item_id")
        try:
            json.dumps(values, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'data.item_attributes' {name} cannot be written as JSON ({error}): hand the values to "
                             f"tvdiff_pyg.datasets.interaction_data, or convert them") from error


def build_sampler(config: SamplerConfig) -> NegativeSampler:
    """Build a sampler from its settings."""
    if config.name == 'uniform':
        return UniformSampler()
    sampler = PopularitySampler(config.exponent) if config.name == 'popularity' else ARGumbelSampler(
        config.gamma, config.weights, config.lam, config.pool_size)
    return WarmUpSampler(sampler, config.warmup_epochs) if config.warmup_epochs else sampler


def build_model(recipe: Recipe, interactions: InteractionMatrix, seed: int = 0) -> InteractionModel:
    """Build the model of a recipe on its training interactions.

    Args:
        recipe: the settings.
        interactions: the training interactions.
        seed: of a model that is solved from a random start; those that train draw from torch's generator.
    """
    model: Any = recipe.model  # None only where the model has no such setting
    width = model.hidden_channels
    if model.name in ('tv-diff', 'diffrec'):
        return _diffusion_model(recipe, interactions)
    if model.name == 'ease':
        return EASE(interactions, model.regularization)
    if model.name == 'popularity':
        return Popularity(interactions)
    if model.name == 'item-knn':
        return ItemKNN(interactions, model.num_neighbors, model.regularization)
    if not isinstance(width, int):
        raise ValueError(f"'model.hidden_channels' must be one number for {model.name}, got {width}")
    if model.name == 'gf-cf':
        return GFCF(interactions, width, model.alpha)
    if model.name == 'ials':
        return IALS(interactions, width, model.regularization, model.alpha, seed=seed)
    return LightGCN(interactions, width, model.num_layers or 0, model.regularization, build_sampler(recipe.sampler))


def _diffusion_model(recipe: Recipe, interactions: InteractionMatrix) -> TVDiff:
    model, process = recipe.model, recipe.diffusion
    diffusion = GaussianDiffusion(
        NoiseSchedule(process.schedule, process.num_steps, process.scale, process.beta_min, process.beta_max),
        process.prediction)
    timesteps = {'uniform': UniformTimesteps, 'loss-history': LossHistoryTimesteps}[process.timesteps or 'uniform'](
        process.num_steps)
    assert model.hidden_channels is not None
    if model.name == 'diffrec':
        return DiffRec(interactions, diffusion, model.hidden_channels, model.time_channels, model.dropout,
                       bool(model.reweight), recipe.loss.reduction, timesteps, model.engine)
    denoiser = AnisotropicDenoiser(
        interactions.num_users, interactions.num_items, model.hidden_channels, model.time_channels, model.time_type,
        model.normalization, model.dropout, 1 if model.num_layers is None else model.num_layers)
    loss = HelmholtzFreeEnergy(recipe.loss.entropy, recipe.loss.temperature, recipe.loss.reduction)
    return TVDiff(interactions, denoiser, diffusion, loss, build_sampler(recipe.sampler), timesteps, model.engine,
                  energy_items=model.energy_items, energy_rank=model.energy_rank,
                  row_gradients=recipe.training.optimizer == 'row-lazy-adam')
