"""The commands of ``kitaru``, a module for each group: they parse, call the client, and return what is shown."""
