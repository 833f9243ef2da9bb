"""# DETR: the ancestor, whole

`resnet`, `positions` and `transformer` are its parts, `model` puts them together. `mask_head`,
`mask_losses` and `segmentation` draw a mask for every query.
"""
