"""Run the migrations on the connection that was passed in, inside the transaction it has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
