"""Draw where nano's decoder samples: in float32, in the shipped int8, with everything in int8.

python tests/programs/int8_points.py docs/img/int8_points.png
"""

import sys
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from matplotlib.figure import Figure

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.commands.sets import world
from rtdetr_lab.data.shapes import TRAIN, VAL, draw
from rtdetr_lab.deployment import int8
from rtdetr_lab.deployment.onnx_file import onnx_bytes

SIZE, SHOWN, LEVELS = 256, 3, 3


def picture(part, index):
    return np.asarray(draw(world(SIZE), part, index).image)


def with_points(file):
    """Add the sampling points of the last layer, in [-1, 1], to the outputs of a file."""
    model = onnx.load_from_string(file)
    grids = [node.input[1] for node in model.graph.node if node.op_type == "GridSample"]
    form = onnx.TensorProto.FLOAT
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, form, None) for name in grids[-LEVELS:]
    )
    return onnxruntime.InferenceSession(model.SerializeToString())


def answer(session, rgb):
    """Return logits `Q C`, boxes `Q 4` in pixels, and points `Q n 2` in pixels."""
    given = {"images": rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255}
    logits, boxes, *grids = session.run(None, given)
    points = np.concatenate([g.transpose(1, 0, 2, 3).reshape(g.shape[1], -1, 2) for g in grids], 1)
    return logits[0], boxes[0] * SIZE, (points + 1) / 2 * SIZE


def forms():
    """Return nano's file in the three forms."""
    file = onnx_bytes(load_pretrained("nano"), (SIZE, SIZE))
    given = [picture(TRAIN, i) for i in range(100)]
    kept = int8.onnx_int8(file, given, (SIZE, SIZE))
    with mock.patch.object(int8, "after_selection", return_value=[]):
        everything = int8.onnx_int8(file, given, (SIZE, SIZE))
    return {"float32": file, "int8 up to the top-k": kept, "everything in int8": everything}


def main(out):
    rgb = picture(VAL, SHOWN)
    found = {title: answer(with_points(file), rgb) for title, file in forms().items()}
    logits, boxes, _ = found["float32"]
    sure = np.flatnonzero(logits.max(1) > 0)
    chosen = boxes[sure[boxes[sure, 2:].prod(1).argmin()]]  # the smallest object
    half = 0.9 * chosen[2:].max()
    axes = Figure(figsize=(5.6, 2.3), layout="compressed").subplots(1, 3)
    for ax, (title, (_, boxes, points)) in zip(axes, found.items(), strict=True):
        query = np.abs(boxes - chosen).sum(1).argmin()
        x, y, w, h = boxes[query]
        ax.imshow(rgb, extent=(0, SIZE, SIZE, 0), alpha=0.6)
        ax.plot(*points[query].T, "o", color="black", markersize=2.5, markeredgewidth=0)
        edges = np.array([[x - w / 2, y - h / 2], [x + w / 2, y + h / 2]])
        ax.plot(edges[[0, 1, 1, 0, 0], 0], edges[[0, 0, 1, 1, 0], 1], color="tab:red", lw=1)
        ax.set(xlim=(chosen[0] - half, chosen[0] + half), ylim=(chosen[1] + half, chosen[1] - half))
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=9)
        values, total = len(np.unique(points[query].round(3))), points[query].size
        off = np.abs(boxes[query] - chosen).max()
        print(f"{title}: {values} values of {total} coordinates; box {off:.2f} px off")
    axes[0].figure.savefig(out, dpi=200)


if __name__ == "__main__":
    main(*sys.argv[1:2])
