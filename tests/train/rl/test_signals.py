"""Advantages of whole steps, as each algorithm makes them, against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from posttrain.arrays import Floats, floats
from posttrain.config import RlConfig
from posttrain.losses.advantages import divided_by_deviation, gae, group_centred, leave_one_out, returns_to_go, whitened
from posttrain.train.rl.advantages import Rows, TrainingRow, overlong_penalty, scored_rows, with_advantages
from posttrain.train.rl.batch import branches_of, explained_variance, step_trees
from posttrain.train.rl.controllers import AdaptiveKl, Constraints
from posttrain.types import Group, InputError, Rollout, Sampling, Score, Segment, Task


def config(algorithm: str, **options: Any) -> RlConfig:
    fixed = {"model": "m", "data": "d", "out": "o", "reward": ("r",), "batch_size": 8, "max_new_tokens": 10}
    return RlConfig(**{**fixed, "algorithm": algorithm, **options})


def rollout(length: int, logprob: float = -1.0) -> Rollout:
    segment = Segment(
        (7,) * (2 + length), (False,) * 2 + (True,) * length, (0.0,) * 2 + (logprob,) * length, (0,) * (2 + length)
    )
    return Rollout("0", 0, Sampling(10), 0, (), (segment,))


def groups_of(scores: Sequence[Sequence[float | None]], length: int = 2) -> list[Group]:
    return [
        Group(
            Task(str(i), "p"),
            tuple(rollout(length) for _ in members),
            tuple(Score(s, reason=None if s is not None else "failed") for s in members),
        )
        for i, members in enumerate(scores)
    ]


def step_rows(settings: RlConfig, groups: Sequence[Group], **numbers: Sequence[Sequence[float]]) -> Rows:
    """The rows of a step with their advantages, after each has been given numbers of its tokens, in order."""
    rows = scored_rows(
        groups, lambda r, s: (s.total or 0.0) + (overlong_penalty(settings, r) if settings.overlong_share else 0.0)
    )
    for name, values in numbers.items():
        rest = iter(values)
        rows = [[replace(row, **{name: floats(next(rest))}) for row in group] for group in rows]
    return with_advantages(settings, rows, beta=settings.beta, weights={})


def advantages(rows: Rows) -> list[list[tuple[float, ...]]]:
    return [[tuple(row.advantages.tolist()) for row in group if row.advantages is not None] for group in rows]


def trained(length: int, advantage: float) -> TrainingRow:
    """A row whose tokens all have one advantage."""
    return replace(
        scored_rows([Group(Task("0", "p"), (rollout(length),), (Score(0.0),))])[0][0],
        advantages=floats([advantage] * length),
    )


def lists(arrays: Sequence[Floats]) -> list[list[float]]:
    return [array.tolist() for array in arrays]


def test_functions_by_hand() -> None:
    """RLOO of 1, 0, 0, 1: others' means 1/3, 2/3, 2/3, 1/3. Whitening 1, 2, 3: mean 2, σ √(2/3), over all rows."""
    assert leave_one_out([1, 0, 0, 1]) == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert group_centred([1, 0, 0, 1]) == [0.5, -0.5, -0.5, 0.5]
    assert lists(whitened([[1, 2], [3]])) == [pytest.approx([-math.sqrt(1.5), 0.0]), pytest.approx([math.sqrt(1.5)])]
    assert lists(whitened([[2.0, 2.0], [2.0]])) == [[0.0, 0.0], [0.0]]
    assert lists(whitened([[1.0, 1.0001]], least=0.001)) == [[0.0, 0.0]]
    assert lists(whitened([[], []])) == [[], []]
    assert divided_by_deviation([[1, 2], [3]])[1][0] == pytest.approx(3 / math.sqrt(2 / 3))
    assert returns_to_go([1, 0, 2], 0.5).tolist() == [1.5, 1.0, 2.0]
    assert returns_to_go([1, 0, 2], 1.0).tolist() == [3.0, 2.0, 2.0]


def test_gae_by_hand() -> None:
    """Rewards 0, 0, 1, values ½, γ 1: δ = 0, 0, ½. λ = 0 gives the δs, λ = 1 returns minus values, and λ = ½ ⅛, ¼, ½;
    the targets are advantages plus values."""
    assert gae([0, 0, 1], [0.5] * 3, 1.0, 0.0)[0].tolist() == [0.0, 0.0, 0.5]
    assert gae([0, 0, 1], [0.5] * 3, 1.0, 1.0)[0].tolist() == [0.5, 0.5, 0.5]
    assert lists(gae([0, 0, 1], [0.5] * 3, 1.0, 0.5)) == [[0.125, 0.25, 0.5], [0.625, 0.75, 1.0]]


def test_grpo_dr_grpo_and_rloo() -> None:
    groups = groups_of([(1, 0, 0, 1), (0, 0, 0, 4), (1, None, None, None)])
    grpo = advantages(step_rows(config("grpo", group_size=4), groups))
    assert grpo[0] == [(1.0, 1.0), (-1.0, -1.0), (-1.0, -1.0), (1.0, 1.0)]
    assert grpo[1][3] == pytest.approx((math.sqrt(3),) * 2)
    assert grpo[2] == []  # one scored answer has no baseline
    dr_grpo = advantages(step_rows(config("dr-grpo", group_size=4), groups))
    assert dr_grpo[1] == [(-1.0, -1.0)] * 3 + [(3.0, 3.0)]
    rloo = advantages(step_rows(config("rloo", beta=0), groups))
    assert rloo[1][3] == pytest.approx((4.0, 4.0)) and rloo[1][0] == pytest.approx((-4 / 3,) * 2)


def test_reinforce_and_its_whitened_kin() -> None:
    """Plain scores; whitened over the step's four tokens; the group's mean off and then whitened, where a group of
    equal scores has 0."""
    groups = groups_of([(1.0,), (3.0,)])
    assert advantages(step_rows(config("reinforce"), groups)) == [[(1.0, 1.0)], [(3.0, 3.0)]]
    plus = advantages(step_rows(config("reinforce++", beta=0), groups))
    assert plus == [[(-1.0, -1.0)], [(1.0, 1.0)]]
    groups = groups_of([(1.0, 3.0), (5.0, 5.0)])
    baseline = advantages(step_rows(config("reinforce++-baseline", group_size=2), groups))
    assert baseline[0] == [pytest.approx((-math.sqrt(2),) * 2), pytest.approx((math.sqrt(2),) * 2)]
    assert baseline[1] == [(0.0, 0.0), (0.0, 0.0)]


def test_the_kl_in_the_reward_is_by_token_or_by_response() -> None:
    """log π = −1 and log π_ref = −1.5 and −1.1 for two tokens: β = 0.2 takes 0.1 and 0.02 off. REINFORCE++ sees the
    penalties still to come (0.12, then 0.02); RLOO their sum."""
    groups = groups_of([(1.0,), (2.0,)])
    references = [(-1.5, -1.1)] * 2
    options = {"baseline": "none", "scale": "none", "beta": 0.2}
    out = advantages(step_rows(config("reinforce++", **options), groups, ref_logprobs=references))
    assert out[0][0] == pytest.approx((0.88, 0.98))
    groups = groups_of([(1.0, 2.0)])
    references = [(-1.5, -1.1), (-1.0, -1.0)]
    settings = config("rloo", group_size=2, beta=0.2)
    out = advantages(step_rows(settings, groups, ref_logprobs=references))
    assert out[0][0] == pytest.approx((0.88 - 2.0,) * 2)


def test_ppo() -> None:
    """The score comes at the last token. Values ½ and ½, γ = λ = 1: advantages are the score minus ½, whitened; targets
    are the score."""
    groups = groups_of([(1.0,), (0.0,)])
    values = [(0.5, 0.5)] * 2
    settings = config("ppo", beta=0, gae_lambda=1.0)
    rows = step_rows(settings, groups, values=values)
    assert advantages(rows) == [[(1.0, 1.0)], [(-1.0, -1.0)]]
    assert [lists([row.returns for row in group if row.returns is not None]) for group in rows] == [
        [[1.0, 1.0]],
        [[0.0, 0.0]],
    ]
    assert explained_variance(rows) == pytest.approx(0.0)
    perfect = [[replace(row, values=row.returns) for row in group] for group in rows]
    assert explained_variance(perfect) == pytest.approx(1.0)
    plain = step_rows(config("ppo", beta=0, scale="none", whiten_rewards=True), groups, values=values)
    # rewards 0, 1, 0, 0 have σ √3/4
    assert plain[0][0].returns is not None and plain[0][0].returns[1] == pytest.approx(4 / math.sqrt(3))


@pytest.mark.parametrize(
    ("normalisation", "first", "second"),
    [
        # two responses of 2 and 4 tokens, 10 at most
        ("sequence", 1 / 4, 1 / 8),
        ("token", 1 / 6, 1 / 6),
        ("constant", 1 / 20, 1 / 20),
        ("sum", 1 / 2, 1 / 2),
    ],
)
def test_weights(normalisation: str, first: float, second: float) -> None:
    rows = [[trained(2, 1.0), trained(4, -1.0)]]
    (tree,) = step_trees(config("grpo", normalisation=normalisation), rows, keep_zero_advantage=False)
    assert [b.weights.tolist() for b in tree.branches] == [pytest.approx([first] * 2), pytest.approx([second] * 4)]


def test_groups_without_variance_stay_in_the_denominator() -> None:
    rows = [[trained(2, 1.0)], [trained(2, 0.0)]]
    trees = step_trees(config("grpo"), rows, keep_zero_advantage=False)
    assert len(trees) == 1 and trees[0].branches[0].weights.tolist() == [0.25, 0.25]
    assert len(step_trees(config("grpo"), rows, keep_zero_advantage=True)) == 2


def test_a_rollout_of_two_segments_is_two_branches() -> None:
    """What runs over its sampled tokens is cut between them; its length is that of both."""
    two = Rollout("0", 0, Sampling(10), 0, (), (rollout(2).segments[0], rollout(3).segments[0]))
    one, other = branches_of(two, 0.5, {"advantages": floats([1, 2, 3, 4, 5])})
    assert lists([one.token["advantages"], other.token["advantages"]]) == [[1, 2], [3, 4, 5]]
    (tree,) = step_trees(config("grpo"), [[replace(trained(5, 1.0), rollout=two)]], keep_zero_advantage=False)
    assert sum(w for b in tree.branches for w in b.weights.tolist()) == pytest.approx(1.0)


def test_overlong_answers_lose() -> None:
    """dapo, ten tokens at most, the last two of which cost: 9 tokens lose ½, 10 lose 1, 8 nothing."""
    groups = [Group(Task("0", "p"), tuple(rollout(n) for n in (8, 9, 10)), (Score(1.0),) * 3)]
    settings = config("dapo", group_size=3, batch_size=3, scale="none")
    assert [a[0] for a in advantages(step_rows(settings, groups))[0]] == pytest.approx([0.5, 0.0, -0.5])


def test_adaptive_kl() -> None:
    """Target 6: at 12 the error is clipped to 0.2, at 6 it is 0, at 5.4 −0.1; β moves by a tenth of it."""
    kl = AdaptiveKl(0.1, 6.0)
    for seen, expected in ((12.0, 0.1 * 1.02), (6.0, 0.1 * 1.02), (5.4, 0.1 * 1.02 * 0.99)):
        kl.update(seen)
        assert kl.beta == pytest.approx(expected)
    fixed = AdaptiveKl(0.1, None)
    fixed.update(100.0)
    assert fixed.beta == 0.1


def test_constraints_by_hand() -> None:
    """safe ≥ 0.9 with means 0.5 and 1.0 at rate 0.5: λ = 0.2, then 0.15. The total gains λ (part − 0.9)."""
    constraints = Constraints(["safe>=0.9"], 0.5)
    assert constraints.adjusted(Score(1.0, {"safe": 0.0})) == 1.0

    def step(*parts: float | None) -> None:
        scores = tuple(Score(1.0, {"safe": p}) for p in parts)
        constraints.update([Group(Task("0", "p"), tuple(rollout(1) for _ in parts), scores)])

    step(0.0, 1.0, None)
    assert constraints.multipliers == {"safe": pytest.approx(0.2)}
    assert constraints.adjusted(Score(1.0, {"safe": 0.4})) == pytest.approx(1.0 - 0.2 * 0.5)
    assert constraints.adjusted(Score(1.0, {"safe": None})) == 1.0
    step(1.0)
    assert constraints.multipliers == {"safe": pytest.approx(0.15)}
    for _ in range(9):
        step(1.0)
    assert constraints.multipliers == {"safe": 0.0}
    with pytest.raises(InputError, match="no reward has this name"):
        constraints.check(["helpful"])
    with pytest.raises(InputError, match="NAME>=LEVEL"):
        Constraints(["safe>0.9"], 0.5)
    with pytest.raises(InputError, match="two levels"):
        Constraints(["safe>=0.9", "safe>=0.1"], 0.5)
    assert Constraints(["safe>=1e-3"], 0.5).levels == {"safe": 0.001}


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        ("grpo", {"gamma": 0.9}, "gamma has no effect here; it needs baseline none or critic"),
        ("grpo", {"gae_lambda": 0.9}, "gae_lambda has no effect"),
        ("grpo", {"kl_target": 6.0}, "kl_target has no effect here; it needs beta above 0"),
        ("grpo", {"kl_in": "reward"}, "kl_in has no effect"),
        ("grpo", {"kl_stop": 0.1}, "updates_per_batch"),
        ("grpo", {"max_turns": 3}, "max_turns has no effect here; it needs env"),
        ("grpo", {"beta": 0.1, "kl_estimator": "k1"}, "expected gradient of 0"),
        ("grpo", {"beta": 0.1, "kl_in": "reward", "kl_estimator": "k3"}, "belongs in the loss"),
        ("grpo", {"group_size": 1}, "at least 2"),
        ("reinforce", {"clip": 0.1}, "another surrogate"),
        ("reinforce", {"updates_per_batch": 2}, "one optimizer step"),
        ("ppo", {"scale": "group", "group_size": 2}, "a critic's advantages are by token"),
        ("ppo", {"value_coefficient": 1.0}, "critic head"),
        ("ppo", {"critic": "head", "critic_learning_rate": 1.0}, "critic separate"),
        ("rloo", {"aggregation": "gdpo"}, "gdpo"),
        ("grpo", {"aggregation": "gdpo", "scale": "none"}, "gdpo"),
        ("dapo", {"aggregation": "gdpo"}, "overlong_share"),
        ("grpo", {"mismatch_limit": 3.0}, "mismatch_limit has no effect"),
        ("grpo", {"replay": "f"}, "leave it out"),
        ("grpo", {"replay": "f", "reward": (), "env": "e"}, "env"),
        ("grpo", {"reward": ()}, "reward is required"),
        ("grpo", {"replay": "f", "dry_run": True}, "replay"),
    ],
)
def test_options_without_effect_are_refused(algorithm: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(algorithm, **options)


def test_an_algorithm_is_the_values_of_its_options() -> None:
    dapo = config("dapo")
    assert (dapo.clip, dapo.clip_high, dapo.normalisation, dapo.max_refills) == (0.2, 0.28, "token", 8)
    mixed = config("dapo", clip_high=0.5, normalisation="sequence")
    assert (mixed.clip_high, mixed.normalisation, mixed.max_refills) == (0.5, "sequence", 8)
    assert config("grpo", beta=0.1, kl_in="reward").kl_estimator == "k1"
    assert config("ppo", kl_in="loss").kl_estimator == "k3"


def test_a_spread_within_the_rounding_of_the_type_is_no_signal() -> None:
    """Equal scores, and one response that is 0.01 nats from the reference: a penalty to learn from in float32, noise
    where sampler and trainer round to bfloat16."""
    settings = config("grpo", group_size=2, beta=0.1, kl_in="reward")
    rows = scored_rows(groups_of([(1.0, 1.0)], length=1))
    rows = [[replace(row, ref_logprobs=floats([-1.0 - 0.01 * i])) for i, row in enumerate(group)] for group in rows]
    found = {
        dtype: advantages(with_advantages(settings, rows, beta=0.1, weights={}, dtype=dtype))
        for dtype in ("float32", "bfloat16")
    }
    assert found["float32"] == [[pytest.approx((1.0,)), pytest.approx((-1.0,))]]
    assert found["bfloat16"] == [[(0.0,), (0.0,)]]
