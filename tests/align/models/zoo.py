"""Tiny models of the families that users fine-tune, of the real classes of transformers: a function a family.

Each writes model and processor into a folder, as `save_pretrained` does, and returns the folder.
"""

from __future__ import annotations

import copy
import json

import torch

from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
CHAT = (
    "{% for m in messages %}<s>{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def save(folder, make, *processors):
    """Write a model with the random weights of seed 0 and its processors into a folder."""
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        make().save_pretrained(folder)
        for processor in processors:
            processor.save_pretrained(folder)
    return folder


def llava(folder, tokenizer, *, feature_layer=-1):
    """LLaVA; with `feature_layer` -2, as published, it reads its vision tower before the last layer."""
    hf = hugging_face()
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**SIZES, num_hidden_layers=2, image_size=16, patch_size=4),
        text_config=hf.LlamaConfig(**SIZES, num_hidden_layers=1, vocab_size=len(tokenizer), pad_token_id=0),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=feature_layer,
    )
    images = hf.CLIPImageProcessorPil(size={"height": 16, "width": 16}, do_center_crop=False)
    processor = hf.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=4, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token="<image>",
    )  # fmt: skip
    return save(folder, lambda: hf.LlavaForConditionalGeneration(config), processor)


def llava_interleave(folder, tokenizer):
    """LLaVA-Interleave, the example of the README: SigLIP and Qwen2, and a processor without videos.

    Its image processor is named as on the hub, so that loading it takes torchvision if that is there.
    """
    hf = hugging_face()
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(
            **SIZES, num_hidden_layers=2, image_size=16, patch_size=4, vision_use_head=False
        ),
        text_config=hf.Qwen2Config(
            **SIZES, num_hidden_layers=1, num_key_value_heads=1, vocab_size=len(tokenizer), pad_token_id=0
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.SiglipImageProcessorPil(size={"height": 16, "width": 16}), tokenizer=tokenizer,
        patch_size=4, vision_feature_select_strategy="full", num_additional_image_tokens=0, image_token="<image>",
        chat_template=CHAT,
    )  # fmt: skip
    save(folder, lambda: hf.LlavaForConditionalGeneration(config), processor)
    for path in folder.glob("*processor_config.json"):
        path.write_text(path.read_text().replace("SiglipImageProcessorPil", "SiglipImageProcessor"))
    return folder


def idefics(folder, tokenizer):
    """Idefics3, whose images become several tiles, with a chat template that ends a turn as `</s>` and a new line."""
    hf = hugging_face()
    images = hf.Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = hf.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT)
    sizes = SIZES | {"num_hidden_layers": 1}
    config = hf.Idefics3Config(
        vision_config={**sizes, "image_size": 16, "patch_size": 4},
        text_config={**sizes, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    return save(folder, lambda: hf.Idefics3ForConditionalGeneration(config), processor)


def qwen_vl(tokenizer, **options):
    """Qwen2.5-VL, whose images become as many patches as they have room for, as a model and its processor.

    They are not saved: loading the processor by itself takes torchvision, for videos.
    """
    hf = hugging_face()
    tokenizer = copy.deepcopy(tokenizer)
    words = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(words)})
    start, image, end, video = tokenizer.convert_tokens_to_ids(words)

    class Images(hf.Qwen2_5_VLProcessor):
        def __init__(self, image_processor, tokenizer, chat_template=None):
            self.image_token, self.image_token_id, self.video_token, self.video_token_id = (
                words[1],
                image,
                words[3],
                video,
            )
            hf.ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    config = hf.Qwen2_5_VLConfig(
        text_config=SIZES | {"num_hidden_layers": 2, "num_key_value_heads": 1, "vocab_size": len(tokenizer),
                             "bos_token_id": None, "eos_token_id": None,
                             "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        vision_config={"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
                       "fullatt_block_indexes": [0]},
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    template = CHAT.replace("<image>", words[0] + words[1] + words[2])
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        model = hf.Qwen2_5_VLForConditionalGeneration(config)
    return model, Images(hf.Qwen2VLImageProcessorPil(**options), tokenizer, template)


def florence(folder, processor):
    """Florence-2: a vision tower in stages, and a BART that writes an answer."""
    hf = hugging_face()
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = hf.Florence2Config(
        vision_config={"embed_dim": [8] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4, "depths": [1] * 4,
                       "projection_dim": 32},
        text_config={"model_type": "bart", "vocab_size": 64, "encoder_attention_heads": 2,
                     "decoder_attention_heads": 2, **sizes},
        image_token_id=5,
    )  # fmt: skip
    return save(folder, lambda: hf.Florence2ForConditionalGeneration(config), processor)


def git(folder, tokenizer):
    """GIT, in which transformers finds no vision tower."""
    hf = hugging_face()
    sizes = SIZES | {"num_hidden_layers": 1}
    config = hf.GitConfig(
        vision_config=sizes | {"image_size": 16, "patch_size": 4}, **sizes, vocab_size=len(tokenizer),
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    images = hf.CLIPImageProcessorPil(size={"height": 16, "width": 16}, do_center_crop=False)
    return save(folder, lambda: hf.GitForCausalLM(config), hf.GitProcessor(images, tokenizer))


def siglip(folder, tokenizer):
    """SigLIP, whose texts are padded to one length and come without a mask."""
    hf = hugging_face()
    tokenizer.model_max_length = 24
    sizes = SIZES | {"num_hidden_layers": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "pad_token_id": 0}
    config = hf.SiglipConfig(text_config=sizes | text, vision_config=sizes | {"image_size": 16, "patch_size": 4})
    images = hf.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    return save(folder, lambda: hf.SiglipModel(config), hf.SiglipProcessor(images, tokenizer))


def align(folder, tokenizer):
    """ALIGN: an EfficientNet and a BERT."""
    hf = hugging_face()
    tokenizer.model_max_length = 64
    config = hf.AlignConfig(
        text_config=SIZES | {"num_hidden_layers": 1, "vocab_size": len(tokenizer)},
        vision_config={"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 32,
                       "num_hidden_layers": 4, "initializer_range": 0.3},
        projection_dim=80,
    )  # fmt: skip
    images = hf.EfficientNetImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    return save(folder, lambda: hf.AlignModel(config), hf.AlignProcessor(images, tokenizer))


def siglip_vision(folder):
    """The vision tower of a SigLIP: all positions are patches."""
    hf = hugging_face()
    config = hf.SiglipVisionConfig(**SIZES, num_hidden_layers=1, image_size=16, patch_size=4)
    return save(folder, lambda: hf.SiglipVisionModel(config), _square_images())


def siglip2_vision(folder):
    """The vision tower of a SigLIP2, which keeps the aspect of an image and pads its patches to a fixed number."""
    hf = hugging_face()
    config = hf.Siglip2VisionConfig(**SIZES, num_hidden_layers=1, num_patches=16, patch_size=4)
    return save(
        folder,
        lambda: hf.Siglip2VisionModel(config),
        hf.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=32),
    )


def dinov2(folder):
    """DINOv2 with four registers after its first token."""
    hf = hugging_face()
    config = hf.Dinov2WithRegistersConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=1, image_size=16, patch_size=4, num_register_tokens=4
    )
    return save(folder, lambda: hf.Dinov2WithRegistersModel(config), _square_images())


def swin(folder):
    """Swin, whose layers merge patches and which has no first token."""
    hf = hugging_face()
    config = hf.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    return save(folder, lambda: hf.SwinModel(config, add_pooling_layer=False), _square_images())


def dinov3(folder):
    """DINOv3: rotary positions, a first token and registers."""
    hf = hugging_face()
    config = hf.DINOv3ViTConfig(**SIZES, num_hidden_layers=1, image_size=16, patch_size=4, num_register_tokens=4)
    return save(folder, lambda: hf.DINOv3ViTModel(config), _square_images())


def beit(folder):
    """BEiT, with relative positions."""
    hf = hugging_face()
    config = hf.BeitConfig(**SIZES, num_hidden_layers=1, image_size=16, patch_size=4, use_relative_position_bias=True)
    return save(folder, lambda: hf.BeitModel(config, add_pooling_layer=False), _square_images())


def convnext(folder):
    """ConvNeXt: convolutions and layer norms."""
    hf = hugging_face()
    config = hf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=4)
    return save(folder, lambda: hf.ConvNextModel(config), _square_images())


def resnet(folder):
    """ResNet: convolutions and batch norms, no linear layer."""
    hf = hugging_face()
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return save(folder, lambda: hf.ResNetModel(config), hf.ViTImageProcessorPil())


def qwen(folder, tokenizer):
    """A decoder of texts, whose tokenizer marks neither beginning nor end."""
    hf = hugging_face()
    config = hf.Qwen2Config(
        **SIZES, num_hidden_layers=2, num_key_value_heads=1, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    return save(folder, lambda: hf.Qwen2Model(config), tokenizer)


def qwen_hybrid(folder, tokenizer):
    """Qwen3.5: a layer of linear attention, then one of full attention."""
    hf = hugging_face()
    config = hf.Qwen3_5TextConfig(
        **SIZES, num_hidden_layers=2, num_key_value_heads=1, head_dim=16, vocab_size=len(tokenizer), pad_token_id=0,
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8,
    )  # fmt: skip
    return save(folder, lambda: hf.Qwen3_5TextModel(config), tokenizer)


def qwen3(folder, tokenizer):
    """A decoder of texts that normalises queries and keys."""
    hf = hugging_face()
    config = hf.Qwen3Config(
        **SIZES, num_hidden_layers=2, num_key_value_heads=1, head_dim=16, vocab_size=len(tokenizer), pad_token_id=0
    )
    return save(folder, lambda: hf.Qwen3Model(config), tokenizer)


def t5(folder, tokenizer):
    """T5, of which the encoder is read."""
    hf = hugging_face()
    config = hf.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=len(tokenizer))
    return save(folder, lambda: hf.T5ForConditionalGeneration(config), tokenizer)


def mpnet(folder, tokenizer):
    """MPNet: relative positions, and the tower of many sentence-transformers."""
    hf = hugging_face()
    tokenizer.model_max_length = 10**30
    config = hf.MPNetConfig(**SIZES, num_hidden_layers=1, vocab_size=len(tokenizer), max_position_embeddings=66)
    return save(folder, lambda: hf.MPNetModel(config, add_pooling_layer=False), tokenizer)


def modernbert(folder, tokenizer):
    """ModernBERT: rotary positions, with local attention in most layers."""
    hf = hugging_face()
    config = hf.ModernBertConfig(
        **SIZES, num_hidden_layers=2, vocab_size=len(tokenizer), global_attn_every_n_layers=2, local_attention=8,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    return save(folder, lambda: hf.ModernBertModel(config), tokenizer)


def roberta(folder, tokenizer):
    """RoBERTa, whose first position has number 2: it reads two tokens less than its configuration says."""
    hf = hugging_face()
    tokenizer.model_max_length = 10**30
    config = hf.RobertaConfig(
        **SIZES, num_hidden_layers=1, vocab_size=len(tokenizer), max_position_embeddings=18, pad_token_id=1
    )
    return save(folder, lambda: hf.RobertaModel(config, add_pooling_layer=False), tokenizer)


def sentence_bert(folder, bert, *, pooling="cls", dense=False, prompt=None, subfolder="", module=None):
    """BERT as sentence-transformers writes it: pooling, perhaps a dense layer, and unit length."""
    from safetensors.torch import save_file

    (folder / subfolder).mkdir(parents=True, exist_ok=True)
    for path in bert.iterdir():
        (folder / subfolder / path.name).write_bytes(path.read_bytes())
    kinds = [("Transformer", subfolder), ("Pooling", "1_Pooling")]
    kinds += [("Dense", "2_Dense")] if dense else []
    kinds += [("Normalize", "3_Normalize")] + ([(module, "4_Other")] if module else [])
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    _json(folder / "modules.json", entries)
    modes = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken", "max": "max_tokens"}
    pooled = {f"pooling_mode_{key}": name == pooling for name, key in modes.items()}
    _json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 64, **pooled, "include_prompt": True})
    _json(folder / subfolder / "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": True})
    if prompt:
        prompts = {"prompts": {"document": prompt, "query": "no"}, "default_prompt_name": "document"}
        _json(folder / "config_sentence_transformers.json", prompts)
    if dense:
        activation = "torch.nn.modules.activation.Tanh"
        sizes = {"in_features": 64, "out_features": 16, "bias": True, "activation_function": activation}
        _json(folder / "2_Dense/config.json", sizes)
        generator = torch.Generator().manual_seed(0)
        weights = {"linear.weight": torch.randn(16, 64, generator=generator), "linear.bias": torch.ones(16)}
        save_file(weights, folder / "2_Dense/model.safetensors")
    return folder


def _json(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def adapted_bert(folder, bert):
    """A BERT saved with LoRA adapters beside it (adapter_config.json), as PEFT's users do."""
    from peft import LoraConfig

    hf = hugging_face()
    with torch.random.fork_rng(), quiet_transformers():
        model = hf.AutoModel.from_pretrained(bert)
        hf.AutoModel.from_pretrained(bert).save_pretrained(folder)
        model.add_adapter(LoraConfig(r=2, target_modules=["query"]))
        model.save_pretrained(folder)
        hf.AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


def _square_images():
    return hugging_face().ViTImageProcessorPil(size={"height": 16, "width": 16})
