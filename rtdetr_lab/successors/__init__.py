"""# Successors: what came after RT-DETR, each chapter only its difference

| chapter   | what it changes                                                   |
|-----------|-------------------------------------------------------------------|
| `hgnetv2` | the backbone: RT-DETR-L and RT-DETR-X                             |
"""
