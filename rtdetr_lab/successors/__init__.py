"""# Successors: what came after RT-DETR, each chapter only its difference

| chapter        | what it changes                                                  |
|----------------|------------------------------------------------------------------|
| `hgnetv2`      | the backbone: RT-DETR-L and RT-DETR-X                            |
| `gelan`        | the neck of D-FINE                                               |
| `fdr`          | the decoder of D-FINE: a distribution for every edge of a box    |
| `dfine`        | D-FINE: these parts together                                     |
| `dfine_losses` | its losses on the distributions, and one matching for all boxes  |
| `deim`         | a class loss that listens to poor matches, for any of them       |
| `rtdetrv3`     | more positives in training: groups of queries, and a dense head  |
"""
