"""# Viz: tensors and pictures in, matplotlib axes out; never a model

| module    | shows                                                       |
|-----------|-------------------------------------------------------------|
| `palette` | the colours, readable for colour-blind eyes, light and dark |
| `boxes`   | boxes and their labels, on axes or written into a picture   |
"""
