"""From a notebook or a flow to a versioned deployment: snapshots, locked environments, versions and tags."""
