"""Tiny models of several families, as for the tests of the models."""

from tests.align.models.conftest import bert, idefics, llava, qwen, resnet, siglip

__all__ = ["bert", "idefics", "llava", "qwen", "resnet", "siglip"]
