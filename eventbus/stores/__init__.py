"""Where events wait or are kept outside of the stream: outbox, inbox, event store."""
