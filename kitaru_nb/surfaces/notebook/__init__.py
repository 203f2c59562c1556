"""The notebook as a flow, in a stock IPython kernel: checkpoint cells, waits, magics, and what is shown below them.

``session`` is the kernel's execution, ``cell_run`` and ``cell_work`` are the call of a checkpoint cell, ``namespace``
finds what it did, ``restoring`` brings that back. ``late`` keeps Run All from running past an open question.
"""
