r"""# Checkpoints: load and save weights without guessing

| file | what it does |
|---|---|
| `load.py` | `load_pretrained`: alias, hub id, folder, `.safetensors`, `.pth` → model |
| `save.py` | `save_pretrained`: our layout, or transformers' |
| `backbone.py` | `load_backbone`: pretrained ResNet-D weights alone |
| `verify.py` | the same weights in our model and in transformers', stage by stage |
| `tables.py`, `rename.py` | our names ↔ transformers' ↔ the authors': data, and the code for it |
| `transformers_config.py` | their `config.json` ↔ our config |
| `infer.py` | the preset of a file without a config |
| `source.py`, `hub.py` | from a name or path to files; access to the hub |
| `files.py`, `pickles.py`, `strict.py` | read and write tensors; account for every tensor |
| `description.py` | the configuration and metadata of a file of weights |
| `metadata.py` | data beside the weights: names, licence, source |
"""
