"""# Masks: segmentation for RT-DETR, RT-DETRv2 and D-FINE

`query_masks` adds a mask to every query of any model of the line. DETR's own mask head is in
`detr/`; the losses are the same (`detr/mask_losses.py`).
"""
