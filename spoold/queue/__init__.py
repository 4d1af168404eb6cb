"""The job queue in Postgres: states, transitions and every query."""
