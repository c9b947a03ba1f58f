"""Answers that a reward model is to rank: made ones, right and wrong, and samples of a policy."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.audits.answers import equivalents, near_misses, same
from posttrain.audits.subject import Attempt, Subject
from posttrain.types import Sampling, Task

TASKS = 12
SAMPLES, NEW_TOKENS = 16, 96
"""Samples a task, and their longest."""
SENTENCE = "It is worth taking some time here, because every detail of this question may matter in the end. "
REPEATS = (1, 4)
"""Sentences of filler before an answer."""
CONTENTLESS = ("", "I am sorry, but I cannot help with that.", SENTENCE * 3, "the " * 60)


def made_answers(subject: Subject) -> list[Attempt]:
    """For each of the first tasks: right answers (the reference, in other renderings, with filler before it), wrong
    ones (near misses, references of other tasks, also with filler) and some without content."""
    rng = subject.random("A18")
    found = []
    for i, task in enumerate(subject.tasks[:TASKS]):
        right = [task.gold, *(variant.text for variant in equivalents(task)[:3])]
        wrong = [variant.text for variant in near_misses(task, rng)[:3]]
        wrong += [subject.other(i, step).text for step in (1, 2, 3)]
        for answers, is_right in ((right, True), (wrong, False)):
            whole = [subject.form.render(text) for text in dict.fromkeys(answers)]
            whole += [SENTENCE * n + subject.form.render(answers[-1]) for n in REPEATS]
            found += [Attempt(i, text, "right" if is_right else "wrong", is_right) for text in whole]
        found += [Attempt(i, text, "without content") for text in CONTENTLESS]
    return found


def samples(subject: Subject, policy: str) -> list[Attempt]:
    """Answers of a policy at temperature 1, the same number for each of the first tasks. Whether one is right is judged
    by what stands in the form of the reference answer; see `right_answer`."""
    from posttrain.engine.open import Slots, open_engine
    from posttrain.models import load_model
    from posttrain.rollout.collect import sample
    from posttrain.rollout.plan import RolloutRequest, rollout_seed

    lm = load_model(policy)
    tasks: Sequence[Task] = [task.task for task in subject.tasks[:TASKS]]
    sampling = Sampling(NEW_TOKENS)
    plans = [
        RolloutRequest(task, k, sampling, rollout_seed(subject.seed, 0, i, k))
        for i, task in enumerate(tasks)
        for k in range(SAMPLES)
    ]
    rollouts = sample(open_engine(Slots(), lm), lm.chat, plans)
    texts = [rollout.text for rollout in rollouts]
    return [
        Attempt(k // SAMPLES, text, "sample", right_answer(subject, k // SAMPLES, text)) for k, text in enumerate(texts)
    ]


def right_answer(subject: Subject, task: int, text: str) -> bool:
    """Whether the last answer in the form of the reference answers says the same as the reference."""
    form = subject.form
    if form.before:
        _, found, text = text.rpartition(form.before)
        if not found:
            return False
    return same(subject.tasks[task], (text.partition(form.after)[0] if form.after else text).strip())
