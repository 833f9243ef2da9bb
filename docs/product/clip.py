from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rtdetr_lab.deployment.video import Clip

paths = sorted(Path("my_data/images").rglob("*.*"))[:24]
with Clip(Path("clip.mp4"), "clip.mp4", Fraction(4)) as clip:
    for number, path in enumerate(paths):
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        clip.add(np.asarray(picture.resize((640, 480))), number / 4)
