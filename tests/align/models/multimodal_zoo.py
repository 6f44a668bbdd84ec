"""Tiny multimodal LLMs of further families, whose processors need the extra [vlm]: torchvision, SmolVLM also num2words.

As in `zoo`, each function writes model and processor into a folder, and returns the folder. `FAMILIES` has all of them.
"""

from __future__ import annotations

import copy

from lis_lightning.align.models.hugging_face import hugging_face
from tests.align.models.zoo import CHAT, SIZES, save

LAYERS = SIZES | {"num_hidden_layers": 2}
SQUARE = {"height": 16, "width": 16}
VISION = LAYERS | {"image_size": 16, "patch_size": 4}
TILES = [[16, 32], [32, 16], [32, 32]]
QWEN = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
MULTIMODAL_ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}


def tokens(tokenizer, *words, **named):
    """The tokenizer with further special words, some of which its processor finds by a name."""
    more = hugging_face().PreTrainedTokenizerFast(
        tokenizer_object=copy.deepcopy(tokenizer.backend_tokenizer),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"} | named,
    )  # fmt: skip
    more.add_special_tokens({"additional_special_tokens": [*words, *named.values()]})
    return more


def language(kind, tokenizer, **more):
    """Sizes of a decoder."""
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LAYERS | ids | {"model_type": kind, "num_key_value_heads": 1, "head_dim": 16} | more


def siglip(**more):
    return hugging_face().SiglipVisionConfig(**(VISION | more), vision_use_head=False)


def clip():
    return hugging_face().CLIPVisionConfig(**VISION)


def chat(image):
    """The chat template, with other words in the place of an image."""
    return CHAT.replace("<image>", image)


def llava_next(folder, tokenizer):
    """LLaVA-NeXT, whose images become tiles."""
    hf = hugging_face()
    config = hf.LlavaNextConfig(
        vision_config=clip(), text_config=language("llama", tokenizer), image_grid_pinpoints=TILES,
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip
    images = hf.LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=SQUARE, image_grid_pinpoints=TILES)
    processor = hf.LlavaNextProcessor(
        images, tokenizer, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT,
    )  # fmt: skip
    return save(folder, lambda: hf.LlavaNextForConditionalGeneration(config), processor)


def llava_onevision(folder, tokenizer):
    hf = hugging_face()
    tokenizer = tokens(tokenizer, video_token="<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=siglip(), text_config=language("qwen2", tokenizer), image_grid_pinpoints=TILES,
        image_token_index=tokenizer.image_token_id, video_token_index=tokenizer.video_token_id,
    )  # fmt: skip
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=TILES), tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=SQUARE), num_image_tokens=16, vision_feature_select_strategy="full",
        chat_template=CHAT,
    )  # fmt: skip
    return save(folder, lambda: hf.LlavaOnevisionForConditionalGeneration(config), processor)


def vipllava(folder, tokenizer):
    """ViP-LLaVA, which reads several layers of its vision tower."""
    hf = hugging_face()
    config = hf.VipLlavaConfig(
        vision_config=clip(), text_config=language("llama", tokenizer), vision_feature_layers=[-1, -2],
        image_token_index=tokenizer.image_token_id, image_seq_length=16,
    )  # fmt: skip
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size=SQUARE, do_center_crop=False), tokenizer, patch_size=4,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    return save(folder, lambda: hf.VipLlavaForConditionalGeneration(config), processor)


def pixtral(folder, tokenizer):
    """Pixtral: a LLaVA whose images keep their aspect, row by row."""
    hf = hugging_face()
    tokenizer, processor = _pixtral_processor(tokenizer, merge=1)
    config = hf.LlavaConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, head_dim=16), text_config=language("mistral", tokenizer),
        image_token_index=tokenizer.image_token_id, vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    return save(folder, lambda: hf.LlavaForConditionalGeneration(config), processor)


def mistral3(folder, tokenizer):
    hf = hugging_face()
    tokenizer, processor = _pixtral_processor(tokenizer, merge=2)
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, head_dim=16), text_config=language("mistral", tokenizer),
        image_token_index=tokenizer.image_token_id, spatial_merge_size=2,
    )  # fmt: skip
    return save(folder, lambda: hf.Mistral3ForConditionalGeneration(config), processor)


def _pixtral_processor(tokenizer, merge):
    hf = hugging_face()
    words = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    tokenizer = tokens(tokenizer, **words)
    images = hf.PixtralImageProcessorPil(size={"longest_edge": 16}, patch_size=4)
    processor = hf.PixtralProcessor(
        images, tokenizer, patch_size=4, spatial_merge_size=merge, chat_template=chat("[IMG]")
    )
    return tokenizer, processor


def idefics2(folder, tokenizer):
    """Idefics2, which resamples each image to a few tokens."""
    hf = hugging_face()
    tokenizer = tokens(tokenizer, image_boundary_token="<fake_token_around_image>")
    images = hf.Idefics2ImageProcessorPil(size={"shortest_edge": 8, "longest_edge": 32}, do_image_splitting=False)
    processor = hf.Idefics2Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT)
    perceiver = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16}
    config = hf.Idefics2Config(
        vision_config=VISION | {"image_size": 32}, text_config=language("mistral", tokenizer),
        perceiver_config=perceiver | {"hidden_size": 32, "num_key_value_heads": 1},
        image_token_id=tokenizer.image_token_id,
    )  # fmt: skip
    return save(folder, lambda: hf.Idefics2ForConditionalGeneration(config), processor)


def smolvlm(folder, tokenizer):
    hf = hugging_face()
    words = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    tokenizer = tokens(tokenizer, **words, end_of_utterance_token="<end_of_utterance>")
    sizes = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessorPil(**sizes), tokenizer, hf.SmolVLMVideoProcessor(**sizes), image_seq_len=4,
        chat_template=CHAT,
    )  # fmt: skip
    config = hf.SmolVLMConfig(
        vision_config=VISION, text_config=language("llama", tokenizer), image_token_id=tokenizer.image_token_id,
        scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    return save(folder, lambda: hf.SmolVLMForConditionalGeneration(config), processor)


def qwen2_vl(folder, tokenizer):
    vision = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "depth": 1, "num_heads": 2}
    return _qwen_vl(folder, tokenizer, "Qwen2VL", vision)


def qwen2_5_vl(folder, tokenizer):
    vision = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "depth": 1, "num_heads": 2}
    return _qwen_vl(folder, tokenizer, "Qwen2_5_VL", vision | {"fullatt_block_indexes": [0]})


def _qwen_vl(folder, tokenizer, name, vision):
    hf = hugging_face()
    tokenizer, ids = _qwen_tokens(tokenizer)
    text = language("", tokenizer, rope_parameters=MULTIMODAL_ROPE)
    for unused in ("model_type", "head_dim"):
        del text[unused]
    config = getattr(hf, f"{name}Config")(text_config=text, vision_config=vision, **ids)
    processor = getattr(hf, f"{name}Processor")(
        hf.Qwen2VLImageProcessorPil(), tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=chat("".join(QWEN[:3]))
    )
    return save(folder, lambda: getattr(hf, f"{name}ForConditionalGeneration")(config), processor)


def _qwen_tokens(tokenizer):
    names = ("vision_start_token", "image_token", "vision_end_token", "video_token")
    tokenizer = tokens(tokenizer, **dict(zip(names, QWEN, strict=True)))
    start, image, end, video = tokenizer.convert_tokens_to_ids(list(QWEN))
    ids = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start, "vision_end_token_id": end}
    return tokenizer, ids


def qwen3_vl(folder, tokenizer):
    """Qwen3-VL, whose vision tower also feeds the first layers of the decoder."""
    text = {"rope_parameters": MULTIMODAL_ROPE}
    return _qwen3(folder, tokenizer, "Qwen3VL", text, vision={"deepstack_visual_indexes": [0]})


def qwen3_5(folder, tokenizer):
    """Qwen3.5, in which three of four layers have linear attention."""
    linear = {f"linear_{part}": number for part, number in (("num_key_heads", 2), ("num_value_heads", 2))}
    linear |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    rope = MULTIMODAL_ROPE | {"mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}
    text = linear | {"num_hidden_layers": 4, "rope_parameters": rope}
    return _qwen3(folder, tokenizer, "Qwen3_5", text, vision={})


def _qwen3(folder, tokenizer, name, text, vision):
    hf = hugging_face()
    tokenizer, ids = _qwen_tokens(tokenizer)
    text = language("", tokenizer, **text)
    del text["model_type"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 32}
    vision = sizes | {"num_position_embeddings": 64, "patch_size": 16} | vision
    config = getattr(hf, f"{name}Config")(text_config=text, vision_config=vision, **ids)
    images = hf.Qwen2VLImageProcessorPil(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64})
    processor = hf.Qwen3VLProcessor(
        images, tokenizer, hf.Qwen3VLVideoProcessor(), chat_template=chat("".join(QWEN[:3]))
    )
    return save(folder, lambda: getattr(hf, f"{name}ForConditionalGeneration")(config), processor)


def glm4v(folder, tokenizer):
    hf = hugging_face()
    words = [f"<|{place}{kind}|>" for kind in ("image", "video") for place in ("begin_of_", "", "end_of_")]
    tokenizer = tokens(tokenizer, *words, image_token="<|image|>", video_token="<|video|>")
    text = language("glm4v_text", tokenizer, rope_parameters=MULTIMODAL_ROPE | {"partial_rotary_factor": 1.0})
    del text["head_dim"]
    names = [f"{kind}_{place}token_id" for kind in ("image", "video") for place in ("start_", "", "end_")]
    config = hf.Glm4vConfig(
        text_config=text,
        vision_config={"depth": 1, "hidden_size": 32, "num_heads": 2, "image_size": 28, "patch_size": 14,
                       "out_hidden_size": 32, "intermediate_size": 64},
        **dict(zip(names, tokenizer.convert_tokens_to_ids(words), strict=True)),
    )  # fmt: skip
    images = hf.Glm4vImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28})
    processor = hf.Glm4vProcessor(images, tokenizer, hf.Glm4vVideoProcessor(), chat_template=chat("".join(words[:3])))
    return save(folder, lambda: hf.Glm4vForConditionalGeneration(config), processor)


def video_llama3(folder, tokenizer):
    """VideoLLaMA3, whose processor gives a number an image: how many patches it merges."""
    hf = hugging_face()
    tokenizer = tokens(tokenizer, video_token="<video>")
    config = hf.VideoLlama3Config(
        vision_config=LAYERS | {"patch_size": 14}, text_config=language("qwen2", tokenizer),
        image_token_id=tokenizer.image_token_id, video_token_id=tokenizer.video_token_id,
    )  # fmt: skip
    images = hf.VideoLlama3ImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28})
    processor = hf.VideoLlama3Processor(images, tokenizer, hf.VideoLlama3VideoProcessor(), chat_template=CHAT)
    return save(folder, lambda: hf.VideoLlama3ForConditionalGeneration(config), processor)


def gemma3(folder, tokenizer):
    """Gemma 3, in which the tokens of an image attend to each other in both directions."""
    hf = hugging_face()
    tokenizer = tokens(tokenizer, boi_token="<boi>", eoi_token="<eoi>")
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 32}
    config = hf.Gemma3Config(
        text_config=language("gemma3_text", tokenizer, query_pre_attn_scalar=16, **layers),
        vision_config=VISION | {"vision_use_head": False}, mm_tokens_per_image=4,
        image_token_index=tokenizer.image_token_id, boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )  # fmt: skip
    images = hf.Gemma3ImageProcessorPil(size=SQUARE)
    processor = hf.Gemma3Processor(images, tokenizer, chat_template=chat("<boi>"), image_seq_length=4)
    return save(folder, lambda: hf.Gemma3ForConditionalGeneration(config), processor)


def paligemma(folder, tokenizer):
    """PaliGemma, whose processor takes no text without an image."""
    hf = hugging_face()
    images = hf.SiglipImageProcessorPil(size=SQUARE)
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, tokens(tokenizer))
    config = hf.PaliGemmaConfig(
        text_config=language("gemma", processor.tokenizer), vision_config=siglip(projection_dim=32), projection_dim=32,
        image_token_index=processor.tokenizer.image_token_id,
    )  # fmt: skip
    return save(folder, lambda: hf.PaliGemmaForConditionalGeneration(config), processor)


def internvl(folder, tokenizer):
    hf = hugging_face()
    words = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = tokens(tokenizer, **words, video_token="<video>")
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**(VISION | {"image_size": [16, 16], "patch_size": [4, 4]})),
        text_config=language("qwen2", tokenizer), image_token_id=tokenizer.context_image_token_id, image_seq_length=4,
        downsample_ratio=0.5,
    )  # fmt: skip
    images = hf.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, max_patches=4)
    processor = hf.InternVLProcessor(
        images, tokenizer, hf.InternVLVideoProcessor(size=SQUARE), image_seq_length=4,
        chat_template=chat("<IMG_CONTEXT>"),
    )  # fmt: skip
    return save(folder, lambda: hf.InternVLForConditionalGeneration(config), processor)


def aya_vision(folder, tokenizer):
    """Aya Vision, whose prompt names an image by another token than its patches."""
    hf = hugging_face()
    words = ("START_OF_IMG", "END_OF_IMG", "IMG_PATCH", "IMG_LINE_BREAK")
    tokenizer = tokens(tokenizer, *(f"<|{word}|>" for word in words), "TILE_1", "TILE_GLOBAL")
    config = hf.AyaVisionConfig(
        vision_config=siglip(), text_config=_cohere(tokenizer), downsample_factor=2, adapter_layer_norm_eps=1e-6,
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )  # fmt: skip
    images = hf.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, max_patches=4)
    processor = hf.AyaVisionProcessor(
        images, tokenizer, patch_size=4, img_size=16, downsample_factor=2, chat_template=CHAT
    )
    return save(folder, lambda: hf.AyaVisionForConditionalGeneration(config), processor)


def cohere2_vision(folder, tokenizer):
    hf = hugging_face()
    words = {"boi_token": "<boi>", "eoi_token": "<eoi>", "img_line_break_token": "<|IMG_LINE_BREAK|>"}
    tokenizer = tokens(tokenizer, **words)
    config = hf.Cohere2VisionConfig(
        vision_config=siglip(image_size=32), text_config=_cohere(tokenizer), image_token_id=tokenizer.image_token_id,
        alignment_intermediate_size=64, downsample_factor=2,
    )  # fmt: skip
    images = hf.Cohere2VisionImageProcessor(size={"height": 32, "width": 32}, patch_size=4, downsample_factor=2)
    processor = hf.Cohere2VisionProcessor(images, tokenizer, chat_template=CHAT)
    return save(folder, lambda: hf.Cohere2VisionForConditionalGeneration(config), processor)


def _cohere(tokenizer):
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
    return language("cohere2", tokenizer, **layers)


def lfm2_vl(folder, tokenizer):
    """LFM2-VL, whose decoder has layers of convolutions."""
    hf = hugging_face()
    words = {f"image_{place}_token": f"<|image_{place}|>" for place in ("start", "end")}
    tokenizer = tokens(tokenizer, **words, image_thumbnail="<|img_thumbnail|>")
    vision = LAYERS | {"model_type": "siglip2_vision_model", "patch_size": 4, "num_patches": 64}
    layers = {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False, "block_multiple_of": 8}
    config = hf.Lfm2VlConfig(
        vision_config=vision | {"vision_use_head": False}, text_config=language("lfm2", tokenizer, **layers),
        image_token_id=tokenizer.image_token_id, downsample_factor=2,
    )  # fmt: skip
    images = hf.Lfm2VlImageProcessor(
        encoder_patch_size=4, tile_size=16, downsample_factor=2, min_image_tokens=4, max_image_tokens=16,
        max_num_patches=64, do_image_splitting=False,
    )  # fmt: skip
    processor = hf.Lfm2VlProcessor(images, tokenizer, chat_template=CHAT)
    return save(folder, lambda: hf.Lfm2VlForConditionalGeneration(config), processor)


def ovis2(folder, tokenizer):
    """Ovis2, which looks its patches up in a table of visual words."""
    hf = hugging_face()
    indicators = [f"<IMG_{word}>" for word in ("START", "GRID", "COL", "ROW", "END")]
    tokenizer = tokens(tokenizer, "<IMG_ATOM>", *indicators)
    config = hf.Ovis2Config(
        vision_config=VISION | {"vocab_size": 64, "hidden_stride": 2, "num_visual_indicator_tokens": 5},
        text_config=language("qwen2", tokenizer), image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(indicators), vocab_size=len(tokenizer),
        hidden_size=32,
    )  # fmt: skip
    images = hf.Ovis2ImageProcessorPil(size=SQUARE, crop_to_patches=False)
    processor = hf.Ovis2Processor(images, tokenizer, image_seq_length=4, chat_template=CHAT)
    return save(folder, lambda: hf.Ovis2ForConditionalGeneration(config), processor)


def mllama(folder, tokenizer):
    """Llama 3.2 Vision, in which some layers attend to the image."""
    hf = hugging_face()
    tokenizer = tokens(tokenizer, image_token="<|image|>")
    text = language("mllama_text_model", tokenizer, num_hidden_layers=3, cross_attention_layers=[1])
    del text["head_dim"]
    config = hf.MllamaConfig(
        vision_config={"hidden_size": 32, "intermediate_size": 64, "attention_heads": 2, "num_hidden_layers": 2,
                       "num_global_layers": 1, "image_size": 16, "patch_size": 4, "intermediate_layers_indices": [0],
                       "max_num_tiles": 4, "vision_output_dim": 64,
                       "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]},
        text_config=text, image_token_index=tokenizer.image_token_id,
    )  # fmt: skip
    images = hf.MllamaImageProcessorPil(size=SQUARE, max_image_tiles=4)
    processor = hf.MllamaProcessor(images, tokenizer, chat_template=chat("<|image|>"))
    return save(folder, lambda: hf.MllamaForConditionalGeneration(config), processor)


def deepseek_vl(folder, tokenizer):
    hf = hugging_face()
    config = hf.DeepseekVLConfig(
        vision_config=siglip(), text_config=language("llama", tokenizer), image_token_id=tokenizer.image_token_id
    )
    images = hf.DeepseekVLImageProcessorPil(size=SQUARE, min_size=4)
    processor = hf.DeepseekVLProcessor(images, tokenizer, num_image_tokens=16, chat_template=CHAT)
    return save(folder, lambda: hf.DeepseekVLForConditionalGeneration(config), processor)


def janus(folder, tokenizer):
    """Janus, which also has a part that draws images."""
    hf = hugging_face()
    tokenizer = tokens(tokenizer, boi_token="<boi>", eoi_token="<eoi>")
    config = hf.JanusConfig(
        vision_config=VISION | {"projection_dim": 32, "num_image_tokens": 16, "depth": 1, "mlp_ratio": 2.0,
                                "hidden_act": "gelu"},
        vq_config={"embed_dim": 8, "num_embeddings": 32, "latent_channels": 16, "base_channels": 32,
                   "channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": 32,
                   "image_token_embed_dim": 32, "num_patches": 16},
        text_config=language("llama", tokenizer), image_token_id=tokenizer.image_token_id,
    )  # fmt: skip
    images = hf.JanusImageProcessorPil(size=SQUARE, min_size=4)
    processor = hf.JanusProcessor(images, tokenizer, num_image_tokens=16, chat_template=CHAT)
    return save(folder, lambda: hf.JanusForConditionalGeneration(config), processor)


def blip2(folder, tokenizer):
    """BLIP-2, which keeps no base model under its head."""
    hf = hugging_face()
    processor = hf.Blip2Processor(hf.BlipImageProcessorPil(size=SQUARE), tokens(tokenizer), num_query_tokens=4)
    former = SIZES | {"num_hidden_layers": 1, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    text = SIZES | {"model_type": "opt", "ffn_dim": 64, "num_hidden_layers": 2, "word_embed_proj_dim": 32}
    config = hf.Blip2Config(
        vision_config=VISION, qformer_config=former, text_config=text | {"vocab_size": len(processor.tokenizer)},
        num_query_tokens=4, image_token_index=processor.tokenizer.image_token_id,
    )  # fmt: skip
    return save(folder, lambda: hf.Blip2ForConditionalGeneration(config), processor)


def llama4(folder, tokenizer):
    """Llama 4, a mixture of experts, which keeps no base model under its head."""
    hf = hugging_face()
    words = ("image", "image_start", "image_end", "patch", "tile_x_separator", "tile_y_separator")
    tokenizer = tokens(tokenizer, *(f"<|{word}|>" for word in words))
    experts = {"num_local_experts": 2, "interleave_moe_layer_step": 2, "moe_layers": [1]}
    config = hf.Llama4Config(
        vision_config=VISION | {"intermediate_size": 128, "vision_output_dim": 32, "projector_input_dim": 32,
                                "projector_output_dim": 32, "pixel_shuffle_ratio": 0.5},
        text_config=language("llama4_text", tokenizer, intermediate_size_mlp=64, **experts),
        image_token_index=tokenizer.convert_tokens_to_ids("<|patch|>"),
    )  # fmt: skip
    images = hf.Llama4ImageProcessor(size=SQUARE, max_patches=4)
    processor = hf.Llama4Processor(images, tokenizer, patch_size=4, chat_template=chat("<|image|>"))
    return save(folder, lambda: hf.Llama4ForConditionalGeneration(config), processor)


FAMILIES = {
    "LLaVA-NeXT": llava_next,
    "LLaVA-OneVision": llava_onevision,
    "ViP-LLaVA": vipllava,
    "Pixtral": pixtral,
    "Mistral 3": mistral3,
    "Idefics2": idefics2,
    "SmolVLM": smolvlm,
    "Qwen2-VL": qwen2_vl,
    "Qwen2.5-VL": qwen2_5_vl,
    "Qwen3-VL": qwen3_vl,
    "Qwen3.5": qwen3_5,
    "GLM-4V": glm4v,
    "VideoLLaMA3": video_llama3,
    "Gemma 3": gemma3,
    "PaliGemma": paligemma,
    "InternVL": internvl,
    "Aya Vision": aya_vision,
    "Command A Vision": cohere2_vision,
    "LFM2-VL": lfm2_vl,
    "Ovis2": ovis2,
    "Llama 3.2 Vision": mllama,
    "DeepSeek-VL": deepseek_vl,
    "Janus": janus,
    "BLIP-2": blip2,
    "Llama 4": llama4,
}
