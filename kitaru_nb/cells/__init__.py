"""Cells as text: their heads, names, keys and edges. Pure: no kernel, no files written, nothing executed.

``source`` reads the head, ``magics`` turns IPython syntax into Python, ``syntax`` digests the pruned tree; ``analysis``
finds reads and writes (``flow`` and ``bindings`` are its walk, ``scopes`` the nested scopes); ``tokens`` and ``keys``
identify values and code (``locate`` finds sources, ``modules`` their owners); ``graph`` joins cells.
"""
