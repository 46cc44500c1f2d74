"""The stores in a SQL database, through SQLAlchemy 2: SQLite and PostgreSQL.

Nothing of it is imported before a store is asked for; `eventbus[sql]` brings what it needs.
"""
