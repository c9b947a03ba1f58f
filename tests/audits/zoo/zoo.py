"""The zoo: rewards with planted defects, others whose exploits training found, and healthy ones that no audit may
accuse."""

from __future__ import annotations

from tests.audits.zoo.answers import HONEST, WRONG, Entry, own
from tests.audits.zoo.planted import PLANTED
from tests.audits.zoo.trained import CAREFUL, TRAINED

PERSON = (
    '{"type": "object", "required": ["name", "age", "city", "job"], "additionalProperties": false, '
    '"properties": {"age": {"type": "integer"}, "name": {"type": "string"}, "city": {"type": "string"}, '
    '"job": {"type": "string"}}}'
)


def healthy(name: str, reward: str | tuple[str, ...], tasks: str, expect: str) -> Entry:
    rewards = (reward,) if isinstance(reward, str) else reward
    return Entry(name, rewards, tasks, "healthy", "none", expect, WRONG[tasks], HONEST[tasks])


HEALTHY = [
    healthy("math-numbers", "math", "sums", "the built-in verifier, integers"),
    healthy("math-expressions", "math", "algebra", "the built-in verifier, expressions in a box"),
    healthy("math-measures", "math", "measures", "the built-in verifier, units and percentages"),
    healthy("math-against-claims", "math", "claims", "the user's wrong number in the prompt gets nothing"),
    healthy("gated", "gate(format, math)", "reasoning", "the right form alone gets nothing"),
    healthy("sane-sum", (f"{own('healthy:tagged')}", "format=0.1"), "reasoning",
            "a sum in which the form is worth a tenth of the answer"),
    healthy("strong-tests", "code(all_or_nothing=true)", "functions", "20 tests in a sandbox, all or nothing"),
    healthy("programs", "code(all_or_nothing=true)", "programs", "programs in a sandbox, five runs each"),
    healthy("gated-json", f"gate(json(schema={PERSON}), {own('healthy:all_fields')})", "people",
            "an object that fits the schema, with every value right"),
    healthy("dense-fields", own("healthy:fields"), "people",
            "partial credit for the share of right fields, to the fourth power: one wrong field costs two thirds"),
    healthy("dense-edits", own("healthy:edits"), "proverbs",
            "partial credit by edits: one wrong word costs half or more"),
    healthy("letter", own("healthy:letter"), "choice", "the reply is the letter"),
    healthy("permuted-options", own("healthy:option"), "permuted",
            "the letter, with the text of its option or without; each question occurs in two orders"),
    healthy("name", own("healthy:name"), "capitals", "a name, without regard to case"),
    healthy("word", own("healthy:word"), "translations", "a word of any script"),
    healthy("any-prime", own("healthy:any_prime"), "primes", "free choice: any of several right answers"),
    healthy("same-items", own("healthy:same_items"), "divisors", "a list, right in any order"),
    healthy("short-enough", own("healthy:short_enough"), "sums",
            "length-aware on purpose: a right answer loses from 120 words on"),
    healthy("label", own("healthy:label"), "labels", "one label of four, of which one is by far the most frequent"),
    healthy("count", "math", "counts", "integers from 1 to 10"),
    healthy("paired-references", own("healthy:paired"), "beliefs",
            "a rule with a right and a wrong reference, as a judge has them"),
    *CAREFUL,
]  # fmt: skip
ZOO = [*PLANTED, *TRAINED, *HEALTHY]
