"""Encoding by a submodule: tiny Hugging Face models against pooling by hand, other modules, and what is refused."""

from __future__ import annotations

import numpy as np
import polars
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.monitor.encoder import resolve_encoder
from lis_lightning.monitor.submodule_encoder import Encode

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning 2.6 with torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode:UserWarning"),  # as from_pretrained leaves them
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
]

EOS, VOCABULARY, WIDTH = 2, 50, 16
LENGTHS = (4, 7, 2)
SIZES = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def _texts():
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in LENGTHS]
    for row, at in zip(rows, (2, 4, 1), strict=True):
        row[at] = EOS
    return rows


def batch_of(side="right", rows=None):
    rows, longest = rows or _texts(), max(map(len, rows or _texts()))
    ids, mask = (torch.zeros(len(rows), longest, dtype=torch.int64) for _ in range(2))
    for at, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[at, where], mask[at, where] = row, 1
    return {
        "item_id": torch.arange(len(rows)),
        "input_ids": ids,
        "attention_mask": mask,
        "price": torch.ones(len(rows)),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models on disk, as real ones lie there."""
    hf, root = hugging_face(), tmp_path_factory.mktemp("hf")
    text = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 32, "eos_token_id": EOS, "pad_token_id": 0}
    made = {
        "bert": (hf.BertModel, hf.BertConfig(**text)),
        "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**text)),
        "clip": (
            hf.CLIPModel,
            hf.CLIPConfig(
                text_config={**text, "eos_token_id": 5},
                vision_config={**SIZES, "image_size": 8, "patch_size": 4},
                projection_dim=6,
            ),
        ),
    }
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        for name, (cls, config) in made.items():
            cls(config).save_pretrained(root / name)
    return root


class Ranker(pl.LightningModule):
    """Knows nothing of us."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.head = nn.Linear(WIDTH, 1)

    def training_step(self, batch, batch_idx):
        output = self.model(batch["input_ids"], attention_mask=batch["attention_mask"])
        return self.head(output.last_hidden_state[:, 0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def rankers(folders):
    def load(name):
        hf = hugging_face()
        cls = {"bert": hf.BertModel, "llama": hf.LlamaForCausalLM, "clip": hf.CLIPModel}[name]
        with quiet_transformers():
            return Ranker(cls.from_pretrained(folders / name)).eval()

    return {name: load(name) for name in ("bert", "llama", "clip")}


def run(module, batch, *args, **options):
    with torch.no_grad():
        return Encode(*args, **options).bind(module)(module, batch)


def one_by_one(model, layer=-1):
    """The states of each text alone, without any padding."""
    with torch.no_grad():
        outputs = [model(row[None], output_hidden_states=True, return_dict=True) for row in _texts()]
    return [output.hidden_states[layer][0] for output in outputs]


BY_HAND = {
    "mean": lambda states, ids: states.mean(dim=0),
    "cls": lambda states, ids: states[0],
    "last": lambda states, ids: states[-1],
    "eos": lambda states, ids: states[ids.tolist().index(EOS)],
}


# --- Hugging Face models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [-1, -2, 0])
@pytest.mark.parametrize("pooling", BY_HAND)
def test_text_encoder_is_pooled_as_by_hand(rankers, pooling, layer):
    module = rankers["bert"]
    expected = [BY_HAND[pooling](*row) for row in zip(one_by_one(module.model, layer), _texts(), strict=True)]
    got = run(module, batch_of(), "model", pooling=pooling, layer=layer)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-5)


def test_several_layers_of_one_forward_equal_each_on_its_own(rankers):
    module, batch = rankers["bert"], batch_of()
    together = run(module, batch, "model", layer=[-1, 0, 1])
    assert list(together) == ["layer_minus_1", "layer_0", "layer_1"]
    for layer, got in zip([-1, 0, 1], together.values(), strict=True):
        torch.testing.assert_close(got, run(module, batch, "model", layer=layer), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", BY_HAND)
@pytest.mark.parametrize("submodule", ["model.model", "model"], ids=["backbone", "with-head"])
def test_decoder_does_not_see_its_padding(rankers, submodule, pooling, side):
    module = rankers["llama"]
    expected = [BY_HAND[pooling](*row) for row in zip(one_by_one(module.model.model), _texts(), strict=True)]
    got = run(module, batch_of(side), submodule, pooling=pooling)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-5)


def test_a_head_is_not_computed_for_all_tokens_nor_a_cache_kept(rankers):
    module, seen = rankers["llama"], []
    with torch.no_grad():
        handle = module.model.register_forward_hook(lambda *args: seen.append(args[-1]))
        run(module, batch_of() | {"labels": batch_of()["input_ids"]}, "model")
        run(module, batch_of(), "model", layer=1)
        handle.remove()
    assert [output.logits.shape[1] for output in seen] == [1, 1]
    assert all(output.past_key_values is None and output.loss is None for output in seen)


def test_clip_towers_take_their_part_of_a_batch(rankers):
    module = rankers["clip"]
    pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = batch_of() | {"pixel_values": pixels}
    with torch.no_grad():
        vision = module.model.vision_model(pixels)
        both = module.model(**{name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")})
    near = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(run(module, batch, "model.vision_model"), vision.last_hidden_state.mean(dim=1), **near)
    torch.testing.assert_close(
        run(module, batch, "model.vision_model", pooling="cls"), vision.last_hidden_state[:, 0], **near
    )
    for submodule, output, expected in (
        ("model.vision_model", "pooler_output", vision.pooler_output),
        ("model", "image_embeds", both.image_embeds),
        ("model", "text_embeds", both.text_embeds),
    ):
        torch.testing.assert_close(run(module, batch, submodule, output=output), expected, **near)


def test_end_of_sequence_is_that_of_the_config_or_as_given(rankers):
    """CLIP pools its text at the end of sequence by itself."""
    module, rows = rankers["clip"], [row.where(row != EOS, 5) for row in _texts()]
    batch = batch_of(rows=rows)
    with torch.no_grad():
        expected = module.model.text_model(batch["input_ids"], batch["attention_mask"]).pooler_output
    for options in ({}, {"eos_token_id": 5}, {"eos_token_id": [5, 49]}):
        got = run(module, batch, "model.text_model", pooling="eos", **options)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    with pytest.raises(ShapeError, match=r"3 of 3 sequences have no token among \[2\]"):
        run(module, batch, "model.text_model", pooling="eos", eos_token_id=EOS)


def test_tuples_are_read(rankers):
    module = rankers["bert"]
    expected = run(module, batch_of(), "model")
    module.model.config.return_dict = False
    try:
        torch.testing.assert_close(run(module, batch_of(), "model"), expected, rtol=0, atol=0)
        torch.testing.assert_close(run(module, batch_of(), "model", layer=2), expected, rtol=0, atol=0)
    finally:
        module.model.config.return_dict = True


def test_compiled_and_wrapped_models_are_seen_through(rankers):
    class Peft(nn.Module):
        """As peft's wrapper, which takes anything."""

        def __init__(self, base):
            super().__init__()
            self.base_model = base

        def get_base_model(self):
            return self.base_model

        def forward(self, *args, **kwargs):
            return self.base_model(*args, **kwargs)

    model = rankers["bert"].model
    expected = run(rankers["bert"], batch_of(), "model")
    for wrapped in (torch.compile(model, backend="eager"), Peft(model)):
        with torch.compiler.set_stance("force_eager"):
            torch.testing.assert_close(run(Ranker(wrapped), batch_of(), "model"), expected, rtol=0, atol=0)


# --- other modules --------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 3)

    def forward(self, tokens):
        return self.table(tokens)


class Takes(nn.Module):
    """Takes whatever comes and gives it back as told."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, **batch):
        return self.give(batch)


def test_names_of_the_batch_are_mapped_and_the_mask_still_counts():
    module = nn.ModuleDict({"tower": Tower()})
    got = run(module, batch_of(), "tower", inputs={"tokens": "input_ids"})
    expected = torch.stack([module["tower"].table(row).mean(dim=0) for row in _texts()])
    torch.testing.assert_close(got, expected.detach())
    other = {("real" if name == "attention_mask" else name): value for name, value in batch_of().items()}
    torch.testing.assert_close(run(module, other, "tower", inputs={"tokens": "input_ids"}, mask="real"), got)
    unmasked = run(module, batch_of(), "tower", inputs={"tokens": "input_ids"}, mask=None)
    assert not torch.allclose(unmasked, got)


def test_pooled_outputs_are_taken_as_they_are_and_the_id_is_left_out():
    seen = []

    def give(batch):
        seen.append(sorted(batch))
        return {"pooler_output": batch["x"], "last_hidden_state": batch["x"] + 1}

    module = nn.ModuleDict({"tower": Takes(give)})
    x = torch.randn(2, 5)
    assert torch.equal(run(module, {"item_id": [0, 1], "x": x}, "tower"), x + 1)
    assert torch.equal(run(module, {"item_id": [0, 1], "x": x}, "tower", output="pooler_output"), x)
    assert seen == [["x"], ["x"]]


@pytest.mark.parametrize(
    ("give", "options", "error", "message"),
    [
        (lambda b: {"logits": b["x"]}, {}, ConfigError, "neither `last_hidden_state` nor `hidden_states`"),
        (lambda b: {"logits": b["x"]}, {"output": "embeds"}, ConfigError, r"no tensor 'embeds', only \['logits'\]"),
        (lambda b: b["x"], {"layer": 1}, ConfigError, "returned 0 hidden states, which do not include layer=1"),
        (lambda b: b["x"][..., None, None], {}, ShapeError, r"returned \[2, 5, 1, 1\], expected \[B, D\], or"),
        (lambda b: b["x"][..., None], {"mask": "m"}, ShapeError, r"\[2, 5, 1\], but the mask .* has \[2, 4\]\. If no"),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_read_are_shown(give, options, error, message):
    module = nn.ModuleDict({"tower": Takes(give)})
    with pytest.raises(error, match=message):
        run(module, {"item_id": [0, 1], "x": torch.ones(2, 5), "m": torch.ones(2, 4)}, "tower", **options)


# --- what is refused at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, r"`pooling` must be one of \['mean', 'last', 'cls', 'eos'\], got 'max'"),
        ({"layer": 1, "output": "x"}, "got layer=1 and output='x'; set only one of them"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        Encode("model", **options)


@pytest.mark.parametrize(
    ("name", "encode", "message"),
    [
        ("clip", "model.vison_model", "no submodule 'model.vison_model'. Did you mean 'model.vision_model'"),
        ("clip", "vision_model", "no submodule 'vision_model'. Did you mean 'model.vision_model'"),
        ("bert", "zzz", r"no submodule 'zzz'. It has \['model', 'head'\]"),
        ("bert", Encode("model", layer=-4), "`layer` must be from -3 to 2 for the 2 layers of 'model', got -4"),
        ("bert", Encode("head", pooling="eos"), "'head' has no `config.eos_token_id`"),
        ("bert", None, r"Ranker has no method `encode_items\(batch\)`"),
    ],
)
def test_what_the_module_lacks_is_refused(rankers, name, encode, message):
    with pytest.raises(ConfigError, match=message):
        resolve_encoder(encode, rankers[name])


@pytest.mark.parametrize(
    ("encode", "drop", "message"),
    [
        (Encode("model"), "attention_mask", "no 'attention_mask', only .*`mask=None` if no item is padded"),
        (Encode("model", mask="real"), (), "An item batch has no 'real', only"),
        (Encode("head"), (), r"Linear.forward of 'head' takes \['input'\] and requires \['input'\], an item batch has"),
        (Encode("head", inputs={"input": "x"}), (), r"no \['x'\], which `Encode\(inputs=...\)` names"),
        (Encode("head", inputs={"input": "price"}, pooling="eos", eos_token_id=1), (), "given .*'input'"),
    ],
)
def test_what_a_batch_lacks_is_seen_without_a_forward(rankers, encode, drop, message):
    module = rankers["bert"]
    batch = {name: value for name, value in batch_of().items() if name != drop}
    with pytest.raises(ConfigError, match=message):
        encode.bind(module).check(batch)


@pytest.mark.parametrize("encode", [3, nn.Identity()])
def test_what_is_no_encoder_is_refused(split, encode):
    with pytest.raises(ConfigError, match=f"name of a submodule, got {type(encode).__name__}"):
        LISMonitor(split, [], encode=encode)


# --- in a fit -------------------------------------------------------------------------------------------------------


NUM_ITEMS = 12


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    log = {"user_id": rng.integers(10, size=400), "item_id": rng.integers(NUM_ITEMS, size=400)}
    log |= {"timestamp": np.arange(400), "label": rng.integers(2, size=400)}
    return PreferenceSplit.from_log(polars.DataFrame(log))


def texts_of_items():
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 9, (NUM_ITEMS,), generator=generator).tolist()
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


def collate(items):
    batch = batch_of(rows=[item["text"] for item in items])
    return batch | {"item_id": torch.tensor([item["item_id"] for item in items])}


def fit(tmp_path, module, monitor, loader, **options):
    trainer = pl.Trainer(
        max_steps=1, callbacks=[monitor], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **options,
    )  # fmt: skip
    trainer.fit(module, loader)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_model_that_knows_nothing_of_us_is_scored_in_the_precision_of_its_training(
    folders, split, tmp_path, monkeypatch, precision
):
    with quiet_transformers():
        module = Ranker(hugging_face().BertModel.from_pretrained(folders / "bert"))
    items = [{"item_id": item, "text": text} for item, text in enumerate(texts_of_items())]
    loader = DataLoader(items, batch_size=4, collate_fn=collate)
    monitor = LISMonitor(
        split, items, encode=Encode("model", pooling="last"), collate_fn=collate, batch_size=5, dirpath=tmp_path,
        strict=True, placebo=False,
    )  # fmt: skip
    seen = []
    monkeypatch.setattr(monitor._snapshot_scorer.metric, "update", _spy(monitor._snapshot_scorer.metric.update, seen))
    plain, mixed = ([_last(module.model, batch, on) for batch in _fives(items)] for on in (False, True))
    fit(tmp_path, module, monitor, loader, precision=precision)
    assert [result.step for result in monitor.results] == [0, 1]
    got = torch.cat([rows for _, rows in seen[:3]])
    assert [item for ids, _ in seen[:3] for item in ids] == list(range(NUM_ITEMS))
    expected, other = (torch.cat(one) for one in ((mixed, plain) if precision == "bf16-mixed" else (plain, mixed)))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert (got - other).abs().max() > 1e-4


def _fives(items):
    return [collate(items[at : at + 5]) for at in range(0, NUM_ITEMS, 5)]


def _last(model, batch, mixed):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        states = model.eval()(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    return states[torch.arange(len(states)), batch["attention_mask"].sum(dim=1) - 1].float()


def _spy(update, seen):
    def spied(ids, rows):
        seen.append((ids, rows))
        update(ids, rows)

    return spied


@pytest.mark.parametrize("as_loader", [False, True], ids=["items", "loader"])
def test_a_missing_mask_stops_the_fit_before_it_starts(folders, split, tmp_path, as_loader):
    with quiet_transformers():
        module = Ranker(hugging_face().BertModel.from_pretrained(folders / "bert"))

    def unmasked(items):
        batch = collate(items)
        del batch["attention_mask"]
        return batch

    items = [{"item_id": item, "text": text} for item, text in enumerate(texts_of_items())]
    given = DataLoader(items, batch_size=4, collate_fn=unmasked) if as_loader else items
    monitor = LISMonitor(split, given, encode="model", collate_fn=unmasked, dirpath=tmp_path)
    with pytest.raises(ConfigError, match="no 'attention_mask'"):
        fit(tmp_path, module, monitor, DataLoader(items, batch_size=4, collate_fn=collate))
    assert monitor.last_error is None
    assert monitor.results == []
