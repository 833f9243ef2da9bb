import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("product.onnx")
facts = session.get_modelmeta().custom_metadata_map
names, (height, width), least = (json.loads(facts[k]) for k in ("names", "size", "threshold"))
path = sorted(Path("my_data/images").rglob("*.*"))[0]
picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
pixels = np.asarray(picture.resize((width, height), Image.BILINEAR), np.float32) / 255
logits, boxes = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[:2]
scores = 1 / (1 + np.exp(-logits[0]))  # boxes: centre and size, in fractions of the picture
for query, label in np.argwhere(scores > least):
    print(names[label], scores[query, label].round(3), boxes[0, query].round(3))
