"""Every setting of an experiment and its default.

Defaults live only here. Each checkpoint stores its `Config` as JSON, so a command on a trained model needs only the
checkpoint. This room imports neither JAX nor TensorFlow.
"""

from ecvae_jax.config.checks import check as check
from ecvae_jax.config.checks import check_range as check_range
from ecvae_jax.config.checks import check_types as check_types
from ecvae_jax.config.experiment import Architecture as Architecture
from ecvae_jax.config.experiment import Config as Config
from ecvae_jax.config.experiment import load_config as load_config
from ecvae_jax.config.experiment import rename_old as rename_old
from ecvae_jax.config.sections import RENDERED as RENDERED
from ecvae_jax.config.sections import AdaptConfig as AdaptConfig
from ecvae_jax.config.sections import ClusterConfig as ClusterConfig
from ecvae_jax.config.sections import DataConfig as DataConfig
from ecvae_jax.config.sections import ModelConfig as ModelConfig
from ecvae_jax.config.sections import ObjectiveConfig as ObjectiveConfig
from ecvae_jax.config.sections import OptimConfig as OptimConfig
from ecvae_jax.config.sections import PriorConfig as PriorConfig
from ecvae_jax.config.sections import PriorKind as PriorKind
from ecvae_jax.config.sections import PriorNoise as PriorNoise
from ecvae_jax.config.sections import SketchConfig as SketchConfig
from ecvae_jax.config.sections import Span as Span
from ecvae_jax.config.sections import TrainConfig as TrainConfig
