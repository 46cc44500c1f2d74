"""The events that these services exchange: one module per resource, the contract between teams."""
