"""Runs the migrations on the connection that was passed in, inside its open transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
