"""Recipes: every setting of a run, as typed values with one meaning each."""
from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple, Union, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, get_loader, set_loader

from tvdiff_pyg.datasets.splits import TEST_RATIO, check_split

INTERACTION_FILE = 'interaction-file'
READING = ('layout', 'separator', 'header', 'user_column', 'item_column', 'rating_column', 'min_rating')
"""Settings of a data set that say how its file is read."""
ModelName = Literal['tv-diff', 'diffrec', 'lightgcn', 'bpr-mf', 'gf-cf', 'ease', 'ials', 'item-knn', 'popularity']


@dataclass(frozen=True)
class ModelSettings:
    """Which settings a model has, and its own defaults of those that have none otherwise.

    Attributes:
        model, diffusion, sampler: own defaults by name.
        others: further settings, ``group.name``, or whole groups.
    """

    model: Dict[str, Any] = field(default_factory=dict)
    diffusion: Dict[str, Any] = field(default_factory=dict)
    sampler: Dict[str, Any] = field(default_factory=dict)
    others: Tuple[str, ...] = ()

    def has(self, group: str, setting: str) -> bool:
        """Tell whether the model has a setting."""
        return (setting == 'name' and group == 'model' or (group, setting) == ('training', 'ks')
                or setting in getattr(self, group, {}) or group in self.others or f'{group}.{setting}' in self.others)


_DENOISER = tuple(f'model.{name}' for name in ('time_channels', 'dropout', 'engine'))
MODELS: Dict[str, ModelSettings] = {
    'tv-diff': ModelSettings(
        {'hidden_channels': 1000, 'num_layers': 1}, {'timesteps': 'uniform'}, {'name': 'ar-gsp'},
        (*_DENOISER, 'model.time_type', 'model.normalization', 'model.energy_items', 'model.energy_rank', 'diffusion',
         'loss', 'sampler', 'training')),
    'diffrec': ModelSettings({'hidden_channels': 1000, 'reweight': True}, {'timesteps': 'loss-history'},
                             others=(*_DENOISER, 'diffusion', 'loss.reduction', 'training')),
    'lightgcn': ModelSettings({'hidden_channels': 64, 'num_layers': 3, 'regularization': 1e-4},
                              sampler={'name': 'uniform'}, others=('sampler', 'training')),
    'bpr-mf': ModelSettings({'hidden_channels': 64, 'regularization': 1e-4}, sampler={'name': 'uniform'},
                            others=('sampler', 'training')),
    'gf-cf': ModelSettings({'hidden_channels': 256, 'alpha': 0.3}),
    'ease': ModelSettings({'regularization': 500.0}),
    'ials': ModelSettings({'hidden_channels': 64, 'regularization': 0.01, 'alpha': 1.0}),
    'item-knn': ModelSettings({'num_neighbors': 100, 'regularization': 0.0}),
    'popularity': ModelSettings(),
}
"""The models that a recipe can name."""


@dataclass
class DatasetConfig:
    """Where the interactions come from.

    Args:
        name: a data set's name, or 'interaction-file' for a file of one's own.
        path: the file (CSV, TSV, Parquet, or user-item pairs in columns), for 'interaction-file'.
        test_path: a second file with the test part; without it a part of the file is held out, by split.
        validation_path: a file with the validation part; without it one is carved from the training part.
        layout: of the file: auto, table (CSV, TSV), adjacency (user item item ...) or pairs (by white space).
        separator: of a table; one character, guessed where absent.
        header: whether a table's first line names the columns; guessed where absent.
        user_column: header or position (from 0) of the user column; guessed where absent.
        item_column: likewise.
        rating_column: likewise, of a rating column, to be used with min_rating.
        min_rating: lowest rating that counts as an interaction.
        time_column: header or position (from 0) of a time column, for split leave-one-out and temporal.
        k_core: before splitting, keep only users and items that have at least so many of each other.
        split: ratio (a seeded part of each user's items), leave-one-out (each user's last item for the test and the one
            before it for validation, at random without time_column) or temporal (the latest interactions of all).
        test_ratio: of split ratio and temporal: the part held out for the test.
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
    time_column: Union[int, str, None] = None
    k_core: Optional[int] = None
    split: Literal['ratio', 'leave-one-out', 'temporal'] = 'ratio'
    test_ratio: float = TEST_RATIO
    split_seed: int = 0


@dataclass
class ModelConfig:
    """The model.

    Args:
        name: which one: tv-diff, or a baseline. What a setting below is for stands in brackets.
        hidden_channels: width d, or a list of the widths of all layers; gf-cf: rank. [tv-diff, diffrec: 1000;
            lightgcn, bpr-mf, ials: 64; gf-cf: 256]
        time_channels: width of the step's embedding.
        time_type: how the step enters: cat (sum), align (product) or gate.
        normalization: degree normalisation of the graph; none for no graph.
        dropout: probability of dropping an entry of the noisy row in training.
        engine: factored, without a users x items array, or dense, the paper's way and the oracle.
        energy_items: factored: estimate the energy from so many items; null takes all, exactly.
        energy_rank: of a stochastic energy: directions of the user codes that are taken exactly.
        reweight: whether steps weigh by the fall of the signal-to-noise ratio. [diffrec: true]
        num_layers: hops. [tv-diff: 1, as published; lightgcn: 3]
        regularization: of the squared weights; item-knn: shrinkage of the similarities. [lightgcn, bpr-mf: 1e-4; ease:
            500; ials: 0.01; item-knn: 0]
        num_neighbors: items that are similar to an item. [item-knn: 100]
        alpha: weight of the low-rank filter, or of the observed pairs. [gf-cf: 0.3; ials: 1]
    """

    name: ModelName = 'tv-diff'
    hidden_channels: Union[int, List[int], None] = None
    time_channels: int = 64
    time_type: Literal['cat', 'align', 'gate'] = 'cat'
    normalization: Literal['sym', 'left', 'linkprop', 'raw', 'none'] = 'sym'
    dropout: float = 0.5
    engine: Literal['factored', 'dense'] = 'factored'
    energy_items: Optional[int] = None
    energy_rank: int = 0
    reweight: Optional[bool] = None
    num_layers: Optional[int] = None
    regularization: Optional[float] = None
    num_neighbors: Optional[int] = None
    alpha: Optional[float] = None


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
        timesteps: how training steps are drawn. [tv-diff: uniform; diffrec: loss-history]
    """

    schedule: Literal['linear-var', 'linear', 'cosine', 'binomial'] = 'linear-var'
    num_steps: int = 5
    scale: float = 1e-4
    beta_min: float = 5e-4
    beta_max: float = 5e-3
    prediction: Literal['x0', 'eps'] = 'x0'
    timesteps: Optional[Literal['uniform', 'loss-history']] = None


@dataclass
class LossConfig:
    """The free energy.

    Args:
        entropy: entropy term; bce and nll train on batches of users, bpr on batches of pairs.
        temperature: weight of the entropy term; 0 for the vanilla objective, on the batches that the term would have.
        reduction: mean over the items as published, or sum, which is the same objective times their number.
    """

    entropy: Literal['bce', 'nll', 'bpr'] = 'bce'
    temperature: float = 1.0
    reduction: Literal['mean', 'sum'] = 'mean'


@dataclass
class SamplerConfig:
    """The negative sampler.

    Args:
        name: ar-gsp, or uniform or popularity as controls. [tv-diff: ar-gsp; lightgcn, bpr-mf: uniform]
        gamma: ar-gsp: accepted share of the catalogue.
        weights: ar-gsp: weights of the accepted items.
        lam: ar-gsp: how much sharper the draw gets at low noise.
        pool_size: ar-gsp: rank a shared random pool of so many items; null ranks the whole catalogue.
        exponent: popularity: exponent of an item's number of users.
        warmup_epochs: first draw uniformly for so many epochs.
    """

    name: Optional[Literal['ar-gsp', 'uniform', 'popularity']] = None
    gamma: float = 0.05
    weights: Literal['score', 'flat'] = 'score'
    lam: float = 3.0
    pool_size: Optional[int] = None
    exponent: float = 0.75
    warmup_epochs: int = 0


@dataclass
class TrainingConfig:
    """The loop.

    Args:
        batch_size: users, or pairs, a step, over all processes.
        num_parts: cut a batch into so many parts with random numbers of their own, shared out among the processes that
            torchrun starts, a multiple of whose number it must be. Each part computes all item codes anew.
        optimizer: adam, or row-lazy-adam, which updates only the rows of the tables that a step touches: for huge
            catalogues, with model.energy_items; not the same as Adam.
        lr: Adam's learning rate.
        lr_decay: factor of the learning rate after every epoch; 1 leaves it as it is.
        beta2: decay of Adam's second moments. The first steps have the largest gradients: 0.999 remembers them for a
            thousand steps, which are many epochs where an epoch has few.
        average: evaluate and keep a moving average of the weights, with this decay a step, in 0..1; null for none.
        weight_decay: decoupled weight decay (AdamW); 0 for plain Adam.
        max_epochs: at most so many epochs.
        max_minutes: at most so many minutes of training, sessions before a resumption counted; ends with an epoch.
        patience: stop after so many epochs without a better recall@20.
        thermo_users: log energy and entropy of so many users' rows after every epoch; 0 for none.
        ks: list lengths that are reported beside 20; by default 10 and 50, as far as the catalogue goes.
    """

    batch_size: int = 2048
    num_parts: int = 1
    optimizer: Literal['adam', 'row-lazy-adam'] = 'adam'
    lr: float = 1e-3
    lr_decay: float = 1.0
    beta2: float = 0.999
    average: Optional[float] = None
    weight_decay: float = 0.0
    max_epochs: int = 400
    max_minutes: Optional[float] = None
    patience: int = 10
    thermo_users: int = 256
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
        self._check_model()
        self._made_for = self.model.name
        if self.model.name == 'tv-diff' and (self.model.num_layers or 0) < 1:
            raise ValueError(f"'model.num_layers' must be at least 1 for tv-diff, got {self.model.num_layers}")
        if self.sampler.warmup_epochs < 0:
            raise ValueError(f"'sampler.warmup_epochs' must be at least 0, got {self.sampler.warmup_epochs}")
        training = self.training
        for name in ('batch_size', 'num_parts', 'max_epochs', 'patience'):
            if getattr(training, name) < 1:
                raise ValueError(f"'training.{name}' must be at least 1, got {getattr(training, name)}")
        if not 0 < training.lr < float('inf'):
            raise ValueError(f"'training.lr' must be a finite number > 0, got {training.lr}")
        if not 0 < training.lr_decay <= 1:
            raise ValueError(f"'training.lr_decay' must lie in (0, 1], got {training.lr_decay}")
        if not 0 <= training.beta2 < 1:
            raise ValueError(f"'training.beta2' must lie in [0, 1), got {training.beta2}")
        if training.average is not None and not 0 <= training.average < 1:
            raise ValueError(f"'training.average' must lie in [0, 1), got {training.average}")
        if training.max_minutes is not None and not 0 < training.max_minutes < float('inf'):
            raise ValueError(f"'training.max_minutes' must be a finite number > 0, got {training.max_minutes}")
        if not 0 <= training.weight_decay < float('inf'):
            raise ValueError(f"'training.weight_decay' must be a finite number >= 0, got {training.weight_decay}")
        if training.optimizer == 'row-lazy-adam' and self.model.energy_items is None:
            raise ValueError("'training.optimizer' row-lazy-adam needs 'model.energy_items', and so model 'tv-diff': "
                             "an exact energy touches every row at every step")
        if training.optimizer != 'adam' and training.weight_decay:
            raise ValueError("'training.weight_decay' goes with 'training.optimizer' adam")
        if training.thermo_users < 0 or training.thermo_users == 1:
            raise ValueError(f"'training.thermo_users' must be 0 or at least 2, got {training.thermo_users}")
        if any(k < 1 for k in training.ks or []):
            raise ValueError(f"'training.ks' must be list lengths of at least 1, got {training.ks}")
        if self.diffusion.prediction == 'eps' and self.model.engine == 'factored':
            raise ValueError("'diffusion.prediction' eps trains on the dense engine only: set 'model.engine' to dense")
        dataset = self.dataset
        if dataset.name == INTERACTION_FILE:
            if dataset.path is None:
                raise ValueError(f"'dataset.path' must name the file of interactions where 'dataset.name' is "
                                 f"'{INTERACTION_FILE}'")
            check_split(dataset.split, dataset.test_ratio, dataset.k_core, dataset.time_column is not None,
                        dataset.test_path is not None, dataset.validation_path is not None)
        else:
            for name, value in vars(dataset).items():
                if name not in ('name', 'split_seed') and value != getattr(DatasetConfig(), name):
                    raise ValueError(f"'dataset.{name}' is for a file of your own: set 'dataset.name' to "
                                     f"'{INTERACTION_FILE}', or use that recipe")
        if dataset.split_seed < 0:
            raise ValueError(f"'dataset.split_seed' must be at least 0, got {dataset.split_seed}")

    def _check_model(self) -> None:
        """Fill in what depends on the model, and refuse settings that it does not have."""
        model = MODELS[self.model.name]
        for group in ('model', 'diffusion', 'sampler'):
            given = getattr(self, group)
            own = {name: value for name, value in getattr(model, group).items() if getattr(given, name) is None}
            setattr(self, group, replace(given, **own))
        for group, default in (('model', ModelConfig(self.model.name)), ('diffusion', DiffusionConfig()),
                               ('loss', LossConfig()), ('sampler', SamplerConfig()), ('training', TrainingConfig())):
            for setting, value in vars(getattr(self, group)).items():
                if not model.has(group, setting) and value != getattr(default, setting):
                    raise ValueError(f"'{group}.{setting}' is {value!r}, but model '{self.model.name}' has no such "
                                     f"setting: leave it out, or start from --dataset.name instead of a recipe for "
                                     f"tv-diff")

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
            for name, hint in get_type_hints(type(getattr(cls(), key))).items():
                if name in value and value[name] is None and type(None) not in get_args(hint):
                    raise ValueError(f"'{key}.{name}' must have a value, got null")
        parser = _parser()
        try:
            return cls(**vars(parser.instantiate(parser.parse_object(values))))
        except ArgumentError as error:
            raise ValueError(' '.join(str(error).split())) from error

    def checked(self) -> Recipe:
        """Return the recipe made anew from its settings as they are now: they may have been changed since.

        Raises:
            ValueError: as :meth:`from_dict`, or another model, as the settings are those of the first one.
        """
        if self.model.name != self._made_for:
            raise ValueError(f"'model.name' was changed to {self.model.name} in a recipe for {self._made_for}, whose "
                             f"other settings it still has: make another by Recipe.from_dict({{'dataset': "
                             f"vars(recipe.dataset), 'model': {{'name': '{self.model.name}'}}}})")
        return self.from_dict(self.to_dict())

    def to_dict(self) -> Dict[str, Any]:
        """Return the settings as nested plain values."""
        return asdict(self)

    def settings(self) -> List[str]:
        """Return the names, ``group.name``, of the settings that the model has."""
        model = MODELS[self.model.name]
        return [f'{group}.{setting}' for group in ('model', 'diffusion', 'loss', 'sampler', 'training')
                for setting in vars(getattr(self, group)) if model.has(group, setting)]


def flatten(values: Dict[str, Any], prefix: str = '') -> Dict[str, Any]:
    """Return nested plain values by their names on the command line, ``group.name``."""
    out: Dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out.update(flatten(value, f'{prefix}{key}.'))
        else:
            out[prefix + key] = value
    return out


def _load(text: str) -> Any:
    """Read a value as YAML; what YAML takes for a comment, an anchor or another name of null is text."""
    value = get_loader('yaml')(text)
    return text if value is None else value


PARSER_MODE = 'tvdiff'
"""jsonargparse's mode in which settings are read: YAML, where no value but ``null`` is none."""
set_loader(PARSER_MODE, _load, (yaml.YAMLError,))


@cache
def _parser() -> ArgumentParser:
    """Made once: each leaves some 30 kB of types behind in jsonargparse."""
    parser = ArgumentParser(exit_on_error=False, parser_mode=PARSER_MODE)
    parser.add_class_arguments(Recipe)
    return parser


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


def load_recipe(name: str, /, **dataset: Any) -> Recipe:
    """Return a recipe that comes with the package.

    Args:
        name: one of :func:`recipe_names`.
        **dataset: settings of :class:`DatasetConfig`; ``interaction-file`` needs at least ``path='ratings.csv'``, or
            ``name=None`` where :func:`fit` is given its ``data``.

    Raises:
        ValueError: there is no such recipe or setting, or a value is of the wrong type or out of range.
    """
    values = yaml.safe_load(recipe_path(name).read_text(encoding='utf-8'))
    values['dataset'].update(dataset)
    return Recipe.from_dict(values)
