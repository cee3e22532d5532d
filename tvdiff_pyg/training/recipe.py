"""Recipes: every setting of a run, as typed values with one meaning each."""
from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Union

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import DATASETS, InteractionFile, MovieLensSmall, load_dataset
from tvdiff_pyg.diffusion import GaussianDiffusion, LossHistoryTimesteps, NoiseSchedule, UniformTimesteps
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import AnisotropicDenoiser, HelmholtzFreeEnergy, TVDiff
from tvdiff_pyg.sampling import ARGumbelSampler, NegativeSampler, PopularitySampler, UniformSampler

INTERACTION_FILE = 'interaction-file'


@dataclass
class DatasetConfig:
    """Where the interactions come from.

    Args:
        name: a data set's name, or 'interaction-file' for a file of one's own.
        path: the file (CSV, TSV, or user-item pairs in columns), for 'interaction-file'.
        test_path: a second file with the test part; without it a seeded 20 % of each user's items is held out.
        validation_path: a file with the validation part; without it one is carved from the training part.
        layout: of the file: auto, table (CSV, TSV), adjacency (user item item ...) or pairs (by white space).
        separator: of a table; one character, guessed where absent.
        header: whether a table's first line names the columns; guessed where absent.
        user_column: header or position (from 0) of the user column; guessed where absent.
        item_column: likewise.
        rating_column: likewise, of a rating column, to be used with min_rating.
        min_rating: lowest rating that counts as an interaction.
        split_seed: seed of the splits that are drawn here; apart from the run's seed, so that seeds share a split.
    """

    name: Optional[str] = None
    path: Optional[str] = None
    test_path: Optional[str] = None
    validation_path: Optional[str] = None
    layout: Literal['auto', 'table', 'adjacency', 'pairs'] = 'auto'
    separator: Optional[str] = None
    header: Optional[bool] = None
    user_column: Union[int, str, None] = None
    item_column: Union[int, str, None] = None
    rating_column: Union[int, str, None] = None
    min_rating: Optional[float] = None
    split_seed: int = 0


@dataclass
class ModelConfig:
    """The denoiser.

    Args:
        hidden_channels: width d, or a list of the widths of all layers.
        time_channels: width of the step's embedding.
        time_type: how the step enters: cat (sum), align (product) or gate.
        normalization: degree normalisation of the graph; none for no graph.
        dropout: probability of dropping an entry of the noisy row in training.
        engine: factored, without a users x items array, or dense, the paper's way and the oracle.
        energy_items: factored: estimate the energy from so many items; null takes all, exactly.
        energy_rank: of a stochastic energy: directions of the user codes that are taken exactly.
    """

    hidden_channels: Union[int, List[int]] = 1000
    time_channels: int = 64
    time_type: Literal['cat', 'align', 'gate'] = 'cat'
    normalization: Literal['sym', 'left', 'linkprop', 'raw', 'none'] = 'sym'
    dropout: float = 0.5
    engine: Literal['factored', 'dense'] = 'factored'
    energy_items: Optional[int] = None
    energy_rank: int = 0


@dataclass
class DiffusionConfig:
    """The process.

    Args:
        schedule: noise schedule.
        num_steps: number of steps T.
        scale: noise scale; 0 for no noise at all.
        beta_min: start of the noise range.
        beta_max: end of the noise range.
        prediction: what the network predicts.
        timesteps: how training steps are drawn.
    """

    schedule: Literal['linear-var', 'linear', 'cosine', 'binomial'] = 'linear-var'
    num_steps: int = 5
    scale: float = 1e-4
    beta_min: float = 5e-4
    beta_max: float = 5e-3
    prediction: Literal['x0', 'eps'] = 'x0'
    timesteps: Literal['uniform', 'loss-history'] = 'uniform'


@dataclass
class LossConfig:
    """The free energy.

    Args:
        entropy: entropy term; bce and nll train on batches of users, bpr on batches of pairs.
        temperature: weight of the entropy term; 0 for the vanilla objective.
        reduction: mean over the items as published, or sum, which is the same objective times their number.
    """

    entropy: Literal['bce', 'nll', 'bpr'] = 'bce'
    temperature: float = 1.0
    reduction: Literal['mean', 'sum'] = 'mean'


@dataclass
class SamplerConfig:
    """The negative sampler.

    Args:
        name: ar-gsp, or uniform or popularity as controls.
        gamma: ar-gsp: accepted share of the catalogue.
        weights: ar-gsp: weights of the accepted items.
        lam: ar-gsp: how much sharper the draw gets at low noise.
        pool_size: ar-gsp: rank a shared random pool of so many items; null ranks the whole catalogue.
        exponent: popularity: exponent of an item's number of users.
    """

    name: Literal['ar-gsp', 'uniform', 'popularity'] = 'ar-gsp'
    gamma: float = 0.05
    weights: Literal['score', 'flat'] = 'score'
    lam: float = 3.0
    pool_size: Optional[int] = None
    exponent: float = 0.75


@dataclass
class TrainingConfig:
    """The loop.

    Args:
        batch_size: users, or pairs, a step.
        optimizer: adam, or row-lazy-adam, which updates only the rows of the tables that a step touches: for huge
            catalogues, with model.energy_items; not the same as Adam.
        lr: Adam's learning rate.
        weight_decay: decoupled weight decay (AdamW); 0 for plain Adam.
        max_epochs: at most so many epochs.
        patience: stop after so many epochs without a better recall@20.
        ks: list lengths that are reported beside 20; by default 10 and 50, as far as the catalogue goes.
    """

    batch_size: int = 2048
    optimizer: Literal['adam', 'row-lazy-adam'] = 'adam'
    lr: float = 1e-3
    weight_decay: float = 0.0
    max_epochs: int = 400
    patience: int = 10
    ks: Optional[List[int]] = None


@dataclass
class Recipe:
    """Every setting that a run depends on, but its seed, its protocol and where its files are.

    Args:
        dataset: where the interactions come from.
        model: the denoiser.
        diffusion: the process.
        loss: the free energy.
        sampler: the negative sampler.
        training: the loop.
    """

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        training = self.training
        for name in ('batch_size', 'max_epochs', 'patience'):
            if getattr(training, name) < 1:
                raise ValueError(f"'training.{name}' must be at least 1, got {getattr(training, name)}")
        if not 0 < training.lr < float('inf'):
            raise ValueError(f"'training.lr' must be a finite number > 0, got {training.lr}")
        if not 0 <= training.weight_decay < float('inf'):
            raise ValueError(f"'training.weight_decay' must be a finite number >= 0, got {training.weight_decay}")
        if training.optimizer != 'adam' and training.weight_decay:
            raise ValueError("'training.weight_decay' goes with 'training.optimizer' adam")
        if any(k < 1 for k in training.ks or []):
            raise ValueError(f"'training.ks' must be list lengths of at least 1, got {training.ks}")
        if self.diffusion.prediction == 'eps' and self.model.engine == 'factored':
            raise ValueError("'diffusion.prediction' eps trains on the dense engine only: set 'model.engine' to dense")
        dataset = self.dataset
        if dataset.name == INTERACTION_FILE:
            if dataset.path is None:
                raise ValueError(f"'dataset.path' must name the file of interactions where 'dataset.name' is "
                                 f"'{INTERACTION_FILE}'")
        else:
            for name, value in vars(dataset).items():
                if name not in ('name', 'split_seed') and value != getattr(DatasetConfig(), name):
                    raise ValueError(f"'dataset.{name}' is for a file of your own: set 'dataset.name' to "
                                     f"'{INTERACTION_FILE}', or use that recipe")
        if dataset.split_seed < 0:
            raise ValueError(f"'dataset.split_seed' must be at least 0, got {dataset.split_seed}")

    @classmethod
    def from_dict(cls, values: Dict[str, Any]) -> Recipe:
        """Build a recipe from nested plain values; what is not named keeps its default.

        Raises:
            ValueError: an unknown key, or a value of the wrong type or out of range.
        """
        groups = [group.name for group in fields(cls)]
        for key, value in values.items():
            if key not in groups:
                raise ValueError(f"a recipe has no '{key}'; it has {', '.join(groups)}")
            if not isinstance(value, dict):
                raise ValueError(f"'{key}' must hold named settings, got {value!r}")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls)
        try:
            return cls(**vars(parser.instantiate(parser.parse_object(values))))
        except ArgumentError as error:
            raise ValueError(' '.join(str(error).split())) from error

    def to_dict(self) -> Dict[str, Any]:
        """Return the settings as nested plain values."""
        return asdict(self)


def recipe_names() -> List[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files('tvdiff_pyg') / 'recipes'
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith('.yaml'))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in recipe_names():
        raise ValueError(f"there is no recipe '{name}'; choose one of {', '.join(recipe_names())}, "
                         f"or pass a file of your own with --config")
    return Path(str(resources.files('tvdiff_pyg') / 'recipes' / f'{name}.yaml'))


def load_recipe(name: str) -> Recipe:
    """Return a recipe that comes with the package."""
    return Recipe.from_dict(yaml.safe_load(recipe_path(name).read_text(encoding='utf-8')))


def load_data(config: DatasetConfig, data_root: Union[str, Path, None] = None) -> HeteroData:
    """Load the data set that a recipe names."""
    if config.name is None:
        raise ValueError(f"'dataset.name' must name a data set ({', '.join(sorted(DATASETS))}) or '{INTERACTION_FILE}'")
    if config.name == INTERACTION_FILE:
        assert config.path is not None
        return InteractionFile(
            config.path, test_path=config.test_path, validation_path=config.validation_path, layout=config.layout,
            separator=config.separator, header=config.header, user_column=config.user_column,
            item_column=config.item_column, rating_column=config.rating_column, min_rating=config.min_rating,
            seed=config.split_seed)[0]
    if data_root is not None and not Path(data_root).is_dir():
        raise ValueError(f"'data_root' {data_root} is no folder: name the one that holds {config.name}/raw/, or make "
                         f"it, and the files are downloaded there")
    if config.name == MovieLensSmall.name:
        return MovieLensSmall(seed=config.split_seed)[0]
    return load_dataset(config.name, None if data_root is None else str(data_root))


def build_sampler(config: SamplerConfig) -> NegativeSampler:
    """Build a sampler from its settings."""
    if config.name == 'uniform':
        return UniformSampler()
    if config.name == 'popularity':
        return PopularitySampler(config.exponent)
    return ARGumbelSampler(config.gamma, config.weights, config.lam, config.pool_size)


def build_model(recipe: Recipe, interactions: InteractionMatrix) -> TVDiff:
    """Build the model of a recipe on its training interactions."""
    model, process = recipe.model, recipe.diffusion
    diffusion = GaussianDiffusion(
        NoiseSchedule(process.schedule, process.num_steps, process.scale, process.beta_min, process.beta_max),
        process.prediction)
    denoiser = AnisotropicDenoiser(
        interactions.num_users, interactions.num_items, model.hidden_channels, model.time_channels, model.time_type,
        model.normalization, model.dropout)
    timesteps = {'uniform': UniformTimesteps, 'loss-history': LossHistoryTimesteps}[process.timesteps]
    loss = HelmholtzFreeEnergy(recipe.loss.entropy, recipe.loss.temperature, recipe.loss.reduction)
    return TVDiff(interactions, denoiser, diffusion, loss, build_sampler(recipe.sampler),
                  timesteps(process.num_steps), model.engine, energy_items=model.energy_items,
                  energy_rank=model.energy_rank, row_gradients=recipe.training.optimizer == 'row-lazy-adam')
