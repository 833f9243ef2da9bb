"""Mutated pictures: every format and mode we accept, damaged; `decode` refuses or is right."""

import random
import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import mutate
import numpy as np
from PIL import Image
from tally import Wrong, refusal

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import FORMATS, decode

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "GIF": ("P", "L"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"),
    "PPM": ("1", "L", "RGB"),
    "AVIF": ("RGB", "RGBA"),
    "JPEG2000": ("L", "RGB", "RGBA"),
    "MPO": ("RGB",),
}


@cache
def originals() -> dict[str, bytes]:
    """An intact file of every format and mode, some turned by EXIF, some with several frames."""
    Image.init()
    ramp = np.linspace(0, 255, 37 * 29 * 3).reshape(37, 29, 3).astype(np.uint8)
    picture, found = Image.fromarray(ramp), {}
    for kind in (f for f in FORMATS if f in Image.SAVE):
        for mode in MODES[kind]:
            own = Image.fromarray(ramp[..., 0].astype(np.uint16) * 200) if mode == "I;16" else None
            image = own or _converted(picture, mode)
            for turned in (False, True):
                found[f"{kind} {mode}{' turned' * turned}"] = _saved(image, kind, turned)
    frames = [picture, picture.rotate(180)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        file = BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:])
        found[f"{kind} frames"] = file.getvalue()
    return found


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        return Image.merge("LAB", picture.split())
    return picture.convert(mode)


def _saved(image: Image.Image, kind: str, turned: bool) -> bytes:
    file, more = BytesIO(), {}
    if turned and kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        exif = Image.Exif()
        exif[0x0112] = 6
        more["exif"] = exif
    image.save(file, kind, **more)
    return file.getvalue()


def bomb(rng: random.Random) -> bytes:
    """A PNG of a few bytes that claims gigapixels, or whose pixels unpack to far more."""
    width, height = rng.choice(((65000, 65000), (2**31 - 1, 1), (1, 2**31 - 1), (30000, 30000)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        sealed = kind + data
        return struct.pack(">I", len(data)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    pixels = zlib.compress(bytes(rng.randrange(1, 1_000_000)))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def case(rng: random.Random, folder: Path) -> str:
    """One picture, from bytes or from a file."""
    kind, original = rng.choice(sorted(originals().items()))
    if rng.random() < 0.03:
        what, data = "bomb", bomb(rng)
    elif rng.random() < 0.05:
        what, data = "intact", original
    else:
        what, data = mutate.damaged(original, rng)
    source: object = data
    name = f"{len(data)} bytes"
    if rng.random() < 0.5:
        path = folder / f"{rng.randrange(1000)}.{rng.choice(('png', 'jpg', 'txt', 'tif'))}"
        path.write_bytes(data)
        source, name = path, str(path)
    try:
        rgb = decode(source)
    except ImageError as error:
        if what == "intact":
            raise Wrong(f"{kind}, intact, is refused: {error}") from error
        return refusal(error, name)
    _check(rgb, data, f"{kind}, {what}")
    if what == "bomb":
        raise Wrong("a bomb was read")
    return "read"


def _turn(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # an EXIF that Pillow cannot read turns nothing
        return 1


def _check(rgb: np.ndarray, data: bytes, what: str) -> None:
    """Pixels, as many as the header says, and what Pillow alone makes of the simple modes."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise Wrong(f"{what}: {rgb.dtype} {rgb.shape}")
    with Image.open(BytesIO(data)) as image:
        size, mode = image.size, image.mode
        turn = _turn(image)
        plain = np.asarray(image.convert("RGB")) if mode in ("RGB", "L") else None
    if rgb.shape[1::-1] not in (size, size[::-1]):
        raise Wrong(f"{what}: {rgb.shape} from a header that says {size}")
    if plain is not None and turn == 1 and not np.array_equal(plain, rgb):
        raise Wrong(f"{what}: other pixels than Pillow's")
