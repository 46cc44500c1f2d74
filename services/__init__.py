"""The system that the bus serves: small services that talk through events only."""
