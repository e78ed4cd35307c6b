"""What the model sees is the prompt and nothing else: not the answer, not the padding, not its neighbours in the batch."""

import functools

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from hiso_bench import datafiles
from llm.encoding import beginning, collate, encode, pad, verbalizer_ids
from llm.loss import IGNORED, LanguageLoss
from llm.tasks import TASKS, Task
from tests import llm_helpers
from tests.llm_tasks import ANSWER, CHOICE, CHOICES, EXAMPLES, TOKENIZER, encoded

# Tokens


@pytest.mark.parametrize("task", [CHOICE, ANSWER])
def test_tokens_spell_the_prompt_and_then_the_answer(task):
    made = encoded(task)
    for i, example in enumerate(EXAMPLES[task]):
        assert TOKENIZER.decode(made.prompts[i]) == task.prompt(example)
        ids = list(made.verbalizers[made.targets[i]]) if task.labels else made.targets[i]
        assert TOKENIZER.decode(ids) == task.answer(example)
        whole = TOKENIZER(task.prompt(example) + task.answer(example))["input_ids"]
        assert [*made.prompts[i], *map(int, ids)] == whole
    assert made.labels.tolist() == [example.get("label", 0) for example in EXAMPLES[task]]
    assert made.references == tuple(tuple(example["answers"]) for example in EXAMPLES[task] if "answers" in example)


def with_bos(token, tokenizer):
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A </s>", special_tokens=[(t, tokenizer.convert_tokens_to_ids(t)) for t in {token, "</s>"}]
    )
    return tokenizer


def test_a_text_begins_as_the_family_begins_it_and_never_ends():
    plain, llama = llm_helpers.tokenizer(), with_bos("<s>", llm_helpers.tokenizer())
    opt = llm_helpers.tokenizer()
    opt.bos_token = "</s>"
    assert beginning(plain) == beginning(plain, "qwen2") == []
    assert beginning(llama) == beginning(llama, "llama") == [0]
    assert beginning(opt, "gpt2") == []
    assert beginning(opt, "opt") == [1]
    assert beginning(with_bos("</s>", opt), "opt") == [1]
    for tokenizer, family, first in ((plain, "", []), (llama, "llama", [0]), (opt, "opt", [1])):
        made = encode(CHOICE, tokenizer, CHOICES, 64, family=family)
        assert made.prompts[0] == first + TOKENIZER(CHOICE.prompt(CHOICES[0]))["input_ids"]


def test_opt_without_a_first_token_is_an_error():
    bare = llm_helpers.tokenizer()
    bare.bos_token = None
    with pytest.raises(ValueError, match="no bos_token, and opt models need one"):
        beginning(bare, "opt")


# Verbalizers


def test_verbalizers_are_their_tokens_in_the_order_of_the_labels():
    ids = encoded(CHOICE).verbalizers
    assert ids.dtype == torch.int64
    assert TOKENIZER.convert_ids_to_tokens(ids.tolist()) == ["Yes", "No", "Maybe"]
    assert TOKENIZER.convert_ids_to_tokens(verbalizer_ids(TASKS["sst2"], TOKENIZER)) == ["Ġbad", "Ġgood"]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.labels])
def test_the_verbalizers_of_every_task_are_single_tokens_of_opt(name):
    files = {
        "vocab": ("bpe_tokenizer/opt_order/vocab.json", "ed19656ea1707df69134c4af35c8ceda2cc9860bf2c3495026153a133670ab5e"),
        "merges": ("bpe_tokenizer/opt_order/merges.txt", "fe36cab26d4f4421ed725e10a2e9ddb7f799449c603a96e7f29b5a3c82a95862"),
    }
    if not all(datafiles.available(*file) for file in files.values()):
        pytest.skip("needs HISO_BENCH_DATA")
    tokenizer = opt_tokenizer(*(str(datafiles.find(*file)) for file in files.values()))
    ids = verbalizer_ids(TASKS[name], tokenizer)
    assert len(set(ids)) == len(TASKS[name].labels)
    assert [tokenizer.decode([i]) for i in ids] == list(TASKS[name].verbalizers)


@functools.cache
def opt_tokenizer(vocab, merges):
    from tokenizers.implementations import ByteLevelBPETokenizer

    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=ByteLevelBPETokenizer(vocab, merges)._tokenizer, **special)


def test_a_verbalizer_of_two_tokens_is_refused_with_its_tokens():
    task = Task(name="t", template="{text} It was", labels=("a", "b"), verbalizers=(" bad", " so"))
    with pytest.raises(ValueError, match=r"task t: verbalizer ' so' is the tokens \['Ġ', 's', 'o'\] here; allowed: one known"):
        encode(task, TOKENIZER, CHOICES[:1], 64)


def test_a_verbalizer_that_merges_with_the_prompt_is_refused():
    task = Task(name="t", template="{text} It was go", labels=("a", "b"), verbalizers=("od", " bad"))
    with pytest.raises(ValueError, match="'od' merges with the end of the prompt, ' It was go'"):
        encode(task, TOKENIZER, CHOICES[:1], 64)


def sentencepiece():
    """A tokenizer that marks spaces, and puts one before every text."""
    made = Tokenizer(BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = Metaspace(prepend_scheme="always"), MetaspaceDecoder()
    trainer = BpeTrainer(vocab_size=200, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False)
    made.train_from_iterator(["It was good . It was bad . \n Y N"] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_verbalizer_is_the_token_it_is_after_the_prompt_not_by_itself():
    """Where a tokenizer opens every text with a space, "Y" alone is not the "Y" that follows a line break."""
    tokenizer = sentencepiece()
    task = Task(name="t", template="{text} It was\n", labels=("a", "b"), verbalizers=("Y", "N"))
    ids = verbalizer_ids(task, tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids) == ["Y", "N"]
    assert tokenizer.tokenize("Y") == ["▁Y"]
    assert tokenizer.convert_ids_to_tokens(verbalizer_ids(TASKS["sst2"], tokenizer)) == ["▁bad", "▁good"]


def test_an_unknown_word_is_no_verbalizer():
    task = Task(name="t", template="{text} It was", labels=("a", "b"), verbalizers=("§", " bad"))
    with pytest.raises(ValueError, match=r"verbalizer '§' is the tokens \['<unk>'\] here"):
        verbalizer_ids(task, sentencepiece())


def test_a_label_outside_the_set_is_an_error():
    with pytest.raises(ValueError, match=r"task choice: label 3; allowed: an integer in 0\.\.2"):
        encode(CHOICE, TOKENIZER, [*CHOICES, {"text": "x", "label": 3}], 64)


def test_no_examples_are_an_error():
    with pytest.raises(ValueError, match="examples 0"):
        encode(CHOICE, TOKENIZER, [], 64)


# Length


def test_a_prompt_that_is_too_long_is_one_clear_line():
    lengths = [len(prompt) for prompt in encoded(CHOICE).prompts]
    assert encoded(CHOICE, max(lengths)).prompts == encoded(CHOICE).prompts
    limit = max(lengths) - 1
    says = f"max_length {limit} is too short for {lengths.count(limit + 1)} of 11 examples of choice: number "
    with pytest.raises(ValueError, match=f"{says}.* takes {limit + 1} tokens;") as error:
        encoded(CHOICE, limit)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer", ["ab", "ab cde ijk"])
def test_the_answer_and_what_is_generated_need_room_too(answer):
    examples = [{"text": "ab", "question": "f", "answers": [answer]}]
    needed = len("ab f:") + max(len(f" {answer}\n"), ANSWER.max_new_tokens) - 1
    made = encode(ANSWER, TOKENIZER, examples, needed)
    assert collate(made, [0])[0].shape[1] <= needed
    with pytest.raises(ValueError, match="and .* for the answer"):
        encode(ANSWER, TOKENIZER, examples, needed - 1)


def test_truncation_shortens_the_longest_field_by_whole_words_as_little_as_possible():
    examples = [{"text": "ab  cde f hij ijk ab f", "question": "hij f", "answers": ["ab"]}]
    whole = len("ab  cde f hij ijk ab f hij f:") + ANSWER.max_new_tokens - 1
    for length in range(whole - 18, whole):
        made = encode(ANSWER, TOKENIZER, examples, length, truncate=True)
        text = TOKENIZER.decode(made.prompts[0])
        kept = text.removesuffix(" hij f:")
        assert kept != text
        assert examples[0]["text"].startswith(kept)
        left = examples[0]["text"][len(kept) :]
        assert left.startswith(" ")
        room = length + 1 - ANSWER.max_new_tokens
        more = kept + left[: len(left) - len(left.lstrip()) + len(left.split()[0])]
        assert len(made.prompts[0]) <= room < len(f"{more} hij f:")
        assert made.truncated == 1
    assert encode(ANSWER, TOKENIZER, examples, whole, truncate=True).truncated == 0


def test_what_cannot_be_truncated_enough_is_an_error():
    with pytest.raises(ValueError, match="task choice: 3 tokens are too few for a prompt with one word of 'text'"):
        encode(CHOICE, TOKENIZER, [{"text": "ijk ab", "label": 0}], 3, truncate=True)


# Batches


@pytest.mark.parametrize("task", [CHOICE, ANSWER])
def test_a_batch_holds_what_the_examples_hold(task):
    made = encoded(task)
    chosen = [5, 0, 3, 3]
    ids, mask, positions, targets = collate(made, np.array(chosen))
    assert all(part.dtype == torch.int64 for part in (ids, mask, positions, targets))
    for row, i in enumerate(chosen):
        fed = made.prompts[i] + ([] if task.labels else made.targets[i][:-1])
        assert ids[row][mask[row] == 1].tolist() == fed
        assert mask[row].tolist() == [1] * len(fed) + [0] * (mask.shape[1] - len(fed))
        given = targets[row] != IGNORED
        assert targets[row][given].tolist() == made.targets[i]
        start = len(made.prompts[i]) - 1
        assert positions[row][given].tolist() == list(range(start, start + len(made.targets[i])))
        assert positions[row].max() < len(fed)
    assert ids.shape[1] == mask.sum(1).max()


def test_padding_goes_to_the_right():
    ids, mask = pad([[5, 6, 7], [8]], width=4)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("name", llm_helpers.ARCHITECTURES)
@pytest.mark.parametrize("task", [CHOICE, ANSWER])
def test_the_loss_of_an_example_knows_neither_padding_nor_neighbours(name, task):
    made = encoded(task)
    loss = LanguageLoss(llm_helpers.model(name), made.verbalizers)
    point = loss.base_point()
    with torch.inference_mode():
        alone = torch.cat([loss._examples(point, collate(made, [i])) for i in range(len(made))])
        together = loss._examples(point, collate(made, range(len(made))))
        ids, *rest = collate(made, range(len(made)))
        other = loss._examples(point, (torch.where(rest[0] == 1, ids, 9), *rest))
    assert torch.allclose(alone, together, rtol=2e-5, atol=2e-6)
    assert torch.equal(together, other)  # what stands under the mask is not read at all
    assert together.std() > 0.01
