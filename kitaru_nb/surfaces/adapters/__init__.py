"""Agent SDKs made durable: model calls, tool calls and whole runs are checkpoints of the running flow.

``base``, ``approvals``, ``plain`` and ``prices`` are shared; ``automatic`` makes durable what a program imports.
"""
