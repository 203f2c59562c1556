"""One table of operations: HTTP routes, MCP tools, the OpenAPI document and the documentation are made of it."""
