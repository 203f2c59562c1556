"""The runtime: flows, checkpoints and waits, each of which completes once, whatever dies in between.

What people write is in ``flow``, ``checkpoint``, ``wait`` and ``records``; what they get back in ``handle`` and
``futures``. ``engine`` decides without I/O; ``run`` is one execution that this process advances, and performs that.
``launch`` and ``advance`` bring an execution there, ``control`` is what is done to it from outside.
``elsewhere``, ``away`` and ``jobs`` are about checkpoints in other processes; ``replay``, ``lineage``, ``graph`` and
``diff`` read what was recorded.
"""
