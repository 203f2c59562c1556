"""For those who write a journal, an artifact store, a runner or an adapter: what each must do, as classes to subclass.

Also deaths at chosen moments (``faults``), and models that answer without a key or a network (``offline_model``).
"""
