"""What a reader without the type-checking hook sees when the shape or type of a batch is wrong."""

import pytest
import torch
from small import small

from rtdetr_lab.errors import ImageError

BAD_IMAGES = {
    "one picture": torch.rand(3, 64, 64),
    "grey": torch.rand(1, 1, 64, 64),
    "channels last": torch.rand(1, 64, 64, 3),
    "bytes": torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
}


@pytest.mark.parametrize("images", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_batch_of_pictures_is_refused(images):
    with pytest.raises(
        ImageError, match=r"images: a tensor of shape .* pass \(B, 3, H, W\) floats"
    ):
        small().build()(images)
