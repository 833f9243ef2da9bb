r"""# Modes: from the colour modes of Pillow to the RGB that a viewer shows

`Image.convert("RGB")` is right for most modes. For four kinds of pictures it is wrong without a
warning:

- It *drops* transparency, and shows the colour that happens to be stored below it.
- It *clips* 16-bit grey to white.
- It ignores the profile that defines the colours of CMYK inks.
- It leaves a photo on its side although EXIF says which way is up.

Colour profiles of RGB pictures are not applied: the published models were trained without them,
and transformers does not apply them either. CMYK has no meaning in RGB without a profile, so there
it is used.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images import arrays
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.frames import TURNS, Frame

ORIENTATION, BITS_PER_SAMPLE, MAX_SAMPLE = 0x0112, 258, 281
"""Tags of EXIF and TIFF."""


def rgb_from_pil(image: Image.Image, where: str, bits: int | None = None) -> tuple[RGB, Frame]:
    """Convert the first frame of a file to upright RGB, and return it with its `Frame`.

    `bits` of 16 are significant if the file does not say otherwise. Raises `ImageError`, or what
    Pillow raises for broken data.
    """
    if image.getbands() and getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    turns_itself = image.format == "TIFF"  # Pillow turns a TIFF while it loads, then drops the tag
    before = frame_of(image) if turns_itself else None
    bits, wide_colour = bits or _declared_bits(image), _is_wide_colour(image)
    image.load()
    rgb = _rgb(image, where, bits)
    if wide_colour and bits != 16:
        arrays.check_wide_colour(rgb, where)
    frame = before or frame_of(image)
    return (rgb if turns_itself else frame.pixels_upright(rgb)), frame


def frame_of(image: Image.Image) -> Frame:
    """Return the frame of a picture that Pillow has opened."""
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is common; the picture is still good
        orientation = 1
    orientation = orientation if orientation in TURNS else 1
    width, height = image.size
    # For a TIFF on its side, Pillow gives the size that a viewer shows.
    lying = image.format == "TIFF" and TURNS[orientation][0]
    return Frame((width, height) if lying else (height, width), orientation)


def _declared_bits(image: Image.Image) -> int | None:
    """Return how many bits of wide grey are significant, if the file gives the number.

    A TIFF may pack 12 bits, or give a largest sample of 2^bits − 1. Any other largest sample is
    only the maximum of this picture. The sBIT of a PNG gives precision, not the value of white.
    """
    if any(tile[0].startswith("ppm") for tile in getattr(image, "tile", ())):
        return 16  # PGM gives its white value, and Pillow has scaled to it
    tags = getattr(image, "tag_v2", {})
    packed, top = tags.get(BITS_PER_SAMPLE, (16,))[0], int(np.max(tags.get(MAX_SAMPLE, 0)))
    if 8 < packed < 16:
        return int(packed)
    return top.bit_length() if top in (2**bits - 1 for bits in range(8, 17)) else None


def _is_wide_colour(image: Image.Image) -> bool:
    """Return whether the file has 16 bits per channel; Pillow keeps only the upper eight."""
    tiles = getattr(image, "tile", ())
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in tiles)


def _rgb(image: Image.Image, where: str, bits: int | None) -> RGB:
    if image.mode in ("CMYK", "LAB"):
        return np.array(_through_profile(image))
    if image.mode.startswith("I"):
        values = _bytes_from_integers(np.asarray(image), image.mode, where, bits)
    elif image.mode == "F":
        values = arrays.bytes_from_floats(np.asarray(image), where)
    else:
        if image.mode == "La":  # premultiplied grey: Pillow converts it only to LA
            image = image.convert("LA")
        values = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    return arrays.three_channels(values)


def _bytes_from_integers(values: np.ndarray, mode: str, where: str, bits: int | None) -> np.ndarray:
    # Mode "I" has 32 bits, but from PNG and PGM files Pillow puts 16-bit values there.
    if mode == "I" and (values.min() < 0 or values.max() > 65535):
        what = f"32-bit grey from {values.min()} to {values.max()} has no defined white"
        raise ImageError(where, what, "scale it to 8 or 16 bits")
    return arrays.bytes_from_integers(values, where, bits)


def _through_profile(image: Image.Image) -> Image.Image:
    """Convert CMYK with its embedded profile, or with Pillow's plain formula if none is usable."""
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
