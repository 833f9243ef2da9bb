r"""# The documented transformers classes, over our chapters

    from rtdetr_lab import RTDetrForObjectDetection, RTDetrImageProcessor

Code from transformers' documentation runs if you change only its import line. Nothing is
implemented twice here: a configuration is converted to ours (`checkpoints/transformers_config.py`),
a model contains one of ours as `.lab`, and attentions and hidden states come from its taps.

An option that their code accepts and ignores either works here, or raises an error that names it.
"""
