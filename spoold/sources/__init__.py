"""Where bundled content comes from: one module a kind."""
