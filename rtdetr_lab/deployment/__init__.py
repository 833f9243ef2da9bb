"""# Deployment: the same answers, sooner

Equipment: it knows the chapters, and no chapter knows it (beyond a `fuse()` beside the blocks that
can be fused, in `folding.py`'s terms). `lab.deploy(model)` is `form.deploy`; the package is not
called `deploy` because a function of that name lives on the front door.

| file | what it holds |
|---|---|
| `form.py`    | `deploy(model)`: norms folded, blocks fused, unused heads gone |
| `lean.py`    | what is left of RT-DETR in eval mode, with less to compute |
| `bags.py`    | deformable attention on the CPU: weighted sums of rows, nothing materialised |
| `packed.py`  | the CPU's convolutions and products with prepacked weights and fused sums |
| `engine.py`  | `Engine`: buckets, precision, threads, streams |
| `backends.py` | what an engine runs on: `PyTorch()`, `OnnxRuntime()`, `OpenVINO()` |
| `fastest.py` | which backend is soonest here, measured |
| `precision.py` | what half precision changes in detections |
| `graphs.py`  | CUDA graphs, one per batch size |
| `answers.py`, `pixels.py`, `stream.py` | post-processing, resizing, reading ahead |
| `fused_sampler.py`, `triton_kernels.py` | deformable attention on CUDA, forward and backward |
| `onnx_file.py` | ONNX and `.pt2` |
| `bench/`     | `rtdetr-lab bench` |
"""
