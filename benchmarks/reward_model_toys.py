"""What protects a reward model from being optimised into nonsense, on toys whose truth is known: where it helps, and
where it does not.

    python benchmarks/reward_model_toys.py            # rewrites the table in docs/reward-models.md

Answers are vectors, a reward model is a linear head with the losses, weights and searches of the package, and a policy
is best-of-n. Each line is the mean true score of what is picked, over seeds, and its difference from the first line of
its block, paired by seed; both with 95% bootstrap intervals.

- `ensembles`: four fifths of the answers are like those in the training pairs. The others are strange: large where the
  pairs say next to nothing, and worse for it. A quarter of the labels is wrong. Beside it: no strange answers.
- `length`: labels pay for length and the truth does not; neither does; both do.
- `adversarial`: two rounds of search and refitting, judged by the ensemble's mean; with strange answers in the policy,
  and without.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from posttrain.losses.reward_model import balanced_weights, bootstrap_weights, head_overlap, odin_loss, pair_loss
from posttrain.rewards.models import of_members
from posttrain.stats import bootstrap_mean, paired_bootstrap
from posttrain.train.reward_model.search import calibrate, hill_climb

DOC = Path(__file__).parents[1] / "docs" / "reward-models.md"
START, END = "<!-- figures: python benchmarks/reward_model_toys.py -->\n", "<!-- end of figures -->\n"
Array = NDArray[np.float64]
KNOWN, UNKNOWN = 12, 6
"""Directions in which training pairs differ, and in which they hardly do."""
PROMPTS, BEST_OF, MEMBERS = 64, 256, 5
STEPS, RATE = 100, 0.1


def drawn(rng: np.random.Generator, n: int, strange: float) -> Array:
    """Answers [n, KNOWN + UNKNOWN], a share of them strange."""
    x = rng.normal(size=(n, KNOWN + UNKNOWN))
    x[:, KNOWN:] *= np.where(rng.random(n) < strange, 2.0, 0.2)[:, None]
    return x


def true_score(x: Array, truth: Array) -> Array:
    """Along `truth` in the known directions, less a tenth of the square of the others."""
    return x[..., :KNOWN] @ truth - 0.1 * (x[..., KNOWN:] ** 2).sum(-1)


def ranked(rng: np.random.Generator, a: Array, b: Array, preference: Array, noise: float) -> tuple[Array, Array]:
    """Chosen and rejected of a and b by Bradley–Terry on `preference`, the differences, with a share of flips."""
    first = rng.random(len(a)) < 1 / (1 + np.exp(-preference))
    first ^= rng.random(len(a)) < noise
    return np.where(first[:, None], a, b), np.where(first[:, None], b, a)


def start(width: int, heads: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn(width, heads, generator=rng, dtype=torch.float64) / (width + 1) ** 0.5).requires_grad_()


def minimised(head: torch.Tensor, loss: Callable[[], torch.Tensor]) -> Array:
    optimizer = torch.optim.Adam([head], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return head.detach().numpy()


def fitted(chosen: Array, rejected: Array, seed: int, weights: Array) -> Array:
    """Heads [d, K] by the pair loss of `posttrain reward-model`; `weights` [P, K]."""
    sides = torch.from_numpy(np.stack([chosen, rejected], 1))
    head = start(sides.shape[2], weights.shape[1], seed)
    margins, of = torch.zeros(len(chosen), dtype=torch.float64), torch.from_numpy(weights)
    return minimised(head, lambda: pair_loss(sides @ head, margins, of, pairs=len(chosen)))


def picked(scores: Array, gold: Array) -> float:
    """Mean true score of the answer with the highest score of each prompt; both [prompts, n]."""
    return float(np.take_along_axis(gold, scores.argmax(1)[:, None], 1).mean())


def ensembles(seed: int, strange: float) -> dict[str, float]:
    """One head on all pairs against five on bootstrap samples, by their mean, least, and mean less variance."""
    rng = np.random.default_rng([1, seed])
    truth = 2 * rng.normal(size=KNOWN) / KNOWN**0.5
    a, b = drawn(rng, 150, 0.0), drawn(rng, 150, 0.0)
    chosen, rejected = ranked(rng, a, b, true_score(a, truth) - true_score(b, truth), noise=0.25)
    answers = drawn(rng, PROMPTS * BEST_OF, strange).reshape(PROMPTS, BEST_OF, -1)
    gold = true_score(answers, truth)
    single = answers @ fitted(chosen, rejected, seed, np.ones((len(a), 1)))
    members = torch.from_numpy(answers @ fitted(chosen, rejected, seed, bootstrap_weights(len(a), MEMBERS, seed)))
    return {
        "mean of 5 members": picked(of_members(members, "mean").numpy(), gold),
        "single model": picked(single[..., 0], gold),
        "least of 5": picked(of_members(members, "min").numpy(), gold),
        "mean − variance": picked(of_members(members, "mean", 1.0).numpy(), gold),
    }


def length(seed: int, labels_pay: float, truth_pays: float) -> dict[str, float]:
    """Plain against length-balanced pairs and ODIN's two heads. The last direction of an answer is its length."""
    rng = np.random.default_rng([2, seed])
    truth = np.append(1.5 * rng.normal(size=KNOWN) / KNOWN**0.5, truth_pays)
    a, b = rng.normal(size=(2, 400, KNOWN + 1))
    paid = truth + np.append(np.zeros(KNOWN), labels_pay)
    chosen, rejected = ranked(rng, a, b, (a - b) @ paid, noise=0.0)
    tokens = np.round(200 + 50 * np.stack([chosen, rejected], 1)[..., -1])
    balanced = balanced_weights((tokens[:, 0] - tokens[:, 1]).astype(int).tolist())
    answers = rng.normal(size=(PROMPTS, BEST_OF, KNOWN + 1))
    heads = {
        "plain": fitted(chosen, rejected, seed, np.ones((len(a), 1))),
        "length-balanced pairs": fitted(chosen, rejected, seed, balanced[:, None]),
        "ODIN": odin(chosen, rejected, tokens, seed),
    }
    return {name: picked((answers @ head)[..., 0], answers @ truth) for name, head in heads.items()}


def odin(chosen: Array, rejected: Array, tokens: Array, seed: int) -> Array:
    """The quality head, trained beside a length head."""
    sides, lengths = torch.from_numpy(np.stack([chosen, rejected], 1)), torch.from_numpy(tokens)
    head = start(sides.shape[2], 2, seed)
    margins = torch.zeros(len(chosen), dtype=torch.float64)
    return minimised(head, lambda: odin_loss(sides @ head, margins, lengths) + head_overlap(head.T))


def adversarial(seed: int, strange: float) -> dict[str, float]:
    """The ensemble's mean before and after each of two rounds of search among the policy's answers and by edits."""
    rng = np.random.default_rng([3, seed])
    truth = 2 * rng.normal(size=KNOWN) / KNOWN**0.5
    a, b = drawn(rng, 300, 0.0), drawn(rng, 300, 0.0)
    chosen, rejected = ranked(rng, a, b, true_score(a, truth) - true_score(b, truth), noise=0.0)
    answers = drawn(rng, PROMPTS * BEST_OF, strange).reshape(PROMPTS, BEST_OF, -1)
    gold = true_score(answers, truth)
    accepted = chosen[:100]  # one search for each of so many prompts
    heads = fitted(chosen, rejected, seed, bootstrap_weights(len(chosen), MEMBERS, seed))
    out = {"before": picked((answers @ heads).mean(-1), gold)}
    for name in ("after one round", "after two rounds"):
        better, worse = fooling(rng, heads, accepted, rejected, drawn(rng, len(accepted) * 16, strange))
        chosen, rejected = np.concatenate([chosen, better]), np.concatenate([rejected, worse])
        heads = fitted(chosen, rejected, seed, bootstrap_weights(len(chosen), MEMBERS, seed))
        out[name] = picked((answers @ heads).mean(-1), gold)
    return out


def fooling(
    rng: np.random.Generator, heads: Array, accepted: Array, rejected: Array, samples: Array
) -> tuple[Array, Array]:
    """Accepted answers, and what fools the ensemble in their place: the most threatening of 16 samples of the policy,
    and what 8 steps of 8 small edits make of the accepted answer."""
    measure = calibrate(np.concatenate([accepted, rejected]) @ heads, 0.95)
    scores = accepted @ heads

    def threats(candidates: list[list[Array]]) -> list[Array]:
        return [
            measure.attack_score(np.stack(of) @ heads, own[None]) for of, own in zip(candidates, scores, strict=True)
        ]

    drawn_for = [list(of) for of in samples.reshape(len(accepted), 16, -1)]
    best = [of[int(worth.argmax())] for of, worth in zip(drawn_for, threats(drawn_for), strict=True)]
    edits = partial(_edits, rng=rng)
    climbed = hill_climb(list(accepted), edits, threats, 8)
    found = np.stack([*best, *climbed])
    twice = np.concatenate([accepted, accepted])
    fooled = measure.is_adversarial(found @ heads, twice @ heads)
    return twice[fooled], found[fooled]


def _edits(x: Array, rng: np.random.Generator) -> list[Array]:
    return list(x + rng.normal(scale=0.5, size=(8, len(x))))


TOYS: Mapping[str, Callable[[int], dict[str, float]]] = {
    "ensembles, a fifth of the answers strange": partial(ensembles, strange=0.2),
    "ensembles, no strange answers": partial(ensembles, strange=0.0),
    "length, paid for by labels alone": partial(length, labels_pay=1.5, truth_pays=0.0),
    "length, paid for by nobody": partial(length, labels_pay=0.0, truth_pays=0.0),
    "length, truly worth something": partial(length, labels_pay=0.0, truth_pays=1.0),
    "adversarial, a fifth of the policy's answers strange": partial(adversarial, strange=0.2),
    "adversarial, no strange answers": partial(adversarial, strange=0.0),
}


def table(results: Mapping[str, list[dict[str, float]]]) -> str:
    """Markdown: a line for each way, with its difference from the first of its toy."""
    lines = ["| toy | | true score | less the first |", "| --- | --- | --- | --- |"]
    for toy, runs in results.items():
        for i, way in enumerate(runs[0]):
            values, first = [run[way] for run in runs], [next(iter(run.values())) for run in runs]
            own = bootstrap_mean(values, seed=0)
            gain = paired_bootstrap(values, first, seed=0)
            shown = f"{gain['value']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]" if i else ""
            lines.append(
                f"| {'' if i else toy} | {way} | {own['value']:.2f} [{own['low']:.2f}, {own['high']:.2f}] | {shown} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--print", action="store_true", help="print the table and leave the page alone")
    args = parser.parse_args()
    found = table({name: [toy(seed) for seed in range(args.seeds)] for name, toy in TOYS.items()})
    if args.print:
        print(found)
        return
    page = DOC.read_text(encoding="utf-8")
    replaced = re.sub(
        re.escape(START) + ".*" + re.escape(END), lambda _: f"{START}\n{found}\n\n{END}", page, flags=re.S
    )
    DOC.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    main()
