"""OpenAI Agents SDK: durable runs of an agent.

``runner`` and ``approving`` are the public doors; ``requests`` and ``policy`` hold plain values. ``agent_runner`` makes
any `Runner.run` in a flow durable, with ``twins models tools sessions``. ``state codec`` say what is kept, and ``sdk``
what differs between versions of the SDK. Importing this package doesn't import the SDK; importing ``runner`` does.
"""
