"""Where the names of `posttrain` are. Made by `python -m tests.api.make_options`."""

from posttrain.api.commands import (
    adversarial as adversarial,
)
from posttrain.api.commands import (
    average as average,
)
from posttrain.api.commands import (
    check_data as check_data,
)
from posttrain.api.commands import (
    compare as compare,
)
from posttrain.api.commands import (
    distill as distill,
)
from posttrain.api.commands import (
    dpo as dpo,
)
from posttrain.api.commands import (
    evaluate as evaluate,
)
from posttrain.api.commands import (
    load as load,
)
from posttrain.api.commands import (
    online_dpo as online_dpo,
)
from posttrain.api.commands import (
    revise as revise,
)
from posttrain.api.commands import (
    reward_model as reward_model,
)
from posttrain.api.commands import (
    rl as rl,
)
from posttrain.api.commands import (
    run as run,
)
from posttrain.api.commands import (
    sample as sample,
)
from posttrain.api.commands import (
    score as score,
)
from posttrain.api.commands import (
    sft as sft,
)
from posttrain.api.inputs import reward as reward
from posttrain.api.results import (
    Comparison as Comparison,
)
from posttrain.api.results import (
    DataReport as DataReport,
)
from posttrain.api.results import (
    Evaluation as Evaluation,
)
from posttrain.api.results import (
    Report as Report,
)
from posttrain.api.results import (
    Run as Run,
)
from posttrain.api.results import (
    write_report as write_report,
)
from posttrain.config import (
    AdversarialConfig as AdversarialConfig,
)
from posttrain.config import (
    AverageConfig as AverageConfig,
)
from posttrain.config import (
    CheckDataConfig as CheckDataConfig,
)
from posttrain.config import (
    CompareConfig as CompareConfig,
)
from posttrain.config import (
    DistillConfig as DistillConfig,
)
from posttrain.config import (
    DpoConfig as DpoConfig,
)
from posttrain.config import (
    EvalConfig as EvalConfig,
)
from posttrain.config import (
    OnlineDpoConfig as OnlineDpoConfig,
)
from posttrain.config import (
    ReviseConfig as ReviseConfig,
)
from posttrain.config import (
    RewardModelConfig as RewardModelConfig,
)
from posttrain.config import (
    RlConfig as RlConfig,
)
from posttrain.config import (
    RunConfig as RunConfig,
)
from posttrain.config import (
    SampleConfig as SampleConfig,
)
from posttrain.config import (
    ScoreConfig as ScoreConfig,
)
from posttrain.config import (
    SftConfig as SftConfig,
)
from posttrain.rewards.scorer import Scorer as Scorer
from posttrain.runs.table import Table as Table
from posttrain.types import (
    InputError as InputError,
)
from posttrain.types import (
    Message as Message,
)
from posttrain.types import (
    RunFailed as RunFailed,
)
from posttrain.types import (
    Sample as Sample,
)
from posttrain.types import (
    Score as Score,
)
