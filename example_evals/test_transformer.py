"""Does a tiny transformer find a word in a sentence, and does it when words are masked?"""

from importlib.util import find_spec

import pytest

from pytest_armory import Engine, Evaluation, correct

pytestmark = [
    pytest.mark.evaluation(name="transformer"),
    pytest.mark.skipif(
        None in map(find_spec, ("torch", "transformers")),
        reason="pip install 'pytest-armory[transformers]' installs torch and transformers",
    ),
]

PAD, MASK, WANTED, WORDS = 0, 1, 2, 24


def make_sentences(*, count, seed):
    """Sentences of different lengths, as a tokenizer would give them, half of them with WANTED."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    for number in range(count):
        length = int(torch.randint(5, 13, (), generator=draw))
        words = torch.randint(WANTED + 1, WORDS, (length,), generator=draw)
        if number % 2:
            words[int(torch.randint(0, length, (), generator=draw))] = WANTED
        yield {"input_ids": words, "labels": number % 2}


def collate(sentences):
    """A batch as Hugging Face's collators make it: a mapping, padded."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([each["input_ids"] for each in sentences], True, PAD)
    labels = torch.tensor([each["labels"] for each in sentences])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}


def train_transformer(*, layers, width, sentences, seed):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(1)  # it is small, and the workers of pytest-xdist share the cores
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=PAD,
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rows = list(make_sentences(count=sentences, seed=seed))
    for start in range(0, sentences, 64):
        optimizer.zero_grad()
        model(**collate(rows[start : start + 64])).loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="session")
def transformer(track_call):
    return track_call(train_transformer, layers=1, width=32, sentences=64 * 60, seed=0)


@pytest.fixture(scope="session")
def sentences(track_call):
    from torch.utils.data import DataLoader

    rows = list(track_call(make_sentences, count=400, seed=1))
    return DataLoader(rows, batch_size=50, collate_fn=collate)


def masking(share):
    """A perturbation of a mapping: this share of the words is masked."""
    import torch

    draw = torch.Generator().manual_seed(0)

    def mask(inputs, _):
        ids = inputs["input_ids"]
        hit = (torch.rand(ids.shape, generator=draw) < share) & (ids != PAD)
        return {**inputs, "input_ids": ids.masked_fill(hit, MASK)}

    return mask


@pytest.mark.evaluation(description="With so many of the words masked")
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_wanted_word(transformer, sentences, share):
    evaluation = Evaluation(
        name="wanted word",
        dataset=sentences,
        model=transformer,
        perturbations={"mask": masking(share)} if share else {},
        sample_metrics={"accuracy": correct},
    )
    results = Engine(evaluation).run()

    assert results.metrics["accuracy"] > 0.9 - share
