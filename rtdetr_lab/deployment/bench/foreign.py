"""# Foreign: any ONNX file in the runtimes our engines use"""

import torch

from rtdetr_lab.deployment.backends import OnnxRuntime, OpenVINO, Run, onnxruntime_of, openvino_of


def runner(backend: OnnxRuntime | OpenVINO, file: bytes, dtype: torch.dtype) -> Run:
    """What `backend` makes of `file`."""
    if isinstance(backend, OnnxRuntime):
        return onnxruntime_of(file, backend.threads)
    return openvino_of(file, dtype, backend.threads)
