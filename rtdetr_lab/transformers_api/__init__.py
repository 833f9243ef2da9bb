r"""# The documented transformers classes, over our chapters

    from rtdetr_lab import RTDetrForObjectDetection, RTDetrImageProcessor

Code written for transformers' documentation runs with only its import line changed. Nothing is
implemented twice here: a configuration becomes one of ours (`checkpoints/transformers_config.py`),
a model holds one of ours as `.lab`, attentions and hidden states are what its taps say.

An option that their code accepts and ignores works here, or is refused by name.
"""
