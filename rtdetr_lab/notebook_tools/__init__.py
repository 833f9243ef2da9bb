"""# Notebook tools: from `notebooks/NN_name.py` to an executed notebook, and to a page

`percent` reads the source, `build` executes stale notebooks (`make notebooks`), `outputs` makes
their outputs reproducible, and `pages` converts a notebook to Markdown.
"""
