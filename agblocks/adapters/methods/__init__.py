"""The kinds of adapters, one family a file; what stands here is registered by being here."""
