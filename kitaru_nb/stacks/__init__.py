"""Where flows run and keep their state: stacks as people create them (``definition``), and what starts workers there.

``process``, ``kubernetes``, ``aws``, ``gcp`` and ``azure`` are the runners; ``dask_executor`` runs checkpoints on Dask.
"""
