"""One tiny model and its ONNX file for all tests of files: the export takes seconds."""

import pytest
import torch
from small import shaken, small

from rtdetr_lab.model import Metadata

KNOWN = Metadata(("owl", "fox", "elk"), (7, 2, 5), (96, 64), "CC-BY-4.0", threshold=0.3)
TINY = {"encoder.aifi": None, "decoder.num_layers": 1, "selection.num_queries": 5}


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    model = shaken(small(TINY, num_classes=3).build()).eval()
    model.metadata = KNOWN
    return model


@pytest.fixture(scope="session")
def plain(model):
    pytest.importorskip("onnxscript", reason="torch's exporter needs it; runs with [export]")
    from rtdetr_lab.deployment.onnx_file import onnx_bytes

    return onnx_bytes(model, KNOWN.image_size)
