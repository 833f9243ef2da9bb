"""# Notebook tools: from `notebooks/NN_name.py` to an executed notebook, and on to a page

`percent` reads the source, `execute` runs it, `outputs` makes what came out the same every time,
`build` does it for those that are stale (`make notebooks`), `pages` turns a notebook into Markdown.
"""
