r"""# Checkpoints: weights in, weights out, nothing guessed

| file | what it does |
|---|---|
| `load.py` | `load_pretrained`: alias, hub id, folder, `.safetensors`, `.pth` → model |
| `save.py` | `save_pretrained`: our layout, or transformers' |
| `backbone.py` | `load_backbone`: pretrained ResNet-D weights alone |
| `verify.py` | the same weights in ours and in transformers, stage by stage |
| `tables.py`, `rename.py` | our names ↔ transformers' ↔ the authors', as data, and the engine |
| `transformers_config.py` | their `config.json` ↔ our config |
| `infer.py` | which preset a file without a config belongs to |
| `source.py`, `hub.py` | where a name or path leads; the hub behind it |
| `files.py`, `pickles.py`, `strict.py` | reading and writing tensors; every tensor accounted for |
| `description.py` | which model a file of weights belongs to |
| `metadata.py` | what a model remembers beside its weights: names, licence, source |
"""
