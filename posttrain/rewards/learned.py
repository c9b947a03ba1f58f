"""Rewards that a model computes: a reward model's score, and the implicit reward of a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from posttrain.expressions import Expression
from posttrain.rewards.calls import check_options
from posttrain.rewards.protocol import Reward
from posttrain.types import InputError

T = TypeVar("T")
USES = ("mean", "min")
AGGREGATES = ("min", "product", "last", "mean")


def learned(model: str, *, use: str = "mean", variance_penalty: float = 0.0, aggregate: str | None = None) -> Reward:
    """The score that a reward model gives to the whole response: a run folder of `posttrain reward-model`, or any
    transformers sequence classifier with a linear head on a causal model.

    Of an ensemble, `use` is `"mean"` or `"min"` of its members, and `variance_penalty` λ takes λ times the variance
    over members off (Coste et al. 2023, arXiv:2310.02743: worst-case and uncertainty-weighted optimisation); the parts
    `mean` and `deviation` are their mean and standard deviation. The response is encoded with the reward model's own
    tokenizer and chat template, closed by its end token.

    Of a process model it is put together from the probabilities that each step is right, by `aggregate`: their `"min"`
    (if not given; Math-Shepherd, arXiv:2312.08935), their `"product"` (that all are right; Lightman et al. 2023,
    arXiv:2305.20050), the `"last"` or the `"mean"`. Steps end at the separator that the model keeps; a response without
    it is one step. The part `steps` is their number.
    Range unbounded, in units of its own: differences are log-odds of being preferred; of a process model [0, 1]. Fails
    where prompt and response are longer than the model's context. Source: Stiennon et al. 2020, arXiv:2009.01325."""
    from posttrain.models import load_reward_model
    from posttrain.rewards.models import Learned, Stepwise

    lm = load_reward_model(model)
    separator = lm.reward_head.step_separator
    if separator is None:
        if aggregate is not None:
            raise InputError(f"aggregate is for process models, and {model} scores whole responses; leave it out")
        return Learned(lm, use, variance_penalty)
    if use != "mean" or variance_penalty:
        raise InputError(f"use and variance_penalty are for ensembles, and {model} is a process model; say aggregate")
    return Stepwise(lm, separator, aggregate or "min")


def implicit(policy: str, reference: str, *, beta: float = 0.1) -> Reward:
    """β log π(y|x)/π_ref(y|x) of the response, end token included: the reward that a policy trained by DPO from the
    reference stands for (Rafailov et al. 2023, arXiv:2305.18290, equation 5).

    It is known up to β log Z(x), which is the same for all responses to a prompt: compare within prompts only. Both
    models read the tokens of the policy's tokenizer and chat template.
    Range unbounded, in units of β nats. Fails where prompt and response are longer than the models' context. Source:
    arXiv:2305.18290."""
    from posttrain.models import load_model
    from posttrain.rewards.models import Implicit

    ours, theirs = load_model(policy), load_model(reference)
    if ours.tokenizer.get_vocab() != theirs.tokenizer.get_vocab():
        raise InputError(f"{policy} and {reference} have different vocabularies and cannot be compared")
    return Implicit(ours, theirs, beta)


def _check_values(
    use: str = "mean", variance_penalty: float = 0.0, aggregate: str | None = None, beta: float = 0.1
) -> None:
    if use not in USES:
        raise InputError(f"use is {use!r}; it must be one of {', '.join(USES)}")
    if not 0 <= variance_penalty < float("inf"):
        raise InputError(f"variance_penalty must be a number of at least 0, not {variance_penalty}")
    if aggregate is not None and aggregate not in AGGREGATES:
        raise InputError(f"aggregate is {aggregate!r}; it must be one of {', '.join(AGGREGATES)}")
    if not 0 < beta < float("inf"):
        raise InputError(f"beta must be a number above 0, not {beta}")


KINDS: Mapping[str, Callable[..., Reward]] = {"learned": learned, "implicit": implicit}


def check_model_reward(part: Expression) -> None:
    """Check the options of a reward of models without loading one. Raises InputError."""
    _checked(part, lambda **options: None)


def load_models(expressions: Iterable[Expression]) -> dict[str, Reward]:
    """The rewards of models among these expressions and inside them, by their text. Raises InputError for one that
    cannot be loaded, and for an option it does not have."""
    parts = {part.text: part for expression in expressions for part in expression.walk() if part.models}
    return {text: _checked(part, partial(KINDS[part.target], *part.models)) for text, part in parts.items()}


def _checked(part: Expression, make: Callable[..., T]) -> T:
    try:
        check_options(part, KINDS[part.target], len(part.models))
        _check_values(**part.options)
        return make(**part.options)
    except (InputError, TypeError) as error:
        raise InputError(f"reward {part.text}: {str(error).removeprefix('--model ')}") from error
