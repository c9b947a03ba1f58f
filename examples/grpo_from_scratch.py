"""GRPO from scratch, in one file that reads from top to bottom.

A tiny random model learns to answer with a wanted letter. The parts are posttrain's own (types, losses, advantages,
packing, engine); the loop is written out here, so that nothing is hidden. `posttrain rl` is this loop with data,
rewards in worker processes, evaluation, checkpoints and resume around it.

    python examples/grpo_from_scratch.py --steps 30

GRPO (DeepSeekMath, arXiv:2402.03300) in four lines:
1. sample G answers to each prompt from the policy;
2. score them; the advantage of an answer is its score minus its group's mean, over the group's standard deviation;
3. the gradient of log π(answer), weighted by that advantage, is ascended (clipping matters from the second step on the
   same answers);
4. repeat with the new policy.

Left out, and in `posttrain rl`: KL to a reference, several optimizer steps a batch, groups with unscored answers.
"""

from __future__ import annotations

import argparse

import torch

from posttrain.batch.packing import Branch, Tree, pack, share_prefix
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.losses.advantages import group_normalised
from posttrain.losses.policy import PolicyLoss, policy_loss
from posttrain.models import LanguageModel, load_model
from posttrain.types import Completion, Group, Rollout, Sampling, Score, Segment, Task

PROMPTS = ("Say something.", "Write a word.", "Answer me.", "Go on.")
GROUP_SIZE = 8  # G: completions a prompt
SAMPLING = Sampling(max_new_tokens=12, temperature=1.0)


def reward(text: str, wanted: str) -> float:
    """Share of the response's characters that are the wanted letter, in [0, 1]."""
    return text.count(wanted) / max(len(text), 1)


def sample_groups(engine: LocalEngine, lm: LanguageModel, tasks: list[Task], step: int) -> list[Group]:
    """G completions of every prompt, scored. The prompt of a group is prefilled once."""
    prompts = [lm.chat.prompt_ids(task.prompt) for task in tasks]
    requests = [
        Request(id=i * GROUP_SIZE + g, prompt_ids=prompts[i], sampling=SAMPLING, seed=hash((step, i, g)) % 2**32)
        for i in range(len(tasks))
        for g in range(GROUP_SIZE)
    ]
    done: dict[int, Completion] = dict(engine.generate(requests))
    groups = []
    for i, task in enumerate(tasks):
        rollouts = []
        for g in range(GROUP_SIZE):
            completion = done[i * GROUP_SIZE + g]
            rollouts.append(
                Rollout(
                    task_id=task.id,
                    index=g,
                    sampling=SAMPLING,
                    seed=requests[i * GROUP_SIZE + g].seed,
                    messages=(lm.chat.answer(completion.token_ids).message,),
                    segments=(Segment.of(prompts[i], completion),),
                )
            )
        scores = [Score(reward(r.text, task.columns["wanted"])) for r in rollouts]
        groups.append(Group(task, tuple(rollouts), tuple(scores)))
    return groups


def training_trees(groups: list[Group]) -> list[Tree]:
    """One tree a group: the prompt is its trunk, the completions its branches.

    A token weighs 1/(completions of the step x length of its completion): the mean over completions of token means."""
    completions = sum(len(group.rollouts) for group in groups)
    trees = []
    for group in groups:
        advantages = group_normalised([score.total for score in group.scores if score.total is not None])
        branches = []
        for rollout, advantage in zip(group.rollouts, advantages, strict=True):
            (segment,) = rollout.segments
            n = segment.sampled_count
            branches.append(
                Branch(
                    token_ids=segment.token_ids,
                    mask=segment.sampled,  # what was sampled is what is trained, end token included
                    weights=(1.0 / (completions * n),) * n,
                    token={"advantages": (advantage,) * n},
                )
            )
        trees.append(share_prefix(branches))
    return trees


def train_step(lm: LanguageModel, optimizer: torch.optim.Optimizer, groups: list[Group]) -> float:
    """One optimizer step on the groups; returns the gradient norm before clipping."""
    batch = pack(training_trees(groups)).to(lm.device)
    policy_logprobs = lm.logprobs(batch, temperature=SAMPLING.temperature).logprobs
    output = policy_loss(
        PolicyLoss(surrogate="clip"),
        policy_logprobs,
        policy_logprobs.detach(),  # the only step on these answers: the policy is its own proximal policy
        batch.token["advantages"],
        batch.weights,
    )
    output.loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(lm.module.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(norm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", default="tiny-random")
    parser.add_argument("--wanted", default="e", help="the letter that is rewarded")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    args = parser.parse_args()

    lm = load_model(args.model)
    engine = LocalEngine(lm, slots=32)
    optimizer = torch.optim.AdamW(lm.module.parameters(), lr=args.learning_rate, weight_decay=0.0)
    tasks = [Task(str(i), prompt, {"wanted": args.wanted}) for i, prompt in enumerate(PROMPTS)]

    for step in range(1, args.steps + 1):
        groups = sample_groups(engine, lm, tasks, step)
        norm = train_step(lm, optimizer, groups)
        engine.update(None, version=step)  # engine and trainer share the weights; caches are dropped
        scores = [score.total for group in groups for score in group.scores if score.total is not None]
        print(f"step {step:3}  reward {sum(scores) / len(scores):.3f}  grad_norm {norm:.2f}", flush=True)


if __name__ == "__main__":
    main()
