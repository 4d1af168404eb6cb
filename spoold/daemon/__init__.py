"""The daemon of a spool, and its workers: all stages, wired together."""
