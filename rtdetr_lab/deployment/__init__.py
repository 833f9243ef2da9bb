"""# Deployment: the same answers, sooner

Equipment: it knows the chapters, and no chapter knows it. `lab.deploy(model)` is `form.deploy`; the
package is not called `deploy` because a function of that name lives on the front door.

What it swaps in has a room of its own, `kernels/`.

| file | what it holds |
|---|---|
| `form.py`    | `deploy(model)`: norms folded, blocks fused, unused heads gone |
| `inference_form.py` | what is left of RT-DETR in eval mode, with less to compute |
| `engine.py`  | `Engine`: buckets, precision, threads, streams |
| `backends.py` | what an engine runs on: `PyTorch()`, `OnnxRuntime()`, `OpenVINO()` |
| `fastest.py` | which backend is soonest here, measured |
| `precision.py` | what half precision changes in detections |
| `answers.py`, `pixels.py`, `stream.py` | post-processing, resizing, reading ahead |
| `onnx_file.py` | ONNX and `.pt2` |
| `bench/`     | `rtdetr-lab bench` |
"""
