r"""# Modes: what Pillow has read, as a viewer would show it

`Image.convert("RGB")` is right for most modes and silently wrong for four: it *drops* transparency
and shows the colour that happens to lie underneath, *clips* 16-bit grey to white, ignores the
profile that gives CMYK inks their colours, and leaves a photo lying on its side although its EXIF
says which way is up.

Colour profiles of RGB pictures are not applied: the published models were trained without, and
transformers does not either. CMYK has no meaning in RGB without one, so there it is used.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.arrays import RGB, bytes_from_floats, high_byte, over_white

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what a viewer does about it."""


def rgb_from_pil(image: Image.Image, where: str) -> RGB:
    """First frame, upright, RGB. Raises `ImageError`, or whatever Pillow raises on broken data."""
    if image.getbands() and getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image.load()  # before the EXIF: a TIFF turns itself while it loads, and then forgets the tag
    method = UPRIGHT.get(_orientation(image))
    rgb = _rgb(image, where)
    return rgb if method is None else np.array(Image.fromarray(rgb).transpose(method))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is common and no reason not to show the picture
        return 1


def _rgb(image: Image.Image, where: str) -> RGB:
    if image.mode.startswith("I"):
        return _grey(_bytes_from_integers(np.asarray(image), image.mode, where))
    if image.mode == "F":
        return _grey(bytes_from_floats(np.asarray(image), where))
    if image.mode in ("CMYK", "LAB"):
        return np.array(_through_profile(image))
    if image.mode == "La":  # premultiplied grey, which Pillow only converts to its neighbour
        image = image.convert("LA")
    if image.has_transparency_data:
        return over_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _grey(values: np.ndarray) -> RGB:
    return np.repeat(values[..., None], 3, axis=-1)


def _bytes_from_integers(values: np.ndarray, mode: str, where: str) -> np.ndarray:
    # Mode "I" has 32 bits, but what Pillow puts there from PNG and PGM files are 16.
    if mode == "I" and (values.min() < 0 or values.max() > 65535):
        what = f"32-bit grey from {values.min()} to {values.max()} has no agreed white"
        raise ImageError(where, what, "scale it to 8 or 16 bits")
    return high_byte(values)


def _through_profile(image: Image.Image) -> Image.Image:
    """CMYK by its embedded profile where it has a usable one, else by Pillow's plain formula."""
    from PIL import ImageCms

    embedded = image.info.get("icc_profile")
    try:
        lab = ImageCms.createProfile("LAB") if image.mode == "LAB" else None
        shown = ImageCms.profileToProfile(
            image,
            lab or ImageCms.ImageCmsProfile(BytesIO(embedded or b"")),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        shown = None
    return image.convert("RGB") if shown is None else shown
