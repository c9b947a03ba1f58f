"""The configuration of every stage: one frozen class each. The attribute docstrings are the help text.

The command line, recipes and Python share these classes; nothing here imports torch.
"""

from posttrain.config.base import Config, as_tuple, read_columns
from posttrain.config.compute import ComputeOptions
from posttrain.config.evaluation import (
    ChatConfig,
    CheckDataConfig,
    CompareConfig,
    EvalConfig,
    ReportConfig,
    ScoreConfig,
)
from posttrain.config.preference import DpoConfig, OnlineDpoConfig
from posttrain.config.recipe import AverageConfig, HeldOut, ModelShape, Recipe, RunConfig
from posttrain.config.reward_model import AdversarialConfig, RewardModelConfig
from posttrain.config.rl import RlConfig
from posttrain.config.sampling import REWARDS, ReviseConfig, SampleConfig, SourceConfig
from posttrain.config.training import DistillConfig, SftConfig, TrainConfig
