r"""# RTDetrV2Config: what v2 adds to v1's parameters"""

from dataclasses import dataclass
from typing import ClassVar

from rtdetr_lab.config import require
from rtdetr_lab.transformers_api.config import RTDetrConfig, RTDetrResNetConfig


@dataclass(kw_only=True)
class RTDetrV2ResNetConfig(RTDetrResNetConfig):
    """The same backbone."""


@dataclass(kw_only=True)
class RTDetrV2Config(RTDetrConfig):
    """RT-DETRv2: what v1 has, and how the decoder samples."""

    decoder_n_levels: int = 3
    decoder_offset_scale: float = 0.5
    decoder_method: str = "default"

    model_type: ClassVar[str] = "rt_detr_v2"
    special_cases: ClassVar[tuple[str, ...]] = ("rt_detr",)

    def check(self) -> None:
        """As v1, and the two numbers of levels must agree."""
        what = f"is {self.decoder_n_levels}, num_feature_levels is {self.num_feature_levels}"
        agree = self.decoder_n_levels == self.num_feature_levels
        require(agree, self._at("decoder_n_levels"), what, "let them agree")
        super().check()
