from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from rtdetr_lab.deployment.video import Clip

paths = sorted(Path("my_data/images").rglob("*.jpg"))[:24]
with Clip(Path("clip.mp4"), "clip.mp4", Fraction(4)) as clip:
    for number, path in enumerate(paths):
        picture = Image.open(path).convert("RGB").resize((640, 480))
        clip.add(np.asarray(picture), number / 4)
