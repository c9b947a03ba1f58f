"""Long texts are tokenised from their beginning only, and nothing of what is kept depends on where they were cut."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from posttrain.chat import ChatFormat
from posttrain.chat.pieces import CHARACTERS, FURTHER, Pieces
from posttrain.models.load import model_folder
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rows import CompletionRow, PreferenceRow, TextRow
from posttrain.types import Message
from tests.chat_templates import styled_tokenizer

LONGEST = 40
SENTENCE = "the quick brown fox jumps over a lazy dog while 12 counting 2048 sheep, isn't it? Größe naïve café 你好"
WORDS = SENTENCE.split()
PARTS: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: " ".join(rng.choices(WORDS, k=40)),
    lambda rng: " " * rng.randint(1, 900),
    lambda rng: "".join(rng.choices("0123456789", k=rng.randint(1, 900))),
    lambda rng: "".join(rng.choices("abAB", k=rng.randint(1, 900))),
    lambda rng: "ab" * rng.randint(1, 400),
    lambda rng: "\n" * rng.randint(1, 50) + "\t" * rng.randint(0, 50),
    lambda rng: "e\u0301" * rng.randint(1, 200) + "\ufdfa" * rng.randint(0, 20),
    lambda rng: "<|im_end|>" * rng.randint(1, 60) + "   \n",
    lambda rng: "🙂👩‍👩‍👧" * rng.randint(1, 60) + "\u200b\x00\ufffd",
)


def texts(count: int) -> list[str]:
    """Of 1,000 to 5,000 characters, all kinds of parts in all orders; every other one of a single kind."""
    out = ["1234567" * 200 + "8" * k for k in range(3)]
    for i in range(count - len(out)):
        rng = random.Random(i)
        kinds = PARTS if i % 2 else [PARTS[i // 2 % len(PARTS)]]
        text = ""
        while len(text) < 1000 + 400 * (i % 10):
            text += rng.choice(kinds)(rng)
        out.append(text)
    return out


def trained(backend: Tokenizer, trainer: Any) -> PreTrainedTokenizerFast:
    rng = random.Random(0)
    backend.train_from_iterator([" ".join(rng.choices(WORDS, k=20)) for _ in range(30)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", bos_token="<s>")


def unigram() -> PreTrainedTokenizerFast:
    """T5's kind: SentencePiece's unigram model, NFKC, spaces joined, the best path over a whole word."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    return trained(backend, trainer)


def one_word() -> PreTrainedTokenizerFast:
    """Llama 2's and Gemma's kind: a text is one word, in which spaces are letters."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trained(backend, trainer)
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", bos_token="<s>")


def word_pieces() -> PreTrainedTokenizerFast:
    """BERT's kind: lower case, no accents, no spaces, and one token for any word it does not know."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=50))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["<s>", "</s>", "<unk>"]
    return trained(backend, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False))


def digits_from_the_end() -> PreTrainedTokenizerFast:
    """Numbers in groups of three from their last digit, as some tokenizers take them."""
    backend = Tokenizer(models.BPE())
    groups = pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*(?!\d))"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([groups, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<unk>"]
    return trained(
        backend,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": tiny_tokenizer,
    "merges, and an end token that swallows spaces": lambda: styled_tokenizer("chatml", swallows=True),
    "unigram": unigram,
    "one word": one_word,
    "word pieces": word_pieces,
    "digits from the end": digits_from_the_end,
}


def check_cut(tokenizer: PreTrainedTokenizerFast, count: int) -> None:
    whole, part = Pieces(tokenizer), Pieces(tokenizer, LONGEST)
    for text in texts(count):
        for method in ("plain", "opening", "raw", "continuation"):
            all_, first = getattr(whole, method)(text), getattr(part, method)(text)
            assert first[:LONGEST] == all_[:LONGEST], (method, text[:50])
            assert (len(first) > LONGEST) == (len(all_) > LONGEST), (method, text[:50])
        end = next(iter(whole.special.values()), "")
        assert part.context(text, end)[:LONGEST] == whole.context(text, end)[:LONGEST]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_cut_changes_no_token_that_is_kept(name: str) -> None:
    check_cut(TOKENIZERS[name](), 18)


@pytest.mark.real_model
def test_a_cut_changes_no_token_of_smollm2() -> None:
    check_cut(PreTrainedTokenizerFast.from_pretrained(model_folder("smollm2-135m")), 9)


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer(text, **options)


def test_the_work_does_not_grow_with_the_text() -> None:
    """Of a million characters no more are tokenised than twice the first cut, in every kind of row."""
    counting: Any = Counting(tiny_tokenizer())
    chat = ChatFormat(counting, longest=LONGEST)
    long = "word " * 200_000
    rows: dict[str, Callable[[], Any]] = {
        "prompt": lambda: chat.prompt_ids(long),
        "text": lambda: chat.encode_sft(TextRow("f:1", long)),
        "completion": lambda: chat.encode_sft(CompletionRow("f:1", "q", long)),
        "pair": lambda: chat.encode_pair(PreferenceRow("f:1", long, long + "a", long + "b")),
        "steps": lambda: chat.encode_steps("f:1", "q", ["a", long], "\n"),
        "reply": lambda: chat.continuation_ids(
            (Message("user", "q"), Message("assistant", "a")),
            chat.encode_sft(CompletionRow("f:1", "q", "a"))[0].token_ids[-2:],
            (Message("user", long),),
        ),
    }
    for name, encode in rows.items():
        counting.characters = 0
        encode()
        # no kind of row has more than three long pieces, and raw text is tokenised with and without special tokens
        assert 0 < counting.characters < 3 * 2 * (CHARACTERS * (LONGEST + 1) + FURTHER) + 1000, name


def test_rows_of_a_bounded_format_begin_as_whole_ones_do() -> None:
    """Masks too; and a format within a limit is a copy, which leaves the other as it was."""
    whole = ChatFormat(tiny_tokenizer())
    part = whole.within(LONGEST)
    assert whole.longest is None and part.longest == LONGEST
    assert part.counted(LONGEST) == "40 tokens" and part.counted(LONGEST + 1) == "more than 40 tokens"
    for text in texts(6):
        for row in (TextRow("f:1", text), CompletionRow("f:1", "q", text), CompletionRow("f:1", text, "a")):
            (all_,), (first,) = whole.encode_sft(row), part.encode_sft(row)
            assert first.token_ids[:LONGEST] == all_.token_ids[:LONGEST] and first.mask[:LONGEST] == all_.mask[:LONGEST]
            assert len(first.token_ids) > LONGEST
        # texts that differ only behind the cut are not told apart, and that is no fault of the row
        pair = part.encode_pair(PreferenceRow("f:1", "q", text + "a", text + "b"))
        assert pair.chosen_ids[:LONGEST] == pair.rejected_ids[:LONGEST]
