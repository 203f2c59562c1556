"""The history of executions: one contract (``base``), and four back ends.

``memory``, ``sqlite``, ``postgres`` and ``http`` keep the rows; ``rules`` has the decisions that they share, ``fold``
turns history into what a person sees, ``open`` finds the back end of a URL.
"""
