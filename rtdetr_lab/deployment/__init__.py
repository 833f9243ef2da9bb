"""# Deployment: the same answers, sooner

Equipment: it imports the chapters, and no chapter imports it. `lab.deploy(model)` is `form.deploy`.
The package is not called `deploy`, because `rtdetr_lab.deploy` is that function.

The faster kernels that it puts into a model are in `kernels/`.

| file | what it contains |
|---|---|
| `form.py`    | `deploy(model)`: norms folded, blocks fused, unused heads removed |
| `inference_form.py` | RT-DETR in eval mode, with less to compute |
| `engine.py`  | `Engine`: buckets, precision, threads, streams |
| `backends.py` | what runs the model of an engine: `PyTorch()`, `OnnxRuntime()`, `OpenVINO()` |
| `fastest.py`, `notes.py` | the fastest backend on this machine, by measurement; kept |
| `precision.py` | what half precision changes in detections |
| `pixels.py`, `stream.py` | resizing on the device, reading ahead |
| `onnx_file.py`, `planar.py` | ONNX and `.pt2`; attention for runtimes that read maps |
| `int8.py` | eight bits up to the selection of queries |
| `bench/`     | `rtdetr-lab bench` |
"""
