"""The driver for NATS JetStream; the only place that imports nats."""
