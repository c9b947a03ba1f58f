"""Where the names of `posttrain` are. Made by `python -m tests.api.make_options`."""

from posttrain.alerts import Alert as Alert, Observer as Observer, StepRecord as StepRecord
from posttrain.api.commands import (
    check_data as check_data,
    compare as compare,
    evaluate as evaluate,
    load as load,
    run as run,
    score as score,
    steps as steps,
)
from posttrain.api.inputs import reward as reward
from posttrain.api.methods import (
    adversarial as adversarial,
    average as average,
    distill as distill,
    dpo as dpo,
    online_dpo as online_dpo,
    revise as revise,
    reward_model as reward_model,
    rl as rl,
    sample as sample,
    sft as sft,
)
from posttrain.api.results import (
    Comparison as Comparison,
    DataReport as DataReport,
    Evaluation as Evaluation,
    Report as Report,
    Run as Run,
    write_report as write_report,
)
from posttrain.config import (
    AdversarialConfig as AdversarialConfig,
    AverageConfig as AverageConfig,
    CheckDataConfig as CheckDataConfig,
    CompareConfig as CompareConfig,
    DistillConfig as DistillConfig,
    DpoConfig as DpoConfig,
    EvalConfig as EvalConfig,
    OnlineDpoConfig as OnlineDpoConfig,
    ReviseConfig as ReviseConfig,
    RewardModelConfig as RewardModelConfig,
    RlConfig as RlConfig,
    RunConfig as RunConfig,
    SampleConfig as SampleConfig,
    ScoreConfig as ScoreConfig,
    SftConfig as SftConfig,
)
from posttrain.rewards.scorer import Scorer as Scorer
from posttrain.runs.table import Table as Table
from posttrain.types import (
    InputError as InputError,
    Message as Message,
    RunFailed as RunFailed,
    RunPaused as RunPaused,
    Sample as Sample,
    Score as Score,
)
