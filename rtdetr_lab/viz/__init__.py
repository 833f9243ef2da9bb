"""# Viz: tensors and pictures in, matplotlib axes out; never a model

| module            | shows                                                                      |
|-------------------|----------------------------------------------------------------------------|
| `palette`         | the colours, readable for colour-blind eyes, light and dark                |
| `canvas`          | what all figures share: axes, quiet pictures, scales, themes               |
| `marks`           | frames, rims, notes and legends                                            |
| `cells`           | token ↔ level, row, column ↔ place in the picture                          |
| `boxes`           | boxes and their labels, on axes or written into a picture                  |
| `masks`           | every object's own pixels, under its box                                   |
| `panoptic`        | segments, painted and named                                                |
| `features`        | feature maps per level, before and after a stage                           |
| `attention`       | where the cell under a pixel looks, per head; whom a query listens to      |
| `sampling`        | sampling points: per query, layer, head; v1 beside v2 beside discrete      |
| `queries`         | score against IoU of the proposals, where the chosen tokens lie            |
| `life`            | one query from its token to the detection, chained to the model's output   |
| `refinement`      | the drawing of a life, trails of boxes, overlap after every layer          |
| `denoising`       | spoilt objects of a group, the mask, who may see whom                      |
| `matching`        | the cost matrix, the assignment, how it changes over layers or epochs      |
| `training`        | losses per layer                                                           |
| `ablation`        | variants: scores, differences with intervals, curves, AP against latency   |
| `speed`           | time part by part, times over what they depend on, a roofline              |
| `evaluation`      | precision over recall, confusions, mistakes by kind in a picture           |
| `exploration`     | all that one run says about its queries, packed for a page                 |
| `explorer`        | the widget: click an object, see why it was found                          |
| `explorer_page`   | the same as one HTML file that opens offline                               |
"""
