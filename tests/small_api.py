"""Settings of small documented models, a picture and its label."""

import numpy as np
import torch
from PIL import Image

SMALL = {
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 12, 16, 24],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_indices": [2, 3, 4],
    },
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [12, 16, 24],
    "encoder_ffn_dim": 24,
    "encoder_attention_heads": 4,
    "d_model": 16,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_queries": 10,
    "num_denoising": 6,
    "id2label": {0: "cat", 1: "dog", 2: "cow"},
}


def label(classes=(0,), box=(0.5, 0.5, 0.2, 0.2)):
    return {"class_labels": torch.tensor(classes), "boxes": torch.tensor([box] * len(classes))}


def picture():
    return Image.fromarray(np.full((20, 30, 3), 7, np.uint8))


SMALL_DETR = {
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 12, 16, 24],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 7,
    "id2label": {0: "cat", 1: "dog", 2: "sky"},
}
