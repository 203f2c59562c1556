"""How people and programs reach executions.

The command ``kitaru`` (``cli`` and ``commands``; ``console`` prints what ``render``, ``detail`` and the views make),
the notebook, one table of ``operations`` and its hosts (``http``, ``jupyter``, ``mcp``), ``adapters`` of agent SDKs.
"""
