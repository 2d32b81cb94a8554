"""Checkpoints of the real classes, small and randomly initialised, saved as the hub would hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf

VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
NECK = {"neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16}
DINO = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_ratio": 2}


def dpt_large() -> Any:
    config = tf.DPTConfig(
        **VIT, **NECK, image_size=384, patch_size=16, backbone_out_indices=[0, 1, 2, 3], is_hybrid=False
    )
    return tf.DPTForDepthEstimation(config)


def dpt_hybrid() -> Any:
    bit = {
        "model_type": "bit",
        "global_padding": "same",
        "layer_type": "bottleneck",
        "depths": [1, 1, 1],
        "hidden_sizes": [8, 16, 32],
        "embedding_size": 8,
        "num_groups": 4,
        "out_features": ["stage1", "stage2", "stage3"],
        "embedding_dynamic_padding": True,
    }
    config = tf.DPTConfig(
        **VIT,
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        image_size=384,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=True,
        backbone_config=bit,
        backbone_featmap_shape=[1, 32, 24, 24],
        neck_ignore_stages=[0, 1],
        readout_type="project",
    )
    return tf.DPTForDepthEstimation(config)


def depth_anything(kind: str = "relative") -> Any:
    backbone = tf.Dinov2Config(
        **DINO,
        image_size=518,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = tf.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=32,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
        **NECK,
    )
    return tf.DepthAnythingForDepthEstimation(config)


def depth_anything_metric() -> Any:
    return depth_anything("metric")


NYU = {"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}
KITTI = {"name": "kitti", "n_bins": 8, "min_depth": 0.001, "max_depth": 80.0}


def zoedepth(*bins: dict[str, Any]) -> Any:
    backbone = tf.BeitConfig(
        **VIT,
        image_size=384,
        patch_size=16,
        out_indices=[1, 2, 3, 4],
        use_relative_position_bias=True,
        reshape_hidden_states=False,
    )
    config = tf.ZoeDepthConfig(
        backbone_config=backbone,
        bottleneck_features=16,
        num_relative_features=8,
        bin_embedding_dim=16,
        num_attractors=[4, 2, 1, 1],
        bin_configurations=list(bins or [NYU]),
        num_patch_transformer_layers=4 if len(bins) > 1 else None,
        patch_transformer_hidden_size=128 if len(bins) > 1 else None,
        patch_transformer_intermediate_size=32 if len(bins) > 1 else None,
        patch_transformer_num_attention_heads=2 if len(bins) > 1 else None,
        **NECK,
    )
    return tf.ZoeDepthForDepthEstimation(config)


def zoedepth_two_domains() -> Any:
    return zoedepth(NYU, KITTI)


def depth_pro() -> Any:
    encoder = {"model_type": "dinov2", **DINO, "image_size": 16, "patch_size": 4, "use_mask_token": False}
    config = tf.DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[32, 32, 16],
        merge_padding_value=1,
        use_fov_model=True,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
    )
    return tf.DepthProForDepthEstimation(config)


VOC_COUNT, ADE_COUNT, COCO_COUNT = 21, 150, 133


def mobilevit() -> Any:
    config = tf.MobileViTConfig(
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[4, 8, 8, 16, 16, 24, 32],
        aspp_out_channels=16,
        num_labels=VOC_COUNT,
    )
    return tf.MobileViTForSemanticSegmentation(config)


def mobilenet_v2() -> Any:
    return tf.MobileNetV2ForSemanticSegmentation(tf.MobileNetV2Config(depth_multiplier=0.25, num_labels=VOC_COUNT))


def segformer() -> Any:
    config = tf.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=ADE_COUNT,
    )
    return tf.SegformerForSemanticSegmentation(config)


def _swin() -> Any:
    return tf.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def mask2former() -> Any:
    config = tf.Mask2FormerConfig(
        backbone_config=_swin(),
        feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        num_attention_heads=2,
        num_labels=COCO_COUNT,
        mask_feature_size=32,
        num_queries=8,
        encoder_layers=1,
        decoder_layers=2,
    )
    return tf.Mask2FormerForUniversalSegmentation(config)


def oneformer() -> Any:
    config = tf.OneFormerConfig(
        backbone_config=_swin(),
        num_queries=8,
        num_labels=ADE_COUNT,
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        text_encoder_width=16,
        text_encoder_num_layers=1,
        text_encoder_context_length=77,
        text_encoder_vocab_size=64,
        is_training=False,
    )
    return tf.OneFormerForUniversalSegmentation(config)


def eomt() -> Any:
    config = tf.EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        num_blocks=1,
        num_queries=8,
        num_labels=COCO_COUNT,
        num_upscale_blocks=1,
    )
    return tf.EomtForUniversalSegmentation(config)


BUILDERS: dict[str, Callable[[], Any]] = {
    "dpt-large": dpt_large,
    "dpt-hybrid": dpt_hybrid,
    "depth-anything": depth_anything,
    "depth-anything-metric": depth_anything_metric,
    "zoedepth": zoedepth,
    "zoedepth-two-domains": zoedepth_two_domains,
    "depth-pro": depth_pro,
    "mobilevit": mobilevit,
    "mobilenet-v2": mobilenet_v2,
    "segformer": segformer,
    "mask2former": mask2former,
    "oneformer": oneformer,
    "eomt": eomt,
}


def save(name: str, folder: Path) -> Path:
    """Save the tiny network ``name`` with everything that its backend reads."""
    torch.manual_seed(0)
    model = BUILDERS[name]().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # The published initialisation is so small that random networks give constant maps.
            if parameter.ndim > 1 and "head" in key:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    if name == "oneformer":
        save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer that knows single letters only."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
