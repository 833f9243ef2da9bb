"""# rtdetr_lab: real-time detection transformers to read, run and take apart

    import rtdetr_lab as lab

The front door is listed in `__init__.pyi`. A name is looked up when it is first used, so that
importing the package costs next to nothing beyond `import torch`.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
