"""Where restored content goes: one module a kind."""
